//! What one connection may do: russh's callbacks, answered.
//!
//! Requests are answered inside the callback, in the order in which they came; whatever takes time goes to a task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodSet, Pty};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::attempts::{self, Attempts, Useless};
use super::certificate::{Certified, Unfit};
use super::command;
use super::listener::House;
use super::session::{Caller, Waiting};
use super::window::Window;
use super::{Error, Identity, certificate, transport};
use crate::audit::{self, Event, Who};
use crate::model::{Fingerprint, UserName};

/// Offers of known keys without a signature cost nothing but a lookup; no client needs this many.
const MAX_OFFERS: usize = 64;
/// Channels over a connection's whole life: each leaves a little memory behind in russh.
const MAX_CHANNELS: usize = 10_000;

/// The state of one connection.
pub(super) struct Door {
    house: Arc<House>,
    peer: SocketAddr,
    cut: CancellationToken,
    attempts: Attempts,
    offers: usize,
    /// A key that was let come to its signature, and with what algorithm, until a good signature is seen.
    unsigned: Option<(Option<Fingerprint>, Algorithm)>,
    /// Set by a verified signature of a registered key, and by nothing else.
    who: Option<Identity>,
    logged_in: Option<oneshot::Sender<()>>,
    /// Whether the audit record has a login or a refusal of this connection.
    on_record: Arc<AtomicBool>,
    sessions: watch::Sender<usize>,
    window: Window,
    waiting: HashMap<ChannelId, Waiting>,
    channels: usize,
}

impl Door {
    pub(super) fn new(
        house: Arc<House>,
        peer: SocketAddr,
        cut: CancellationToken,
        logged_in: oneshot::Sender<()>,
        on_record: Arc<AtomicBool>,
        sessions: watch::Sender<usize>,
    ) -> Self {
        Self {
            window: Window::new(house.config.window_bytes),
            house,
            peer,
            cut,
            attempts: Attempts::default(),
            offers: 0,
            unsigned: None,
            who: None,
            logged_in: Some(logged_in),
            on_record,
            sessions,
            waiting: HashMap::new(),
            channels: 0,
        }
    }

    /// Whose key this is, if it is a kind that is taken.
    async fn owner(
        &self,
        key: &PublicKey,
        algorithm: &Algorithm,
    ) -> Result<Identity, (Option<Fingerprint>, Useless)> {
        let fingerprint = attempts::fingerprint(key).ok_or((None, Useless::Kind))?;
        let useless = |why| (Some(fingerprint.clone()), why);
        attempts::acceptable(key, algorithm).map_err(useless)?;
        let failed = |e: String| {
            tracing::error!(peer = %self.peer, key = %fingerprint, "looking up a key: {e}");
            useless(Useless::LookupFailed)
        };
        let trust = self.house.config.trust.read().await.map_err(|e| failed(e.to_string()))?;
        if trust.revokes_key(&fingerprint) {
            return Err(useless(Useless::Revoked));
        }
        match self.house.host.user_of(&fingerprint).await.map_err(failed)? {
            Some(user) => Ok(Identity { user, key: fingerprint.clone(), certificate: None }),
            None => Err(useless(Useless::Unknown)),
        }
    }

    /// Whose certificate this is. russh has seen the signature of its key.
    async fn certified(
        &self,
        ssh_user: &str,
        certificate: &Certificate,
    ) -> Result<(Identity, Arc<Certified>), Useless> {
        let failed = |e: String| {
            tracing::error!(peer = %self.peer, "judging a certificate: {e}");
            Useless::LookupFailed
        };
        let certified = Certified::read(certificate).map_err(Useless::Certificate)?;
        let trust = self.house.config.trust.read().await.map_err(|e| failed(e.to_string()))?;
        certified.judge(&trust, certificate::now_s(), self.peer.ip()).map_err(Useless::Certificate)?;
        let mut users: Vec<UserName> = Vec::new();
        for name in &certified.principals {
            let Ok(name) = name.parse::<UserName>() else { continue };
            if !users.contains(&name) && self.house.host.has_user(&name).await.map_err(failed)? {
                users.push(name);
            }
        }
        // the name before the @ chooses among the principals; where it is none of them, like `git`, there must be one
        let chosen = users.iter().position(|user| user.as_str() == ssh_user);
        let user = match (chosen, users.len()) {
            (Some(index), _) => users.swap_remove(index),
            (None, 1) => users.swap_remove(0),
            (None, 0) => return Err(Useless::Certificate(Unfit::Nobody)),
            (None, _) => return Err(Useless::Certificate(Unfit::Ambiguous)),
        };
        let certified = Arc::new(certified);
        let who = Identity { user, key: certified.key.clone(), certificate: Some(certified.clone()) };
        Ok((who, certified))
    }

    /// Refuses a key. When no more are tried, only the round that tells why is left.
    fn refuse(
        &mut self,
        key: Option<Fingerprint>,
        algorithm: &Algorithm,
        why: Useless,
        detail: Option<String>,
    ) -> Auth {
        let event = Event::LoginRefused {
            ssh_user: self.attempts.ssh_user().to_owned(),
            algorithm: algorithm.to_string(),
            reason: why.reason().to_owned(),
        };
        let entry = audit::entry(Who::Anonymous, event).key(key.clone()).peer(self.peer);
        self.note(match detail {
            Some(detail) => entry.detail(detail),
            None => entry,
        });
        self.attempts.refuse(key, algorithm, why);
        let mut methods = transport::methods();
        if self.attempts.refusals() >= self.house.config.max_auth_tries {
            methods.remove(russh::MethodKind::PublicKey);
        }
        Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
    }

    /// A client says who it is, once more. russh does not tell of a signature that is wrong: whoever tries anything else, or
    /// goes, after the offer of a good key has shown none for it, and that is on record.
    fn begins(&mut self, ssh_user: &str) {
        self.note_unsigned();
        self.attempts.by(ssh_user);
    }

    fn note_unsigned(&mut self) {
        let Some((key, algorithm)) = self.unsigned.take() else { return };
        let event = Event::LoginRefused {
            ssh_user: self.attempts.ssh_user().to_owned(),
            algorithm: algorithm.to_string(),
            reason: "no-valid-signature".to_owned(),
        };
        self.note(audit::entry(Who::Anonymous, event).key(key).peer(self.peer));
    }

    /// What came of a login.
    fn note(&self, entry: audit::Entry) {
        self.on_record.store(true, Ordering::Relaxed);
        self.house.trail.note(entry);
    }

    /// A client is at its end, and no key of its was ever looked at. russh turns certificates away that are out of their
    /// time, or whose authority's signature is wrong, without a word to this side.
    fn note_nothing_seen(&self, certificates: bool) {
        let event = Event::LoginRefused {
            ssh_user: self.attempts.ssh_user().to_owned(),
            algorithm: "none".to_owned(),
            reason: "no-key".to_owned(),
        };
        let entry = audit::entry(Who::Anonymous, event).peer(self.peer);
        self.note(match certificates {
            true => entry.detail(
                "nothing was offered, or a certificate that has expired, is not valid yet, or is badly signed"
                    .to_owned(),
            ),
            false => entry,
        });
    }

    fn out_of_attempts(&mut self) -> bool {
        self.offers += 1;
        self.attempts.refusals() >= self.house.config.max_auth_tries || self.offers > MAX_OFFERS
    }

    fn caller(&self) -> Option<Caller> {
        let who = self.who.clone()?;
        Some(Caller { house: Arc::clone(&self.house), who, peer: self.peer, cut: self.cut.clone() })
    }

    /// Answers a channel's request; a channel can ask once.
    fn ask(&mut self, channel: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Error> {
        let (Some(waiting), Some(caller)) = (self.waiting.remove(&channel), self.caller()) else {
            return Ok(session.channel_failure(channel)?);
        };
        session.channel_success(channel)?;
        caller.answer(waiting, command::parse(line));
        Ok(())
    }

    fn denied(&self, what: &'static str) {
        let who = self.who.as_ref();
        let actor = who.map_or(Who::Anonymous, |who| Who::of(&who.user));
        let event = Event::ChannelRefused { what: what.to_owned() };
        let key = who.map(|who| who.key.clone());
        self.house.trail.note(audit::entry(actor, event).key(key).peer(self.peer));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.note_unsigned();
    }
}

impl Handler for Door {
    type Error = Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Error> {
        self.window.exchange(Instant::now());
        self.begins(user);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        self.window.exchange(Instant::now());
        self.begins(user);
        if self.out_of_attempts() {
            return Err(Error::TooManyAttempts);
        }
        let key = match self.owner(offer.public_key, offer.algorithm).await {
            Ok(who) => Some(who.key),
            // russh does not say whether a certificate came with it: whoever signs with it is asked again
            Err((key, Useless::Unknown)) if self.house.config.trust.authorities.is_some() => key,
            Err((key, why)) => return Ok(self.refuse(key, offer.algorithm, why, None)),
        };
        self.unsigned = Some((key, offer.algorithm.clone()));
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        self.unsigned = None;
        self.attempts.by(user);
        match self.owner(key.public_key, key.algorithm).await {
            Ok(who) => {
                let actor = Who::of(&who.user);
                let event = Event::LoggedIn { algorithm: key.algorithm.to_string() };
                self.note(audit::entry(actor, event).key(who.key.clone()).peer(self.peer));
                self.who = Some(who);
                Ok(Auth::Accept)
            }
            Err((fingerprint, why)) => Ok(self.refuse(fingerprint, key.algorithm, why, None)),
        }
    }

    /// russh has verified the signatures of the client and of the authority, but not whose authority that is, nor what the
    /// certificate says. The algorithm that the client signed with was looked at when the key was offered.
    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Error> {
        self.unsigned = None;
        self.attempts.by(user);
        let algorithm = certificate.algorithm();
        match self.certified(user, certificate).await {
            Ok((who, certified)) => {
                let event = Event::LoggedIn { algorithm: algorithm.to_certificate_type() };
                let entry = audit::entry(Who::of(&who.user), event).key(who.key.clone()).peer(self.peer);
                self.note(entry.detail(certified.about()));
                self.who = Some(who);
                Ok(Auth::Accept)
            }
            Err(why) => {
                let key = PublicKey::new(certificate.public_key().clone(), "");
                let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
                let (id, serial) = (certificate.key_id(), certificate.serial());
                let mut detail = format!("certificate {id:?}, serial {serial}, of {authority}");
                if let Useless::Certificate(unfit) = &why {
                    detail = format!("{unfit}: {detail}");
                }
                Ok(self.refuse(attempts::fingerprint(&key), &algorithm, why, Some(detail)))
            }
        }
    }

    /// The round that tells a client why its keys were refused. It asks nothing and never succeeds.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        self.begins(user);
        let max_tries = self.house.config.max_auth_tries;
        if response.is_none() && self.attempts.tell() {
            let certificates = self.house.config.trust.authorities.is_some();
            if self.attempts.none_seen() {
                self.note_nothing_seen(certificates);
            }
            let text = self.attempts.text(max_tries, certificates, &self.house.host.registration_hint());
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: text.into(),
                prompts: Vec::new().into(),
            });
        }
        let mut methods = MethodSet::empty();
        if self.attempts.refusals() < max_tries {
            methods.push(russh::MethodKind::PublicKey);
        }
        Ok(Auth::Reject { proceed_with_methods: Some(methods), partial_success: false })
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.window.exchange(Instant::now());
        if let Some(logged_in) = self.logged_in.take() {
            // Nobody listens when the connection is being cut; then there is nothing to tell.
            let _ = logged_in.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.window.exchange(Instant::now());
        self.channels += 1;
        let open = *self.sessions.borrow();
        if open >= self.house.config.max_sessions_per_connection || self.channels > MAX_CHANNELS {
            self.denied("too-many-sessions");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        let (read, write) = channel.split();
        self.waiting.insert(id, Waiting::new(read, write, self.sessions.clone()));
        reply.accept().await;
        Ok(())
    }

    /// Dropping `reply` refuses the channel.
    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.denied("forwarding");
        Ok(())
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, _: &mut Session) -> Result<bool, Error> {
        self.denied("forwarding");
        Ok(false)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.denied("agent-forwarding");
        Ok(false)
    }

    fn adjust_window(&mut self, _: ChannelId, current: u32) -> u32 {
        self.window.refill(Instant::now(), current)
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let protocol = (name == "GIT_PROTOCOL").then(|| command::git_protocol(value)).flatten();
        match (protocol, self.waiting.get_mut(&channel)) {
            (Some(protocol), Some(waiting)) => {
                waiting.protocol = Some(protocol);
                session.channel_success(channel)?;
            }
            _ => session.channel_failure(channel)?,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.window.exchange(Instant::now());
        self.ask(channel, line, session)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.ask(channel, b"", session)
    }

    /// A terminal for a verb: there is no device behind it. A git service takes no notice of it.
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        columns: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        match self.waiting.get_mut(&channel) {
            Some(waiting) => {
                waiting.terminal(name, columns);
                session.channel_success(channel)?;
            }
            None => session.channel_failure(channel)?,
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.denied("x11");
        Ok(session.channel_failure(channel)?)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.denied("subsystem");
        Ok(session.channel_failure(channel)?)
    }
}
