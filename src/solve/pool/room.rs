//! A builder whose disk is full: it is asked to drop cache, and the solve is tried once more.
//!
//! A full disk is nobody's commit. A step that ends for want of space may also mean a file system that it mounted
//! itself, and any pusher can write the words: those are believed once in a while, so that nobody's words keep every
//! cache empty.

use std::time::Duration;

use tokio::time::Instant;

use super::run::{Done, Fault, Past, Run};
use super::{BuilderConfig, CONNECT_TIMEOUT, Pool};
use crate::buildkit::{Client, Error, Rule};
use crate::event::{Failure, plain_line};
use crate::model::Platform;
use crate::solve::pool::roster::Id;

/// How long after a step's own words have made a builder drop its cache they do not do so again.
const BELIEVED_EVERY: Duration = Duration::from_secs(600);

/// A solve for which there was no room.
pub(super) struct Full {
    /// As of a build, or of machinery.
    pub failure: Failure,
    /// The step said so, not the daemon.
    pub of_step: bool,
}

impl Full {
    /// There is no room to be had.
    fn end(self, name: &str, tried: &str) -> Fault {
        if self.of_step {
            let mut failure = self.failure;
            failure.cause = format!("{}; {tried}", failure.cause);
            return Fault::Build(failure);
        }
        let cause = format!("{}; {tried}", self.failure.cause);
        Fault::Machinery(Failure { cause, ..self.failure }.with_remedy(format!(
            "this is not your commit's fault: the operator makes room on builder {name} (a larger disk, or whatever else fills \
             it), then push again"
        )))
    }
}

/// What it drops a daemon must write down, for which a full disk has room only when the failed step's files are gone: it
/// takes them away by itself, soon after the step.
const PRUNE_TRIES: u64 = 3;
const PRUNE_PAUSE: Duration = Duration::from_secs(1);

/// What a builder dropped.
#[derive(Debug, Clone, Copy, Default)]
struct Pruned {
    records: u64,
    bytes: u64,
    /// Bytes that its own collection reserves for the cache, so that they were left.
    kept: u64,
}

/// Has the builder drop what nothing uses, but for what its own collection always leaves.
async fn prune(client: &Client) -> Result<Pruned, Error> {
    let workers = client.workers().await?;
    let reserved_space = workers
        .iter()
        .flat_map(|worker| &worker.gc_policy)
        .map(|rule| rule.reserved_space)
        .max()
        .unwrap_or(0);
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let mut pruned = Pruned { kept: size(reserved_space), ..Pruned::default() };
    let rule = Rule { reserved_space, ..Rule::default() };
    let dropped = client.prune(&rule, |record| {
        pruned.records += 1;
        pruned.bytes = pruned.bytes.saturating_add(size(record.size));
    });
    match dropped.await {
        // what it dropped before it failed is room all the same
        Err(error) if pruned.bytes == 0 => Err(error),
        _ => Ok(pruned),
    }
}

/// What the daemon said while it built these platforms.
pub(super) fn full(name: &str, platforms: &[Platform], message: &str) -> Full {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let cause =
        format!("no space was left on builder {name} for {}: {}", names.join(", "), plain_line(message));
    Full { failure: Failure::new(format!("builder {name}: its disk is full"), cause), of_step: false }
}

/// Whether a step's last lines speak of a full disk.
pub(super) fn step_is_full(log_tail: &[String]) -> bool {
    log_tail.iter().any(|line| line.to_ascii_lowercase().contains("no space left on device"))
}

impl Run<'_> {
    /// One attempt, and where there was no room a second one after the builder has made some. `Fault::Full` is left
    /// only where it could not make any.
    pub(super) async fn attempt_with_room(
        &self,
        id: Id,
        builder: &BuilderConfig,
        platforms: &[Platform],
        past: &mut Past,
    ) -> Result<Done, Fault> {
        let full = match self.attempt(builder, platforms.to_vec()).await {
            Err(Fault::Full(full)) => full,
            other => return other,
        };
        let name = plain_line(&builder.name);
        if past.full {
            return Err(full.end(&name, "another builder's was full before"));
        }
        if full.of_step && !self.pool.believes(id) {
            return Err(Fault::Build(full.failure));
        }
        past.full = true;
        self.note(&format!(
            "builder {name}: no space left on device; it is asked to drop cache that nothing uses"
        ));
        tracing::warn!(builder = %name, cause = %full.failure.cause, "the builder's disk is full: it is asked to prune its cache");
        let tried = match self.pool.make_room(builder, full.of_step.then_some(id)).await {
            Ok(pruned) if pruned.records > 0 => {
                let freed = megabytes(pruned.bytes);
                tracing::info!(builder = %name, records = pruned.records, bytes = pruned.bytes, "the builder has pruned its cache");
                self.note(&format!("builder {name} dropped {freed} of cache: the build is tried again"));
                return match self.attempt(builder, platforms.to_vec()).await {
                    Err(Fault::Full(again)) => Err(again.end(
                        &name,
                        &format!("the builder dropped {freed} of cache before, and that was too little"),
                    )),
                    other => other,
                };
            }
            Ok(pruned) => match pruned.kept {
                0 => "the builder has no cache to drop".to_owned(),
                kept => {
                    format!(
                        "the builder has no cache to drop beyond the {} that its policy reserves",
                        megabytes(kept)
                    )
                }
            },
            Err(error) => format!("the builder could not drop cache: {}", plain_line(&error.to_string())),
        };
        tracing::warn!(builder = %name, %tried, "the builder has made no room");
        match full.end(&name, &tried) {
            Fault::Machinery(failure) => Err(Fault::Full(Full { failure, of_step: false })),
            other => Err(other),
        }
    }
}

impl Pool {
    /// Whether a step's word for it is enough to have the builder drop cache.
    fn believes(&self, id: Id) -> bool {
        let pruned = self.shared.pruned();
        pruned.get(&id).is_none_or(|at| at.elapsed() >= BELIEVED_EVERY)
    }

    /// `believed`: the builder, where it is a step's word that counts.
    async fn make_room(&self, builder: &BuilderConfig, believed: Option<Id>) -> Result<Pruned, Error> {
        if let Some(id) = believed {
            self.shared.pruned().insert(id, Instant::now());
        }
        let client = Client::connect(&builder.endpoint, CONNECT_TIMEOUT).await?;
        let mut tried = 0;
        loop {
            tokio::time::sleep(PRUNE_PAUSE).await;
            tried += 1;
            match prune(&client).await {
                Err(Error::Refused { .. }) if tried < PRUNE_TRIES => {}
                // of what it forgets in a prune that fails it does not speak again
                Ok(pruned) => return Ok(Pruned { records: pruned.records + tried - 1, ..pruned }),
                Err(error) => return Err(error),
            }
        }
    }
}

/// `53 MB`
fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
