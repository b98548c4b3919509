//! Finding out that a peer is gone, although nothing says so: a black-holed network, a stopped daemon.
//!
//! A daemon checks the session's health every few seconds, so a connection in use is never silent for long. When it is,
//! the daemon is asked for its version, a plain call that no keepalive policy can hold against us. No answer, and no
//! byte of anything else either: the peer is gone. Worst case `QUIET + PROBE`, 13 seconds.

use std::time::Duration;

use lemnos_proto::control::InfoRequest;
use lemnos_proto::control::control_client::ControlClient;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::wire::Wire;

/// Silence after which the daemon is asked. A bit longer than its own health checks are apart.
const QUIET: Duration = Duration::from_secs(6);
/// How long it may take to answer.
const PROBE: Duration = Duration::from_secs(7);

/// Ends when the peer is gone; until then, never. The value says how long nothing was heard.
pub(super) async fn until_lost(control: &ControlClient<Channel>, wire: &Wire) -> Duration {
    loop {
        let last = wire.last_heard();
        tokio::time::sleep_until(last + QUIET).await;
        if wire.last_heard() > last {
            continue;
        }
        let deadline = Instant::now() + PROBE;
        let mut asking = control.clone();
        // any answer will do, a refusal too: it is the bytes that count
        let _ = tokio::time::timeout_at(deadline, asking.info(InfoRequest {})).await;
        if wire.last_heard() == last {
            // a call that fails at once means a broken connection; the other calls over it are about to say why
            tokio::time::sleep_until(deadline).await;
        }
        if wire.last_heard() == last {
            return last.elapsed();
        }
    }
}
