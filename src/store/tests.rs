//! Tests of the store, each on a real file in a directory of its own.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::Executor as _;

use super::*;
use crate::event::{BuildEvent, Recorded};
use crate::model::{
    Access, AppName, AppSettings, Build, BuildId, BuildState, Digest, Fingerprint, Form, Grant, ImageName,
    ImagePrefix, PublishedImage, RefName, Sha, Tag, UserKey, UserName, Visible,
};

fn name<T: FromStr<Err = crate::model::Invalid>>(text: &str) -> T {
    text.parse().unwrap()
}

fn key(user: &str, letter: char) -> UserKey {
    UserKey {
        fingerprint: name(&format!("SHA256:{}", letter.to_string().repeat(43))),
        user: name(user),
        deploy: None,
        public_key: format!("ssh-ed25519 {letter}"),
        comment: String::new(),
        added_at_ms: 7,
    }
}

fn build(app: &str, id: &str) -> Build {
    Build {
        state: BuildState::Running,
        started_at_ms: 1_000,
        ..Build::queued(name(id), name(app), name("ann"), name("refs/heads/main"), name(&"a".repeat(40)))
    }
}

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

async fn store_with_app(app: &str) -> (tempfile::TempDir, Store, crate::model::App) {
    let (dir, store) = store().await;
    let app = store.create_app(&name(app), None).await.unwrap();
    (dir, store, app)
}

const ID_1: &str = "0000000000000000000000aaaa111111";
const ID_2: &str = "0000000000000000000001bbbb111111";

#[tokio::test]
async fn the_file_is_private_durable_and_reopens() {
    let (dir, store) = store().await;
    store.add_key(&key("ann", 'A')).await.unwrap();
    let mode = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("lemnos.db"), mode("lemnos.db-wal")), (0o600, 0o600));
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(store.pool()).await.unwrap();
    assert_eq!(synchronous, 2, "FULL");
    store.close().await;

    std::fs::set_permissions(dir.path().join(FILE_NAME), std::fs::Permissions::from_mode(0o644)).unwrap();
    let again = Store::open(dir.path()).await.unwrap();
    assert_eq!(mode("lemnos.db"), 0o600, "other people's access is taken away");
    assert_eq!(again.keys(None).await.unwrap(), [key("ann", 'A')]);
}

#[tokio::test]
async fn two_processes_may_open_a_fresh_directory_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = tokio::join!(Store::open(dir.path()), Store::open(dir.path()), Store::open(dir.path()));
    a.unwrap();
    b.unwrap();
    c.unwrap();
}

/// Setting `auto_vacuum` writes to the file, so that each new connection of readers waited for the write lock.
#[tokio::test]
async fn readers_do_not_wait_for_another_process_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), std::time::Duration::from_millis(50)).await.unwrap();
    let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(store.pool()).await.unwrap();
    assert_eq!(mode, 2, "incremental");
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE_NAME));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    // as many as the pool makes
    let mut readers = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut reader = store.pool().acquire().await.unwrap();
        let apps: i64 =
            sqlx::query_scalar("SELECT count(*) FROM apps").fetch_one(&mut *reader).await.unwrap();
        assert_eq!(apps, 0);
        readers.push(reader);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (dir, store) = store().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', TRUE, x'00', 0)",
    )
    .execute(store.pool())
    .await
    .unwrap();
    store.close().await;
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 9999, known, .. } if known < 9999), "{error}");
}

#[tokio::test]
async fn migrations_are_numbered_without_gaps() {
    let versions: Vec<i64> = MIGRATIONS.iter().map(|m| m.version).collect();
    assert_eq!(versions, (1..=i64::try_from(versions.len()).unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn builds_recorded_before_images_were_listed_still_show_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE_NAME)).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let later = MIGRATIONS.iter().find(|migration| migration.description == "build images").unwrap();
    MIGRATIONS.run_to(later.version - 1, &pool).await.unwrap();
    let digest = Digest::of(b"x");
    let statement = format!(
        "INSERT INTO apps VALUES ('1', 'shop', '{{}}', 1);
         INSERT INTO builds VALUES ('{ID_1}', '1', 'ann', 'refs/heads/main', '{commit}', 'succeeded', 1, 1, 2,
           'localhost:5000/shop', '{digest}', '[\"main\"]', NULL, '', NULL, '{commit}', 0, 1, '{{}}', NULL, NULL, NULL)",
        commit = "a".repeat(40)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    pool.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    let found = store.build(&name(ID_1)).await.unwrap().unwrap();
    let expected = PublishedImage {
        name: name("localhost:5000/shop"),
        digest,
        form: None,
        media_type: None,
        platforms: Vec::new(),
        tags: vec![name("main")],
    };
    assert_eq!(found.images, [expected]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), "# not a database\n".repeat(100)).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    let StoreError::Open { path, cause } = error else { panic!("{error}") };
    assert!(path.ends_with(FILE_NAME) && matches!(*cause, StoreError::Corrupt(_)), "{cause}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(&dir.path().join("absent")).await.unwrap_err();
    assert!(matches!(&error, StoreError::DataDir { path, .. } if path.ends_with("absent")), "{error}");
}

#[tokio::test]
async fn a_locked_database_is_an_error_of_its_own_and_nothing_is_written() {
    let (dir, store) = store().await;
    let other = Store::open_with(dir.path(), Duration::from_millis(1)).await.unwrap();
    let held = store.write().await.unwrap();
    let error = other.add_key(&key("ann", 'A')).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error}");
    drop(held);
    assert!(other.add_key(&key("ann", 'A')).await.unwrap(), "free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_writes_without_a_pause_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), Duration::from_millis(30)).await.unwrap();
    let greedy = {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let mut tx = store.write().await.unwrap();
                for n in 0..300 {
                    sqlx::query("INSERT OR REPLACE INTO ledger (key, content, updated_at_ms) VALUES (?, zeroblob(500), 0)")
                        .bind(format!("key {n}"))
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                }
                tx.commit().await.unwrap();
            }
        })
    };
    for n in 0..100 {
        store.put_ledger(&format!("mine {n}"), b"x", 0).await.unwrap();
    }
    greedy.abort();
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_its_own_and_nothing_is_written() {
    let (_dir, store) = store().await;
    // SQLite answers SQLITE_FULL beyond max_page_count as it does when the disk is full
    let mut tx = store.write().await.unwrap();
    sqlx::query("PRAGMA max_page_count = 1").execute(&mut *tx).await.unwrap();
    let error =
        sqlx::query("INSERT INTO ledger (key, content, updated_at_ms) VALUES ('x', zeroblob(9000000), 0)")
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)
            .unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    drop(tx);
    assert_eq!(store.ledger("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_read_only_database_is_an_error_of_its_own() {
    let (_dir, store) = store().await;
    // permissions do not stop root, query_only gives the same result code
    let mut connection = store.pool().acquire().await.unwrap();
    sqlx::query("PRAGMA query_only = ON").execute(&mut *connection).await.unwrap();
    let error = sqlx::query("DELETE FROM users").execute(&mut *connection).await.map_err(StoreError::from);
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly(_)), "{error}");
}

#[tokio::test]
async fn damaged_rows_are_errors_with_their_place() {
    let (_dir, store, _) = store_with_app("shop").await;
    sqlx::query("UPDATE apps SET settings_json = '{\"platforms\":[\"Ä\"]}'")
        .execute(store.pool())
        .await
        .unwrap();
    let error = store.apps().await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { place: "apps.settings_json", .. }), "{error}");
    sqlx::query("UPDATE apps SET name = '../x'").execute(store.pool()).await.unwrap();
    let error = store.apps().await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { place: "apps.name", .. }), "{error}");
}

#[tokio::test]
async fn a_key_has_one_user() {
    let (_dir, store) = store().await;
    assert!(store.add_key(&key("ann", 'A')).await.unwrap());
    assert!(!store.add_key(&key("ann", 'A')).await.unwrap(), "again: nothing changes");
    assert!(store.add_key(&key("ann", 'B')).await.unwrap());
    let error = store.add_key(&key("bob", 'A')).await.unwrap_err();
    assert!(matches!(&error, StoreError::KeyTaken { user, .. } if user.as_str() == "ann"), "{error}");
    // the refused addition left no user behind
    let error = store
        .grant(&store.create_app(&name("shop"), None).await.unwrap().name, &name("bob"), Access::Write)
        .await;
    assert!(matches!(error, Err(StoreError::NoUser(_))));
    assert_eq!(store.keys(Some(&name("ann"))).await.unwrap().len(), 2);
    assert_eq!(store.keys(Some(&name("bob"))).await.unwrap(), []);
    let fingerprint: Fingerprint = key("ann", 'A').fingerprint;
    assert_eq!(store.find_key(&fingerprint).await.unwrap(), Some(key("ann", 'A')));
    assert_eq!(store.remove_key(&fingerprint, None).await.unwrap(), key("ann", 'A'));
    assert_eq!(store.find_key(&fingerprint).await.unwrap(), None);
    assert!(matches!(store.remove_key(&fingerprint, None).await, Err(StoreError::NoKey(_))));
}

#[tokio::test]
async fn grants_decide_who_may() {
    let (_dir, store, app) = store_with_app("shop").await;
    let (ann, bob): (UserName, UserName) = (name("ann"), name("bob"));
    store.add_key(&key("ann", 'A')).await.unwrap();
    store.add_key(&key("bob", 'B')).await.unwrap();
    assert!(store.access(&ann, &app.name).await.unwrap().is_none());
    assert!(store.grant(&app.name, &ann, Access::Write).await.unwrap());
    assert!(!store.grant(&app.name, &ann, Access::Write).await.unwrap(), "again: nothing changes");
    assert!(store.access(&ann, &app.name).await.unwrap().is_some());
    assert!(store.access(&bob, &app.name).await.unwrap().is_none());
    assert!(store.access(&ann, &name("other")).await.unwrap().is_none());
    assert_eq!(store.grants(&app.name).await.unwrap(), [Grant { user: ann.clone(), access: Access::Write }]);
    store.revoke(&app.name, &ann).await.unwrap();
    assert!(store.access(&ann, &app.name).await.unwrap().is_none());
    assert!(matches!(store.revoke(&app.name, &ann).await, Err(StoreError::NoGrant { .. })));
    assert!(matches!(store.grant(&name("nil"), &ann, Access::Write).await, Err(StoreError::NoApp(_))));
    assert!(matches!(store.grants(&name("nil")).await, Err(StoreError::NoApp(_))));
}

#[tokio::test]
async fn two_apps_never_share_an_image() {
    let (_dir, store) = store().await;
    let prefix: ImagePrefix = name("127.0.0.1:5000/team");
    let shop = store.create_app(&name("shop"), Some(&prefix)).await.unwrap();
    let with_image = |image: &str| AppSettings { image: Some(name(image)), ..AppSettings::default() };
    let blog: AppName = name("blog");
    store.create_app(&blog, Some(&prefix)).await.unwrap();
    // another name of the same registry is the same image
    for taken in ["127.0.0.1:5000/team/shop", "localhost:5000/team/shop"] {
        let error = store.update_settings(&blog, &with_image(taken), Some(&prefix)).await.unwrap_err();
        assert!(matches!(&error, StoreError::ImageTaken { owner, .. } if *owner == shop.name), "{error}");
    }
    assert_eq!(store.app(&blog).await.unwrap().unwrap().settings.image, None, "nothing was changed");
    // the same image set again for the same app is no conflict with itself
    let own = with_image("127.0.0.1:5000/team/cart");
    store.update_settings(&blog, &own, Some(&prefix)).await.unwrap();
    store.update_settings(&blog, &own, Some(&prefix)).await.unwrap();
    let error = store.create_app(&name("cart"), Some(&prefix)).await.unwrap_err();
    assert!(matches!(&error, StoreError::ImageTaken { owner, .. } if *owner == blog), "{error}");
    assert!(matches!(store.create_app(&blog, None).await, Err(StoreError::AppExists(_))));
}

/// An image, and another one below it.
fn two_images(image: &ImageName) -> Vec<PublishedImage> {
    let names = [image.clone(), name(&format!("{image}/web"))];
    let published = |name| PublishedImage {
        name,
        digest: Digest::of(b"x"),
        form: Some(Form::Index),
        media_type: None,
        platforms: Vec::new(),
        tags: Vec::new(),
    };
    names.map(published).into()
}

#[tokio::test]
async fn destroying_an_app_forgets_all_of_it_and_nothing_else() {
    let (_dir, store, shop) = store_with_app("shop").await;
    let blog = store.create_app(&name("blog"), None).await.unwrap();
    store.add_key(&key("ann", 'A')).await.unwrap();
    let image: ImageName = name("localhost:5000/shop");
    let (shop_print, blog_print) = (Digest::of(b"shop"), Digest::of(b"blog"));
    for (app, id) in [(&shop, ID_1), (&blog, ID_2)] {
        store.grant(&app.name, &name("ann"), Access::Write).await.unwrap();
        store.put_ledger(&format!("{}/refs/heads/main", app.id), b"x", 1).await.unwrap();
        let record = build(app.name.as_str(), id);
        let image: ImageName = name(&format!("localhost:5000/{}", app.name));
        store.create_build(&Build { images: two_images(&image), ..record.clone() }).await.unwrap();
        let event = Recorded { seq: 0, at_ms: 0, event: BuildEvent::Note { text: "hi".to_owned() } };
        store.append_events(&record.id, &[event]).await.unwrap();
        store.claim_tags(&app.id, &image, &record.reference, &[name("main")]).await.unwrap();
    }
    for (print, app) in [(&shop_print, "shop"), (&blog_print, "blog")] {
        let published = Published {
            // not the first of its build's images
            image: name(&format!("localhost:5000/{app}/web")),
            commit: Sha::zero(),
            children_json: "[]".to_owned(),
        };
        store.put_published(print, &published).await.unwrap();
    }
    assert_eq!(store.destroy_app(&shop.name).await.unwrap().id, shop.id);
    assert_eq!(store.app(&shop.name).await.unwrap(), None);
    assert_eq!(store.ledger(&format!("{}/refs/heads/main", shop.id)).await.unwrap(), None);
    assert_eq!(store.build(&name(ID_1)).await.unwrap(), None);
    assert_eq!(store.events(&name(ID_1), 0, 10).await.unwrap(), []);
    assert_eq!(store.published(&shop_print).await.unwrap(), None);
    let claims: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tag_claims").fetch_one(store.pool()).await.unwrap();
    assert_eq!(claims, 1);
    assert!(store.access(&name("ann"), &blog.name).await.unwrap().is_some());
    assert!(store.ledger(&format!("{}/refs/heads/main", blog.id)).await.unwrap().is_some());
    assert_eq!(store.events(&name(ID_2), 0, 10).await.unwrap().len(), 1);
    assert!(store.published(&blog_print).await.unwrap().is_some());
    let again = store.create_app(&shop.name, None).await.unwrap();
    assert_ne!(again.id, shop.id, "an id is never used again");
    store.claim_tags(&again.id, &image, &name("refs/heads/dev"), &[name("main")]).await.unwrap();
}

#[tokio::test]
async fn a_build_is_recorded_listed_and_closed_once() {
    let (_dir, store, app) = store_with_app("shop").await;
    let other = store.create_app(&name("blog"), None).await.unwrap();
    let running = build("shop", ID_1);
    store.create_build(&running).await.unwrap();
    store.create_build(&build("blog", ID_2)).await.unwrap();
    assert!(matches!(store.create_build(&build("nil", ID_1)).await, Err(StoreError::NoApp(_))));
    let image = |of: &str, form, platforms: &[&str]| PublishedImage {
        name: name(of),
        digest: Digest::of(of.as_bytes()),
        form: Some(form),
        media_type: Some("application/x".to_owned()),
        platforms: platforms.iter().map(|platform| name(platform)).collect(),
        tags: vec![name("main"), name("latest")],
    };
    let end = Finished {
        images: vec![
            image("localhost:5000/shop", Form::Index, &["linux/amd64", "linux/arm64"]),
            image("localhost:5000/shop/web", Form::Image, &["linux/amd64"]),
            image("localhost:5000/shop/wasm", Form::Artifact, &[]),
        ],
        ..Finished::as_state(BuildState::Succeeded, 2_000, None)
    };
    store.finish_build(&running.id, &end).await.unwrap();
    let done = store.build(&running.id).await.unwrap().unwrap();
    let expected = Build {
        state: end.state,
        finished_at_ms: Some(2_000),
        image: Some(name("localhost:5000/shop")),
        digest: Some(Digest::of(b"localhost:5000/shop")),
        tags: vec![name("main"), name("latest")],
        images: end.images.clone(),
        ..running.clone()
    };
    assert_eq!(done, expected);
    assert!(matches!(store.finish_build(&running.id, &end).await, Err(StoreError::BuildEnded(_))));
    let unknown: BuildId = name(&"f".repeat(32));
    assert!(matches!(store.finish_build(&unknown, &end).await, Err(StoreError::NoBuild(_))));

    let ids = async |filter: BuildFilter| -> Vec<String> {
        store.builds(&filter, &Visible::All).await.unwrap().into_iter().map(|b| b.id.to_string()).collect()
    };
    assert_eq!(ids(BuildFilter::default()).await, [ID_2, ID_1], "newest first");
    assert_eq!(ids(BuildFilter { limit: 1, ..BuildFilter::default() }).await, [ID_2]);
    assert_eq!(ids(BuildFilter { before: Some(name(ID_2)), ..BuildFilter::default() }).await, [ID_1]);
    assert_eq!(ids(BuildFilter { app: Some(app.name), ..BuildFilter::default() }).await, [ID_1]);
    assert_eq!(ids(BuildFilter { app: Some(other.name), ..BuildFilter::default() }).await, [ID_2]);
}

#[tokio::test]
async fn a_clock_that_steps_back_over_a_restart_keeps_the_order_of_builds() {
    let (dir, store, _) = store_with_app("shop").await;
    let hour_ahead = u64::try_from(now_ms() + 3_600_000).unwrap();
    let ahead = uuid::Builder::from_unix_timestamp_millis(hour_ahead, &[7; 10]).into_uuid();
    let mut made = vec![ahead.simple().to_string()];
    store.create_build(&build("shop", &made[0])).await.unwrap();
    store.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    for _ in 0..3 {
        let id = BuildId::generate().to_string();
        store.create_build(&build("shop", &id)).await.unwrap();
        made.insert(0, id);
    }
    let listed = store.builds(&BuildFilter::default(), &Visible::All).await.unwrap();
    assert_eq!(listed.iter().map(|build| build.id.as_str()).collect::<Vec<_>>(), made);
}

#[tokio::test]
async fn a_build_is_found_by_the_end_or_the_beginning_of_its_id() {
    let (_dir, store, _) = store_with_app("shop").await;
    store.create_build(&build("shop", ID_1)).await.unwrap();
    store.create_build(&build("shop", ID_2)).await.unwrap();
    assert_eq!(store.find_build("AAAA111111", &Visible::All).await.unwrap().id.as_str(), ID_1);
    assert_eq!(store.find_build("0000000000000000000001", &Visible::All).await.unwrap().id.as_str(), ID_2);
    let error = store.find_build("1111", &Visible::All).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::AmbiguousBuild { matches, .. } if *matches == [ID_2, ID_1]),
        "{error}"
    );
    for none in ["ffff", "111", "", "*aaa", "[0-9]*", &"0".repeat(33)] {
        assert!(matches!(store.find_build(none, &Visible::All).await, Err(StoreError::NoBuild(_))), "{none}");
    }
}

#[tokio::test]
async fn events_are_appended_whole_and_read_in_pages() {
    let (_dir, store, _) = store_with_app("shop").await;
    let record = build("shop", ID_1);
    store.create_build(&record).await.unwrap();
    let event = |seq: u64| Recorded {
        seq,
        at_ms: seq * 10,
        event: BuildEvent::StepLog { step: 1, line: format!("{seq}") },
    };
    let mut changes = store.build_changes();
    changes.mark_unchanged();
    store.append_events(&record.id, &[event(0), event(1), event(2)]).await.unwrap();
    assert!(changes.has_changed().unwrap(), "followers are woken");
    let again = store.append_events(&record.id, &[event(3), event(2)]).await;
    assert!(matches!(again, Err(StoreError::Database(_))), "a seq is written once");
    assert_eq!(
        store.events(&record.id, 0, 100).await.unwrap(),
        [event(0), event(1), event(2)],
        "all or none"
    );
    assert_eq!(store.events(&record.id, 1, 1).await.unwrap(), [event(1)]);
    let line = "\0 \u{1b}[1m \"quoted\" \\u0000 \u{2028} é 🦀 \u{fffd}".to_owned();
    let odd = Recorded { seq: 3, at_ms: 30, event: BuildEvent::StepLog { step: 1, line } };
    store.append_events(&record.id, std::slice::from_ref(&odd)).await.unwrap();
    assert_eq!(store.events(&record.id, 3, 1).await.unwrap(), [odd], "byte for byte");
    let unknown: BuildId = name(&"f".repeat(32));
    assert!(matches!(store.append_events(&unknown, &[event(0)]).await, Err(StoreError::NoBuild(_))));
}

#[tokio::test]
async fn a_build_goes_from_queued_to_one_end() {
    let (_dir, store, shop) = store_with_app("shop").await;
    let id: BuildId = name(ID_1);
    let queued = Build { state: BuildState::Queued, ..build("shop", ID_1) };
    store.create_build(&queued).await.unwrap();
    let state = async || store.build(&id).await.unwrap().unwrap().state;
    store.start_build(&id, 5).await.unwrap();
    assert!(matches!(store.start_build(&id, 6).await, Err(StoreError::BuildEnded(_))), "once");
    store.requeue_build(&id).await.unwrap();
    assert_eq!(state().await, BuildState::Queued);
    store.start_build(&id, 7).await.unwrap();
    assert_eq!(store.live_builds(Some(&shop.name)).await.unwrap().len(), 1);
    let end = Finished {
        cancelled_by: Some("bob".to_owned()),
        ..Finished::as_state(BuildState::Cancelled, 9, Some("cancelled by bob".to_owned()))
    };
    store.finish_build(&id, &end).await.unwrap();
    for late in BuildState::ALL.into_iter().filter(|state| !state.is_live()) {
        let again = store.finish_build(&id, &Finished::as_state(late, 10, None)).await;
        assert!(matches!(again, Err(StoreError::BuildEnded(_))), "{late:?}");
    }
    assert!(matches!(store.requeue_build(&id).await, Err(StoreError::BuildEnded(_))));
    assert!(matches!(store.accept_build(&id, 1).await, Err(StoreError::BuildEnded(_))));
    let expected = Build {
        running_at_ms: Some(7),
        finished_at_ms: Some(9),
        reason: end.reason,
        cancelled_by: end.cancelled_by,
        state: BuildState::Cancelled,
        ..queued
    };
    assert_eq!(store.build(&id).await.unwrap(), Some(expected));
    assert_eq!(store.live_builds(None).await.unwrap(), []);
    let unknown: BuildId = name(&"f".repeat(32));
    assert!(matches!(store.start_build(&unknown, 1).await, Err(StoreError::NoBuild(_))));
}

#[tokio::test]
async fn the_builds_of_a_push_are_recorded_together_or_not_at_all() {
    let (_dir, store, _) = store_with_app("shop").await;
    let error = store.create_builds(&[build("shop", ID_1), build("nil", ID_2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::NoApp(_)), "{error}");
    assert_eq!(store.build(&name(ID_1)).await.unwrap(), None);
}

#[tokio::test]
async fn old_builds_are_pruned_running_ones_kept() {
    let (_dir, store, app) = store_with_app("shop").await;
    let id = |n: u32| format!("{n:032x}");
    for n in 0..5 {
        let state = if n == 0 { BuildState::Running } else { BuildState::Failed };
        store.create_build(&Build { state, ..build("shop", &id(n)) }).await.unwrap();
    }
    assert_eq!(store.prune_builds(&app.name, 2).await.unwrap(), [name(&id(1)), name(&id(2))]);
    let left = store.builds(&BuildFilter::default(), &Visible::All).await.unwrap();
    assert_eq!(left.iter().map(|b| b.id.as_str()).collect::<Vec<_>>(), [id(4), id(3), id(0)]);
}

#[tokio::test]
async fn the_ledger_keeps_the_last_bytes() {
    let (_dir, store) = store().await;
    assert_eq!(store.ledger("a/main").await.unwrap(), None);
    store.put_ledger("a/main", b"1", 1).await.unwrap();
    store.put_ledger("a/main", &[0, 255], 2).await.unwrap();
    assert_eq!(store.ledger("a/main").await.unwrap(), Some(vec![0, 255]));
    store.remove_ledger("a/main").await.unwrap();
    assert_eq!(store.ledger("a/main").await.unwrap(), None);
}

#[tokio::test]
async fn published_indexes_are_replaced_and_forgotten() {
    let (_dir, store) = store().await;
    let print = Digest::of(b"x");
    let mut entry = Published {
        image: name("localhost:5000/shop"),
        commit: Sha::zero(),
        children_json: "[1]".to_owned(),
    };
    assert_eq!(store.published(&print).await.unwrap(), None);
    store.put_published(&print, &entry).await.unwrap();
    entry.children_json = "[2]".to_owned();
    store.put_published(&print, &entry).await.unwrap();
    assert_eq!(store.published(&print).await.unwrap(), Some(entry));
    store.remove_published(&print).await.unwrap();
    assert_eq!(store.published(&print).await.unwrap(), None);
}

#[tokio::test]
async fn a_tag_has_one_ref_until_it_is_released() {
    let (_dir, store, app) = store_with_app("shop").await;
    let image: ImageName = name("localhost:5000/shop");
    let (main, dev): (RefName, RefName) = (name("refs/heads/main"), name("refs/heads/dev"));
    let tags: Vec<Tag> = vec![name("main"), name("latest")];
    store.claim_tags(&app.id, &image, &main, &tags).await.unwrap();
    store.claim_tags(&app.id, &image, &main, &tags).await.unwrap();
    let error = store.claim_tags(&app.id, &image, &dev, &[name("dev"), name("latest")]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::TagTaken { owner, tag, .. } if *owner == main && tag.as_str() == "latest")
    );
    // all or none: the refused claim left `dev` free
    store.claim_tags(&app.id, &image, &main, &[name("dev")]).await.unwrap();
    store.release_tags(&app.id, &main).await.unwrap();
    store.claim_tags(&app.id, &image, &dev, &tags).await.unwrap();
}

#[tokio::test]
async fn a_hundred_writers_at_once_all_succeed() {
    let (_dir, store) = store().await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put_ledger(&format!("a/{n}"), b"x", n).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}
