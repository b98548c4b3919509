//! What becomes of a build: the outputs that the flags name, `--push` and `--load`, as the builder's exporters have it.
//!
//! Invariant: an output that the builder, or the docker that it goes to, cannot make is refused before anything is built.
//! Rules: buildx v0.36, commands/build.go and build/opt.go.

use std::io::IsTerminal as _;
use std::path::Path;

use super::docker::{Docker, Features};
use super::options::{Options, yes};
use crate::buildkit::flags::{Destination, Output};
use crate::buildkit::session::filesend::Export;
use crate::error::{Kind, Report};

/// Where exports go that are no files.
#[derive(Default)]
pub struct Outputs {
    pub list: Vec<Output>,
    /// The kind that the daemon knows each of them by, where it is not the output's own; by place.
    pub kinds: Vec<Option<&'static str>>,
    pub stdout: Option<Export>,
    pub docker: Option<Export>,
    /// Whether docker names the image by its manifest, and not by its config.
    pub by_manifest: bool,
}

/// What the outputs depend on besides the flags.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether the builder is dockerd itself.
    pub in_docker: bool,
    pub docker: &'a Docker,
    /// What the dockerd that builds, or that is loaded into, can do; None where it was not asked.
    pub features: Option<Features>,
    pub plain_http: &'a [String],
    /// Whether the image stays in dockerd where nothing is said.
    pub default_load: bool,
}

/// Whether dockerd has to be asked what it can do.
pub fn needs_docker(options: &Options) -> bool {
    options.call.is_none() && (options.load || options.outputs.iter().any(is_load))
}

/// The context of the dockerd that is loaded into, where one is named.
pub fn loaded_into(options: &Options) -> Option<&str> {
    let load = options.outputs.iter().find(|output| is_load(output))?;
    load.attrs.get("context").map(String::as_str)
}

impl Outputs {
    pub fn plan(options: &Options, around: &Surroundings<'_>) -> Result<Self, Report> {
        let mut plan = Self::default();
        if options.call.is_some() {
            return Ok(plan);
        }
        if around.in_docker && !around.features.unwrap_or_default().containerd_store {
            one_platform_only(options)?;
        }
        let mut list = options.outputs.clone();
        list.iter_mut().for_each(registry_is_a_pushed_image);
        if options.push {
            push(&mut list);
        }
        if options.load && !list.iter().any(is_load) {
            list.push(Output { kind: "docker".to_owned(), ..Output::default() });
        }
        if list.is_empty() && around.in_docker && around.default_load {
            list.push(Output { kind: "image".to_owned(), ..Output::default() });
        }
        for output in &mut list {
            output.attrs.extend(options.annotations.iter().map(|a| (a.attr(), a.value.clone())));
        }
        name(&mut list, options, around)?;
        list.retain(|output| output.kind != "cacheonly");
        layout_alone(&list)?;
        for output in list {
            plan.add(output, options, around)?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        mut output: Output,
        options: &Options,
        around: &Surroundings<'_>,
    ) -> Result<(), Report> {
        let image = matches!(output.kind.as_str(), "docker" | "image" | "oci");
        if let Some(attrs) =
            options.dockerfile.build_args.get("BUILDKIT_INLINE_BUILDINFO_ATTRS").filter(|_| image)
        {
            output.attrs.insert("buildinfo-attrs".to_owned(), attrs.clone());
        }
        let features = around.features.unwrap_or_default();
        let mut kind = None;
        if is_load(&output) {
            kind = self.load(&mut output, options, around, features)?;
        } else if output.kind == "docker" && several(options) {
            return Err(Report::user(
                "an image of docker's own form (type=docker) holds one platform and no attestations",
            )
            .hint("write -o type=oci,dest=FILE"));
        }
        if output.kind == "image" && around.in_docker {
            let pushed = output.attrs.get("push").is_some_and(|push| yes(push));
            if pushed && !features.containerd_store {
                return Err(Report::user("the BuildKit inside this dockerd does not push")
                    .hint("build with --load and `docker push` it, or name another --builder"));
            }
            kind = Some("moby");
            if features.containerd_store {
                self.manifest_names(&mut output);
            }
        }
        if around.in_docker && !features.containerd_store && matches!(output.kind.as_str(), "oci" | "docker")
        {
            return Err(Report::user(format!(
                "the BuildKit inside this dockerd makes no type={}",
                output.kind
            ))
            .hint("`docker save` writes an image that was built, or name another --builder"));
        }
        if output.sends() == Destination::Stream && !is_load(&output) {
            self.stream(&output)?;
        }
        self.list.push(output);
        self.kinds.push(kind);
        Ok(())
    }

    /// `type=docker` without a file: into dockerd.
    fn load(
        &mut self,
        output: &mut Output,
        options: &Options,
        around: &Surroundings<'_>,
        features: Features,
    ) -> Result<Option<&'static str>, Report> {
        if !features.containerd_store && several(options) {
            return Err(Report::user(
                "this dockerd keeps images of one platform and without attestations only",
            )
            .hint(
                "--load one platform at a time, --push them all, or turn on dockerd's containerd image store",
            ));
        }
        if around.in_docker {
            // it is there already
            "image".clone_into(&mut output.kind);
            return Ok(None);
        }
        if self.docker.is_some() {
            return Err(Report::user("two outputs are to be loaded into docker")
                .hint("one is enough: several --tag name it"));
        }
        let docker = around.docker.in_context(output.attrs.get("context").map(String::as_str))?;
        self.docker = Some(Export::Stream(std::sync::Arc::new(docker)));
        if features.containerd_store {
            self.manifest_names(output);
            return Ok(Some("oci"));
        }
        Ok(None)
    }

    fn manifest_names(&mut self, output: &mut Output) {
        output.attrs.insert("prefer-image-digest".to_owned(), "true".to_owned());
        self.by_manifest = true;
    }

    fn stream(&mut self, output: &Output) -> Result<(), Report> {
        match output.destination.as_deref() {
            None | Some("-") => {
                if self.stdout.is_some() {
                    return Err(Report::user("two outputs are to go to standard output")
                        .hint("say dest=FILE for one of them"));
                }
                if std::io::stdout().is_terminal() {
                    return Err(Report::user(format!("type={}: standard output is a terminal", output.kind))
                        .hint("redirect it, or say dest=FILE"));
                }
                self.stdout = Some(Export::writer(tokio::io::stdout()));
            }
            Some(file) => {
                let dir = Path::new(file).parent().filter(|dir| !dir.as_os_str().is_empty());
                dir.map_or(Ok(()), std::fs::create_dir_all)
                    .map_err(|e| Report::new(Kind::User, format!("--output dest={file}: {e}")))?;
            }
        }
        Ok(())
    }
}

/// What the BuildKit inside a dockerd of the older kind cannot do.
fn one_platform_only(options: &Options) -> Result<(), Report> {
    let exported = options.cache_to.iter().any(|entry| entry.kind != "inline");
    let what = match () {
        () if options.dockerfile.platforms.len() > 1 => "build for several platforms",
        () if options.attests() => "make attestations",
        () if exported => "export caches",
        () => return Ok(()),
    };
    Err(Report::user(format!("the BuildKit inside this dockerd does not {what}"))
        .hint("turn on dockerd's containerd image store, or name another --builder"))
}

/// A layout's index is written here, from the digest that the daemon tells; it tells one, and images of several outputs
/// can differ by what is attached to them.
fn layout_alone(list: &[Output]) -> Result<(), Report> {
    let image = |output: &&Output| matches!(output.kind.as_str(), "image" | "oci" | "docker");
    let layout = |output: &Output| output.sends() == Destination::Directory && output.kind != "local";
    match list.iter().any(layout) && list.iter().filter(image).count() > 1 {
        true => Err(Report::user("an output into a layout (tar=false) must be the only one of an image")
            .hint("build once more for the other output: it is cached")),
        false => Ok(()),
    }
}

fn is_load(output: &Output) -> bool {
    output.kind == "docker" && output.destination.is_none() && output.sends() == Destination::Stream
}

fn several(options: &Options) -> bool {
    options.dockerfile.platforms.len() > 1 || options.attests()
}

fn registry_is_a_pushed_image(output: &mut Output) {
    if output.kind == "registry" {
        pushed(output);
        "image".clone_into(&mut output.kind);
    }
}

fn pushed(output: &mut Output) {
    output.attrs.insert("push".to_owned(), "true".to_owned());
    // what is only pushed need not be unpacked
    output.attrs.entry("unpack".to_owned()).or_insert_with(|| "false".to_owned());
}

fn push(list: &mut Vec<Output>) {
    if !list.iter().any(|output| output.kind == "image") {
        list.push(Output { kind: "image".to_owned(), ..Output::default() });
    }
    list.iter_mut().filter(|output| output.kind == "image").for_each(pushed);
}

/// Gives images the names of the tags; a pushed one needs one.
fn name(list: &mut [Output], options: &Options, around: &Surroundings<'_>) -> Result<(), Report> {
    for output in list {
        if matches!(output.kind.as_str(), "image" | "oci" | "docker") && !options.tags.is_empty() {
            output.attrs.insert("name".to_owned(), options.tags.join(","));
        }
        let pushed = output.kind == "image" && output.attrs.get("push").is_some_and(|push| yes(push));
        let names = output.attrs.get("name").cloned().unwrap_or_default();
        if pushed && names.is_empty() {
            return Err(Report::user("an image needs a name to be pushed by")
                .hint("give --tag HOST[:PORT]/PATH[:TAG]"));
        }
        let hosts: Vec<&str> = names.split(',').filter_map(|name| name.split('/').next()).collect();
        if pushed && hosts.iter().all(|host| around.plain_http.iter().any(|plain| plain == host)) {
            output.attrs.entry("registry.insecure".to_owned()).or_insert_with(|| "true".to_owned());
        }
    }
    Ok(())
}
