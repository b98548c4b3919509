//! The sources of the language, by our builders.

use lemnos::buildkit::llb::{
    Blob, Constraints, DifferKind, Git, Http, Image, Local, OciLayout, ResolveMode, State,
};

use super::describe::when;
use super::language::Step;

fn has(step: &Step, flag: &str) -> bool {
    step.flags.iter().any(|known| known == flag)
}

pub fn source(step: &Step, limits: Constraints) -> State {
    match step.op.as_str() {
        "scratch" => State::scratch(),
        "image" => image(step).constraints(limits).state(),
        "git" => git(step).constraints(limits).state(),
        "http" => http(step).constraints(limits).state(),
        "local" => local(step).constraints(limits).state(),
        "oci" => {
            let oci = OciLayout::new(&step.reference).store(&step.session, &step.store);
            when(step.layers != 0, oci, |oci| oci.layer_limit(step.layers)).constraints(limits).state()
        }
        "blob" | "ociblob" => {
            let blob = match step.op.as_str() {
                "blob" => Blob::image(&step.reference),
                _ => Blob::oci_layout(&step.reference),
            };
            let blob = blob.filename(&step.filename).chmod(step.chmod).chown(step.uid, step.gid);
            blob.store(&step.session, &step.store).constraints(limits).state()
        }
        "source" => State::source(&step.id, step.attrs.iter().cloned().collect(), limits),
        other => panic!("unknown step {other}"),
    }
}

fn image(step: &Step) -> Image {
    let image = Image::new(&step.reference);
    let image = match step.mode.as_str() {
        "pull" => image.resolve_mode(ResolveMode::ForcePull),
        "local" => image.resolve_mode(ResolveMode::PreferLocal),
        _ => image,
    };
    let image = when(step.record == "internal", image, Image::internal);
    let image = when(step.layers != 0, image, |image| image.layer_limit(step.layers));
    image.checksum(&step.checksum)
}

fn git(step: &Step) -> Git {
    let git = Git::new(&step.url).fragment(&step.fragment);
    let git = when(!step.reference.is_empty(), git, |git| git.reference(&step.reference));
    let git = when(!step.subdir.is_empty(), git, |git| git.subdir(&step.subdir));
    let git = when(has(step, "keep_git_dir"), git, Git::keep_git_dir);
    let git = when(has(step, "skip_submodules"), git, Git::skip_submodules);
    let git = when(has(step, "fetch_by_commit"), git, Git::fetch_by_commit);
    let git = when(has(step, "checkout_bundle"), git, Git::checkout_bundle);
    let git = step.token.iter().fold(git, |git, secret| git.auth_token_secret(secret));
    let git = step.header.iter().fold(git, |git, secret| git.auth_header_secret(secret));
    let git = step.hosts.iter().fold(git, |git, line| git.known_ssh_hosts(line));
    let git = git.ssh_socket(&step.socket).checksum(&step.checksum).mtime(&step.mtime);
    when(!step.bundle.is_empty(), git, |git| {
        git.bundle(&step.bundle).bundle_store(&step.session, &step.store)
    })
}

fn http(step: &Step) -> Http {
    let http = Http::new(&step.url).checksum(&step.checksum).filename(&step.filename);
    let http = http.chmod(step.chmod).chown(step.uid, step.gid);
    let http = step.header.iter().fold(http, |http, secret| http.auth_header_secret(secret));
    let http = match &step.headers[..] {
        [accept, agent] => http.headers(accept, agent),
        _ => http,
    };
    match &step.signed[..] {
        [key, signature] => http.verify_signature(key, signature),
        _ => http,
    }
}

fn local(step: &Step) -> Local {
    let local = Local::new(&step.id).session_id(&step.session).shared_key_hint(&step.hint);
    let local =
        local.include_patterns(&step.include).exclude_patterns(&step.exclude).follow_paths(&step.follow);
    let required = has(step, "required");
    let local = match step.differ.as_str() {
        "none" => local.differ(DifferKind::None, required),
        "metadata" => local.differ(DifferKind::Metadata, required),
        _ => local,
    };
    when(has(step, "metadata_only"), local, |local| local.metadata_only(&step.except))
}
