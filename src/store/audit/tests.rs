//! The record against those who would change it.

use super::*;
use crate::model::UserName;

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

fn all() -> Filter {
    Filter { limit: 1_000, ..Filter::default() }
}

fn done(at_ms: i64, action: &str) -> Entry {
    let event = Event::Administered { action: action.to_owned(), target: None, refused: None };
    Entry::new(at_ms, Who::Operator, event)
}

fn actions(logged: &[Logged]) -> Vec<String> {
    let action = |l: &Logged| match &l.entry.event {
        Event::Administered { action, .. } => action.clone(),
        other => other.name().to_owned(),
    };
    logged.iter().map(action).collect()
}

#[tokio::test]
async fn entries_are_found_by_time_app_user_request_and_place() {
    let (_dir, store) = store().await;
    let ada: UserName = "ada".parse().unwrap();
    let by_ada = Entry { actor: Who::User { name: ada.clone() }, ..done(2, "b").request("r1") };
    let of_shop = done(3, "c").app(Some("shop".parse().unwrap()));
    store.append_audit(&[done(1, "a"), by_ada.clone(), of_shop]).await.unwrap();
    store.append_audit(&[done(4, "d")]).await.unwrap();
    let found = async |filter: Filter| actions(&store.audit(&filter).await.unwrap());
    assert_eq!(found(all()).await, ["a", "b", "c", "d"]);
    assert_eq!(found(Filter { limit: 2, ..all() }).await, ["c", "d"], "the newest");
    assert_eq!(found(Filter { after_seq: Some(1), limit: 2, ..all() }).await, ["b", "c"], "what comes next");
    assert_eq!(found(Filter { since_ms: Some(3), ..all() }).await, ["c", "d"]);
    assert_eq!(found(Filter { user: Some(ada), ..all() }).await, ["b"]);
    assert_eq!(found(Filter { app: Some("shop".parse().unwrap()), ..all() }).await, ["c"]);
    assert_eq!(found(Filter { request: Some("r1".to_owned()), ..all() }).await, ["b"]);
    assert_eq!(store.audit(&all()).await.unwrap()[1], Logged { seq: 2, entry: by_ada });
}

#[tokio::test]
async fn texts_are_made_harmless_and_short() {
    let (_dir, store) = store().await;
    let reason = format!("\u{1b}[31mred\u{1b}[0m\nnext\u{202e}line\t{}", "x".repeat(5_000));
    let entry =
        Entry::new(1, Who::Anonymous, Event::RequestRefused { service: Some(reason.clone()), reason });
    store.append_audit(&[entry.detail("a\r\nb\u{7}")]).await.unwrap();
    let logged = store.audit(&all()).await.unwrap();
    let entry = &logged[0].entry;
    let refusal = entry.event.refusal().unwrap();
    assert!(refusal.starts_with("red nextline xxx"), "{refusal:?}");
    assert_eq!(refusal.chars().count(), TEXT_CHARS);
    assert_eq!(entry.detail.as_deref(), Some("a  b"));
    assert_eq!(store.verify_audit().await.unwrap().faults, [] as [&str; 0]);
}

#[tokio::test]
async fn sql_neither_changes_nor_removes_an_entry() {
    let (_dir, store) = store().await;
    store.append_audit(&[done(1, "a"), done(2, "b")]).await.unwrap();
    for sql in [
        "UPDATE audit SET entry_json = '{}'",
        "UPDATE audit SET at_ms = 9 WHERE seq = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE seq = 2",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 1",
        "REPLACE INTO audit (seq, at_ms, event, entry_json, hash) VALUES (2, 1, 'x', '{}', '')",
    ] {
        let error = sqlx::query(sql).execute(store.pool()).await.unwrap_err().to_string();
        assert!(error.contains("the audit record is not"), "{sql}: {error}");
    }
    assert_eq!(actions(&store.audit(&all()).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn what_was_changed_behind_sqlite_s_back_shows() {
    for (tampering, fault) in [
        ("UPDATE audit SET entry_json = replace(entry_json, '\"b\"', '\"x\"') WHERE seq = 2", "entry 2, or"),
        ("UPDATE audit SET app = 'shop' WHERE seq = 2", "entry 2: its columns"),
        ("UPDATE audit SET at_ms = 77 WHERE seq = 2", "entry 2: its columns"),
        ("DELETE FROM audit WHERE seq = 2", "entries 2 to 2 are missing"),
        ("DELETE FROM audit WHERE seq = 1", "the entries before 2 are missing"),
        ("DELETE FROM audit WHERE seq > 2", "entries 3 to 4 are missing at the end"),
        ("UPDATE audit SET hash = 'sha256:0' WHERE seq = 3", "entry 3, or"),
        (
            "UPDATE audit SET entry_json = replace(entry_json, '\"a\"', '\"x\"') WHERE seq = 1",
            "entry 1 is not",
        ),
    ] {
        let (_dir, store) = store().await;
        store.append_audit(&[done(1, "a"), done(2, "b"), done(3, "c"), done(4, "d")]).await.unwrap();
        assert_eq!(store.verify_audit().await.unwrap().faults, [] as [&str; 0]);
        for trigger in ["audit_is_not_changed", "audit_is_not_removed"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}")))
                .execute(store.pool())
                .await
                .unwrap();
        }
        sqlx::query(tampering).execute(store.pool()).await.unwrap();
        let verdict = store.verify_audit().await.unwrap();
        assert!(verdict.faults.iter().any(|f| f.contains(fault)), "{tampering}: {verdict:?}");
    }
}

#[tokio::test]
async fn old_entries_go_and_an_entry_says_so() {
    let (_dir, store) = store().await;
    for at_ms in 1..=10 {
        store.append_audit(&[done(at_ms, "x")]).await.unwrap();
    }
    assert_eq!(store.purge_audit(1, 1_000).await.unwrap(), 0);
    assert_eq!(store.purge_audit(4, 1_000).await.unwrap(), 3);
    let left = store.audit(&all()).await.unwrap();
    assert_eq!(left.iter().map(|l| l.seq).collect::<Vec<_>>(), (4..=11).collect::<Vec<_>>());
    assert!(matches!(left.last().unwrap().entry.event, Event::Purged { through: 3, entries: 3, .. }));
    assert_eq!(store.verify_audit().await.unwrap().faults, [] as [&str; 0]);
    assert_eq!(store.purge_audit(0, 2).await.unwrap(), 6, "beyond the number that is kept");
    let verdict = store.verify_audit().await.unwrap();
    assert_eq!((verdict.faults.as_slice(), verdict.first), ([].as_slice(), 10));
    // a purge that was not, but is claimed in another's words, removes nothing
    let forged =
        "INSERT INTO audit (at_ms, event, entry_json, hash, purged_through) VALUES (1, 'x', '{}', '', 99)";
    sqlx::query(forged).execute(store.pool()).await.unwrap();
    assert!(!store.verify_audit().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn a_clock_that_stepped_back_keeps_what_came_after() {
    let (_dir, store) = store().await;
    store.append_audit(&[done(1, "old"), done(100, "young"), done(2, "stepped")]).await.unwrap();
    assert_eq!(store.purge_audit(50, 1_000).await.unwrap(), 1);
    assert_eq!(actions(&store.audit(&all()).await.unwrap()), ["young", "stepped", "purged"]);
}

#[tokio::test]
async fn a_change_and_its_entry_are_one() {
    let (_dir, store) = store().await;
    let (noting, note) = store.noting(done(1, "create_app"));
    noting.create_app(&"shop".parse().unwrap(), None).await.unwrap();
    assert_eq!(note.left(), None);
    noting.create_app(&"blog".parse().unwrap(), None).await.unwrap();
    assert_eq!(actions(&store.audit(&all()).await.unwrap()), ["create_app"], "once");

    let (noting, note) = store.noting(done(2, "create_app"));
    noting.create_app(&"shop".parse().unwrap(), None).await.unwrap_err();
    assert_eq!(note.left(), Some(done(2, "create_app")), "nothing was changed, so nothing is written");

    // an entry that cannot be written: the change is not made either
    let blocked = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    sqlx::query(blocked).execute(store.pool()).await.unwrap();
    let (noting, note) = store.noting(done(3, "create_app"));
    noting.create_app(&"cart".parse().unwrap(), None).await.unwrap_err();
    assert_eq!(store.app(&"cart".parse().unwrap()).await.unwrap(), None);
    assert_eq!(note.left(), Some(done(3, "create_app")));
}
