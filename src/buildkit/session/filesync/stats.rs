//! What a session's file transfers did: counted while they run, for progress and for tests.
//!
//! Counters only go up; the lists are bounded. Must not decide anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Concern;

/// At most this many transfers of one session are kept one by one; a build has three or four.
const MAX_TRANSFERS: usize = 256;
/// At most this many concerns are kept; one is enough to act on.
const MAX_CONCERNS: usize = 256;

/// One `DiffCopy` call, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// The name under which the daemon asked: `context`, `dockerfile`.
    pub dir: String,
    /// Entries announced.
    pub stats: u64,
    /// Files asked for.
    pub requests: u64,
    /// Bytes of content sent.
    pub bytes: u64,
    /// None while it runs; the failure's text when it failed.
    pub ended: Option<Result<(), String>>,
}

#[derive(Debug, Default)]
struct Counters {
    dir: String,
    stats: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
    ended: Mutex<Option<Result<(), String>>>,
}

/// The transfers of one session. Cheap to read at any time.
#[derive(Debug, Default)]
pub struct TransferStats {
    transfers: Mutex<Vec<Arc<Counters>>>,
    concerns: Mutex<Vec<Concern>>,
}

impl TransferStats {
    /// Every transfer so far, in the order they began.
    pub fn transfers(&self) -> Vec<Transfer> {
        let list = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|t| t.snapshot()).collect()
    }

    /// Entries announced, in all transfers.
    pub fn stats(&self) -> u64 {
        self.transfers().iter().map(|t| t.stats).sum()
    }

    /// Files asked for, in all transfers.
    pub fn requests(&self) -> u64 {
        self.transfers().iter().map(|t| t.requests).sum()
    }

    /// Bytes of content sent, in all transfers.
    pub fn bytes(&self) -> u64 {
        self.transfers().iter().map(|t| t.bytes).sum()
    }

    /// Paths that the daemon asked for and that are not what they seem; each once, in path order of their transfer.
    pub fn concerns(&self) -> Vec<Concern> {
        self.concerns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first failure of a transfer: when a solve fails on its context, this is the cause in full.
    pub fn failure(&self) -> Option<String> {
        self.transfers().into_iter().find_map(|t| t.ended.and_then(Result::err))
    }

    pub(super) fn begin(&self, dir: &str) -> TransferHandle {
        let counters = Arc::new(Counters { dir: dir.to_owned(), ..Counters::default() });
        let mut list = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < MAX_TRANSFERS {
            list.push(counters.clone());
        }
        TransferHandle(counters)
    }

    pub(super) fn add_concerns(&self, found: Vec<Concern>) {
        let mut list = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        for concern in found {
            if list.len() < MAX_CONCERNS && !list.contains(&concern) {
                list.push(concern);
            }
        }
    }
}

/// The counting side of one transfer.
#[derive(Debug, Clone)]
pub(super) struct TransferHandle(Arc<Counters>);

impl TransferHandle {
    pub(super) fn stat(&self) {
        self.0.stats.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn data(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// The first ending counts.
    pub(super) fn end(&self, result: Result<(), String>) {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
    }
}

impl Counters {
    fn snapshot(&self) -> Transfer {
        Transfer {
            dir: self.dir.clone(),
            stats: self.stats.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ended: self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
