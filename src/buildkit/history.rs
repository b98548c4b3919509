//! A daemon's history: what it built and builds, kept, thrown away, looked at again, and exported.

mod archive;
mod content;
mod export;
mod record;
mod trace;

use lemnos_proto::control as wire;
use tonic::Status;

pub use export::ExportError;
pub use record::{BuildResult, Descriptor, ExporterRecord, Failure, Record, State};

use super::progress::events;
use super::{Client, Error, SolveEvent};

/// Most records taken at once.
const RECORD_LIMIT: usize = 100_000;

/// Which records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only the build of that reference.
    pub reference: Option<String>,
    /// Only builds that have not ended.
    pub active_only: bool,
    /// Only builds that match, as the daemon understands it: `status==error`, `repository~=shop`, `startedAt>=24h`.
    /// Filters separated by commas must all match; of the entries of this list one suffices.
    pub filters: Vec<String>,
    /// At most so many of the ended builds, the newest; 0 for all.
    pub limit: u32,
}

/// Something that happened to a record.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryEvent {
    Started(Record),
    Complete(Record),
    /// Only the reference is sure to be told.
    Deleted(Record),
}

impl Client {
    /// The records as they are now, newest first.
    pub async fn history(&self, query: &HistoryQuery) -> Result<Vec<Record>, Error> {
        let mut records: Vec<Record> = Vec::new();
        self.listen(query, true, |event| match event {
            HistoryEvent::Started(record) | HistoryEvent::Complete(record) => {
                // a build that ends while it is told of stands in both lists
                records.retain(|known| known.reference != record.reference);
                if records.len() < RECORD_LIMIT {
                    records.push(record);
                }
            }
            HistoryEvent::Deleted(_) => {}
        })
        .await?;
        records.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.reference.cmp(&b.reference)));
        Ok(records)
    }

    /// The record of one build.
    pub async fn history_record(&self, reference: &str) -> Result<Record, Error> {
        let query = HistoryQuery { reference: Some(reference.to_owned()), ..HistoryQuery::default() };
        let record = self.history(&query).await?.into_iter().next();
        record.ok_or_else(|| self.error(&Status::not_found(format!("no build {reference} in its history"))))
    }

    /// Tells of the records as they are now, and then of each change, until the future is dropped or the daemon goes.
    pub async fn follow_history(
        &self,
        query: &HistoryQuery,
        on_event: impl FnMut(HistoryEvent) + Send,
    ) -> Result<(), Error> {
        self.listen(query, false, on_event).await
    }

    async fn listen(
        &self,
        query: &HistoryQuery,
        early_exit: bool,
        mut on_event: impl FnMut(HistoryEvent) + Send,
    ) -> Result<(), Error> {
        let request = wire::BuildHistoryRequest {
            active_only: query.active_only,
            r#ref: query.reference.clone().unwrap_or_default(),
            early_exit,
            filter: query.filters.clone(),
            limit: i32::try_from(query.limit).unwrap_or(i32::MAX),
        };
        let mut control = self.control();
        self.while_alive(async {
            let mut told = control.listen_build_history(request).await?.into_inner();
            while let Some(event) = told.message().await? {
                let kind = event.r#type();
                let Some(record) = event.record.map(Record::from) else { continue };
                on_event(match kind {
                    wire::BuildHistoryEventType::Started => HistoryEvent::Started(record),
                    wire::BuildHistoryEventType::Complete => HistoryEvent::Complete(record),
                    wire::BuildHistoryEventType::Deleted => HistoryEvent::Deleted(record),
                });
            }
            Ok(())
        })
        .await
    }

    /// Keeps a build's record from being thrown away with age, or no longer.
    pub async fn pin_history(&self, reference: &str, pinned: bool) -> Result<(), Error> {
        let reference = reference.to_owned();
        self.update_history(wire::UpdateBuildHistoryRequest {
            r#ref: reference,
            pinned,
            ..Default::default()
        })
        .await
    }

    /// Throws a build's record away, with its logs. The daemon forgets it once nobody reads it any more.
    pub async fn delete_history(&self, reference: &str) -> Result<(), Error> {
        let reference = reference.to_owned();
        let request =
            wire::UpdateBuildHistoryRequest { r#ref: reference, delete: true, ..Default::default() };
        self.update_history(request).await
    }

    /// Has the daemon write what it keeps back for a while after a build's end: its trace.
    pub async fn finalize_history(&self, reference: &str) -> Result<(), Error> {
        let reference = reference.to_owned();
        let request =
            wire::UpdateBuildHistoryRequest { r#ref: reference, finalize: true, ..Default::default() };
        self.update_history(request).await
    }

    async fn update_history(&self, request: wire::UpdateBuildHistoryRequest) -> Result<(), Error> {
        if request.r#ref.is_empty() {
            // the daemon would not say so of every update
            return Err(self.error(&Status::invalid_argument("a build's reference is empty")));
        }
        let mut control = self.control();
        self.answer(async { control.update_build_history(request).await }).await.map(drop)
    }

    /// Tells a build's progress from its begin to its end: of a past build at once, of a running one as it goes on.
    /// Each call of `on_events` is one message of the daemon's, steps first.
    pub async fn build_logs(
        &self,
        reference: &str,
        mut on_events: impl FnMut(Vec<SolveEvent>) + Send,
    ) -> Result<(), Error> {
        let mut control = self.control();
        let request = wire::StatusRequest { r#ref: reference.to_owned() };
        self.while_alive(async {
            let mut told = control.status(request).await?.into_inner();
            while let Some(message) = told.message().await? {
                on_events(events(message).collect());
            }
            Ok(())
        })
        .await
    }
}
