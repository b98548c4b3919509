//! Programs compiled by a BuildKit daemon from the files here, into a directory.

use std::path::Path;
use std::sync::Arc;

use super::project::Project;
use crate::buildkit::session::filesend::{DirExport, Export};
use crate::buildkit::session::filesync::LocalDir;
use crate::buildkit::{AuthProvider, Client, Exporter, Session, SolveRequest};
use crate::cli::build::screen::Screen;
use crate::error::{Kind, Report};
use crate::model::{Digest, KoImage, Platform};
use crate::solve::ko;

/// Names caches of this machine's worktrees; each has its own.
pub fn cache_namespace(source: &Path) -> String {
    let digest = Digest::of(source.as_os_str().as_encoded_bytes());
    let hex = digest.as_str().trim_start_matches("sha256:");
    format!("ko-{}", hex.get(..16).unwrap_or(hex))
}

/// Compiles the program for all its targets: `out` gets a directory for each.
pub async fn compile(
    client: &Client,
    project: &Project,
    program: &KoImage,
    auth: Arc<dyn AuthProvider>,
    out: &Path,
    screen: &Screen,
) -> Result<(), Report> {
    let workers = client.workers().await?;
    let native =
        workers.iter().flat_map(|worker| &worker.platforms).find_map(|name| name.parse::<Platform>().ok());
    let native =
        native.ok_or_else(|| Report::new(Kind::Unavailable, "the builder names no platform of its own"))?;
    let variant = native.variant.clone().unwrap_or_default();
    let builder = crate::buildkit::llb::Platform {
        variant,
        ..crate::buildkit::llb::Platform::new(&native.os, &native.arch)
    };
    let graph = ko::compile(&program.compile, &program.program, &builder, false);
    let graph = graph.map_err(|error| Report::internal(format!("the build's graph: {error}")))?;
    let source = LocalDir::open(&project.source).map_err(|error| Report::user(error.to_string()))?;
    let mut session =
        Session { shared_key: cache_namespace(&project.source), auth: Some(auth), ..Session::default() };
    session.dirs.insert(ko::SOURCE.to_owned(), Arc::new(source));
    session
        .exports
        .insert(0, Export::Dir(DirExport { path: out.to_owned(), delete: false, limit_bytes: None }));
    let request = SolveRequest {
        definition: Some(graph.to_pb()),
        exporters: vec![Exporter::local()],
        session,
        ..SolveRequest::default()
    };
    match client.solve(request, |event| screen.show(event)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Report::new(
            Kind::Build,
            format!("{} was not compiled: {}", program.compile.import_path, error.message),
        )),
    }
}
