//! The builders: which there are, how they are, and one plan's solves over them.
//!
//! One connection and one session a build and builder; all the platforms that a builder takes go in one solve. Builders
//! come, go and are drained while solves run: `roster` keeps the books, `run` sees a plan's solves to their end.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::{BoxFuture, join_all};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::buildkit::gateway::{Gateway, GatewayError, GatewayResult};
use crate::buildkit::llb::{Definition, LlbError};
use crate::buildkit::session::filesync::DirSource;
use crate::buildkit::{AuthProvider, Client, Endpoint, Error};
use crate::event::{BuildEvent, EventSink, Failure, plain_line};
use crate::model::{BuilderStatus, Digest, ImageName, Platform, SolveSpec, SourceRules};

use super::assign::Unserved;
use super::secrets::BuildSecrets;
use super::statements::Statements;
use roster::{Answer, Health, Id, Member, Roster, Turn, Want};
use run::{Goal, Run};

mod request;
mod room;
mod roster;
mod run;

/// For a solve's connection, and for asking a builder on which a push depends.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often builders are asked how they are, and how long the answer may take.
pub const CHECK_EVERY: Duration = Duration::from_secs(4);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a build that waits for a builder is told of a new place at most.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// A builder as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderConfig {
    /// What people see; the address where it has no other name.
    pub name: String,
    pub endpoint: Endpoint,
    /// Platforms that the operator bound to it; empty: any it can run.
    pub bound: Vec<Platform>,
    /// Solves at once, at least one.
    pub max: usize,
}

/// All builders. Clones are the same pool; each build connects anew.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    roster: Mutex<Roster>,
    /// Counts the changes of `roster`.
    changes: watch::Sender<u64>,
    /// When builders were last asked to drop cache by a step's own word.
    pruned: Mutex<HashMap<Id, Instant>>,
}

/// The build context as BuildKit asks for it.
#[derive(Clone)]
pub struct ContextDirs {
    /// Stable for an app and branch: BuildKit finds what it has already received by it.
    pub shared_key: String,
    /// By the names that frontend or graph calls them by.
    pub dirs: BTreeMap<String, Arc<dyn DirSource>>,
    pub auth: Option<Arc<dyn AuthProvider>>,
    /// What steps may mount, and what masks it.
    pub secrets: BuildSecrets,
    /// Which sources the build may take.
    pub rules: Arc<SourceRules>,
    /// Lines of a failing step that are kept for its failure.
    pub log_tail_lines: usize,
}

/// What one solve pushed by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub digest: Digest,
    pub platforms: Vec<Platform>,
}

/// A build that is steered from here in a frontend's place.
pub type Steer<'a> =
    dyn Fn(Gateway) -> BoxFuture<'static, Result<GatewayResult, GatewayError>> + Send + Sync + 'a;

/// What gives the files.
#[derive(Clone, Copy)]
pub enum FileGraph<'a> {
    /// A graph that is known, for a builder whose own platform is this one.
    Known(&'a (dyn Fn(&Platform) -> Result<Definition, LlbError> + Send + Sync)),
    /// A graph for which the builder is asked something first.
    Steered(&'a Steer<'a>),
}

/// A frontend's solves, whose images are pushed by digest.
#[derive(Debug, Clone, Copy)]
pub struct ImageSolve<'a> {
    pub spec: &'a SolveSpec,
    pub image: &'a ImageName,
    /// Whether the registry is spoken to without TLS.
    pub insecure: bool,
    /// The Dockerfile as a graph; none: the frontend asks the session for its directory.
    pub dockerfile: Option<&'a Definition>,
}

/// A graph of ours, whose result comes back as files.
pub struct FileSolve<'a> {
    pub graph: FileGraph<'a>,
    /// An empty directory.
    pub out: &'a Path,
    /// More bytes of files are refused.
    pub limit_bytes: u64,
    pub statements: &'a Statements,
}

/// A place in the line for a builder, and later on one; dropping it gives it back.
struct Slot {
    shared: Arc<Shared>,
    app: String,
    ticket: crate::turns::Ticket,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.change(|roster| roster.leave(&self.app, self.ticket));
    }
}

impl Shared {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        // nothing panics while it is held but for a lack of memory
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pruned(&self) -> MutexGuard<'_, HashMap<Id, Instant>> {
        self.pruned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Roster) -> T) -> T {
        let changed = change(&mut self.roster());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }
}

impl Pool {
    /// Of two of one name the first stays.
    pub fn new(builders: Vec<BuilderConfig>) -> Self {
        let mut roster = Roster::default();
        for builder in builders {
            roster.add(builder);
        }
        let (changes, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { roster: Mutex::new(roster), changes, pruned: Mutex::default() }) }
    }

    /// How all of them are, for people and for metrics.
    pub fn list(&self) -> Vec<BuilderStatus> {
        self.shared.roster().statuses()
    }

    /// How one is; none where there is none of that name.
    pub fn status(&self, name: &str) -> Option<BuilderStatus> {
        self.shared.roster().status(name)
    }

    /// Takes one more in, and asks it how it is; none where one of that name is there.
    pub async fn add(&self, config: BuilderConfig) -> Option<BuilderStatus> {
        let name = config.name.clone();
        if !self.shared.change(|roster| roster.add(config)) {
            return None;
        }
        self.check(CHECK_TIMEOUT, |member| member.config.name == name).await;
        self.status(&name)
    }

    /// It gets nothing new, and is forgotten; what runs on it finishes.
    pub fn remove(&self, name: &str) -> Option<BuilderStatus> {
        self.shared.change(|roster| roster.remove(name))
    }

    /// A drained one gets nothing new; what runs on it finishes.
    pub fn set_drained(&self, name: &str, drained: bool) -> Option<BuilderStatus> {
        self.shared.change(|roster| roster.set_drained(name, drained))
    }

    /// Asks every builder what it can run; errors come with the builder's name.
    pub async fn probe(&self) -> Vec<(String, Result<Vec<Platform>, Error>)> {
        self.check(CONNECT_TIMEOUT, |_| true).await
    }

    /// Told of every change of what `list` says, platforms and causes included.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Asks all of them again and again, for ever.
    pub async fn keep_checking(&self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.check(CHECK_TIMEOUT, |_| true).await;
        }
    }

    async fn check(
        &self,
        timeout: Duration,
        which: impl Fn(&Member) -> bool,
    ) -> Vec<(String, Result<Vec<Platform>, Error>)> {
        let asked: Vec<_> = {
            let roster = self.shared.roster();
            let members = roster.members().iter().filter(|member| which(member));
            members.map(|m| (m.id, m.config.clone(), !matches!(m.health, Health::Up { .. }))).collect()
        };
        join_all(asked.into_iter().map(|(id, config, newly)| async move {
            let answer = ask(&config.endpoint, timeout, newly).await;
            let heard = answer.as_ref().map(Clone::clone).map_err(|error| plain_line(&error.to_string()));
            self.heard(id, &config.name, heard);
            (config.name.clone(), answer.map(|answer| answer.platforms))
        }))
        .await
    }

    fn heard(&self, id: Id, name: &str, heard: Result<Answer, String>) {
        let cause = heard.as_ref().err().cloned();
        match (self.shared.change(|roster| roster.heard(id, heard, now_ms())), cause) {
            (Some((true, false)), Some(cause)) => {
                tracing::warn!(builder = %name, %cause, "the builder does not answer: it gets no solves until it does");
            }
            (Some((false, true)), _) => tracing::info!(builder = %name, "the builder is up"),
            _ => {}
        }
    }

    /// Runs the solves of a spec, all builders at once. A failure of what is built ends the others; where machinery
    /// fails, they finish, so that the next attempt finds their work done.
    pub async fn solve(
        &self,
        app: &str,
        images: &ImageSolve<'_>,
        context: &ContextDirs,
        events: &EventSink,
    ) -> Result<Vec<Part>, Failure> {
        let run = self.run(app, Goal::Images(images), context, events);
        let part = |(digest, platforms): (Option<Digest>, _)| digest.map(|digest| Part { digest, platforms });
        // a solve of images without a digest has failed
        Ok(run.all(&images.spec.platforms).await?.into_iter().filter_map(part).collect())
    }

    /// Runs a graph on one builder, whichever it is, and takes its files.
    pub async fn files(
        &self,
        app: &str,
        files: &FileSolve<'_>,
        context: &ContextDirs,
        events: &EventSink,
    ) -> Result<(), Failure> {
        let own = self.shared.roster().own_platform();
        let platform = match own {
            Some(platform) => platform,
            None => {
                self.check(CONNECT_TIMEOUT, |member| !member.drained).await;
                let roster = self.shared.roster();
                let none = || {
                    let (platform, builders) = (
                        Platform { os: "linux".to_owned(), arch: "amd64".to_owned(), variant: None },
                        "none that answers".to_owned(),
                    );
                    no_builder(&Unserved { platform, builders }, roster.members())
                };
                roster.own_platform().ok_or_else(none)?
            }
        };
        self.run(app, Goal::Files(files), context, events).all(&[platform]).await.map(drop)
    }

    fn run<'a>(
        &'a self,
        app: &'a str,
        goal: Goal<'a>,
        context: &'a ContextDirs,
        events: &'a EventSink,
    ) -> Run<'a> {
        let named = self.shared.roster().members().len() > 1;
        Run { pool: self, app, goal, context, events, named, numbers: Arc::default() }
    }

    /// Which platforms go together. Builders that are not known to answer are asked once more before it is given up.
    async fn split(&self, want: &Want) -> Result<Vec<Vec<Platform>>, Failure> {
        if let Ok(groups) = self.shared.roster().split(want) {
            return Ok(groups);
        }
        self.check(CONNECT_TIMEOUT, |member| {
            !member.drained
                && !matches!(member.health, Health::Up { .. })
                && !want.without.contains(&member.id)
        })
        .await;
        let roster = self.shared.roster();
        roster.split(want).map_err(|unserved| no_builder(&unserved, roster.members()))
    }

    /// Waits for a builder; the pusher is told for which.
    async fn turn(&self, app: &str, want: Want, events: &EventSink) -> (Slot, Turn) {
        let mut changes = self.shared.changes.subscribe();
        let ticket = self.shared.change(|roster| roster.join(app, want));
        let slot = Slot { shared: self.shared.clone(), app: app.to_owned(), ticket };
        let (mut told, mut tell_at) = (None, Instant::now());
        loop {
            changes.borrow_and_update();
            let place = {
                let roster = self.shared.roster();
                if let Some(turn) = roster.turn(ticket) {
                    let turn = turn.clone();
                    drop(roster);
                    return (slot, turn);
                }
                roster.ahead(ticket)
            };
            let news = told.as_ref() != Some(&place);
            let later = news && Instant::now() < tell_at;
            if news && !later {
                let text = format!("waiting for builder {}: {} before", place.0.join(" or "), place.1);
                events.emit(BuildEvent::Note { text: plain_line(&text) });
                told = Some(place);
                tell_at = Instant::now() + TELL_EVERY;
            }
            tokio::select! {
                // the sender lives as long as the pool does
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(tell_at), if later => {}
            }
        }
    }
}

/// What a builder can run, and, where it is worth a second question, its version.
async fn ask(endpoint: &Endpoint, timeout: Duration, version: bool) -> Result<Answer, Error> {
    let deadline = Instant::now() + timeout;
    let late = || Error::Timeout { address: endpoint.address.clone(), timeout };
    let asked = async {
        let client = Client::connect(endpoint, timeout).await?;
        let workers = client.workers().await?;
        let mut platforms: Vec<Platform> = Vec::new();
        for platform in workers.iter().flat_map(|w| &w.platforms).filter_map(|p| p.parse().ok()) {
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        let version = if version { Some(plain_line(&client.info().await?.version)) } else { None };
        Ok(Answer { platforms, version })
    };
    tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(late()))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Nobody takes the platform: for want of a builder, or because one that might is silent or drained.
fn no_builder(unserved: &Unserved, members: &[Member]) -> Failure {
    let reason = format!("no builder for {}", unserved.platform);
    let silent: Vec<String> = members
        .iter()
        .filter(|member| !member.drained)
        .filter_map(|member| match &member.health {
            Health::Down { cause, .. } => {
                Some(format!("builder {} does not answer: {cause}", member.config.name))
            }
            _ => None,
        })
        .collect();
    let drained: Vec<&str> =
        members.iter().filter(|member| member.drained).map(|member| member.config.name.as_str()).collect();
    if !silent.is_empty() {
        return Failure::new(format!("{reason}: a builder does not answer"), silent.join("; ")).with_remedy(
            "push again; if it stays, the operator looks at the builder (lemnos builders list)",
        );
    }
    if !drained.is_empty() {
        let cause = format!("{unserved}; drained: {}", drained.join(", "));
        return Failure::new(format!("{reason}: a builder is drained"), cause)
            .with_remedy("push again later; the operator ends the drain with lemnos builders resume NAME");
    }
    Failure::new(reason, unserved.to_string()).with_remedy(
        "the operator adds a builder for the platform (lemnos builders add ADDR,platform=…) or registers qemu's binfmt \
         handlers on one (package qemu-user-static); or build fewer platforms (lemnos apps set APP platforms=…)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        let address = "unix:///nonexistent/buildkitd.sock".parse().unwrap();
        let endpoint = Endpoint { address, tls: None };
        Pool::new(vec![BuilderConfig { name: "far".to_owned(), endpoint, bound: Vec::new(), max: 1 }])
    }

    fn want() -> Want {
        Want { platforms: vec!["linux/amd64".parse().unwrap()], without: Default::default() }
    }

    #[tokio::test]
    async fn a_builder_that_is_away_is_named_and_not_taken_for_one_that_lacks_the_platform() {
        let pool = pool();
        let failure = pool.split(&want()).await.unwrap_err();
        assert_eq!(failure.reason, "no builder for linux/amd64: a builder does not answer");
        assert!(failure.cause.starts_with("builder far does not answer: "), "{}", failure.cause);
        pool.remove("far").unwrap();
        let failure = pool.split(&want()).await.unwrap_err();
        assert_eq!(failure.reason, "no builder for linux/amd64");
        assert!(failure.remedy.unwrap().contains("adds a builder"));
    }

    #[tokio::test]
    async fn a_drained_builder_is_named_when_there_is_no_other() {
        let pool = pool();
        pool.set_drained("far", true).unwrap();
        let failure = pool.split(&want()).await.unwrap_err();
        assert_eq!(failure.reason, "no builder for linux/amd64: a builder is drained");
        assert!(failure.cause.ends_with("; drained: far"), "{}", failure.cause);
    }
}
