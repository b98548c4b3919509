//! The HTTP door: health and metrics now; the API, webhooks and the dashboard join this router.
//!
//! Must not touch `buildkit` or `registry`: it asks `jobs` and `store`.

mod bounded;
mod readiness;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::store::Store;
use bounded::Bounded;

pub use readiness::{Answer, Check, Readiness, Reason};

/// Connections at once.
const CONNECTIONS: usize = 256;
/// A connection on which nothing moves for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);

/// What the door asks.
#[derive(Clone)]
pub struct House {
    pub store: Store,
    pub readiness: Arc<Readiness>,
    /// Brings the metrics that say how things stand up to date.
    pub levels: Arc<dyn Fn() + Send + Sync>,
}

/// Everything that `--http` serves.
pub fn router(house: House) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(house)
}

/// 200 `ok` while the process serves and its store answers; 503 with the cause otherwise.
async fn healthz(State(house): State<House>) -> (StatusCode, String) {
    match house.store.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("store: {e}\n")),
    }
}

/// 200 while a push would be served; 503 otherwise, with every reason.
async fn readyz(State(house): State<House>) -> (StatusCode, Json<Answer>) {
    let answer = house.readiness.answer().await;
    let status = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer))
}

/// For Prometheus.
async fn scrape(State(house): State<House>) -> Result<([(HeaderName, &'static str); 1], String), StatusCode> {
    (house.levels)();
    match metrics::text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Serves until `stop`; requests under way are finished.
pub async fn serve(listener: TcpListener, house: House, stop: CancellationToken) -> std::io::Result<()> {
    let listener = Bounded::new(listener, CONNECTIONS, SILENCE);
    axum::serve(listener, router(house)).with_graceful_shutdown(stop.cancelled_owned()).await
}
