//! The listening socket: takes connections, admits or drops them, and drains them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::HashAlg;
use russh::server;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Full};
use super::{Config, Error, GitHost, PrivateKey, connection, transport};
use crate::audit::{self, Event, Trail, Who};

/// Dropped connections are said so often.
const QUIET: Duration = Duration::from_secs(1);

/// What all connections share.
pub(super) struct House {
    pub(super) config: Config,
    pub(super) russh: Arc<server::Config>,
    pub(super) host: Arc<dyn GitHost>,
    pub(super) trail: Trail,
    /// Connections and sessions; also those whose client is gone.
    pub(super) tasks: TaskTracker,
    /// No new work.
    pub(super) shutdown: CancellationToken,
    /// No work at all.
    pub(super) cut_off: CancellationToken,
}

/// A bound socket that takes no connections yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds the address; port 0 chooses one.
pub async fn listen(address: SocketAddr) -> Result<Listener, Error> {
    let at = |source| Error::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(at)?;
    let address = socket.local_addr().map_err(at)?;
    Ok(Listener { socket, address })
}

impl Listener {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then takes nothing new and returns when every request has been served, also those whose
    /// client is gone, or when [`Config::drain`] is over.
    pub async fn run(
        self,
        config: Config,
        host_keys: Vec<PrivateKey>,
        host: Arc<dyn GitHost>,
        trail: Trail,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        for key in &host_keys {
            tracing::info!(key = %key.public_key().fingerprint(HashAlg::Sha256), algorithm = %key.algorithm(), "SSH host key");
        }
        let admission = Admission::new(&config);
        let russh = Arc::new(transport::russh_config(&config, host_keys));
        let house = Arc::new(House {
            config,
            russh,
            host,
            trail,
            tasks: TaskTracker::new(),
            shutdown,
            cut_off: CancellationToken::new(),
        });
        self.accept(&house, &admission).await;
        drop(self.socket);
        house.tasks.close();
        if timeout(house.config.drain, house.tasks.wait()).await.is_err() {
            tracing::warn!(
                "{} SSH connections and sessions did not end in time: they are cut off",
                house.tasks.len()
            );
            house.cut_off.cancel();
            // Everything left listens to `cut_off`; the limit is for what cannot.
            let _ = timeout(Duration::from_secs(10), house.tasks.wait()).await;
        }
        Ok(())
    }

    async fn accept(&self, house: &Arc<House>, admission: &Arc<Admission>) {
        let mut dropped = Dropped::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = dropped.due() => {
                    dropped.say(&house.trail);
                    continue;
                }
                () = house.shutdown.cancelled() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    pause_after(&e).await;
                    continue;
                }
            };
            match admission.admit(peer.ip()) {
                Ok(place) => {
                    house.tasks.spawn(connection::serve(Arc::clone(house), socket, peer, place));
                }
                Err(full) => dropped.one(&socket, peer, full, &house.trail),
            }
        }
    }
}

/// Out of file descriptors or memory: accepting again at once would only spin.
async fn pause_after(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::error!("accepting an SSH connection: {error}");
    sleep(Duration::from_millis(100)).await;
}

/// Counts dropped connections, so that a flood of them is not one of log lines.
#[derive(Default)]
struct Dropped {
    since_said: u64,
    last: Option<(SocketAddr, Full)>,
    said: Option<Instant>,
}

impl Dropped {
    fn one(&mut self, socket: &TcpStream, peer: SocketAddr, full: Full, trail: &Trail) {
        // Best effort: a client shows it with -v.
        let _ = socket.try_write(format!("lemnos: {full}, try again in a moment\r\n").as_bytes());
        self.since_said += 1;
        self.last = Some((peer, full));
        if self.said.is_none_or(|said| said.elapsed() >= QUIET) {
            self.say(trail);
        }
    }

    /// When the rest of a flood is to be said; never, when all is.
    async fn due(&self) {
        match self.said.filter(|_| self.last.is_some()) {
            Some(said) => sleep_until(said + QUIET).await,
            None => std::future::pending().await,
        }
    }

    fn say(&mut self, trail: &Trail) {
        let Some((peer, full)) = self.last.take() else { return };
        let event = Event::ConnectionDropped { reason: full.to_string() };
        trail.note(audit::entry(Who::Anonymous, event).peer(peer).times(self.since_said));
        self.said = Some(Instant::now());
        self.since_said = 0;
    }
}
