//! A push of Go programs as images with names: one program is the app's own image, of several each has one below it.
//!
//! What the images are is `images`'s; here the push's own wishes are met: arguments and fewer platforms for a try, the app's
//! labels, further names.

use std::collections::BTreeMap;

use super::errors::KoError;
use super::facts::Facts;
use super::images::{Input, images};
use super::resolving;
use crate::kinds::dockerfile::cache_namespace;
use crate::kinds::{BUILD_CONFIG, Draft, DraftImage, KindError, PlanInput, Wishes, arguments, provenance};
use crate::model::{Attestations, Compression, ImageName, KoImage, LayerCache, Platform, Sbom, Work};

/// More images in one push are refused: each is a build of its own.
const LIMIT_IMAGES: usize = 64;

pub(super) fn plan(input: &PlanInput<'_>, wishes: &Wishes) -> Result<Draft, KindError> {
    let platforms: Vec<Platform> = wishes.platforms.iter().map(|said| said.value.clone()).collect();
    let facts = Facts { git: input.commit.git.clone(), date_s: input.commit.committed_at_s };
    let found = images(&Input {
        tree: input.tree,
        platforms: &platforms,
        arguments: &arguments(input, wishes)?,
        facts: &facts,
        cache_namespace: &cache_namespace(input.app_id, input.reference, input.options.dry_try),
        sources: input.sources,
        netrc: input.secrets.netrc,
        ssh: input.secrets.ssh,
        no_cache: input.options.no_cache,
        pull: input.options.rebuild,
        program: None,
    })?;
    if found.images.len() > LIMIT_IMAGES {
        return Err(KoError::TooManyImages { found: found.images.len(), limit: LIMIT_IMAGES }.into());
    }
    // the SBOM is made of the program's own build information, here
    let attest = Attestations { provenance: provenance(input, published(&found.images))?, sbom: None };
    let names = names(input.image, &found.images)?;
    let programs: Vec<(String, ImageName)> = {
        let paths = found.images.iter().map(|image| image.compile.import_path.clone());
        paths.zip(names.iter().cloned()).collect()
    };
    let manifests = resolving::plan(input.tree, &found.resolve, &programs)?;
    let mut drafts = Vec::new();
    for (name, mut image) in names.into_iter().zip(found.images) {
        narrow(&mut image, input)?;
        image.attest = attest.clone();
        // an operator's labels win over a pusher's
        image.extras.labels.extend(input.settings.labels.clone());
        let destinations = std::mem::take(&mut image.extras.destinations);
        let work = Work::Ko(Box::new(image));
        drafts.push(DraftImage { name, work: work.clone() });
        for name in destinations {
            allowed(input, &name)?;
            if drafts.iter().all(|known| !known.name.same_repository(&name)) {
                drafts.push(DraftImage { name, work: work.clone() });
            }
        }
    }
    let mut notes = found.notes;
    notes.extend(unused_settings(input));
    Ok(Draft { images: drafts, notes, manifests })
}

/// What compilers are told, by what it is called.
fn published(images: &[KoImage]) -> impl Iterator<Item = (String, &str)> {
    images.iter().flat_map(|image| &image.compile.targets).flat_map(|target| {
        let env =
            target.env.iter().map(|(name, value)| (format!("the environment's {name}"), value.as_str()));
        let args = target.args.iter().map(|arg| ("a flag of the compiler".to_owned(), arg.as_str()));
        env.chain(args)
    })
}

/// One alone has the app's own name; several lie below it as ko names them: by the last part of their import path, and
/// where that is another's too, with the path's MD5.
fn names(own: &ImageName, images: &[KoImage]) -> Result<Vec<ImageName>, KindError> {
    if images.len() == 1 {
        return Ok(vec![own.clone()]);
    }
    let path = |image: &KoImage| image.compile.import_path.to_lowercase();
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for image in images {
        *named.entry(last(&path(image))).or_default() += 1;
    }
    let name = |image: &KoImage| {
        let path = path(image);
        let last = last(&path);
        let name = match named.get(&last) {
            Some(1) => format!("{own}/{last}"),
            _ => format!("{own}/{last}-{:x}", md5::compute(&path)),
        };
        name.parse().map_err(|problem| {
            KoError::Name { import_path: image.compile.import_path.clone(), problem }.into()
        })
    };
    images.iter().map(name).collect()
}

/// A try may be for fewer platforms.
fn narrow(image: &mut KoImage, input: &PlanInput<'_>) -> Result<(), KindError> {
    let asked = &input.options.platforms;
    if asked.is_empty() {
        return Ok(());
    }
    if !input.options.dry_try {
        return Err(KindError::OnlyWithTry);
    }
    let targets = &mut image.compile.targets;
    let planned: Vec<Platform> = targets.iter().map(|target| target.platform.clone()).collect();
    if let Some(platform) = asked.iter().find(|platform| !planned.contains(platform)) {
        return Err(KindError::NotNarrower { platform: platform.clone(), planned });
    }
    targets.retain(|target| asked.contains(&target.platform));
    Ok(())
}

/// A pusher may name what lies at or below the app's own image, and what the operator lets apps push to: with the server's
/// credentials any other name may be somebody else's.
fn allowed(input: &PlanInput<'_>, name: &ImageName) -> Result<(), KindError> {
    let own = input.image;
    if name.lies_at(own) || input.destinations.is_none_or(|destinations| destinations.allow(name)) {
        return Ok(());
    }
    let place = BUILD_CONFIG.to_owned();
    Err(KoError::Destination { place, image: name.clone(), own: own.clone() }.into())
}

/// Settings of the app that mean nothing to images that are not made by BuildKit.
fn unused_settings(input: &PlanInput<'_>) -> Vec<String> {
    let settings = input.settings;
    let mut notes = Vec::new();
    if let Some(Sbom::By(generator)) = &settings.attest.sbom {
        notes.push(format!(
            "the SBOM of a ko image is made of the program's own build information, not by {generator}"
        ));
    }
    if settings.compression != Compression::Gzip {
        notes.push(format!("layers of ko images are gzip, not {}", settings.compression.as_str()));
    }
    if settings.cache != LayerCache::Off {
        notes.push(
            "ko images have no layer cache in the registry: Go's caches stay on the builder".to_owned(),
        );
    }
    notes
}
