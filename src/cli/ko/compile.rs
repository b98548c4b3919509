//! Programs compiled by a BuildKit daemon from the files here, into a directory.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::lent::Lent;
use super::project::Project;
use crate::buildkit::session::filesend::{DirExport, Export};
use crate::buildkit::session::filesync::LocalDir;
use crate::buildkit::solve::Dockerfile;
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

/// What programs are compiled by, and with.
pub struct Compiler<'a> {
    pub client: &'a Client,
    pub screen: &'a Screen,
    pub project: &'a Project,
    pub auth: Arc<dyn AuthProvider>,
    pub lent: &'a Lent,
    /// The builder's own.
    pub platform: Platform,
    /// How many programs may be compiled at once.
    pub turns: Semaphore,
}

impl Compiler<'_> {
    /// Compiles the program for all its targets: `out` gets a directory for each.
    pub async fn compile(&self, program: &KoImage, out: &Path) -> Result<(), Report> {
        let _turn = self.turns.acquire().await.map_err(|error| Report::internal(error.to_string()))?;
        let builder = ko::platform(&self.platform);
        let graph = ko::compile(&program.compile, &program.program, &builder, false);
        let graph = graph.map_err(|error| Report::internal(format!("the build's graph: {error}")))?;
        let source = LocalDir::open(&self.project.source).map_err(|error| Report::user(error.to_string()))?;
        let session = Session::builder(&cache_namespace(&self.project.source))
            .dir(ko::SOURCE, Arc::new(source))
            .auth(self.auth.clone())
            .export(0, Export::Dir(DirExport { path: out.to_owned(), delete: false, limit_bytes: None }));
        let mut request = SolveRequest {
            definition: Some(graph.to_pb()),
            exporters: vec![Exporter::local()],
            ..SolveRequest::default()
        };
        self.lent.flags().join(session, &mut Dockerfile::default(), &mut request)?;
        match self.client.solve(request, |event| self.screen.show(event)).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let path = &program.compile.import_path;
                let report = Report::new(Kind::Build, format!("{path} was not compiled: {}", error.message));
                Err(self.lent.hint(report))
            }
        }
    }
}

/// The builder's own platform, on which the compiler runs whatever it compiles for.
pub async fn platform(client: &Client) -> Result<Platform, Report> {
    let workers = client.workers().await?;
    let native =
        workers.iter().flat_map(|worker| &worker.platforms).find_map(|name| name.parse::<Platform>().ok());
    native.ok_or_else(|| Report::new(Kind::Unavailable, "the builder names no platform of its own"))
}
