//! A Go program's images: BuildKit compiles, the rest is made here, as ko would have made it.
//!
//! Base and toolchain are looked up once a build and then taken by digest. What depends on commit or ref beyond the program
//! itself stands on the index only; one platform alone is one manifest without it, as with ko.

mod kodata;
mod layers;
mod pins;

pub(super) use pins::pushed;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::{Dirs, unless_stopped};
use super::statements::{Made, completed};
use super::{Making, Pipeline, from_report, internal};
use crate::assemble::base::{Base, Chosen};
use crate::assemble::ko::{self, BaseImage, Descriptor, Document, Epoch, Image, ImageOptions};
use crate::assemble::publish::{self, Parts, Statement};
use crate::error::Report;
use crate::event::{BuildEvent, Failure};
use crate::failpoint::Point;
use crate::metrics::{self, Stage};
use crate::model::{BuildPlan, Digest, Form, ImagePlan, KoImage, Material, Platform, Predicate, Publication};
use crate::solve::context::GitContext;
use crate::solve::ko::{GIT, SOURCE, WithGitDir, compile};
use crate::solve::{DirSource, FileGraph, FileSolve, Statements};
use layers::Compiled;
use pins::Pins;

/// Programs of all platforms together may not be larger.
const LIMIT_BYTES: u64 = 4 << 30;
/// Who writes SBOMs.
const TOOL: &str = concat!("lemnos-", env!("CARGO_PKG_VERSION"));

/// What is kept of a build, for the next one of the same commit and settings.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// In the base's order.
    images: Vec<Descriptor>,
    /// The first image's time.
    created: String,
    /// What was attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statements: Vec<Digest>,
}

/// What is tagged in the end, and the images below it.
struct Tagged {
    top: Document,
    /// Where it is more than one image.
    index: Option<ko::ImageIndex>,
}

fn failure(error: impl Into<Report>) -> Failure {
    from_report(error.into())
}

impl Pipeline {
    pub(super) async fn ko(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        program: &KoImage,
    ) -> Result<Publication, Failure> {
        let Making { job, plan, events, .. } = *making;
        let pins = unless_stopped(job, self.ko_pins(making, program)).await?;
        let fingerprint = fingerprint(plan, image, program, &pins);
        let options = options(program)?;
        let earlier = self.earlier::<Kept>(job, &image.name, fingerprint.as_ref(), |kept| {
            kept.images.iter().map(|image| image.digest.clone()).collect()
        });
        if let Some((kept, commit)) = earlier.await
            && let Some(said) = self.attested(&image.name, &kept.statements).await
        {
            let form = form(pins.base.index().is_some() && kept.images.len() > 1);
            events.emit(BuildEvent::Reused { children: kept.images.len(), commit, form });
            let images = kept.images.clone();
            let made = self.ko_again(image, program, &pins.base, kept, &options).await?;
            // the images have theirs
            self.ko_attest(image, &said, &images, &made.top, false).await?;
            return self.ko_published(making, image, program, made).await;
        }
        let scratch = self.scratch().await?;
        let out = scratch.path().join("out");
        // the base's own documents are asked for while the program is compiled
        let bases = async { pins.base.images(&self.registry, &pins.chosen).await.map_err(failure) };
        let compiling = self.compile(making, image, program, &pins, &out);
        // a compile is seen to its end whatever becomes of them: what the builder was sent has to be remembered
        let (compiled, bases) = tokio::join!(compiling, unless_stopped(job, bases));
        let ((source, said), bases) = (compiled?, bases?);
        let said = completed(said, &[base(&pins)])?;
        self.pass(Point::AfterSolve).await?;
        let _timing = metrics::time(Stage::Assemble);
        let assembling = async {
            let time = options.kodata_created;
            let writing = layers::write(program, &pins, source, &out, scratch.path(), time);
            let copying = async {
                publish::base_layers(&self.registry, &image.name, &pins.base, &bases).await.map_err(failure)
            };
            let (layers, ()) = tokio::try_join!(writing, copying)?;
            self.ko_made(image, program, &pins, &bases, &layers, &options).await
        };
        let (made, mut kept) = unless_stopped(job, assembling).await?;
        kept.statements = self.ko_attest(image, &said, &kept.images, &made.top, true).await?;
        self.keep(plan, &image.name, fingerprint.as_ref(), &kept).await;
        self.ko_published(making, image, program, made).await
    }

    /// Attaches what was said of a compile to the index, or the one image, and to the images below it where they have nothing yet.
    async fn ko_attest(
        &self,
        image: &ImagePlan,
        said: &[Predicate],
        images: &[Descriptor],
        top: &Document,
        to_images: bool,
    ) -> Result<Vec<Digest>, Failure> {
        let below = || images.iter().filter(|image| image.digest != top.digest);
        let digests: Vec<Digest> = below().map(|image| &image.digest).chain([&top.digest]).cloned().collect();
        let below = below().filter(|_| to_images);
        let below = below.map(|image| (image.media_type.as_str(), image.size, &image.digest));
        let top = (top.media_type.as_str(), top.bytes.len() as u64, &top.digest);
        let made: Vec<Made<'_>> = below.chain([top]).collect();
        self.attest(&image.name, said, &digests, &made).await
    }

    /// Has the programs compiled into `out`; returns the commit's tree, and what is attested.
    async fn compile(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        program: &KoImage,
        pins: &Pins,
        out: &Path,
    ) -> Result<(GitContext, Vec<Predicate>), Failure> {
        let _timing = metrics::time(Stage::Solve);
        let git = pins.git.clone();
        let served = move |source: &GitContext| {
            Ok(Dirs::from([
                (SOURCE.to_owned(), Arc::new(WithGitDir(source.clone())) as Arc<dyn DirSource>),
                (GIT.to_owned(), git),
            ]))
        };
        let opened = self.open_context(making, &image.name, "", served).await?;
        self.pass(Point::AfterContext).await?;
        let source = opened.context.clone();
        let mut go = program.compile.clone();
        go.toolchain.clone_from(&pins.toolchain);
        let graph = |builder: &Platform| {
            let builder = crate::solve::ko::platform(builder);
            compile(&go, &program.program, &builder, true)
        };
        let statements = Statements::of(&program.attest);
        let files = FileSolve {
            graph: FileGraph::Known(&graph),
            out,
            limit_bytes: LIMIT_BYTES,
            statements: &statements,
        };
        let said = self.make_files(making, &files, opened).await?;
        Ok((source, said))
    }

    /// Images, and the index over them, as they now stand in the registry.
    async fn ko_made(
        &self,
        image: &ImagePlan,
        program: &KoImage,
        pins: &Pins,
        bases: &[BaseImage],
        compiled: &Compiled,
        options: &ImageOptions,
    ) -> Result<(Tagged, Kept), Failure> {
        let mut images: Vec<Image> = Vec::new();
        for ((base, chosen), binary) in bases.iter().zip(&pins.chosen).zip(&compiled.binaries) {
            let layers = ko::Layers {
                kodata: compiled.kodata.layer.clone(),
                binary: binary.file.layer.clone(),
                debugger: None,
            };
            let entry = chosen.entry.as_ref();
            images.push(ko::image(base, &pins.base.reference, entry, &layers, options).map_err(failure)?);
        }
        let parts: Vec<Parts<'_>> = bases
            .iter()
            .zip(&images)
            .zip(&compiled.binaries)
            .map(|((_, image), binary)| Parts { image, layers: vec![&compiled.kodata, &binary.file] })
            .collect();
        let said = images.iter().zip(&compiled.binaries).flat_map(|(made, binary)| {
            let sbom = ko::image_sbom(TOOL, made, &binary.info);
            Statement::sbom(sbom, &made.manifest, program.extras.sbom_tags)
        });
        let said: Vec<Statement> = said.collect();
        tokio::try_join!(
            publish::images(&self.registry, &image.name, &parts),
            publish::content(&self.registry, &image.name, &said),
        )
        .map_err(failure)?;
        let attaching = async { publish::attach(&self.registry, &image.name, &said).await.map_err(failure) };
        let kept = kept(&pins.chosen, &images);
        let making = async {
            match (pins.base.index(), images.as_slice()) {
                (Some(base), [_, _, ..]) => {
                    self.ko_index(image, program, base, &pins.base, &kept, options).await
                }
                (_, [only]) => Ok(Tagged { top: only.manifest.clone(), index: None }),
                _ => {
                    let path = &program.compile.import_path;
                    Err(internal(format!("{path} was compiled for no platform")))
                }
            }
        };
        let ((), made) = tokio::try_join!(attaching, making)?;
        Ok((made, kept))
    }

    /// The index over the images, with what the commit has it say.
    async fn ko_index(
        &self,
        image: &ImagePlan,
        program: &KoImage,
        base_index: &ko::BaseIndex,
        base: &Base,
        kept: &Kept,
        options: &ImageOptions,
    ) -> Result<Tagged, Failure> {
        let mut options = options.clone();
        for (name, value) in &image.annotations {
            options.annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let (images, created) = (kept.images.clone(), kept.created.clone());
        let index = ko::index(base_index, &base.reference, images, created, &options);
        self.pass(Point::BeforeIndexPush).await?;
        let sbom = ko::index_sbom(TOOL, &index);
        let said = Statement::sbom(sbom, &index.document, program.extras.sbom_tags);
        tokio::try_join!(
            publish::document(&self.registry, &image.name, &index.document),
            publish::content(&self.registry, &image.name, &said),
        )
        .map_err(failure)?;
        publish::attach(&self.registry, &image.name, &said).await.map_err(failure)?;
        self.pass(Point::AfterIndexPush).await?;
        Ok(Tagged { top: index.document.clone(), index: Some(index) })
    }

    /// The images of an earlier build, below an index of this one.
    async fn ko_again(
        &self,
        image: &ImagePlan,
        program: &KoImage,
        base: &Base,
        kept: Kept,
        options: &ImageOptions,
    ) -> Result<Tagged, Failure> {
        match (base.index(), kept.images.as_slice()) {
            (Some(index), [_, _, ..]) => self.ko_index(image, program, index, base, &kept, options).await,
            (_, [only]) => {
                let reference = only.digest.clone().into();
                let manifest = self.registry.get_manifest(&image.name, &reference).await.map_err(failure)?;
                let (media_type, digest, bytes) =
                    (manifest.media_type, manifest.digest, manifest.bytes.to_vec());
                Ok(Tagged { top: Document { media_type, digest, bytes }, index: None })
            }
            _ => Err(internal("an earlier build of these programs was for other platforms")),
        }
    }

    async fn ko_published(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        program: &KoImage,
        made: Tagged,
    ) -> Result<Publication, Failure> {
        let platforms: Vec<Platform> =
            program.compile.targets.iter().map(|target| target.platform.clone()).collect();
        let (indexed, Document { media_type, digest, bytes }) = (made.index.is_some(), made.top);
        tracing::info!(build = %making.job.build, image = %image.name, %digest, indexed, "assembled");
        let event = BuildEvent::Assembled {
            image: image.name.clone(),
            digest: digest.clone(),
            platforms: platforms.clone(),
            indexed,
        };
        making.events.emit(event);
        Ok(Publication {
            build: making.job.build.clone(),
            image: image.name.clone(),
            digest,
            media_type,
            form: form(indexed),
            platforms,
            bytes,
            tags: image.tags.clone(),
            unshared: image.unshared,
        })
    }
}

/// What the images stand on, which the compiler's builder does not see.
fn base(pins: &Pins) -> Material {
    let reference = &pins.base.reference;
    let tag = reference.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    Material { uri: format!("pkg:docker/{}{tag}", reference.repository()), digest: pins.base.digest.clone() }
}

fn form(indexed: bool) -> Form {
    if indexed { Form::Index } else { Form::Image }
}

fn kept(chosen: &[Chosen], images: &[Image]) -> Kept {
    let described = |(chosen, image): (&Chosen, &Image)| match &chosen.entry {
        Some(entry) => ko::described(entry, image),
        None => image.manifest.descriptor(),
    };
    Kept {
        images: chosen.iter().zip(images).map(described).collect(),
        created: images.first().map(|image| image.created.clone()).unwrap_or_default(),
        statements: Vec::new(),
    }
}

/// What decides the images: the commit, which Go writes into programs, what it says of versions, base and toolchain, and the
/// whole plan of the image. The ref's caches among it: what another ref's may have been led to is never taken over.
fn fingerprint(plan: &BuildPlan, image: &ImagePlan, program: &KoImage, pins: &Pins) -> Option<Digest> {
    let mut key = program.clone();
    key.compile.no_cache = false;
    key.compile.pull = false;
    key.compile.toolchain.clone_from(&pins.toolchain);
    let of_source = (&plan.commit, &pins.git_id);
    let json =
        serde_json::to_vec(&(BuildPlan::VERSION, "ko", &image.name, key, &pins.base.digest, of_source));
    json.ok().map(|json| Digest::of(&json))
}

/// What stands in the images beside program and kodata.
fn options(program: &KoImage) -> Result<ImageOptions, Failure> {
    let extras = &program.extras;
    let pair = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(ImageOptions {
        import_path: program.compile.import_path.clone(),
        labels: extras.labels.clone(),
        annotations: extras.annotations.clone(),
        expose: extras.ports.clone(),
        working_dir: extras.workdir.clone(),
        cmd: extras.args.clone(),
        env: extras.env.iter().map(pair).collect(),
        created: epoch(program, "SOURCE_DATE_EPOCH")?,
        kodata_created: epoch(program, "KO_DATA_DATE_EPOCH")?,
        ..ImageOptions::default()
    })
}

/// A time that ko takes from its environment, as the app's build arguments give it.
fn epoch(program: &KoImage, name: &'static str) -> Result<Option<Epoch>, Failure> {
    let env = program.compile.targets.first().map(|target| target.env.as_slice()).unwrap_or_default();
    let Some((_, text)) = env.iter().find(|(known, _)| known == name) else { return Ok(None) };
    let epoch = text.parse().ok().and_then(Epoch::new);
    epoch.map(Some).ok_or_else(|| {
        let report =
            Report::user(format!("{name} is {text:?}, which is no time")).hint("give it as Unix seconds");
        failure(report)
    })
}
