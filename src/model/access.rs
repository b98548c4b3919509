//! Who may do what: roles of users, access to apps, and the part of the state that somebody sees.
//!
//! Values only; which request needs what is decided in `admin::rights`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AppName, Invalid, UserName};

/// What a user may do beside pushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything that is not the machine's own: users, keys, grants, and every app.
    Admin,
    /// What was granted.
    #[default]
    Member,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "admin" => Ok(Self::Admin),
            "member" => Ok(Self::Member),
            _ => Err(Invalid::new("role", text, "admin or member")),
        }
    }
}

/// What may be done with an app. `Write` implies `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Fetch it, and see its settings, builds and logs.
    Read,
    /// Push to it, cancel and retry its builds.
    #[default]
    Write,
}

impl Access {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Whether this is enough for what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Access {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err(Invalid::new("access", text, "read or write")),
        }
    }
}

/// A user as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// A user's access to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub user: UserName,
    pub access: Access,
}

/// What a deploy key opens: one app, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    pub app: AppName,
    pub access: Access,
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOwner {
    User(User),
    Deploy(Deploy),
}

/// The part of the apps and builds that somebody sees. The rest is, to them, not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    All,
    /// What this user was granted, for reading at least.
    GrantedTo(UserName),
}
