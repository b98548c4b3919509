//! One solve's request, and what its failure means: the words between lemnos' values and BuildKit's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::dockerfile::INPUT;
use super::super::failure::{FailedSolve, missing_secret, refused_source, shown_source};
use super::super::progress::Translator;
use super::{ContextDirs, FileGraph, FileSolve, ImageSolve};
use crate::buildkit::session::filesend::Export;
use crate::buildkit::session::filesync::{Concern, Missing, TransferStats};
use crate::buildkit::{CacheEntry, Exporter, Session, SolveError, SolveErrorKind, SolveRequest, SourceRule};
use crate::event::Failure;
use crate::kinds::dockerfile_attrs;
use crate::model::{CacheTags, ImageName, LayerCache, Platform, SolveSpec, SourceRules, Tag};

/// One frontend solve whose image is pushed by digest. Exporter attributes are this list and no other.
pub(super) fn request(
    &ImageSolve { spec, image, insecure, dockerfile }: &ImageSolve<'_>,
    platforms: &[Platform],
    context: &ContextDirs,
    transfers: &Arc<TransferStats>,
) -> SolveRequest {
    let mut attrs = BTreeMap::from([
        ("name".to_owned(), image.to_string()),
        ("push".to_owned(), "true".to_owned()),
        ("push-by-digest".to_owned(), "true".to_owned()),
        ("oci-mediatypes".to_owned(), "true".to_owned()),
        ("compression".to_owned(), spec.compression.as_str().to_owned()),
    ]);
    if insecure {
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    SolveRequest {
        frontend: spec.frontend.clone(),
        frontend_attrs: dockerfile_attrs(spec, platforms),
        frontend_inputs: dockerfile.map(|graph| (INPUT.to_owned(), graph.to_pb())).into_iter().collect(),
        cache_imports: cache_imports(spec, image, insecure),
        cache_exports: cache_export(spec, platforms, image, insecure).into_iter().collect(),
        exporters: vec![Exporter { kind: "image".to_owned(), attrs }],
        // no record in the daemon's own history: it costs about 30 ms a build, and lemnos keeps one
        internal: true,
        source_rules: source_rules(&context.rules),
        session: session(context, transfers),
        ..SolveRequest::default()
    }
}

/// One graph whose files are taken.
pub(super) fn files_request(
    files: &FileSolve<'_>,
    platforms: &[Platform],
    context: &ContextDirs,
    transfers: &Arc<TransferStats>,
) -> Result<SolveRequest, Failure> {
    let failed = |cause: String| {
        Failure::new(format!("server error: {cause}"), cause).with_remedy("tell the operator")
    };
    let platform = sole(platforms).ok_or_else(|| failed("a graph is for one builder".to_owned()))?;
    let definition = match files.graph {
        FileGraph::Known(graph) => {
            let graph = graph(&platform).map_err(|error| failed(format!("the build's graph: {error}")))?;
            Some(graph.to_pb())
        }
        FileGraph::Steered(_) => None,
    };
    let mut session = session(context, transfers);
    session.exports.insert(0, Export::bounded_dir(files.out, files.limit_bytes));
    Ok(SolveRequest {
        definition,
        frontend_attrs: files.statements.build_attrs(),
        exporters: vec![Exporter { kind: "local".to_owned(), attrs: files.statements.export_attrs() }],
        internal: true,
        source_rules: source_rules(&context.rules),
        session,
        ..SolveRequest::default()
    })
}

fn session(context: &ContextDirs, transfers: &Arc<TransferStats>) -> Session {
    Session {
        shared_key: context.shared_key.clone(),
        dirs: context.dirs.clone(),
        transfers: transfers.clone(),
        auth: context.auth.clone(),
        secrets: Some(context.secrets.store()),
        agents: context.secrets.agents(),
        ..Session::default()
    }
}

fn registry_cache(image: &ImageName, tag: &Tag, insecure: bool) -> CacheEntry {
    let mut attrs = BTreeMap::from([("ref".to_owned(), format!("{image}:{tag}"))]);
    if insecure {
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    CacheEntry { kind: "registry".to_owned(), attrs }
}

fn cache_imports(spec: &SolveSpec, image: &ImageName, insecure: bool) -> Vec<CacheEntry> {
    spec.cache_tags.imports.iter().map(|tag| registry_cache(image, tag, insecure)).collect()
}

/// Where this solve's layers go. Of a build on several builders each solve has a tag of its own, that of its first platform,
/// which no other solve of the build has.
fn cache_export(
    spec: &SolveSpec,
    platforms: &[Platform],
    image: &ImageName,
    insecure: bool,
) -> Option<CacheEntry> {
    if spec.cache == LayerCache::Inline {
        return Some(CacheEntry { kind: "inline".to_owned(), attrs: BTreeMap::new() });
    }
    let tag = spec.cache_tags.export.as_ref()?;
    let tag = match platforms {
        _ if platforms.len() == spec.platforms.len() => tag.clone(),
        [first, ..] => CacheTags::of_one(tag, first)?,
        [] => return None,
    };
    let mut entry = registry_cache(image, &tag, insecure);
    // every stage's layers, as an image that any registry takes; a cache that cannot be kept fails no push
    for (key, value) in
        [("mode", "max"), ("image-manifest", "true"), ("oci-mediatypes", "true"), ("ignore-error", "true")]
    {
        entry.attrs.insert(key.to_owned(), value.to_owned());
    }
    Some(entry)
}

/// The app's rules as the daemon takes them.
fn source_rules(rules: &SourceRules) -> Vec<SourceRule> {
    let rule = |rule: &crate::model::policy::Rule| SourceRule {
        pattern: rule.pattern.clone(),
        attribute: rule.attribute.map(str::to_owned),
        allow: rule.refused.is_none(),
    };
    rules.rules().iter().map(rule).collect()
}

/// The platform of a solve for one.
pub(super) fn sole(platforms: &[Platform]) -> Option<Platform> {
    match platforms {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// `transfer`: why sending the context failed, when it did; the daemon tells only that it did.
pub(super) fn explain(
    mut error: SolveError,
    translator: &mut Translator,
    file: &str,
    context: &ContextDirs,
    transfer: Option<String>,
    only: Option<Platform>,
) -> Failure {
    let ContextDirs { rules, secrets, .. } = context;
    // before anything is cut off: half of a secret would not be found
    error.message = secrets.masker().text(&error.message);
    let vertex = error.vertex.as_ref();
    let seen = vertex.and_then(|v| translator.failed(&v.digest));
    let (name, log_tail) = match seen {
        Some((name, tail)) => (Some(name), tail),
        None => (vertex.map(|v| v.name.clone()).filter(|n| !n.is_empty()), Vec::new()),
    };
    FailedSolve {
        vertex: name,
        exit_code: error.exit_code,
        only,
        file: file.to_owned(),
        lines: error.source.as_ref().and_then(|s| s.lines()),
        source_text: error.source.as_ref().map(|s| s.text.clone()).unwrap_or_default(),
        log_tail,
        refused: refused_source(&error.message).and_then(|name| {
            let refusal = rules.refuses(name)?.clone();
            Some((shown_source(name), refusal))
        }),
        missing: missing_secret(&error.message).map(|name| (name.to_owned(), secrets.remedy(name))),
        builds_fault: error.kind == SolveErrorKind::Build,
        message: match (error.exit_code, transfer) {
            (None, Some(cause)) => format!("sending the build context: {cause}"),
            _ => error.message,
        },
    }
    .into_failure()
}

/// The builder asked for files whose content git does not hold: whatever was built of them is wrong.
pub(super) fn lacking(concerns: &[Concern]) -> Option<Failure> {
    let paths = |missing: Missing| -> Vec<&str> {
        concerns.iter().filter(|c| c.missing == missing).map(|c| c.path.as_str()).take(10).collect()
    };
    let (submodules, pointers) = (paths(Missing::Submodule), paths(Missing::LfsPointer));
    let mut parts = Vec::new();
    if !submodules.is_empty() {
        parts.push(format!("submodules ({})", submodules.join(", ")));
    }
    if !pointers.is_empty() {
        parts.push(format!("Git LFS pointers ({})", pointers.join(", ")));
    }
    let what = parts.join(" and ");
    (!what.is_empty()).then(|| {
        Failure::new(
            format!("the build needs {what}, whose content was not pushed"),
            format!("the build asked for {what}: git holds a reference to their content, not the content"),
        )
        .with_remedy("commit the files themselves, or leave the paths out with .dockerignore")
    })
}
