//! What the audit record holds: who did what, or was kept from it, and over which connection.
//!
//! Entries outlive versions: fields are only added, each with a default, and no name of an event is used anew. Must hold
//! no secret: a password, a token or a private key has no place in any field.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{AppName, Fingerprint, UserName};

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Who {
    User {
        name: UserName,
    },
    /// A key that belongs to one app and to nobody.
    DeployKey {
        app: AppName,
    },
    /// Whoever may open the control socket or the data directory.
    Operator,
    /// Nobody has logged in.
    Anonymous,
    /// lemnos itself.
    Server,
}

impl Who {
    /// A person, or an app's deploy key, by the name under which they act.
    pub fn of(name: &UserName) -> Self {
        match name.deploys() {
            Some(app) => Self::DeployKey { app },
            None => Self::User { name: name.clone() },
        }
    }
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Self::User { name } => Some(name),
            Self::DeployKey { .. } | Self::Operator | Self::Anonymous | Self::Server => None,
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User { name } => write!(f, "{name}"),
            Self::DeployKey { app } => write!(f, "deploy key of {app}"),
            Self::Operator => f.write_str("operator"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// What happened. Reasons are one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A signature of a registered key was verified.
    LoggedIn { algorithm: String },
    /// A key was offered in vain. `ssh_user` is what the client called itself and means nothing.
    LoginRefused { ssh_user: String, algorithm: String, reason: String },
    /// A connection was not taken.
    ConnectionDropped { reason: String },
    /// A connection was ended by the server before anybody had logged in.
    ConnectionCut { reason: String },
    /// Something that is not served was asked for on a connection: forwarding, a subsystem.
    ChannelRefused { what: String },
    /// A git service was asked for, and is served.
    RequestAccepted { service: String },
    /// A git service or a command was asked for in vain, or ended by the server; none: it was no service that is known.
    RequestRefused { service: Option<String>, reason: String },
    /// The objects of a push were refused; nothing of it was kept.
    PushRefused { reason: String },
    /// A caller of the hooks' socket was no hook of a running push.
    HookRefused { reason: String },
    /// A ref of a push was answered. `refused` is what git was told, none when the ref moved.
    PushAnswered { reference: String, old: String, new: String, refused: Option<String> },
    /// Something was administered, or (with `refused`) was not. `action` is the request's name: `grant`, `add_keys`.
    Administered { action: String, target: Option<String>, refused: Option<String> },
    /// Entries that could not be written in time, and were not.
    Lost { entries: u64 },
    /// The oldest entries were removed, up to and with `through`, whose chain ended in `hash`.
    Purged { through: i64, entries: u64, hash: String },
}

impl Event {
    /// The event's name, as it stands in the record.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LoggedIn { .. } => "logged_in",
            Self::LoginRefused { .. } => "login_refused",
            Self::ConnectionDropped { .. } => "connection_dropped",
            Self::ConnectionCut { .. } => "connection_cut",
            Self::ChannelRefused { .. } => "channel_refused",
            Self::RequestAccepted { .. } => "request_accepted",
            Self::RequestRefused { .. } => "request_refused",
            Self::PushRefused { .. } => "push_refused",
            Self::HookRefused { .. } => "hook_refused",
            Self::PushAnswered { .. } => "push_answered",
            Self::Administered { .. } => "administered",
            Self::Lost { .. } => "lost",
            Self::Purged { .. } => "purged",
        }
    }

    /// Why it was refused; none for what was allowed.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::LoginRefused { reason, .. }
            | Self::ConnectionDropped { reason }
            | Self::ConnectionCut { reason }
            | Self::RequestRefused { reason, .. }
            | Self::PushRefused { reason }
            | Self::HookRefused { reason } => Some(reason),
            Self::ChannelRefused { what } => Some(what),
            Self::PushAnswered { refused, .. } | Self::Administered { refused, .. } => refused.as_deref(),
            Self::LoggedIn { .. }
            | Self::RequestAccepted { .. }
            | Self::Lost { .. }
            | Self::Purged { .. } => None,
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix milliseconds.
    pub at_ms: i64,
    pub actor: Who,
    /// The key that signed, or was offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Fingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    pub event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// The id that follows a request or push through all logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Anything more, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many alike this one stands for: of a flood not each is written.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u64,
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_once(times: &u64) -> bool {
    *times == 1
}

impl Entry {
    pub fn new(at_ms: i64, actor: Who, event: Event) -> Self {
        Self { at_ms, actor, key: None, peer: None, event, app: None, request: None, detail: None, times: 1 }
    }
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<Fingerprint>>) -> Self {
        self.key = key.into();
        self
    }
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }
    #[must_use]
    pub fn app(mut self, app: impl Into<Option<AppName>>) -> Self {
        self.app = app.into();
        self
    }
    #[must_use]
    pub fn request(mut self, id: &str) -> Self {
        self.request = Some(id.to_owned());
        self
    }
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.detail = Some(text.into());
        self
    }
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

/// An entry with its place in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// From 1, ascending; without gaps but those that a purge left at the beginning.
    pub seq: i64,
    pub entry: Entry,
}

/// Which entries are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Only later ones, oldest first; none: the newest, in the order in which they came.
    #[serde(default)]
    pub after_seq: Option<i64>,
    /// Unix milliseconds.
    #[serde(default)]
    pub since_ms: Option<i64>,
    #[serde(default)]
    pub app: Option<AppName>,
    #[serde(default)]
    pub user: Option<UserName>,
    /// Of each request or push id only these.
    #[serde(default)]
    pub request: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// What a check of the whole record found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub entries: u64,
    /// The first entry and the last one, 0 where there is none.
    pub first: i64,
    pub last: i64,
    /// The last entry's link: two records that end in the same one are the same.
    pub hash: String,
    /// What does not fit, one sentence each; empty: nothing was changed, removed or put in.
    pub faults: Vec<String>,
}
