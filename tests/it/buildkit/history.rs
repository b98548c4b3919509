//! Disk and history against a scripted daemon: what is asked, and what becomes of broken answers.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lemnos::buildkit::{Error, ExportError, HistoryEvent, HistoryQuery, Rule, State, Sum};
use lemnos_proto::control as wire;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::fake::buildkitd::{Daemon, Script};

fn event(
    kind: wire::BuildHistoryEventType,
    reference: &str,
    created: i64,
    failed: Option<i32>,
) -> wire::BuildHistoryEvent {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let ended = kind == wire::BuildHistoryEventType::Complete;
    let record = wire::BuildHistoryRecord {
        r#ref: reference.into(),
        created_at: at(created),
        completed_at: ended.then(|| at(created + 5)).flatten(),
        error: failed.map(|code| lemnos_proto::rpc::Status {
            code,
            message: "x".into(),
            details: Vec::new(),
        }),
        ..Default::default()
    };
    wire::BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

fn told(events: Vec<Result<wire::BuildHistoryEvent, Status>>) -> Daemon {
    let history = move || futures::stream::iter(events.clone()).boxed();
    Daemon::new(Script { history: Arc::new(history), ..Script::default() })
}

#[tokio::test]
async fn records_are_newest_first_and_a_build_that_ends_meanwhile_stands_once() {
    use wire::BuildHistoryEventType::{Complete, Deleted, Started};
    let daemon = told(vec![
        Ok(event(Started, "running", 40, None)),
        Ok(event(Started, "ended", 20, None)),
        Ok(event(Complete, "ended", 20, None)),
        Ok(event(Complete, "failed", 30, Some(2))),
        Ok(event(Complete, "canceled", 10, Some(1))),
        Ok(event(Deleted, "gone", 50, None)),
    ]);
    let listening = daemon.listen();
    let client = listening.client().await;
    let query = HistoryQuery { limit: 7, filters: vec!["status==error".into()], ..HistoryQuery::default() };
    let records = client.history(&query).await.unwrap();
    let states: Vec<_> = records.iter().map(|r| (r.reference.as_str(), r.state())).collect();
    assert_eq!(
        states,
        [
            ("running", State::Running),
            ("failed", State::Failed),
            ("ended", State::Completed),
            ("canceled", State::Canceled)
        ]
    );
    let asked = daemon.asked.lock().unwrap().pop().unwrap();
    for part in ["early_exit: true", "limit: 7", "filter: [\"status==error\"]"] {
        assert!(asked.contains(part), "{asked}");
    }
}

#[tokio::test]
async fn a_history_that_breaks_off_is_no_history() {
    use wire::BuildHistoryEventType::Complete;
    let daemon = told(vec![Ok(event(Complete, "a", 1, None)), Err(Status::internal("disk"))]).listen();
    let client = daemon.client().await;
    let error = client.history(&HistoryQuery::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code: Code::Internal, message, .. } if message == "disk"),
        "{error:?}"
    );
    let mut seen = Vec::new();
    let followed = client.follow_history(&HistoryQuery::default(), |event| seen.push(event)).await;
    assert!(followed.is_err());
    assert!(matches!(&seen[..], [HistoryEvent::Complete(record)] if record.reference == "a"), "{seen:?}");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let daemon = Daemon::new(Script::default()).listen();
    let client = daemon.client().await;
    let error = client.history_record("nope").await.unwrap_err();
    assert!(error.to_string().contains("no build nope in its history"), "{error}");
    assert!(matches!(client.export_history(Vec::new(), Vec::new()).await, Err(ExportError::Nothing)));
    assert!(client.delete_history("").await.is_err());
}

#[tokio::test]
async fn updates_say_one_thing_each() {
    let daemon = Daemon::new(Script::default());
    let listening = daemon.listen();
    let client = listening.client().await;
    client.pin_history("r", true).await.unwrap();
    client.pin_history("r", false).await.unwrap();
    client.delete_history("r").await.unwrap();
    client.finalize_history("r").await.unwrap();
    let update = |pinned, delete, finalize| {
        format!("{:?}", wire::UpdateBuildHistoryRequest { r#ref: "r".into(), pinned, delete, finalize })
    };
    let want = [
        update(true, false, false),
        update(false, false, false),
        update(false, true, false),
        update(false, false, true),
    ];
    assert_eq!(*daemon.asked.lock().unwrap(), want);
}

#[tokio::test]
async fn a_prune_asks_for_exactly_its_rule_and_tells_what_went() {
    let record =
        |id: &str, size, in_use| wire::UsageRecord { id: id.into(), size, in_use, ..Default::default() };
    let usage = vec![record("big", 30, false), record("b", 10, true), record("a", 10, false)];
    let daemon = Daemon::new(Script { usage, ..Script::default() });
    let listening = daemon.listen();
    let client = listening.client().await;
    let records = client.disk_usage(&["type==regular".into()], Duration::from_secs(1)).await.unwrap();
    let ids: Vec<_> = records.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "big"]);
    assert_eq!(Sum::of(&records), Sum { total: 50, reclaimable: 40, shared: 0 });

    let rule = Rule {
        all: true,
        filters: vec!["type==regular".into(), "mutable".into()],
        keep_duration: Duration::from_millis(1),
        reserved_space: 1,
        max_used_space: 2,
        min_free_space: 3,
    };
    let mut gone = Vec::new();
    let sum = client.prune(&rule, |record| gone.push(record.id)).await.unwrap();
    assert_eq!((gone.join(" ").as_str(), sum.total), ("big b a", 50));
    let want = wire::PruneRequest {
        filter: rule.filters.clone(),
        all: true,
        keep_duration: 1_000_000,
        reserved_space: 1,
        max_used_space: 2,
        min_free_space: 3,
    };
    let asked = daemon.asked.lock().unwrap().clone();
    assert!(asked[0].contains("age_limit: 1000000000"), "{asked:?}");
    assert_eq!(asked[1], format!("{want:?}"));
    let error = client.prune(&Rule { max_used_space: -1, ..rule }, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("maximum used space of -1"), "{error}");
}
