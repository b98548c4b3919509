//! Exporters that are chosen once the result is there: the daemon shows what was built, and is told what to do with it.
//!
//! Invariants: whoever chooses is asked once, within a bounded time, and its error fails the build; an exporter chosen
//! here writes to the session's export of the next free number, counted on from the request's own.
//! Source: moby/buildkit v0.32.2, session/exporter and solver/llbsolver/export.go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lemnos_proto::exporter as wire;
use lemnos_proto::exporter::exporter_server::Exporter as Service;
use tonic::{Request, Response, Status};

use crate::buildkit::solve::Exporter;

/// Longest wait for a choice, and for what is done at the end.
const CHOICE_TIMEOUT: Duration = Duration::from_secs(300);

/// What was built, before it is exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// What the frontend says of it: `containerimage.config`, `refs.platforms`, …
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The results, one for each platform, as the gateway of the same build knows them.
    pub references: Vec<String>,
}

/// Who decides what becomes of a result.
#[async_trait]
pub trait ExportChooser: Send + Sync {
    /// What to export besides what the request says; the error fails the build.
    async fn choose(&self, built: Built) -> Result<Vec<Exporter>, String>;

    /// Takes what all exporters answered; the error fails the build, though what is exported is exported.
    async fn finish(&self, _attrs: BTreeMap<String, String>) -> Result<(), String> {
        Ok(())
    }
}

/// The session's `Exporter` service.
pub(super) struct ExporterService {
    chooser: Arc<dyn ExportChooser>,
}

impl ExporterService {
    pub fn new(chooser: Arc<dyn ExportChooser>) -> Self {
        Self { chooser }
    }
}

async fn in_time<T>(what: &str, asked: impl Future<Output = Result<T, String>>) -> Result<T, Status> {
    match tokio::time::timeout(CHOICE_TIMEOUT, asked).await {
        // not `unavailable` or `unimplemented`: the daemon takes these for nothing to export
        Ok(answer) => answer.map_err(|why| Status::failed_precondition(format!("{what}: {why}"))),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "{what}: nothing was decided within {} s",
            CHOICE_TIMEOUT.as_secs()
        ))),
    }
}

#[async_trait]
impl Service for ExporterService {
    async fn find_exporters(
        &self,
        request: Request<wire::FindExportersRequest>,
    ) -> Result<Response<wire::FindExportersResponse>, Status> {
        let asked = request.into_inner();
        let built = Built { metadata: asked.metadata, references: asked.refs };
        let chosen = in_time("choosing what to export", self.chooser.choose(built)).await?;
        let chosen = chosen.into_iter().map(|e| wire::ExporterRequest { r#type: e.kind, attrs: e.attrs });
        Ok(Response::new(wire::FindExportersResponse { exporters: chosen.collect() }))
    }

    async fn finalize_export(
        &self,
        request: Request<wire::FinalizeExportRequest>,
    ) -> Result<Response<wire::FinalizeExportResponse>, Status> {
        let attrs = request.into_inner().exporter_response;
        in_time("after the export", self.chooser.finish(attrs)).await?;
        Ok(Response::new(wire::FinalizeExportResponse {}))
    }
}
