//! ko's flags, as `ko build` v0.19.1 has them, and what of them is refused. Pure.

use std::path::PathBuf;

use crate::assemble::ko::Naming;
use crate::cli::builder::BuilderArgs;
use crate::error::Report;

/// What stands for the container engine in the place of a registry.
pub const LOCAL: &str = "ko.local";

#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Main packages: ./cmd/app, or whole import paths, with or without ko:// [default: .].
    #[arg(value_name = "IMPORTPATH")]
    pub import_paths: Vec<String>,
    #[command(flatten)]
    pub flags: KoFlags,
}

/// What every command takes that builds.
#[derive(Debug, Clone, clap::Args)]
pub struct KoFlags {
    /// Name images as KO_DOCKER_REPO, with nothing after it.
    #[arg(long)]
    pub bare: bool,
    /// Name images after the last part of their import path, without its MD5.
    #[arg(short = 'B', long)]
    pub base_import_paths: bool,
    /// Name images after their whole import path.
    #[arg(short = 'P', long)]
    pub preserve_import_paths: bool,
    /// Compile without optimizations, put the debugger Delve into images for linux/amd64 and linux/arm64, and start programs under it; it listens on port 40000.
    #[arg(long)]
    pub debug: bool,
    /// Compile without optimizations.
    #[arg(long)]
    pub disable_optimizations: bool,
    /// KEY=VALUE for the manifests; again for each one, or with commas.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub image_annotation: Vec<String>,
    /// KEY=VALUE for the configuration; again for each one, or with commas.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub image_label: Vec<String>,
    /// A file for the references by digest of everything that was published.
    #[arg(long, value_name = "FILE")]
    pub image_refs: Option<PathBuf>,
    /// Whom the program runs as.
    #[arg(long, value_name = "USER")]
    pub image_user: Option<String>,
    /// Speak plain http to the registry of KO_DOCKER_REPO.
    #[arg(long)]
    pub insecure_registry: bool,
    /// How many programs are compiled at once at most, each for all platforms at once [default: as many as this machine has processors].
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Flags for the linker, in place of those of .ko.yaml; again for each one.
    #[arg(long, value_name = "FLAGS", value_delimiter = ',')]
    pub ldflags: Vec<String>,
    /// Load images into the container engine (dockerd) in place of pushing them; of several platforms the one of GOOS and GOARCH [default: linux/amd64].
    #[arg(short = 'L', long)]
    pub local: bool,
    /// A directory that the images are added to in OCI's layout.
    #[arg(long, value_name = "DIR")]
    pub oci_layout_path: Option<PathBuf>,
    /// all, or OS[/ARCH[/VARIANT]] with commas [default: of .ko.yaml, else linux/amd64].
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Whether images are pushed to KO_DOCKER_REPO.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub push: bool,
    /// spdx, or none.
    #[arg(long, value_name = "FORM", default_value = "spdx")]
    pub sbom: String,
    /// A directory for the SBOMs.
    #[arg(long, value_name = "DIR")]
    pub sbom_dir: Option<PathBuf>,
    /// Print references by tag, without digests.
    #[arg(long)]
    pub tag_only: bool,
    /// Tags of the images, with commas.
    #[arg(short, long, value_name = "TAG", value_delimiter = ',', default_value = "latest")]
    pub tags: Vec<String>,
    /// A file for the images, as `docker load` reads it; images of one platform.
    #[arg(long, value_name = "FILE")]
    pub tarball: Option<PathBuf>,
    /// Show every line of the build.
    #[arg(short, long)]
    pub verbose: bool,
    /// The secret netrc, for private modules: id=netrc,src=$HOME/.netrc.
    #[arg(long, value_name = "id=netrc[,src=FILE|,env=NAME]")]
    pub secret: Vec<String>,
    /// An SSH agent or keys for private modules.
    #[arg(long, value_name = "default[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// The image that compiles, in place of the Go that go.mod asks for.
    #[arg(long, value_name = "IMAGE")]
    pub toolchain: Option<String>,
    #[command(flatten)]
    pub builder: BuilderArgs,
    /// What is asked for base images before a registry, HOST=MIRROR; again for each one.
    #[arg(long, value_name = "HOST=MIRROR")]
    pub mirror: Vec<String>,
}

impl KoFlags {
    /// What is not done here, with the reason and what to do instead.
    pub fn refusal(&self, repository: Option<&str>) -> Result<(), Report> {
        let refuse =
            |flag: &str, why: &str, instead: &str| Err(Report::user(format!("{flag}: {why}")).hint(instead));
        if repository.is_some_and(|repository| repository.starts_with("kind.local")) {
            return refuse(
                "KO_DOCKER_REPO=kind.local",
                "images are not loaded into the nodes of a kind cluster",
                "take --tarball FILE, and `kind load image-archive FILE`",
            );
        }
        if self.is_local(repository) && (self.oci_layout_path.is_some() || self.tarball.is_some()) {
            return refuse(
                "--local",
                "images that are loaded into a container engine go nowhere else",
                "leave --oci-layout-path and --tarball out, or take --push=false in the place of --local",
            );
        }
        if !matches!(self.sbom.as_str(), "spdx" | "none") {
            return refuse(
                "--sbom",
                &format!("{:?} is no form of an SBOM", self.sbom),
                "write spdx, or none",
            );
        }
        if let Some(bad) = self.ldflags.iter().find(|flags| flags.contains("{{")) {
            return refuse(
                "--ldflags",
                &format!("{bad:?} is a template, and those are filled in for .ko.yaml alone"),
                "write it into .ko.yaml",
            );
        }
        Ok(())
    }

    /// Whether images are for the container engine, by flag or by name.
    pub fn is_local(&self, repository: Option<&str>) -> bool {
        self.local || repository.is_some_and(|repository| repository.starts_with(LOCAL))
    }

    pub fn naming(&self) -> Naming {
        match (self.preserve_import_paths, self.base_import_paths, self.bare) {
            (true, ..) => Naming::Path,
            (_, true, _) => Naming::Base,
            (.., true) => Naming::Bare,
            _ => Naming::Md5,
        }
    }
}
