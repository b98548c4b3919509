//! Where images go: a registry, a container engine, a directory in OCI's layout, an archive, files with references and SBOMs; and what stands for them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::archive::{self, Named};
use super::args::{KoFlags, LOCAL};
use super::layout;
use crate::assemble::base::Base;
use crate::assemble::ko::{self, BaseImage, BasePlatform, Descriptor, Document, Image, Naming, Product};
use crate::assemble::layers::Binary;
use crate::assemble::publish::{self, LayerFile, Parts, Statement};
use crate::cli::build::docker::Docker;
use crate::config::Environment;
use crate::error::{Kind, Report};
use crate::model::{Digest, ImageName, Tag};
use crate::registry::Registry;

/// Who writes SBOMs.
const TOOL: &str = concat!("lemnos-", env!("CARGO_PKG_VERSION"));

/// A program's images, with the files that they are made of.
pub struct Made {
    pub import_path: String,
    pub base: Base,
    pub bases: Vec<BaseImage>,
    /// In the base's order, as the two below.
    pub images: Vec<Image>,
    pub product: Product,
    pub kodata: LayerFile,
    pub binaries: Vec<Binary>,
    /// None for a platform without one.
    pub debuggers: Vec<Option<LayerFile>>,
    /// Holds the layers.
    pub scratch: TempDir,
}

impl Made {
    pub fn parts(&self) -> Vec<Parts<'_>> {
        let images = self.images.iter().zip(&self.binaries).zip(&self.debuggers);
        let parts = images.map(|((image, binary), debugger)| {
            let own = [&self.kodata, &binary.file].into_iter().chain(debugger);
            Parts { image, layers: own.collect() }
        });
        parts.collect()
    }
    /// A layer of the base, fetched once however many files it goes into.
    pub async fn base_layer(&self, registry: &Registry, layer: &Descriptor) -> Result<PathBuf, Report> {
        let path = self.scratch.path().join(format!("base-{}", layer.digest.hex()));
        if !path.exists() {
            let part = path.with_extension("part");
            registry.fetch_blob(&self.base.place, &layer.digest, layer.size, &part).await?;
            std::fs::rename(&part, &path).map_err(|error| unwritable(&path, &error))?;
        }
        Ok(path)
    }
    pub fn name(&self) -> &str {
        ko::app_name(&self.import_path)
    }
    /// The index, where there is one, and then the images.
    fn documents(&self) -> Vec<&Document> {
        let images = self.images.iter().map(|image| &image.manifest);
        match &self.product {
            Product::Image(_) => images.collect(),
            Product::Index(index) => std::iter::once(&index.document).chain(images).collect(),
        }
    }
    /// What each SBOM is about, its document, and the end of its file's name.
    fn sboms(&self) -> Vec<(&Document, Vec<u8>, String)> {
        let mut sboms = Vec::new();
        for (image, binary) in self.images.iter().zip(&self.binaries) {
            let end = image.platform.to_string().replace(['/', ':'], "-");
            sboms.push((&image.manifest, ko::image_sbom(TOOL, image, &binary.info), end));
        }
        if let Product::Index(index) = &self.product {
            sboms.push((&index.document, ko::index_sbom(TOOL, index), "index".to_owned()));
        }
        sboms
    }
}

/// The container engine that images are loaded into, and for which system it has them.
struct Engine {
    docker: Docker,
    os: String,
    arch: String,
}

impl Engine {
    fn runs(&self, platform: &BasePlatform) -> bool {
        platform.os == self.os && platform.architecture == self.arch
    }
}

/// What takes the images beside files.
enum Goal {
    Registry,
    Engine(Box<Engine>),
    Nowhere,
}

/// What the flags ask for.
pub struct Deliver {
    goal: Goal,
    /// What images are named below; empty where they go into files alone and nobody says.
    prefix: String,
    naming: Naming,
    tags: Vec<Tag>,
    tag_only: bool,
    sbom: bool,
    sbom_dir: Option<PathBuf>,
    layout: Option<PathBuf>,
    tarball: Option<PathBuf>,
    references: Option<PathBuf>,
}

impl Deliver {
    pub fn read(
        flags: &KoFlags,
        repository: Option<&str>,
        environment: &Environment,
    ) -> Result<Self, Report> {
        let local = flags.is_local(repository);
        let files = flags.oci_layout_path.is_some() || flags.tarball.is_some();
        // an image of an archive has a name in any case
        let nameless = flags.tarball.is_some() && flags.naming() == Naming::Bare;
        let prefix = match repository {
            Some(repository) => repository,
            None if local => LOCAL,
            None if files && !flags.push && !nameless => "",
            None => {
                return Err(Report::user("KO_DOCKER_REPO environment variable is unset").hint(
                    "name the registry and the path that images are pushed below, for example KO_DOCKER_REPO=ghcr.io/team",
                ));
            }
        };
        let mut tags: Vec<Tag> = Vec::new();
        for tag in &flags.tags {
            let tag = tag.parse::<Tag>()?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if flags.tag_only && !matches!(tags.as_slice(), [tag] if tag.as_str() != "latest") {
            return Err(ko::KoError::TagOnly.into());
        }
        let set = |name: &str, default: &str| {
            environment.get(name).filter(|set| !set.is_empty()).unwrap_or(default).to_owned()
        };
        let goal = match (local, flags.push) {
            (true, _) => Goal::Engine(Box::new(Engine {
                docker: Docker::read(environment)?,
                os: set("GOOS", "linux"),
                arch: set("GOARCH", "amd64"),
            })),
            (false, true) => Goal::Registry,
            (false, false) => Goal::Nowhere,
        };
        Ok(Self {
            goal,
            prefix: prefix.to_owned(),
            tarball: flags.tarball.clone(),
            naming: flags.naming(),
            tags,
            tag_only: flags.tag_only,
            sbom: flags.sbom != "none",
            sbom_dir: flags.sbom_dir.clone(),
            layout: flags.oci_layout_path.clone(),
            references: flags.image_refs.clone(),
        })
    }

    /// Delivers everything but tags.
    pub async fn content(&self, registry: &Registry, made: &[Made]) -> Result<Vec<Delivered>, Report> {
        let mut delivered = Vec::new();
        for one in made {
            delivered.push(self.one(registry, one).await?);
        }
        if let Some(file) = &self.tarball {
            let images = made.iter().map(|made| {
                let names = self.tags.iter().map(|tag| format!("{}:{tag}", self.name(made)));
                Named { made, number: 0, names: names.collect() }
            });
            archive::write(registry, file, &images.collect::<Vec<_>>()).await?;
        }
        Ok(delivered)
    }

    /// Where images go to is there, as far as it can be told before there are any.
    pub async fn ready(&self) -> Result<(), Report> {
        match &self.goal {
            Goal::Engine(engine) => engine.docker.features().await.map(drop).map_err(unloaded),
            Goal::Registry | Goal::Nowhere => Ok(()),
        }
    }

    /// Whether a program for these platforms can go there, before it is compiled. `index`: there will be one over its images.
    pub fn takes(&self, import_path: &str, platforms: &[&BasePlatform], index: bool) -> Result<(), Report> {
        if !index {
            return Ok(());
        }
        if self.tarball.is_some() {
            let message = format!(
                "--tarball: docker's archives hold no index, and {import_path} is built for {} platforms",
                platforms.len()
            );
            return Err(
                Report::user(message).hint("name one platform in --platform, or take --oci-layout-path")
            );
        }
        if let Goal::Engine(engine) = &self.goal
            && !platforms.iter().any(|platform| engine.runs(platform))
        {
            let message = format!("--local: {import_path} is built for no {}/{}", engine.os, engine.arch);
            return Err(Report::user(message).hint("add it to --platform, or say another in GOOS and GOARCH"));
        }
        Ok(())
    }

    fn name(&self, made: &Made) -> String {
        self.naming.name(&self.prefix, &made.import_path)
    }

    /// Into the container engine, under its digest and its tags; the first stands for it.
    async fn load(&self, registry: &Registry, made: &Made, engine: &Engine) -> Result<Delivered, Report> {
        let number = match &made.product {
            Product::Image(_) => Some(0),
            Product::Index(_) => made.images.iter().position(|image| engine.runs(&image.platform)),
        };
        let found = number.and_then(|number| Some((number, made.images.get(number)?)));
        let (number, image) =
            found.ok_or_else(|| Report::internal("no image is for the container engine"))?;
        let (name, digest) = (self.name(made), &image.manifest.digest);
        let own = format!("{name}:{}", digest.hex());
        let tags = self.tags.iter().map(|tag| format!("{name}:{tag}"));
        let names = std::iter::once(own.clone()).chain(tags).collect();
        let file = made.scratch.path().join("docker.tar");
        archive::write(registry, &file, &[Named { made, number, names }]).await?;
        engine.docker.load(&file).await.map_err(unloaded)?;
        Ok(Delivered { image: None, reference: own, all: format!("{name}@{digest}\n") })
    }

    /// Moves the tags, once all that they will name is there.
    pub async fn tags(
        &self,
        registry: &Registry,
        made: &[Made],
        delivered: &[Delivered],
    ) -> Result<(), Report> {
        let pushed = made.iter().zip(delivered);
        let pushed = pushed.filter_map(|(made, one)| Some((made.product.document(), one.image.as_ref()?)));
        for (top, image) in pushed {
            for tag in &self.tags {
                let bytes = top.bytes.clone();
                registry.put_manifest(image, &tag.clone().into(), &top.media_type, bytes).await?;
            }
        }
        Ok(())
    }

    /// Writes down the references of everything; that of each, in order.
    pub fn references(&self, delivered: &[Delivered]) -> Result<Vec<String>, Report> {
        if let Some(path) = &self.references {
            let all: String = delivered.iter().map(|one| one.all.as_str()).collect();
            write(path, all.as_bytes())?;
        }
        Ok(delivered.iter().map(|one| one.reference.clone()).collect())
    }

    async fn one(&self, registry: &Registry, made: &Made) -> Result<Delivered, Report> {
        if let Some(dir) = &self.sbom_dir {
            create_dir(dir)?;
            for (_, sbom, end) in &made.sboms() {
                write(&dir.join(format!("{}-{end}.spdx.json", made.name())), sbom)?;
            }
        }
        if let Goal::Engine(engine) = &self.goal {
            return self.load(registry, made, engine).await;
        }
        if let Some(dir) = &self.layout {
            layout::add(registry, dir, made).await?;
        }
        let digest = &made.product.document().digest;
        let by_digest = |place: String| Delivered::new(made, &place, format!("{place}@{digest}"), None);
        let place = self.name(made);
        let pushed = matches!(self.goal, Goal::Registry);
        Ok(match (pushed, &self.tarball, &self.layout) {
            (true, ..) => {
                let image = self.naming.repository(&self.prefix, &made.import_path)?;
                self.push(registry, &image, made).await?;
                let printed = ko::printed(&image, &self.tags, digest, self.tag_only)?;
                Delivered::new(made, &place, printed, Some(image))
            }
            (false, Some(_), _) => {
                let printed = ko::printed(&place, &self.tags, digest, false)?;
                Delivered::new(made, &place, printed, None)
            }
            (false, None, Some(dir)) => by_digest(dir.display().to_string()),
            (false, None, None) => Delivered::new(made, &place, self.unpublished(&place, digest), None),
        })
    }

    /// What ko prints of images that went nowhere: with their first tag, whichever it is.
    fn unpublished(&self, image: &str, digest: &Digest) -> String {
        match (self.tags.first(), self.tag_only) {
            (Some(tag), true) => format!("{image}:{tag}"),
            (Some(tag), false) => format!("{image}:{tag}@{digest}"),
            (None, _) => format!("{image}@{digest}"),
        }
    }

    /// Everything by digest, and SBOMs where ko and cosign look for them, under tags of their own, and where OCI has them
    /// found, as referrers.
    async fn push(&self, registry: &Registry, image: &ImageName, made: &Made) -> Result<(), Report> {
        let sboms = if self.sbom { made.sboms() } else { Vec::new() };
        let said = sboms.into_iter().flat_map(|(subject, sbom, _)| Statement::sbom(sbom, subject, true));
        let said: Vec<Statement> = said.collect();
        let parts = made.parts();
        tokio::try_join!(
            publish::base_layers(registry, image, &made.base, &made.bases),
            publish::content(registry, image, &said),
        )?;
        publish::images(registry, image, &parts).await?;
        if let Product::Index(index) = &made.product {
            publish::document(registry, image, &index.document).await?;
        }
        publish::attach(registry, image, &said).await?;
        Ok(())
    }
}

/// Where one program's images are.
pub struct Delivered {
    /// To be tagged; none where nothing was pushed.
    image: Option<ImageName>,
    /// To be printed.
    reference: String,
    /// Everything by digest, a line each.
    all: String,
}

impl Delivered {
    fn new(made: &Made, place: &str, reference: String, image: Option<ImageName>) -> Self {
        let documents = made.documents();
        let all = documents.iter().map(|document| format!("{place}@{}\n", document.digest)).collect();
        Self { image, reference, all }
    }
}

fn unloaded(report: Report) -> Report {
    report.hint("start it, set DOCKER_HOST, or take --tarball FILE --push=false")
}

pub(super) fn create_dir(path: &Path) -> Result<(), Report> {
    std::fs::create_dir_all(path).map_err(|error| unwritable(path, &error))
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    std::fs::write(path, bytes).map_err(|error| unwritable(path, &error))
}

pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> Report {
    Report::new(Kind::User, format!("writing {}: {error}", path.display()))
}
