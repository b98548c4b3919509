//! What the server counts, for Prometheus: one set of process-wide handles, written as text 0.0.4.
//!
//! Every label's values are known when the program is compiled: no user, app, ref or address is one. All series stand
//! from the start, at zero. Must not decide anything, and must not wait for anything.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::model::audit::{Entry, Event};
use crate::model::{BuildState, KindName};

mod process;

use process::Process;

/// What a scrape's answer is.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// From a look at an earlier build to an emulated compiler.
const SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 7_200.0];

const PUSHES: [&str; 3] = ["accepted", "rejected", "refused"];
const REFUSALS: [&str; 6] = ["login", "connection", "cut", "channel", "request", "hook"];
const SERVICES: [&str; 3] = ["git-receive-pack", "git-upload-pack", "git-upload-archive"];
const BUILDERS: [&str; 5] = ["unknown", "up", "down", "draining", "drained"];
const STATUSES: [&str; 3] = ["ok", "failed", "refused"];
const REGISTRY: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
const KINDS: [Option<KindName>; 5] =
    [Some(KindName::Dockerfile), Some(KindName::Ko), Some(KindName::Spin), Some(KindName::Melange), None];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics::new().expect("every name is valid and given once, which the tests of this module see")
});

/// A part of a push's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the request to checked objects on disk.
    Receive,
    /// In line for room.
    Queue,
    /// Tree, detection and plan.
    Plan,
    Solve,
    Assemble,
    /// The commit point: refs and tags.
    Tag,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Receive, Self::Queue, Self::Plan, Self::Solve, Self::Assemble, Self::Tag];

    fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Queue => "queue",
            Self::Plan => "plan",
            Self::Solve => "solve",
            Self::Assemble => "assemble",
            Self::Tag => "tag",
        }
    }
}

/// Counts a stage's time when it is dropped, whichever way the stage ends.
#[must_use]
pub struct Timing {
    stage: Stage,
    began: Instant,
}

impl Drop for Timing {
    fn drop(&mut self) {
        took(self.stage, self.began.elapsed());
    }
}

/// Begins to count a stage's time.
pub fn time(stage: Stage) -> Timing {
    Timing { stage, began: Instant::now() }
}

pub fn took(stage: Stage, time: Duration) {
    METRICS.stages.with_label_values(&[stage.as_str()]).observe(time.as_secs_f64());
}

/// Counts what an entry of the audit record is about.
pub fn audited(entry: &Entry) {
    let m = &*METRICS;
    let refusal = |reason| m.refusals.with_label_values(&[reason]).inc_by(entry.times);
    match &entry.event {
        Event::LoggedIn { .. } => m.logins.inc_by(entry.times),
        Event::PushAnswered { refused, .. } => {
            let result = if refused.is_none() { "accepted" } else { "rejected" };
            m.pushes.with_label_values(&[result]).inc();
        }
        Event::PushRefused { .. } => m.pushes.with_label_values(&["refused"]).inc(),
        Event::LoginRefused { .. } => refusal("login"),
        Event::ConnectionDropped { .. } => refusal("connection"),
        Event::ConnectionCut { .. } => refusal("cut"),
        Event::ChannelRefused { .. } => refusal("channel"),
        Event::RequestRefused { .. } => refusal("request"),
        Event::HookRefused { .. } => refusal("hook"),
        Event::RequestAccepted { .. }
        | Event::Administered { .. }
        | Event::Lost { .. }
        | Event::Purged { .. } => {}
    }
}

/// A build has come to its end. `kind`: none where it ended before that was known.
pub fn build_ended(state: BuildState, kind: Option<KindName>) {
    METRICS.builds.with_label_values(&[state.as_str(), &kind_label(kind)]).inc();
}

fn kind_label(kind: Option<KindName>) -> String {
    kind.map_or_else(|| "unknown".to_owned(), |kind| kind.to_string())
}

/// How a git request ended; `service` as in `git-upload-pack`. One that is not known is not counted.
pub fn git_request(service: &str, status: GitStatus) {
    let status = match status {
        GitStatus::Ok => "ok",
        GitStatus::Failed => "failed",
        GitStatus::Refused => "refused",
    };
    if SERVICES.contains(&service) {
        METRICS.git_requests.with_label_values(&[service, status]).inc();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitStatus {
    Ok,
    /// It was served, and git did not end well. A push whose refs were refused is no failure of git.
    Failed,
    /// It was not served.
    Refused,
}

/// A request to a registry was made. `status` is HTTP's; none where no answer came.
pub fn registry_request(status: Option<u16>) {
    let class = match status {
        Some(100..200) => "1xx",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(_) => "5xx",
        None => "none",
    };
    METRICS.registry_requests.with_label_values(&[class]).inc();
}

pub fn registry_retry() {
    METRICS.registry_retries.inc();
}

pub fn ssh_connection_opened() {
    METRICS.ssh_connections.inc();
}

pub fn ssh_connection_closed() {
    METRICS.ssh_connections.dec();
}

/// How many builds stand in line and are at work.
pub fn set_queue(waiting: usize, running: usize) {
    METRICS.queue_waiting.set(level(waiting));
    METRICS.queue_running.set(level(running));
}

/// The state of each builder; a state that is not known is not counted.
pub fn set_builders(states: &[&str]) {
    for known in BUILDERS {
        let n = states.iter().filter(|state| **state == known).count();
        METRICS.builders.with_label_values(&[known]).set(level(n));
    }
}

fn level(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Everything, as Prometheus reads it.
pub fn text() -> Result<String, prometheus::Error> {
    let m = &*METRICS;
    m.process.look();
    let mut bytes = Vec::new();
    TextEncoder::new().encode(&m.registry.gather(), &mut bytes)?;
    String::from_utf8(bytes).map_err(|e| prometheus::Error::Msg(e.to_string()))
}

struct Metrics {
    registry: Registry,
    pushes: IntCounterVec,
    builds: IntCounterVec,
    stages: HistogramVec,
    queue_waiting: IntGauge,
    queue_running: IntGauge,
    builders: IntGaugeVec,
    ssh_connections: IntGauge,
    refusals: IntCounterVec,
    logins: IntCounter,
    git_requests: IntCounterVec,
    registry_requests: IntCounterVec,
    registry_retries: IntCounter,
    process: Process,
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counter = |name: &str, help: &str| {
            let one = IntCounter::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let one = IntGauge::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let stages = HistogramVec::new(
            HistogramOpts::new(
                "lemnos_stage_duration_seconds",
                "How long a stage of a push took, however it ended",
            )
            .buckets(SECONDS.to_vec()),
            &["stage"],
        )?;
        registry.register(Box::new(stages.clone()))?;
        let info =
            gauges("lemnos_build_info", "Always 1; the label says which lemnos this is", &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            pushes: counters(
                "lemnos_pushes_total",
                "Pushed refs that were accepted or rejected, and whole pushes that were refused",
                &["result"],
            )?,
            builds: counters("lemnos_builds_total", "Builds that ended", &["state", "kind"])?,
            stages,
            queue_waiting: gauge("lemnos_queue_waiting", "Builds in line")?,
            queue_running: gauge("lemnos_queue_running", "Builds at work")?,
            builders: gauges("lemnos_builders", "Builders, by whether they take solves", &["state"])?,
            ssh_connections: gauge("lemnos_ssh_connections", "Open SSH connections, logged in or not")?,
            refusals: counters(
                "lemnos_ssh_refusals_total",
                "What was refused at the SSH door and the hooks' socket",
                &["reason"],
            )?,
            logins: counter("lemnos_ssh_logins_total", "Logins with a registered key")?,
            git_requests: counters(
                "lemnos_git_requests_total",
                "Git requests that ended",
                &["service", "status"],
            )?,
            registry_requests: counters(
                "lemnos_registry_requests_total",
                "HTTP requests to registries and their token services",
                &["status"],
            )?,
            registry_retries: counter(
                "lemnos_registry_retries_total",
                "Calls of a registry that were made again",
            )?,
            process: Process::new(&registry)?,
            registry,
        };
        metrics.touch();
        Ok(metrics)
    }

    /// Every series stands at zero before anything happens: a rate needs its first point.
    fn touch(&self) {
        PUSHES.iter().for_each(|result| drop(self.pushes.with_label_values(&[result])));
        REFUSALS.iter().for_each(|reason| drop(self.refusals.with_label_values(&[reason])));
        BUILDERS.iter().for_each(|state| drop(self.builders.with_label_values(&[state])));
        REGISTRY.iter().for_each(|status| drop(self.registry_requests.with_label_values(&[status])));
        Stage::ALL.iter().for_each(|stage| drop(self.stages.with_label_values(&[stage.as_str()])));
        for service in SERVICES {
            STATUSES.iter().for_each(|status| drop(self.git_requests.with_label_values(&[service, status])));
        }
        for state in BuildState::ALL.iter().filter(|state| !state.is_live()) {
            for kind in KINDS {
                drop(self.builds.with_label_values(&[state.as_str(), &kind_label(kind)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rows of the guide's table of metrics: name and kind.
    fn documented() -> BTreeSet<(String, String)> {
        let guide = include_str!("../docs/guides/operating.md");
        let table = guide.split("| metric |").nth(1).unwrap().split("\n\n").next().unwrap();
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.split(['`', '{']).next()?.to_owned();
            Some((name, cells.next()?.to_owned()))
        };
        table.lines().filter_map(row).collect()
    }

    #[test]
    fn the_guide_s_table_has_every_metric_and_no_other() {
        let said = text().unwrap();
        let served: BTreeSet<(String, String)> = said
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        assert_eq!(served, documented());
    }

    #[test]
    fn every_label_value_is_known_from_the_start() {
        let series = || -> BTreeSet<String> {
            let said = text().unwrap();
            said.lines()
                .filter(|l| !l.starts_with('#'))
                .map(|l| l.rsplit_once(' ').unwrap().0.to_owned())
                .collect()
        };
        let before = series();
        for state in BuildState::ALL.into_iter().filter(|state| !state.is_live()) {
            KINDS.iter().for_each(|kind| build_ended(state, *kind));
        }
        for service in ["git-receive-pack", "git-upload-pack", "git-upload-archive", "git-x\n", ""] {
            for status in [GitStatus::Ok, GitStatus::Failed, GitStatus::Refused] {
                git_request(service, status);
            }
        }
        [Some(100), Some(201), Some(307), Some(404), Some(999), None].into_iter().for_each(registry_request);
        Stage::ALL.into_iter().for_each(|stage| took(stage, Duration::from_millis(3)));
        let reason = || "\u{1b}\"unheard of\"".to_owned();
        for event in [
            Event::LoggedIn { algorithm: reason() },
            Event::LoginRefused { ssh_user: reason(), algorithm: reason(), reason: reason() },
            Event::ConnectionDropped { reason: reason() },
            Event::ConnectionCut { reason: reason() },
            Event::ChannelRefused { what: reason() },
            Event::RequestRefused { service: Some(reason()), reason: reason() },
            Event::PushRefused { reason: reason() },
            Event::HookRefused { reason: reason() },
        ] {
            audited(&Entry::new(1, crate::model::audit::Who::Anonymous, event));
        }
        assert_eq!(before, series());
    }

    #[test]
    fn a_flood_s_entry_counts_for_all_it_stands_for() {
        let count = || METRICS.refusals.with_label_values(&["hook"]).get();
        let before = count();
        let event = Event::HookRefused { reason: "x".to_owned() };
        audited(&Entry::new(1, crate::model::audit::Who::Anonymous, event).times(1_000));
        // the other test counts one as well
        assert!((1_000..=1_001).contains(&(count() - before)));
    }
}
