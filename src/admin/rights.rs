//! Who may do what: the one table.
//!
//! `needs` says of every request what it takes; `admit` compares that with who asks. What somebody may not see is, to
//! them, not there: missing and forbidden read the same, and lists leave it out. Doors find out who asks and decide
//! nothing.

use super::Request;
use crate::audit::Who;
use crate::error::{Kind, Report};
use crate::model::{
    Access, Actor, App, AppName, Deploy, Fingerprint, KeyOwner, Role, User, UserName, Visible,
};
use crate::store::{Store, StoreError};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever may open the server's data directory: the operator of the machine.
    Operator,
    User {
        user: UserName,
        role: Role,
        /// The key that signed.
        key: Fingerprint,
        /// The key is not registered: a certificate vouched for it, for as long as that lasts.
        certificate: bool,
    },
    /// A program that fetches or pushes one app.
    DeployKey { app: AppName, access: Access, key: Fingerprint },
}

impl Caller {
    /// Who a registered key is at this moment; none when it is not registered.
    pub async fn of_key(store: &Store, key: &Fingerprint) -> Result<Option<Self>, Report> {
        let key = key.clone();
        Ok(store.key_owner(&key).await?.map(|owner| match owner {
            KeyOwner::User(User { name, role, .. }) => {
                Self::User { user: name, role, key, certificate: false }
            }
            KeyOwner::Deploy(Deploy { app, access }) => Self::DeployKey { app, access, key },
        }))
    }

    /// Who a user that a certificate names is at this moment; none when there is no such user.
    pub async fn of_certificate(
        store: &Store,
        user: &UserName,
        key: &Fingerprint,
    ) -> Result<Option<Self>, Report> {
        let found = store.user(user).await?;
        Ok(found.map(|found| Self::User {
            user: found.name,
            role: found.role,
            key: key.clone(),
            certificate: true,
        }))
    }

    /// The part of the state that is there for them.
    pub fn visible(&self) -> Visible {
        match self {
            Self::Operator | Self::User { role: Role::Admin, .. } => Visible::All,
            Self::User { user, role: Role::Member, .. } => Visible::GrantedTo(user.clone()),
            // nobody is granted anything under this name
            Self::DeployKey { app, .. } => Visible::GrantedTo(UserName::of_deploy_key(app)),
        }
    }

    /// The name under which what they do is recorded; none for the operator.
    pub fn name(&self) -> Option<UserName> {
        match self {
            Self::Operator => None,
            Self::User { user, .. } => Some(user.clone()),
            Self::DeployKey { app, .. } => Some(UserName::of_deploy_key(app)),
        }
    }

    /// The key that signed; none for the operator.
    pub fn key(&self) -> Option<&Fingerprint> {
        match self {
            Self::Operator => None,
            Self::User { key, .. } | Self::DeployKey { key, .. } => Some(key),
        }
    }

    /// Who did it, for a build's record.
    pub(super) fn actor(&self) -> Actor {
        match (self.name(), self.key()) {
            (Some(name), Some(key)) => Actor::user(name, key.clone()),
            _ => Actor::operator(),
        }
    }

    /// Who did it, for the audit record.
    pub(super) fn who(&self) -> Who {
        match self {
            Self::Operator => Who::Operator,
            Self::User { user, .. } => Who::User { name: user.clone() },
            Self::DeployKey { app, .. } => Who::DeployKey { app: app.clone() },
        }
    }

    /// Whose keys they may see and remove: all (none), or their own.
    pub(super) fn limited_to(&self) -> Option<UserName> {
        match self.visible() {
            Visible::All => None,
            Visible::GrantedTo(user) => Some(user),
        }
    }
}

/// What a request takes. The operator may do everything.
enum Needs<'a> {
    /// To be known here at all, also as a deploy key.
    Known,
    /// To be a user; what they see is theirs.
    User,
    /// To be this user, with a lasting key, or an administrator.
    Self_(&'a UserName),
    /// To be an administrator; the words finish "only administrators may …".
    Admin(&'static str),
    /// To be on this machine; the words finish "only the operator of the server may …".
    Operator(&'static str),
    /// This access to an app, or to be an administrator.
    App(Access, &'a AppName),
    /// This access to a build's app, or to be an administrator.
    Build(Access, &'a str),
}

fn needs(request: &Request) -> Needs<'_> {
    match request {
        Request::WhoAmI => Needs::Known,
        Request::ListKeys { .. } | Request::RemoveKey { .. } | Request::ListApps => Needs::User,
        Request::AddKeys { user, .. } => Needs::Self_(user),
        Request::ImportKeys { inside: true, .. } => Needs::Operator("fetch from private addresses"),
        Request::ImportKeys { .. } => Needs::Admin("import keys"),
        Request::AddDeployKey { .. } => Needs::Admin("add deploy keys"),
        Request::AddUser { .. }
        | Request::ListUsers
        | Request::RemoveUser { .. }
        | Request::SetRole { .. } => Needs::Admin("list and change users"),
        Request::CreateApp { .. } => Needs::Admin("create apps"),
        Request::DestroyApp { .. } => Needs::Admin("destroy apps"),
        Request::Grant { .. } | Request::Revoke { .. } => Needs::Admin("grant and revoke access"),
        Request::SetApp { .. } => Needs::Admin("change an app's settings"),
        Request::RegistryLogin { .. } | Request::RegistryLogout { .. } | Request::RegistryLogins => {
            Needs::Admin("list and change registry logins")
        }
        Request::AddSecret { .. } | Request::ListSecrets { .. } | Request::RemoveSecret { .. } => {
            Needs::Admin("list and change an app's secrets")
        }
        Request::Builders { .. } => Needs::Admin("list and change builders"),
        Request::ShowApp { app } | Request::ListBuilds { app: Some(app), .. } => {
            Needs::App(Access::Read, app)
        }
        Request::ListBuilds { app: None, .. } => Needs::User,
        Request::ShowBuild { build }
        | Request::ShowResolved { build }
        | Request::BuildEvents { build, .. } => Needs::Build(Access::Read, build),
        Request::CancelBuild { build } | Request::RetryBuild { build } => Needs::Build(Access::Write, build),
        Request::PlanApp { app, .. } => Needs::App(Access::Read, app),
        Request::Audit { .. } | Request::VerifyAudit => Needs::Admin("read the audit record"),
    }
}

/// Whether the request may be carried out for who asks.
pub(super) async fn admit(store: &Store, caller: &Caller, request: &Request) -> Result<(), Report> {
    let needs = needs(request);
    let (user, certificate) = match caller {
        Caller::Operator => return Ok(()),
        Caller::User { role: Role::Admin, .. } => {
            return match needs {
                Needs::Operator(what) => Err(operator_only(what)),
                _ => Ok(()),
            };
        }
        Caller::User { user, role: Role::Member, certificate, .. } => (user, *certificate),
        Caller::DeployKey { app, .. } => {
            return match needs {
                Needs::Known => Ok(()),
                _ => Err(Report::new(
                    Kind::Forbidden,
                    format!("a deploy key of {app} only fetches and pushes"),
                )
                .hint("log in with a key of your own: ssh -o IdentitiesOnly=yes -i FILE")),
            };
        }
    };
    match needs {
        Needs::Known | Needs::User => Ok(()),
        Needs::Self_(_) if certificate => Err(Report::new(
            Kind::Forbidden,
            "who logged in with a certificate cannot register keys: they would outlast it",
        )
        .hint("log in with a registered key, or ask an administrator to add this one")),
        Needs::Self_(whose) if whose == user => Ok(()),
        Needs::Self_(_) => Err(admins_only("register keys of other users")),
        Needs::Admin(what) => Err(admins_only(what)),
        Needs::Operator(what) => Err(operator_only(what)),
        Needs::App(access, app) => app_access(store, caller, app, access).await.map(drop),
        Needs::Build(access, build) => {
            let build = store.find_build(build, &caller.visible()).await?;
            app_access(store, caller, &build.app, access).await.map(drop)
        }
    }
}

/// The app, when the caller has this access to it. The one answer for git services as well.
pub async fn app_access(
    store: &Store,
    caller: &Caller,
    name: &AppName,
    needed: Access,
) -> Result<App, Report> {
    let granted = match caller {
        Caller::Operator | Caller::User { role: Role::Admin, .. } => {
            return Ok(store.app(name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?);
        }
        Caller::User { user, role: Role::Member, .. } => store.access(user, name).await?,
        Caller::DeployKey { app, access, .. } => (app == name).then_some(*access),
    };
    match (granted, store.app(name).await?) {
        (Some(granted), Some(app)) if granted.allows(needed) => Ok(app),
        (Some(_), Some(_)) => Err(read_only(caller, name)),
        // one answer for both, so that nobody learns which apps there are
        _ => Err(no_app(caller, name)),
    }
}

fn no_app(caller: &Caller, app: &AppName) -> Report {
    let (who, hint) = match caller {
        Caller::DeployKey { app: own, .. } => (
            "this deploy key".to_owned(),
            format!(
                "the key opens {own} and nothing else; `ssh -o IdentitiesOnly=yes -i FILE` names another one"
            ),
        ),
        Caller::User { user, .. } => (
            user.to_string(),
            format!("on the server: lemnos apps create {app}; lemnos apps grant {app} {user}"),
        ),
        Caller::Operator => return StoreError::NoApp(app.clone()).into(),
    };
    Report::new(Kind::NotFound, format!("there is no app {app} that {who} may use")).hint(hint)
}

fn read_only(caller: &Caller, app: &AppName) -> Report {
    match caller {
        Caller::DeployKey { .. } => Report::new(
            Kind::Forbidden,
            format!("this deploy key is read-only: it may fetch {app}, not push"),
        )
        .hint("add another key on the server with `lemnos keys add --app APP --write`"),
        _ => {
            let who = caller.name().map_or_else(String::new, |user| user.to_string());
            Report::new(Kind::Forbidden, format!("{who} has read-only access to {app}"))
                .hint(format!("on the server: lemnos apps grant {app} {who}"))
        }
    }
}

fn admins_only(what: &str) -> Report {
    Report::new(Kind::Forbidden, format!("only administrators may {what}"))
        .hint("ask one of them; `whoami` says what you are")
}

fn operator_only(what: &str) -> Report {
    Report::new(Kind::Forbidden, format!("only the operator of the server may {what}"))
        .hint("do it with the lemnos command on the server itself")
}

#[cfg(test)]
mod tests;
