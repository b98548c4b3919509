//! What people administer: keys, apps, grants, builds. One implementation for the command line, the SSH verbs and HTTP.
//!
//! A request is parsed text; `execute` does it on the store and answers with data, never with words for a terminal.
//! Who may do what is decided here alone, in `rights`: a door says who asks. Must not know a door or render anything.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::audit::{Filter, Logged, Trail, Verdict};
use crate::error::{Kind, Report};
use crate::event::Recorded;
use crate::model::{
    Access, App, AppName, AppSecret, AppSettings, Behind, Build, BuildId, BuildPlan, BuilderStatus, Deploy,
    Fingerprint, Grant, ImageName, ImagePrefix, RegistryLogin, RegistryPlace, Role, Secret, SecretName,
    SecretUse, SecretValue, User, UserKey, UserName,
};
use crate::store::{BuildFilter, Store, StoreError};

mod builders;
mod follow;
mod import;
mod keys;
pub mod lock;
mod logins;
pub mod ready;
mod recorded;
mod resolved;
pub mod rights;
mod secrets;
pub mod settings;
pub mod socket;
mod users;
mod work;

pub use builders::{Builders, BuildersRequest};
pub use follow::{Follow, Step};
pub use import::KeySource;
pub use lock::DataLock;
pub use ready::{Ready, ReadyFile};
pub use rights::Caller;
pub use work::Work;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    WhoAmI,
    AddUser {
        user: UserName,
        role: Role,
    },
    ListUsers,
    RemoveUser {
        user: UserName,
    },
    SetRole {
        user: UserName,
        role: Role,
    },
    /// `text` is in the format of authorized_keys, without options.
    AddKeys {
        user: UserName,
        text: String,
    },
    /// `text` as in `AddKeys`; `name` takes the place of the comments.
    AddDeployKey {
        app: AppName,
        access: Access,
        text: String,
        name: Option<String>,
    },
    /// `inside` lets private addresses through.
    ImportKeys {
        user: UserName,
        from: KeySource,
        inside: bool,
    },
    ListKeys {
        user: Option<UserName>,
    },
    RemoveKey {
        fingerprint: Fingerprint,
    },
    CreateApp {
        app: AppName,
    },
    ListApps,
    ShowApp {
        app: AppName,
    },
    DestroyApp {
        app: AppName,
    },
    Grant {
        app: AppName,
        user: UserName,
        #[serde(default)]
        access: Access,
    },
    Revoke {
        app: AppName,
        user: UserName,
    },
    /// Settings as `KEY=VALUE` pairs, in order; an empty value resets.
    SetApp {
        app: AppName,
        changes: Vec<(String, String)>,
    },
    /// Keeps a registry's credential, for one app or all. Carries the secret: never to be logged or recorded whole.
    RegistryLogin {
        place: RegistryPlace,
        app: Option<AppName>,
        username: String,
        secret: Secret,
    },
    RegistryLogout {
        place: RegistryPlace,
        app: Option<AppName>,
    },
    RegistryLogins,
    /// Keeps a secret of an app. Carries its value: never to be logged or recorded whole.
    AddSecret {
        app: AppName,
        name: SecretName,
        used_as: SecretUse,
        value: SecretValue,
    },
    ListSecrets {
        app: AppName,
    },
    RemoveSecret {
        app: AppName,
        name: SecretName,
    },
    /// `limit` 0 is the default; `before` is a whole id or part of one.
    ListBuilds {
        app: Option<AppName>,
        limit: u32,
        before: Option<String>,
    },
    /// `build` is an id or its last digits.
    ShowBuild {
        build: String,
    },
    /// The Kubernetes YAML that names the build's images. `build` as in `ShowBuild`.
    ShowResolved {
        build: String,
    },
    /// Events from `from_seq` on, at most `limit`.
    BuildEvents {
        build: String,
        from_seq: u64,
        limit: u32,
    },
    /// Ends a build that is queued or running. `build` as in `ShowBuild`.
    CancelBuild {
        build: String,
    },
    /// Makes a new build of an ended one's commit, with its options.
    RetryBuild {
        build: String,
    },
    /// What a push of a commit would build; `what` is a ref's name, short or whole, or a commit's id.
    PlanApp {
        app: AppName,
        what: String,
    },
    /// Entries of the audit record. Where there is none yet after `after_seq`, the answer may wait that long.
    Audit {
        filter: Filter,
        wait_ms: u64,
    },
    VerifyAudit,
    Builders {
        what: BuildersRequest,
    },
}

impl Request {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        match self {
            Self::AddUser { .. }
            | Self::RemoveUser { .. }
            | Self::SetRole { .. }
            | Self::AddKeys { .. }
            | Self::AddDeployKey { .. }
            | Self::ImportKeys { .. }
            | Self::RemoveKey { .. }
            | Self::CreateApp { .. }
            | Self::DestroyApp { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::SetApp { .. }
            | Self::RegistryLogin { .. }
            | Self::RegistryLogout { .. }
            | Self::AddSecret { .. }
            | Self::RemoveSecret { .. }
            | Self::CancelBuild { .. }
            | Self::RetryBuild { .. } => true,
            Self::WhoAmI
            | Self::ListUsers
            | Self::ListKeys { .. }
            | Self::ListApps
            | Self::ShowApp { .. }
            | Self::RegistryLogins
            | Self::ListSecrets { .. }
            | Self::ListBuilds { .. }
            | Self::ShowBuild { .. }
            | Self::ShowResolved { .. }
            | Self::BuildEvents { .. }
            | Self::PlanApp { .. }
            | Self::Audit { .. }
            | Self::VerifyAudit => false,
            Self::Builders { what } => *what != BuildersRequest::List,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "did", content = "with", rename_all = "snake_case")]
pub enum Response {
    You(You),
    UserAdded(User),
    Users(Vec<UserView>),
    UserRemoved {
        user: User,
        /// How many went with them.
        keys: u64,
        grants: u64,
    },
    /// The user as they are now; `changed` is false where they were that already.
    RoleSet {
        user: User,
        changed: bool,
    },
    /// Each key, and whether it is new.
    KeysAdded(Vec<(UserKey, bool)>),
    Keys(Vec<UserKey>),
    KeyRemoved {
        key: UserKey,
        /// How many keys the user, or the app, still has.
        left: usize,
    },
    App(AppView),
    Apps(Vec<AppView>),
    AppDestroyed(AppView),
    /// False: it stood so already.
    Granted {
        changed: bool,
    },
    Revoked,
    /// The login as it now stands, and whether it took the place of another.
    RegistryLoggedIn {
        login: RegistryLogin,
        replaced: bool,
    },
    RegistryLoggedOut,
    RegistryLogins(Vec<RegistryLogin>),
    /// The secret as it now stands, and whether it took the place of another.
    SecretAdded {
        secret: AppSecret,
        replaced: bool,
    },
    Secrets(Vec<AppSecret>),
    SecretRemoved,
    Builders(Vec<BuilderStatus>),
    Builder(BuilderStatus),
    Builds(Vec<Build>),
    Build(Box<Build>),
    Resolved {
        build: BuildId,
        yaml: String,
    },
    Plan(Box<BuildPlan>),
    Events {
        build: Box<Build>,
        events: Vec<Recorded>,
    },
    Audit {
        entries: Vec<Logged>,
        /// Whether asking for later ones makes sense: a server runs.
        grows: bool,
    },
    AuditVerified(Verdict),
}

/// Who asks, as they are known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct You {
    /// None for the operator of the server.
    pub user: Option<UserName>,
    /// None for deploy keys.
    pub role: Option<Role>,
    /// The key that signed.
    pub key: Option<Fingerprint>,
    /// Whether a certificate vouched for the key.
    pub certificate: bool,
    /// What a deploy key opens.
    pub deploy: Option<Deploy>,
}

/// A user with what belongs to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: UserName,
    pub role: Role,
    /// How many keys they have.
    pub keys: u64,
    /// What they were granted.
    pub apps: Vec<AppName>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// An app with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    pub name: AppName,
    /// Names the repository's directory.
    pub id: String,
    /// The image name in effect; none while the registry is not known.
    pub image: Option<ImageName>,
    /// Who has access, by name; administrators have without being named.
    pub users: Vec<Grant>,
    pub settings: AppSettings,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// The refs whose image does not stand at them.
    pub behind: Vec<Behind>,
    /// What to know of a change that was made: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The repositories on disk, as far as apps come and go. Called on a thread that may block.
pub trait Repositories: Send + Sync {
    /// Makes the app's repository; fine where it stands already.
    fn create(&self, app_id: &str) -> Result<(), Report>;
    /// Removes it; fine where there is none.
    fn remove(&self, app_id: &str) -> Result<(), Report>;
    /// What a clone checks out.
    fn set_head(&self, app_id: &str, branch: &str) -> Result<(), Report>;
}

/// What operations need besides the store.
#[derive(Clone)]
pub struct Context {
    /// Where apps without an image name of their own go.
    pub prefix: Option<ImagePrefix>,
    pub repositories: Arc<dyn Repositories>,
    /// What builds; none without a server.
    pub work: Option<Arc<dyn Work>>,
    /// The audit record's writer.
    pub trail: Trail,
    /// What solves; none without a server.
    pub builders: Option<Arc<dyn Builders>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("prefix", &self.prefix)
            .field("serving", &self.work.is_some())
            .finish_non_exhaustive()
    }
}

/// The most events of one answer; a log is read in pages.
pub const EVENTS_LIMIT: u32 = 1_000;

/// Does it, if the caller may; on record.
pub async fn execute(
    store: &Store,
    context: &Context,
    caller: &Caller,
    request: Request,
) -> Result<Response, Report> {
    recorded::execute(store, context, caller, request).await
}

#[expect(clippy::too_many_lines, reason = "one arm a request")]
async fn perform(
    store: &Store,
    context: &Context,
    caller: &Caller,
    request: Request,
) -> Result<Response, Report> {
    rights::admit(store, caller, &request).await?;
    let visible = caller.visible();
    Ok(match request {
        Request::WhoAmI => Response::You(users::you(caller)),
        Request::AddUser { user, role } => Response::UserAdded(users::add(store, &user, role).await?),
        Request::ListUsers => Response::Users(users::list(store).await?),
        Request::RemoveUser { user } => users::remove(store, &user).await?,
        Request::SetRole { user, role } => users::set_role(store, &user, role).await?,
        Request::AddKeys { user, text } => Response::KeysAdded(keys::add(store, caller, &user, &text).await?),
        Request::AddDeployKey { app, access, text, name } => {
            Response::KeysAdded(keys::add_deploy(store, Deploy { app, access }, &text, name).await?)
        }
        Request::ImportKeys { user, from, inside } => {
            Response::KeysAdded(import::import(store, &user, &from, inside).await?)
        }
        Request::ListKeys { user } => Response::Keys(keys::list(store, caller, user).await?),
        Request::RemoveKey { fingerprint } => {
            let key = store.remove_key(&fingerprint, caller.limited_to().as_ref()).await?;
            let left = store.keys(Some(&key.user)).await?.len();
            Response::KeyRemoved { key, left }
        }
        Request::CreateApp { app } => Response::App(create_app(store, context, &app).await?),
        Request::ListApps => {
            let mut views = Vec::new();
            for app in store.apps_seen(&visible).await? {
                views.push(view(store, context, app).await?);
            }
            Response::Apps(views)
        }
        Request::ShowApp { app } => {
            let app = store.app(&app).await?.ok_or(StoreError::NoApp(app))?;
            Response::App(view(store, context, app).await?)
        }
        Request::DestroyApp { app } => Response::AppDestroyed(destroy_app(store, context, &app).await?),
        Request::Grant { app, user, access } => {
            Response::Granted { changed: store.grant(&app, &user, access).await? }
        }
        Request::Revoke { app, user } => {
            store.revoke(&app, &user).await?;
            Response::Revoked
        }
        Request::SetApp { app, changes } => Response::App(set_app(store, context, &app, &changes).await?),
        Request::RegistryLogin { place, app, username, secret } => {
            logins::log_in(store, place, app, username, &secret).await?
        }
        Request::RegistryLogout { place, app } => {
            store.remove_login(app.as_ref(), &place).await?;
            Response::RegistryLoggedOut
        }
        Request::RegistryLogins => Response::RegistryLogins(store.logins().await?),
        Request::AddSecret { app, name, used_as, value } => {
            secrets::add(store, app, name, used_as, &value).await?
        }
        Request::ListSecrets { app } => Response::Secrets(store.secrets(&app).await?),
        Request::RemoveSecret { app, name } => {
            store.remove_secret(&app, &name).await?;
            Response::SecretRemoved
        }
        Request::Builders { what } => builders::execute(context, what).await?,
        Request::ListBuilds { app, limit, before } => {
            if let Some(name) = &app {
                store.app(name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
            }
            let before = match before {
                Some(text) => Some(store.find_build(&text, &visible).await?.id),
                None => None,
            };
            Response::Builds(store.builds(&BuildFilter { app, limit, before }, &visible).await?)
        }
        Request::ShowBuild { build } => Response::Build(Box::new(store.find_build(&build, &visible).await?)),
        Request::ShowResolved { build } => {
            resolved::show(store, &store.find_build(&build, &visible).await?).await?
        }
        Request::BuildEvents { build, from_seq, limit } => {
            let build = store.find_build(&build, &visible).await?;
            let events = store.events(&build.id, from_seq, limit.clamp(1, EVENTS_LIMIT)).await?;
            Response::Events { build: Box::new(build), events }
        }
        Request::CancelBuild { build } => {
            let build = store.find_build(&build, &visible).await?;
            let work = work::at(context, "cancels builds")?;
            Response::Build(Box::new(work.cancel(&build, &caller.actor()).await?))
        }
        Request::RetryBuild { build } => {
            let build = store.find_build(&build, &visible).await?;
            let work = work::at(context, "builds")?;
            Response::Build(Box::new(work.retry(&build, &caller.actor()).await?))
        }
        Request::PlanApp { app, what } => {
            let app = store.app(&app).await?.ok_or(StoreError::NoApp(app))?;
            let work = work::at(context, "reads the repositories")?;
            Response::Plan(Box::new(work.plan(&app, &what).await?))
        }
        Request::Audit { filter, wait_ms } => {
            let grows = context.trail.is_written();
            let wait_ms = if grows { wait_ms } else { 0 };
            let entries = entries(store, &context.trail, &filter, wait_ms).await?;
            Response::Audit { entries, grows }
        }
        Request::VerifyAudit => Response::AuditVerified(store.verify_audit().await?),
    })
}

/// Follows a build's log from `from_seq` on until the build has ended.
pub async fn follow(store: &Store, caller: &Caller, build: &str, from_seq: u64) -> Result<Follow, Report> {
    let request = Request::BuildEvents { build: build.to_owned(), from_seq, limit: 0 };
    rights::admit(store, caller, &request).await?;
    let id: BuildId = store.find_build(build, &caller.visible()).await?.id;
    Ok(Follow::new(store.clone(), id, from_seq))
}

/// The longest that an answer waits for something to tell.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

async fn entries(store: &Store, trail: &Trail, filter: &Filter, wait_ms: u64) -> Result<Vec<Logged>, Report> {
    // what was left before we ask is part of the answer; a record that cannot be written can be read
    if let Err(error) = trail.flush().await {
        tracing::warn!(%error, "the audit record is read without its newest entries");
    }
    let until = Instant::now() + Duration::from_millis(wait_ms).min(LONGEST_WAIT);
    let mut changes = store.audit_changes();
    loop {
        changes.borrow_and_update();
        let found = store.audit(filter).await?;
        let over = tokio::time::timeout_at(until, changes.changed());
        if !found.is_empty() || filter.after_seq.is_none() || over.await.is_err() {
            return Ok(found);
        }
    }
}

async fn view(store: &Store, context: &Context, app: App) -> Result<AppView, Report> {
    let users = store.grants(&app.name).await?;
    let image = app.image(context.prefix.as_ref());
    let behind = store.behind(&app.name).await?;
    let App { id, name, settings, created_at_ms } = app;
    Ok(AppView { name, id, image, users, settings, created_at_ms, behind, notes: Vec::new() })
}

async fn create_app(store: &Store, context: &Context, name: &AppName) -> Result<AppView, Report> {
    let app = store.create_app(name, context.prefix.as_ref()).await?;
    let id = app.id.clone();
    if let Err(report) = on_disk(context, move |repositories| repositories.create(&id)).await {
        // no app without a repository: the name is free again for the next attempt
        store.destroy_app(name).await?;
        return Err(report);
    }
    view(store, context, app).await
}

/// The record goes first: a repository without one is unreachable litter, a record without its repository a broken app.
async fn destroy_app(store: &Store, context: &Context, name: &AppName) -> Result<AppView, Report> {
    let app = store.app(name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
    if context.work.is_some()
        && let [build, ..] = store.live_builds(Some(name)).await?.as_slice()
    {
        let message = format!("build {} of {name} is {}", build.id.short(), build.state.as_str());
        return Err(Report::new(Kind::Conflict, message)
            .hint("wait until it has ended: `lemnos builds logs BUILD -f` follows it"));
    }
    let view = view(store, context, app).await?;
    store.destroy_app(name).await?;
    let id = view.id.clone();
    on_disk(context, move |repositories| repositories.remove(&id)).await.map_err(|report| {
        let message =
            format!("app {name} is destroyed, but its repository is not removed: {}", report.message);
        Report { message, ..report }
    })?;
    Ok(view)
}

async fn set_app(
    store: &Store,
    context: &Context,
    name: &AppName,
    changes: &[(String, String)],
) -> Result<AppView, Report> {
    let before = store.app(name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
    let change = |settings| settings::apply(settings, changes);
    let app = store.change_settings::<Report>(name, context.prefix.as_ref(), change).await?;
    if app.settings.main_branch != before.settings.main_branch {
        let (id, branch) = (app.id.clone(), app.settings.main_branch.clone());
        on_disk(context, move |repositories| repositories.set_head(&id, &branch)).await?;
    }
    let notes = match changes.iter().any(|(key, _)| key == "platforms") {
        true => builders::without(context, &app.settings.platforms).await.into_iter().collect(),
        false => Vec::new(),
    };
    Ok(AppView { notes, ..view(store, context, app).await? })
}

/// Runs file work where it may block.
async fn on_disk(
    context: &Context,
    work: impl FnOnce(&dyn Repositories) -> Result<(), Report> + Send + 'static,
) -> Result<(), Report> {
    let repositories = context.repositories.clone();
    tokio::task::spawn_blocking(move || work(repositories.as_ref()))
        .await
        .map_err(|cause| Report::internal(format!("working on the repository: {cause}")))?
}

#[cfg(test)]
mod tests;
