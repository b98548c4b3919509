//! The progress of one solve, followed while the solve runs and for a bounded time after its verdict.
//!
//! Invariant: nothing here decides how a build ended; it tells what the daemon tells, and remembers names for errors.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::future::Future;
use lemnos_proto::control as wire;
use lemnos_proto::control::control_client::ControlClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::buildkit::error::{FailedVertex, SolveError};
use crate::buildkit::progress::{self, SolveEvent};

/// How long progress may be silent after the verdict, and how long it may go on.
const TAIL_IDLE: Duration = Duration::from_secs(5);
const TAIL_TOTAL: Duration = Duration::from_secs(30);
/// Most names of steps kept to name the one that fails.
const NAME_LIMIT: usize = 20_000;
/// How often progress is asked for again; the daemon waits about 6 s for a build to begin before it says no.
const REOPEN_LIMIT: u32 = 10;

/// The daemon's progress stream, and what must be remembered of it.
pub(super) struct Progress<F> {
    control: ControlClient<Channel>,
    reference: String,
    on_message: F,
    stream: Stream,
    names: BTreeMap<String, String>,
    failed: Option<FailedVertex>,
    reopened: u32,
}

enum Stream {
    /// Being asked for; boxed because it is kept between steps.
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<wire::StatusResponse>, Status>> + Send>>),
    Open(Box<Streaming<wire::StatusResponse>>),
    Ended,
}

pub(super) enum Step {
    Told,
    Ended,
    Broken(Status),
}

impl<F: FnMut(Vec<SolveEvent>) + Send> Progress<F> {
    pub(super) fn new(control: ControlClient<Channel>, reference: String, on_message: F) -> Self {
        let stream = Self::open(&control, &reference);
        Self { control, reference, on_message, stream, names: BTreeMap::new(), failed: None, reopened: 0 }
    }

    fn open(control: &ControlClient<Channel>, reference: &str) -> Stream {
        let mut asking = control.clone();
        let request = wire::StatusRequest { r#ref: reference.to_owned() };
        Stream::Opening(Box::pin(async move { asking.status(request).await.map(Response::into_inner) }))
    }

    /// Takes one step: the stream opens, tells something, ends or breaks. After the end it waits for ever. Nothing is
    /// lost when a step is dropped before it is done.
    pub(super) async fn step(&mut self) -> Step {
        let outcome = match &mut self.stream {
            Stream::Opening(opening) => match opening.await {
                Ok(stream) => {
                    self.stream = Stream::Open(Box::new(stream));
                    return Step::Told;
                }
                Err(status) => Err(status),
            },
            Stream::Open(stream) => stream.message().await,
            Stream::Ended => std::future::pending().await,
        };
        match outcome {
            Ok(Some(message)) => {
                self.tell(message);
                Step::Told
            }
            Ok(None) => {
                self.stream = Stream::Ended;
                Step::Ended
            }
            // a busy daemon may take longer to begin a build than it lets us wait for its progress
            Err(status) if status.code() == Code::NotFound && self.names.is_empty() => {
                self.reopened += 1;
                if self.reopened > REOPEN_LIMIT {
                    self.stream = Stream::Ended;
                    return Step::Ended;
                }
                self.stream = Self::open(&self.control, &self.reference);
                Step::Told
            }
            Err(status) => {
                self.stream = Stream::Ended;
                Step::Broken(status)
            }
        }
    }

    fn tell(&mut self, message: wire::StatusResponse) {
        let events: Vec<SolveEvent> = progress::events(message).collect();
        for event in &events {
            if let SolveEvent::Vertex(vertex) = event {
                if self.names.len() < NAME_LIMIT || self.names.contains_key(&vertex.digest) {
                    self.names.insert(vertex.digest.clone(), vertex.name.clone());
                }
                let failed = vertex.error.as_ref().is_some_and(|error| !error.contains("context canceled"));
                if failed && self.failed.is_none() {
                    let (digest, name) = (vertex.digest.clone(), vertex.name.clone());
                    self.failed = Some(FailedVertex { digest, name });
                }
            }
        }
        if !events.is_empty() {
            (self.on_message)(events);
        }
    }

    /// Tells what is left after the verdict.
    pub(super) async fn finish(&mut self) {
        let end = Instant::now() + TAIL_TOTAL;
        while !matches!(self.stream, Stream::Ended) && Instant::now() < end {
            match tokio::time::timeout(TAIL_IDLE, self.step()).await {
                Ok(Step::Told) => {}
                Ok(Step::Ended | Step::Broken(_)) | Err(_) => return,
            }
        }
    }

    /// `error` with the failing step's name, as far as it can be known.
    pub(super) fn name(&self, mut error: SolveError) -> SolveError {
        match &mut error.vertex {
            Some(vertex) => {
                if let Some(name) = self.names.get(&vertex.digest) {
                    vertex.name.clone_from(name);
                }
            }
            None => error.vertex.clone_from(&self.failed),
        }
        error
    }
}
