//! The trail on a real store.

use super::*;

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

fn all() -> Filter {
    Filter { limit: 10_000, ..Filter::default() }
}

fn refused(n: usize) -> Entry {
    let event = Event::RequestRefused { service: None, reason: format!("{n}") };
    entry(Who::User { name: "ada".parse().unwrap() }, event)
}

#[tokio::test]
async fn entries_are_written_in_order_and_what_was_left_goes_before_what_is_recorded() {
    let (_dir, store) = store().await;
    let trail = Trail::start(store.clone());
    for n in 0..1_000 {
        trail.note(refused(n));
    }
    trail.record(vec![refused(1_000)]).await.unwrap();
    let logged = store.audit(&all()).await.unwrap();
    let reasons: Vec<_> = logged.iter().map(|l| l.entry.event.refusal().unwrap().to_owned()).collect();
    assert_eq!(reasons, (0..=1_000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(logged.last().unwrap().seq, 1_001);
}

#[tokio::test]
async fn what_is_left_is_written_without_anybody_asking() {
    let (_dir, store) = store().await;
    let trail = Trail::start(store.clone());
    let mut changes = store.audit_changes();
    trail.note(refused(1));
    changes.changed().await.unwrap();
    assert_eq!(store.audit(&all()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_waits_and_what_is_lost_is_counted() {
    let (_dir, store) = store().await;
    let (queue, items) = mpsc::channel(2);
    let lost = Arc::new(AtomicU64::new(0));
    let trail = Trail(Some(Arc::new(Inner { queue, lost: lost.clone() })));
    // no writer takes anything yet
    for n in 0..5 {
        trail.note(refused(n));
    }
    assert_eq!(lost.load(Ordering::Relaxed), 3);
    tokio::spawn(
        Writer { store: store.clone(), items, lost, flood: Flood::default(), kept: Vec::new() }.run(),
    );
    trail.flush().await.unwrap();
    let logged = store.audit(&all()).await.unwrap();
    assert_eq!(logged.len(), 3);
    assert_eq!(logged[2].entry.event, Event::Lost { entries: 3 });
}

#[tokio::test]
async fn what_cannot_be_written_is_an_error_and_written_later_in_its_order() {
    let (_dir, store) = store().await;
    let trail = Trail::start(store.clone());
    let blocked = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    sqlx::query(blocked).execute(store.pool()).await.unwrap();
    let error = trail.record(vec![refused(1), refused(2)]).await.unwrap_err();
    assert!(error.contains("no room"), "{error}");
    trail.note(refused(3));
    trail.flush().await.unwrap_err();
    sqlx::query("DROP TRIGGER full").execute(store.pool()).await.unwrap();
    trail.flush().await.unwrap();
    let logged = store.audit(&all()).await.unwrap();
    let reasons: Vec<_> = logged.iter().map(|l| l.entry.event.refusal().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["1", "2", "3"]);
}

#[tokio::test]
async fn of_what_cannot_be_written_for_long_the_oldest_are_kept_and_the_rest_is_counted_once() {
    let (_dir, store) = store().await;
    let trail = Trail::start(store.clone());
    let blocked = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    sqlx::query(blocked).execute(store.pool()).await.unwrap();
    trail.record((0..KEPT + 5).map(refused).collect()).await.unwrap_err();
    for _ in 0..3 {
        trail.flush().await.unwrap_err();
    }
    sqlx::query("DROP TRIGGER full").execute(store.pool()).await.unwrap();
    trail.flush().await.unwrap();
    let logged = store.audit(&all()).await.unwrap();
    assert_eq!(logged.len(), KEPT + 1);
    assert_eq!(logged[0].entry, Entry { at_ms: logged[0].entry.at_ms, ..refused(0) });
    assert_eq!(logged[KEPT].entry.event, Event::Lost { entries: 5 });
}
