//! The HTTP door: health now; the API, webhooks and the dashboard join this router.
//!
//! Must not touch `buildkit` or `registry`: it asks `jobs` and `store`.

mod bounded;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use bounded::Bounded;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// A connection on which nothing moves for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);

/// Everything that `--http` serves.
pub fn router(store: Store) -> Router {
    Router::new().route("/healthz", get(healthz)).with_state(store)
}

/// 200 `ok` while the process serves and its store answers; 503 with the cause otherwise.
async fn healthz(State(store): State<Store>) -> (StatusCode, String) {
    match store.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("store: {e}\n")),
    }
}

/// Serves until `stop`; requests under way are finished.
pub async fn serve(listener: TcpListener, store: Store, stop: CancellationToken) -> std::io::Result<()> {
    let listener = Bounded::new(listener, CONNECTIONS, SILENCE);
    axum::serve(listener, router(store)).with_graceful_shutdown(stop.cancelled_owned()).await
}
