//! One connection's life: a deadline until it has logged in, then as long as it has sessions, and cut when it must be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::Disconnect;
use russh::server::{self, RunningSession};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::admission::Place;
use super::door::Door;
use super::listener::House;
use super::read_ahead::ReadAhead;
use super::streams::{Prompt, Severable};
use crate::audit::{self, Event, Who};

/// For a client to go by itself, and once more when it was told to.
const PARTING: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub(super) async fn serve(house: Arc<House>, socket: TcpStream, peer: SocketAddr, mut place: Place) {
    if let Err(e) = socket.set_nodelay(true) {
        tracing::debug!(%peer, "TCP_NODELAY: {e}");
    }
    let deadline = Instant::now() + house.config.login_grace;
    let cut = CancellationToken::new();
    let (logged_in_sender, logged_in) = oneshot::channel();
    let (sessions_sender, sessions) = watch::channel(0);
    let on_record = Arc::new(AtomicBool::new(false));
    let door = Door::new(
        Arc::clone(&house),
        peer,
        cut.clone(),
        logged_in_sender,
        Arc::clone(&on_record),
        sessions_sender,
    );
    let stream = Severable::new(ReadAhead::new(Prompt(socket)), cut.clone());
    let starting = server::run_stream(Arc::clone(&house.russh), stream, door);
    let mut session = tokio::select! {
        started = timeout_at(deadline, starting) => match started {
            Ok(Ok(session)) => session,
            Ok(Err(e)) => return ended(&house, peer, "greeting", Err(e)),
            Err(_) => return too_slow(&house, peer),
        },
        () = house.shutdown.cancelled() => return,
    };
    tokio::select! {
        // In this order: who has logged in is neither too late nor in the way of a shutdown.
        biased;
        end = &mut session => {
            // russh has turned away what it offered, without a word to the door: an expired certificate, or a wrong signature
            if end.is_ok() && !on_record.load(Ordering::Relaxed) {
                no_login(&house, peer);
            }
            return ended(&house, peer, "login", end);
        }
        Ok(()) = logged_in => place.logged_in(),
        () = sleep_until(deadline) => {
            too_slow(&house, peer);
            cut.cancel();
            return settle(session).await;
        }
        () = house.shutdown.cancelled() => {
            cut.cancel();
            return settle(session).await;
        }
    }
    tokio::select! {
        end = &mut session => return ended(&house, peer, "session", end),
        () = house.cut_off.cancelled() => {}
        why = no_longer_needed(&house, sessions) => {
            // A client throws away output that it has not shown yet when it is told to go: most go by themselves.
            if timeout(PARTING, &mut session).await.is_ok() {
                return;
            }
            let handle = session.handle();
            let told = handle.disconnect(Disconnect::ByApplication, why.to_owned(), String::new());
            if timeout(PARTING, told).await.is_ok() && timeout(PARTING, &mut session).await.is_ok() {
                return;
            }
        }
    }
    cut.cancel();
    settle(session).await;
}

/// Waits until the connection has no session and none is to be expected: it was idle for long, or the server stops.
async fn no_longer_needed(house: &House, mut sessions: watch::Receiver<usize>) -> &'static str {
    loop {
        // The door holds the sender for as long as the connection lives.
        if sessions.wait_for(|open| *open == 0).await.is_err() {
            return "";
        }
        tokio::select! {
            () = house.shutdown.cancelled() => return "the server is stopping",
            () = sleep(house.config.idle) => return "idle",
            _ = sessions.wait_for(|open| *open > 0) => {}
        }
    }
}

/// A cut connection ends with its next read or write; one that is still busy with a session's input ends with that.
async fn settle(session: RunningSession<Door>) {
    let _ = timeout(PARTING, session).await;
}

fn too_slow(house: &House, peer: SocketAddr) {
    cut(house, peer, "login-grace".to_owned());
}

fn no_login(house: &House, peer: SocketAddr) {
    cut(house, peer, "no-login".to_owned());
}

fn cut(house: &House, peer: SocketAddr, reason: String) {
    house.trail.note(audit::entry(Who::Anonymous, Event::ConnectionCut { reason }).peer(peer));
}

fn ended(house: &House, peer: SocketAddr, phase: &'static str, end: Result<(), super::Error>) {
    let Err(error) = end else {
        tracing::debug!(%peer, phase, "connection ended");
        return;
    };
    tracing::debug!(%peer, phase, "connection ended: {error}");
    match error {
        super::Error::TooManyAttempts => cut(house, peer, "too-many-attempts".to_owned()),
        super::Error::Protocol(error) if phase != "session" && !went_away(&error) => {
            cut(house, peer, format!("protocol: {error}"));
        }
        _ => {}
    }
}

/// The client closed the connection, with or without a word: nothing was refused.
fn went_away(error: &russh::Error) -> bool {
    matches!(error, russh::Error::HUP | russh::Error::Disconnect | russh::Error::IO(_))
}
