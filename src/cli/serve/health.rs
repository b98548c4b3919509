//! The HTTP door in the house: what it looks at to say whether pushes are served, and how long it stays open.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::house::Engines;
use crate::error::Report;
use crate::http;
use crate::jobs::queue::Queue;
use crate::metrics;
use crate::model::{BuilderState, BuilderStatus};
use crate::registry::Registry;
use crate::solve::Pool;
use crate::store::Store;

/// A probe whose connection stays open holds up the end no longer.
const PARTING: Duration = Duration::from_secs(5);

/// The open door. It outlives the SSH door, so that health is answered until the last push is done.
pub(super) struct Health {
    done: CancellationToken,
    door: JoinHandle<std::io::Result<()>>,
}

impl Health {
    /// Opens the door; when it fails, `closing` is cancelled.
    pub(super) fn open(
        listener: TcpListener,
        store: &Store,
        readiness: http::Readiness,
        levels: Arc<dyn Fn() + Send + Sync>,
        closing: CancellationToken,
    ) -> Self {
        let house = http::House { store: store.clone(), readiness: Arc::new(readiness), levels };
        let done = CancellationToken::new();
        let serving = http::serve(listener, house, done.clone());
        let door = tokio::spawn(async move {
            let ended = serving.await;
            closing.cancel();
            ended
        });
        Self { done, door }
    }

    pub(super) async fn close(self) -> Result<(), Report> {
        self.done.cancel();
        let failed = |e: String| Err(Report::internal(format!("the HTTP door: {e}")));
        match tokio::time::timeout(PARTING, self.door).await {
            Ok(Ok(Err(e))) => failed(e.to_string()),
            Ok(Err(e)) => failed(e.to_string()),
            Ok(Ok(Ok(()))) | Err(_) => Ok(()),
        }
    }
}

/// How things stand when the metrics are asked for.
pub(super) fn levels(queue: Queue, pool: Pool) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        let now = queue.snapshot();
        metrics::set_queue(now.waiting.len(), now.running.len());
        let builders = pool.list();
        metrics::set_builders(&builders.iter().map(|one| one.state.as_str()).collect::<Vec<_>>());
    })
}

/// What a push needs: a store that can be written, a builder, the registry.
pub(super) fn readiness(
    store: &Store,
    engines: &Engines,
    pool: &Pool,
    registry: &Registry,
    draining: &CancellationToken,
) -> http::Readiness {
    let (store, registry, host) = (store.clone(), registry.clone(), engines.prefix.host().to_owned());
    let pool = pool.clone();
    let writable: http::Check = Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { store.check_writable().await.map_err(|e| e.to_string()) })
    });
    let builders: http::Check = Arc::new(move || {
        let pool = pool.clone();
        Box::pin(async move {
            // the pool asks them every few seconds
            let builders = pool.list();
            if builders.iter().any(|builder| builder.state == BuilderState::Up) {
                return Ok(());
            }
            let problem = |builder: BuilderStatus| {
                let why = builder.cause.unwrap_or_else(|| builder.state.as_str().to_owned());
                format!("{}: {why}", builder.name)
            };
            let problems: Vec<_> = builders.into_iter().map(problem).collect();
            Err(format!("no builder is up: {}", problems.join("; ")))
        })
    });
    let reachable: http::Check = Arc::new(move || {
        let (registry, host) = (registry.clone(), host.clone());
        Box::pin(async move { registry.ping(&host).await.map_err(|e| e.to_string()) })
    });
    let checks = vec![("store", writable), ("builders", builders), ("registry", reachable)];
    http::Readiness::new(checks, draining.clone())
}
