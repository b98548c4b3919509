//! Tests of who may do what: roles, grants, deploy keys, and that forbidden reads as missing.

use std::sync::Arc;

use super::super::{Context, KeySource, Repositories, Response, execute, follow};
use super::*;
use crate::audit::Trail;
use crate::model::{Build, Sha};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X ann@host";
const PRINT: &str = "SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg";

/// A disk that always has room.
struct Nowhere;

impl Repositories for Nowhere {
    fn create(&self, _: &str) -> Result<(), Report> {
        Ok(())
    }
    fn remove(&self, _: &str) -> Result<(), Report> {
        Ok(())
    }
    fn set_head(&self, _: &str, _: &str) -> Result<(), Report> {
        Ok(())
    }
}

struct House {
    _dir: tempfile::TempDir,
    store: Store,
    context: Context,
}

/// Apps shop, which ann may write to and bob read, and blog, which is nobody's; root is an administrator.
async fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let context = Context {
        prefix: None,
        repositories: Arc::new(Nowhere),
        work: None,
        builders: None,
        trail: Trail::nowhere(),
    };
    for (user, role) in [("ann", Role::Member), ("bob", Role::Member), ("root", Role::Admin)] {
        store.add_user(&user.parse().unwrap(), role).await.unwrap();
    }
    for app in ["shop", "blog"] {
        store.create_app(&name(app), None).await.unwrap();
    }
    store.grant(&name("shop"), &"ann".parse().unwrap(), Access::Write).await.unwrap();
    store.grant(&name("shop"), &"bob".parse().unwrap(), Access::Read).await.unwrap();
    House { _dir: dir, store, context }
}

impl House {
    async fn ask(&self, caller: &Caller, request: Request) -> Result<Response, Report> {
        execute(&self.store, &self.context, caller, request).await
    }

    async fn build(&self, app: &str, id: &str) -> Build {
        let build = Build::queued(
            id.parse().unwrap(),
            name(app),
            "root".parse().unwrap(),
            "refs/heads/main".parse().unwrap(),
            Sha::zero(),
        );
        self.store.create_build(&build).await.unwrap();
        build
    }
}

fn name(app: &str) -> AppName {
    app.parse().unwrap()
}

fn user(name: &str, role: Role) -> Caller {
    Caller::User { user: name.parse().unwrap(), role, key: PRINT.parse().unwrap(), certificate: false }
}

fn deploy(app: &str, access: Access) -> Caller {
    Caller::DeployKey { app: name(app), access, key: PRINT.parse().unwrap() }
}

const SHOPS: &str = "0000000000000000000000aaaa111111";
const BLOGS: &str = "0000000000000000000001bbbb111111";

/// Everything that can be asked about an app or one of its builds.
fn about(app: &str, build: &str) -> Vec<Request> {
    let (app, build) = (name(app), build.to_owned());
    vec![
        Request::ShowApp { app: app.clone() },
        Request::ListBuilds { app: Some(app.clone()), limit: 0, before: None },
        Request::PlanApp { app: app.clone(), what: "main".to_owned() },
        Request::DestroyApp { app: app.clone() },
        Request::Grant { app: app.clone(), user: "ann".parse().unwrap(), access: Access::Read },
        Request::Revoke { app: app.clone(), user: "ann".parse().unwrap() },
        Request::SetApp { app: app.clone(), changes: vec![("build-tags".to_owned(), "yes".to_owned())] },
        Request::AddDeployKey { app, access: Access::Write, text: KEY.to_owned(), name: None },
        Request::ListBuilds { app: None, limit: 0, before: Some(build.clone()) },
        Request::ShowBuild { build: build.clone() },
        Request::ShowResolved { build: build.clone() },
        Request::BuildEvents { build: build.clone(), from_seq: 0, limit: 1 },
        Request::CancelBuild { build: build.clone() },
        Request::RetryBuild { build },
    ]
}

#[tokio::test]
async fn what_is_forbidden_reads_as_what_is_missing() {
    let house = house().await;
    house.build("blog", BLOGS).await;
    let callers = [user("ann", Role::Member), user("nobody", Role::Member), deploy("shop", Access::Write)];
    let answers = async || {
        let mut said = Vec::new();
        for caller in &callers {
            for request in about("blog", BLOGS) {
                said.push(house.ask(caller, request).await.unwrap_err());
            }
            said.push(follow(&house.store, caller, BLOGS, 0).await.unwrap_err());
            said.push(app_access(&house.store, caller, &name("blog"), Access::Read).await.unwrap_err());
        }
        said
    };
    let forbidden = answers().await;
    house.store.destroy_app(&name("blog")).await.unwrap();
    assert_eq!(forbidden, answers().await);
    assert!(forbidden.iter().all(|report| !report.to_string().contains("root")), "{forbidden:?}");
}

#[tokio::test]
async fn lists_leave_out_what_is_not_there_for_one() {
    let house = house().await;
    house.build("shop", SHOPS).await;
    house.build("blog", BLOGS).await;
    let seen = async |caller: &Caller| {
        let Response::Apps(apps) = house.ask(caller, Request::ListApps).await.unwrap() else { panic!() };
        let every = Request::ListBuilds { app: None, limit: 0, before: None };
        let Response::Builds(builds) = house.ask(caller, every).await.unwrap() else { panic!() };
        let apps: Vec<_> = apps.iter().map(|app| app.name.to_string()).collect();
        let builds: Vec<_> = builds.iter().map(|build| build.app.to_string()).collect();
        (apps.join(" "), builds.join(" "))
    };
    let both = |apps: &str, builds: &str| (apps.to_owned(), builds.to_owned());
    assert_eq!(seen(&user("ann", Role::Member)).await, both("shop", "shop"));
    assert_eq!(seen(&user("bob", Role::Member)).await, both("shop", "shop"));
    assert_eq!(seen(&user("nobody", Role::Member)).await, both("", ""));
    assert_eq!(seen(&user("root", Role::Admin)).await, both("blog shop", "blog shop"));
    assert_eq!(seen(&Caller::Operator).await, both("blog shop", "blog shop"));
    // both ids end so: for one who sees one of them, that is no question
    let build = Request::ShowBuild { build: "111111".to_owned() };
    assert!(house.ask(&user("ann", Role::Member), build.clone()).await.is_ok());
    assert!(house.ask(&user("root", Role::Admin), build).await.is_err());
}

#[tokio::test]
async fn reading_is_not_writing() {
    let house = house().await;
    house.build("shop", SHOPS).await;
    let bob = user("bob", Role::Member);
    let access =
        async |caller: &Caller, needed| app_access(&house.store, caller, &name("shop"), needed).await;
    assert!(access(&bob, Access::Read).await.is_ok());
    let report = access(&bob, Access::Write).await.unwrap_err();
    assert_eq!((report.kind, report.message.as_str()), (Kind::Forbidden, "bob has read-only access to shop"));
    for request in
        [Request::CancelBuild { build: SHOPS.to_owned() }, Request::RetryBuild { build: SHOPS.to_owned() }]
    {
        assert_eq!(house.ask(&bob, request.clone()).await.unwrap_err(), report);
        // one who may gets as far as to where nothing builds in this test
        let further = house.ask(&user("ann", Role::Member), request).await.unwrap_err();
        assert_eq!(further.kind, Kind::Unavailable, "{further}");
    }
    assert!(house.ask(&bob, Request::ShowBuild { build: SHOPS.to_owned() }).await.is_ok());
    // writing implies reading
    assert!(access(&user("ann", Role::Member), Access::Read).await.is_ok());
    assert!(access(&user("ann", Role::Member), Access::Write).await.is_ok());
    assert!(access(&user("root", Role::Admin), Access::Write).await.is_ok());
}

#[tokio::test]
async fn verbs_of_administrators_are_theirs() {
    let house = house().await;
    let ann = user("ann", Role::Member);
    let whose = || "bob".parse().unwrap();
    for request in [
        Request::AddUser { user: whose(), role: Role::Admin },
        Request::ListUsers,
        Request::RemoveUser { user: whose() },
        Request::SetRole { user: "ann".parse().unwrap(), role: Role::Admin },
        Request::AddKeys { user: whose(), text: KEY.to_owned() },
        Request::ImportKeys {
            user: "ann".parse().unwrap(),
            from: KeySource::Github("ann".to_owned()),
            inside: false,
        },
        Request::CreateApp { app: name("mine") },
        Request::DestroyApp { app: name("shop") },
        Request::Grant { app: name("shop"), user: "ann".parse().unwrap(), access: Access::Write },
        Request::Revoke { app: name("shop"), user: whose() },
        Request::SetApp { app: name("shop"), changes: Vec::new() },
        Request::RegistryLogins,
        Request::ListSecrets { app: name("shop") },
        Request::RemoveSecret { app: name("shop"), name: "token".parse().unwrap() },
        Request::AddSecret {
            app: name("shop"),
            name: "token".parse().unwrap(),
            used_as: crate::model::SecretUse::Secret,
            value: crate::model::SecretValue::new(b"value".to_vec()),
        },
    ] {
        let report = house.ask(&ann, request.clone()).await.unwrap_err();
        assert!(
            report.kind == Kind::Forbidden && report.message.starts_with("only administrators may "),
            "{request:?}: {report}"
        );
    }
    let root = user("root", Role::Admin);
    house.ask(&root, Request::ListUsers).await.unwrap();
    house.ask(&root, Request::CreateApp { app: name("mine") }).await.unwrap();
    let inside =
        Request::ImportKeys { user: whose(), from: KeySource::Github("bob".to_owned()), inside: true };
    let report = house.ask(&root, inside).await.unwrap_err();
    assert_eq!(report.message, "only the operator of the server may fetch from private addresses");
}

#[tokio::test]
async fn members_have_to_do_with_their_own_keys_alone() {
    let house = house().await;
    let (ann, bob) = (user("ann", Role::Member), user("bob", Role::Member));
    let add = |user: &str| Request::AddKeys { user: user.parse().unwrap(), text: KEY.to_owned() };
    house.ask(&ann, add("ann")).await.unwrap();
    let taken = house.ask(&bob, add("bob")).await.unwrap_err();
    assert!(taken.kind == Kind::Conflict && !taken.to_string().contains("ann"), "{taken}");
    let remove = || Request::RemoveKey { fingerprint: PRINT.parse().unwrap() };
    let not_bobs = house.ask(&bob, remove()).await.unwrap_err();
    assert_eq!(house.ask(&bob, Request::ListKeys { user: None }).await.unwrap(), Response::Keys(Vec::new()));
    let anns = Request::ListKeys { user: Some("ann".parse().unwrap()) };
    assert_eq!(house.ask(&bob, anns).await.unwrap(), Response::Keys(Vec::new()));
    let Response::Keys(keys) = house.ask(&ann, Request::ListKeys { user: None }).await.unwrap() else {
        panic!()
    };
    assert_eq!(keys.len(), 1);
    house.ask(&ann, remove()).await.unwrap();
    assert_eq!(house.ask(&bob, remove()).await.unwrap_err(), not_bobs, "as a key that nobody has");
    let guest = Caller::User {
        user: "ann".parse().unwrap(),
        role: Role::Member,
        key: PRINT.parse().unwrap(),
        certificate: true,
    };
    let report = house.ask(&guest, add("ann")).await.unwrap_err();
    assert!(report.message.contains("they would outlast it"), "{report}");
}

#[tokio::test]
async fn a_deploy_key_opens_its_app_and_nothing_else() {
    let house = house().await;
    let (reads, writes) = (deploy("shop", Access::Read), deploy("shop", Access::Write));
    let access =
        async |caller: &Caller, app: &str, needed| app_access(&house.store, caller, &name(app), needed).await;
    assert!(access(&reads, "shop", Access::Read).await.is_ok());
    let report = access(&reads, "shop", Access::Write).await.unwrap_err();
    assert_eq!(report.message, "this deploy key is read-only: it may fetch shop, not push");
    assert!(access(&writes, "shop", Access::Write).await.is_ok());
    assert_eq!(access(&writes, "blog", Access::Read).await.unwrap_err().kind, Kind::NotFound);
    for request in
        about("shop", SHOPS).into_iter().chain([Request::ListApps, Request::ListKeys { user: None }])
    {
        let report = house.ask(&writes, request).await.unwrap_err();
        assert_eq!(report.message, "a deploy key of shop only fetches and pushes");
    }
    let Response::You(you) = house.ask(&writes, Request::WhoAmI).await.unwrap() else { panic!() };
    assert_eq!((you.user.unwrap().as_str(), you.role), ("deploy:shop", None));
}

#[tokio::test]
async fn a_key_is_a_users_or_an_apps() {
    let house = house().await;
    let own = Request::AddKeys { user: "ann".parse().unwrap(), text: KEY.to_owned() };
    let deploy = |access| Request::AddDeployKey {
        app: name("shop"),
        access,
        text: KEY.to_owned(),
        name: Some("ci".to_owned()),
    };
    let ask = async |request| house.ask(&Caller::Operator, request).await;
    ask(deploy(Access::Read)).await.unwrap();
    let Some(KeyOwner::Deploy(found)) = house.store.key_owner(&PRINT.parse().unwrap()).await.unwrap() else {
        panic!()
    };
    assert_eq!((found.app.as_str(), found.access), ("shop", Access::Read));
    assert!(matches!(ask(own.clone()).await, Err(Report { kind: Kind::Conflict, .. })));
    // other access is not had by asking again
    assert!(matches!(ask(deploy(Access::Write)).await, Err(Report { kind: Kind::Conflict, .. })));
    ask(Request::DestroyApp { app: name("shop") }).await.unwrap();
    assert_eq!(house.store.key_owner(&PRINT.parse().unwrap()).await.unwrap(), None, "it went with its app");
    ask(own).await.unwrap();
    // and no user can have the name that a deploy key goes by
    for request in [
        Request::AddUser { user: "deploy:blog".parse().unwrap(), role: Role::Member },
        Request::AddKeys { user: "deploy:blog".parse().unwrap(), text: KEY.to_owned() },
    ] {
        assert_eq!(ask(request).await.unwrap_err().kind, Kind::User);
    }
}

#[tokio::test]
async fn who_was_removed_or_demoted_is_that_at_the_next_request() {
    let house = house().await;
    let key = PRINT.parse().unwrap();
    let add = Request::AddKeys { user: "root".parse().unwrap(), text: KEY.to_owned() };
    house.ask(&Caller::Operator, add).await.unwrap();
    let caller = async || Caller::of_key(&house.store, &key).await.unwrap();
    assert!(matches!(caller().await, Some(Caller::User { role: Role::Admin, .. })));
    let role = Request::SetRole { user: "root".parse().unwrap(), role: Role::Member };
    house.ask(&Caller::Operator, role).await.unwrap();
    assert!(matches!(caller().await, Some(Caller::User { role: Role::Member, .. })));
    let Response::UserRemoved { keys, .. } =
        house.ask(&Caller::Operator, Request::RemoveUser { user: "root".parse().unwrap() }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((keys, caller().await), (1, None));
}
