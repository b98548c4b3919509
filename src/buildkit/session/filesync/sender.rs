//! One `DiffCopy` call: announces the selected entries, answers requests, and ends.
//!
//! Invariants: the stream ends behind a FIN, or with a status that says why; memory is bounded by the queue, whatever
//! the files' sizes; a file gives exactly the bytes that were announced; files are read in blocking threads only, and
//! no thread waits longer for the receiver than [`Patience`] allows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::fsutil::types::{Packet, Stat};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::filter::{self, FilterError};
use super::request::Asked;
use super::stats::{TransferHandle, TransferStats};
use super::{Concern, DirSource, Entry, Missing, Patience, SourceError, shown};

/// Content travels in pieces of at most this; larger ones are no faster.
const CHUNK_BYTES: usize = 32 << 10;
/// Packets waiting for the connection.
const QUEUE_PACKETS: usize = 64;
/// Files of one transfer that are read at the same time.
const READERS: usize = 4;
/// Files that one trip to a blocking thread reads.
const BATCH_FILES: usize = 64;
/// Requests not yet being answered; more are left in the connection.
const MAX_WAITING: usize = 1 << 16;

/// The answer stream of a call.
pub struct Outgoing {
    packets: mpsc::Receiver<Packet>,
    /// Why the transfer failed; read when the packets are used up.
    failure: Arc<OnceLock<Status>>,
    over: bool,
}

impl Stream for Outgoing {
    type Item = Result<Packet, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.packets.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(packet)) => {
                self.over = packet.r#type() == PacketType::PacketFin;
                Poll::Ready(Some(Ok(packet)))
            }
            Poll::Ready(None) => {
                self.over = true;
                let failure = self.failure.get().cloned();
                Poll::Ready(Some(Err(failure.unwrap_or_else(|| Status::internal("the transfer broke off")))))
            }
        }
    }
}

/// Starts the transfer of what `asked` names in `source`.
pub(super) fn start(
    source: Arc<dyn DirSource>,
    asked: Asked,
    inbound: Streaming<Packet>,
    stats: &Arc<TransferStats>,
    patience: Patience,
) -> Outgoing {
    let (queue, packets) = mpsc::channel(QUEUE_PACKETS);
    let failure = Arc::new(OnceLock::new());
    let counts = stats.begin(&asked.dir);
    let (stats, slot) = (stats.clone(), failure.clone());
    tokio::spawn(async move {
        let sink = Sink { queue: queue.clone(), files: Arc::default(), counts: counts.clone(), patience };
        let dir = asked.dir.clone();
        let result = tokio::select! {
            result = transfer(source, asked, inbound, &stats, sink) => result,
            () = queue.closed() => Err(Status::cancelled("the receiver went away")),
        };
        let result = result.map_err(|status| named(&dir, &status));
        counts.end(result.as_ref().copied().map_err(|status| status.message().to_owned()));
        if let Err(status) = result {
            // the slot is set once, here, before the last sender of the queue is dropped
            let _ = slot.set(status);
        }
    });
    Outgoing { packets, failure, over: false }
}

/// The status with the directory's name in front, so that it can be understood where it is printed.
fn named(dir: &str, status: &Status) -> Status {
    Status::new(status.code(), format!("sending the directory {dir:?}: {}", status.message()))
}

/// The listing and what was selected of it.
struct Listing {
    entries: Arc<[Entry]>,
    /// The entry with id `i` is `entries[ids[i]]`.
    ids: Vec<usize>,
    /// By id: what hard links name instead, where their own target was not selected. Empty: they are files themselves.
    relinked: BTreeMap<usize, Vec<u8>>,
}

impl Listing {
    fn get(&self, id: usize) -> Option<&Entry> {
        self.entries.get(*self.ids.get(id)?)
    }

    fn stat(&self, id: usize) -> Option<Stat> {
        let mut stat = stat(self.get(id)?);
        if let Some(target) = self.relinked.get(&id) {
            stat.linkname = String::from_utf8_lossy(target).into_owned();
        }
        Some(stat)
    }
}

/// What the hard links among the selected must name, for the receiver knows only what is selected.
fn relinked(entries: &[Entry], ids: &[usize]) -> BTreeMap<usize, Vec<u8>> {
    let mut names: HashMap<&[u8], &[u8]> = HashMap::new();
    let mut relinked = BTreeMap::new();
    let selected = ids.iter().enumerate().filter_map(|(id, at)| Some((id, entries.get(*at)?)));
    for (id, entry) in selected.filter(|(_, entry)| entry.is_regular()) {
        if entry.is_hard_link() {
            match names.get(entry.linkname.as_slice()) {
                Some(name) if *name == entry.linkname.as_slice() => {}
                Some(name) => {
                    relinked.insert(id, name.to_vec());
                }
                None => {
                    relinked.insert(id, Vec::new());
                    names.insert(&entry.linkname, &entry.path);
                }
            }
        } else {
            names.insert(&entry.path, &entry.path);
        }
    }
    relinked
}

async fn transfer(
    source: Arc<dyn DirSource>,
    asked: Asked,
    inbound: Streaming<Packet>,
    stats: &TransferStats,
    sink: Sink,
) -> Result<(), Status> {
    let lister = source.clone();
    let listed = spawn_blocking(move || list(&*lister, &asked)).await;
    let (listing, concerns) = listed.map_err(|_| Status::internal("the listing broke off"))??;
    stats.add_concerns(concerns);
    let announced = Announced::default();
    let mut answers = Answers {
        source,
        listing: Arc::new(listing),
        sink: sink.clone(),
        requested: Vec::new(),
        accepted: 0,
        waiting: VecDeque::new(),
        readers: JoinSet::new(),
    };
    let listing = answers.listing.clone();
    tokio::try_join!(announce(&listing, &sink, &announced), answers.serve(inbound, &announced))?;
    sink.put(packet(PacketType::PacketFin)).await
}

/// Lists and filters; blocks.
fn list(source: &dyn DirSource, asked: &Asked) -> Result<(Listing, Vec<Concern>), Status> {
    let entries = source.entries().map_err(|problem| source_status(&problem))?;
    let selection = filter::select(&entries, &asked.filters).map_err(|problem| match problem {
        FilterError::Include(_) | FilterError::Exclude(_) => Status::invalid_argument(problem.to_string()),
        FilterError::Link(_) => Status::failed_precondition(problem.to_string()),
    })?;
    let concern = |at: &usize| {
        let entry = entries.get(*at)?;
        Some(Concern { dir: asked.dir.clone(), path: shown(&entry.path), missing: entry.missing? })
    };
    let concerns: Vec<Concern> = selection.missing.iter().filter_map(concern).collect();
    if let Some(unreadable) = concerns.iter().find(|c| c.missing == Missing::Unreadable) {
        return Err(Status::permission_denied(format!("{} cannot be read", unreadable.path)));
    }
    for entry in selection.ids.iter().filter_map(|at| entries.get(*at)) {
        let what = match (std::str::from_utf8(&entry.path), std::str::from_utf8(&entry.linkname)) {
            (Ok(_), Ok(_)) => continue,
            (Err(_), _) => "the name",
            (Ok(_), Err(_)) => "the link target",
        };
        return Err(Status::failed_precondition(format!(
            "{what} of \"{}\" is not UTF-8, which BuildKit cannot take: rename it, or exclude it in .dockerignore",
            shown(&entry.path)
        )));
    }
    let relinked = relinked(&entries, &selection.ids);
    Ok((Listing { ids: selection.ids, relinked, entries: entries.clone() }, concerns))
}

fn source_status(problem: &SourceError) -> Status {
    match problem {
        SourceError::NotFound { .. } => Status::not_found(problem.to_string()),
        SourceError::NotAFile { .. } => Status::failed_precondition(problem.to_string()),
        SourceError::TooLarge { .. } | SourceError::TooManyEntries { .. } | SourceError::TooDeep { .. } => {
            Status::resource_exhausted(problem.to_string())
        }
        SourceError::Read { .. } => Status::data_loss(problem.to_string()),
    }
}

/// How far the announcement is.
#[derive(Default)]
struct Announced {
    count: AtomicUsize,
    all: AtomicBool,
}

async fn announce(listing: &Listing, sink: &Sink, announced: &Announced) -> Result<(), Status> {
    for id in 0..listing.ids.len() {
        let Some(stat) = listing.stat(id) else { break };
        announced.count.store(id + 1, Ordering::Release);
        sink.counts.stat();
        sink.put(Packet { stat: Some(stat), ..packet(PacketType::PacketStat) }).await?;
    }
    announced.all.store(true, Ordering::Release);
    sink.put(packet(PacketType::PacketStat)).await
}

fn stat(entry: &Entry) -> Stat {
    Stat {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        mode: entry.mode,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        mod_time: entry.mtime_ns,
        linkname: String::from_utf8_lossy(&entry.linkname).into_owned(),
        uid: entry.uid,
        gid: entry.gid,
        xattrs: entry.xattrs.clone(),
        ..Stat::default()
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

/// The receiving side of a call.
struct Answers {
    source: Arc<dyn DirSource>,
    listing: Arc<Listing>,
    sink: Sink,
    /// By id; grown as far as ids were asked for.
    requested: Vec<bool>,
    /// How many requests were in order.
    accepted: usize,
    waiting: VecDeque<usize>,
    readers: JoinSet<Result<(), Status>>,
}

impl Answers {
    /// Takes packets until the receiver's FIN.
    async fn serve(&mut self, mut inbound: Streaming<Packet>, announced: &Announced) -> Result<(), Status> {
        let mut heard = Instant::now();
        loop {
            self.start_readers();
            let quiet = self.readers.is_empty() && self.waiting.is_empty();
            tokio::select! {
                received = inbound.message(), if self.waiting.len() < MAX_WAITING => {
                    let Some(received) = received? else {
                        return Err(Status::cancelled("the receiver closed the stream before its FIN"));
                    };
                    heard = Instant::now();
                    if self.take(&received, announced)? {
                        return self.finish_readers().await;
                    }
                }
                Some(read) = self.readers.join_next(), if !self.readers.is_empty() => {
                    read.map_err(|_| Status::internal("reading a file broke off"))??;
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(heard + self.sink.patience.asking), if quiet => {
                    let seconds = self.sink.patience.asking.as_secs();
                    return Err(Status::deadline_exceeded(format!(
                        "the receiver asked for nothing and did not end within {seconds} s"
                    )));
                }
            }
        }
    }

    /// Waits for readers that have put their last packet and not yet ended.
    async fn finish_readers(&mut self) -> Result<(), Status> {
        while let Some(read) = self.readers.join_next().await {
            read.map_err(|_| Status::internal("reading a file broke off"))??;
        }
        Ok(())
    }

    /// Whether it was the FIN.
    fn take(&mut self, received: &Packet, announced: &Announced) -> Result<bool, Status> {
        match PacketType::try_from(received.r#type) {
            Ok(PacketType::PacketReq) => {
                self.sink.counts.request();
                self.request(received.id, announced.count.load(Ordering::Acquire))?;
                Ok(false)
            }
            Ok(PacketType::PacketFin) => {
                // by what was sent, not by who is still running: a reader ends after its last packet
                let sent_all = self.sink.files.load(Ordering::Acquire) == self.accepted;
                if !sent_all || !announced.all.load(Ordering::Acquire) {
                    return Err(Status::invalid_argument("FIN before everything was sent"));
                }
                Ok(true)
            }
            Ok(PacketType::PacketErr) => {
                let text = String::from_utf8_lossy(&received.data);
                Err(Status::aborted(format!("the receiver failed: {text}")))
            }
            Ok(PacketType::PacketStat | PacketType::PacketData) => {
                Err(Status::invalid_argument("a STAT or DATA packet from the receiver"))
            }
            Err(_) => Err(Status::invalid_argument(format!("a packet of unknown type {}", received.r#type))),
        }
    }

    fn request(&mut self, id: u32, announced: usize) -> Result<(), Status> {
        let at = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(entry) = self.listing.get(at).filter(|_| at < announced) else {
            return Err(Status::invalid_argument(format!(
                "a request for id {id}, of {announced} entries announced"
            )));
        };
        if !entry.is_regular() {
            let path = shown(&entry.path);
            return Err(Status::invalid_argument(format!("a request for {path}, which is not a file")));
        }
        if self.requested.len() <= at {
            self.requested.resize(at + 1, false);
        }
        if let Some(requested) = self.requested.get_mut(at)
            && std::mem::replace(requested, true)
        {
            return Err(Status::invalid_argument(format!("a second request for {}", shown(&entry.path))));
        }
        self.waiting.push_back(at);
        self.accepted += 1;
        Ok(())
    }

    /// Hands waiting requests to free readers, evenly while there are few.
    fn start_readers(&mut self) {
        while self.readers.len() < READERS && !self.waiting.is_empty() {
            let share = self.waiting.len().div_ceil(READERS).clamp(1, BATCH_FILES);
            let batch: Vec<usize> = self.waiting.drain(..share).collect();
            let (source, listing, sink) = (self.source.clone(), self.listing.clone(), self.sink.clone());
            self.readers.spawn_blocking(move || {
                let entries = batch.into_iter().filter_map(|id| Some((id, listing.get(id)?)));
                entries.into_iter().try_for_each(|(id, entry)| send_file(&*source, &sink, id, entry))
            });
        }
    }
}

/// Sends one file; blocks.
fn send_file(source: &dyn DirSource, sink: &Sink, id: usize, entry: &Entry) -> Result<(), Status> {
    let id = u32::try_from(id).map_err(|_| Status::internal("more entries than ids"))?;
    let data = |data: Bytes| Packet { id, data, ..packet(PacketType::PacketData) };
    let mut content = source.open(entry).map_err(|problem| source_status(&problem))?;
    let mut left = entry.size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut chunk = vec![0; want];
        let got = fill(&mut *content, &mut chunk).map_err(|problem| broken(entry, &problem.to_string()))?;
        if got < want {
            let sent = entry.size - left + got as u64;
            return Err(broken(entry, &format!("it has {sent} bytes, but {} were announced", entry.size)));
        }
        left -= got as u64;
        sink.counts.data(got);
        sink.put_blocking(data(chunk.into()))?;
    }
    if fill(&mut *content, &mut [0]).map_err(|problem| broken(entry, &problem.to_string()))? > 0 {
        return Err(broken(entry, &format!("it has more than the {} bytes announced", entry.size)));
    }
    // counted first: its receiver may end the transfer before we run on
    sink.files.fetch_add(1, Ordering::Release);
    sink.put_blocking(data(Bytes::new()))
}

fn broken(entry: &Entry, cause: &str) -> Status {
    Status::data_loss(format!("reading {}: {cause}", shown(&entry.path)))
}

/// Reads until `chunk` is full or the content ends.
fn fill(content: &mut dyn Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = chunk.get_mut(filled..).filter(|free| !free.is_empty()) {
        match content.read(free) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(problem) if problem.kind() == ErrorKind::Interrupted => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(filled)
}

/// Where packets go; waits for the receiver, but not for ever.
#[derive(Clone)]
struct Sink {
    queue: mpsc::Sender<Packet>,
    /// Files sent whole.
    files: Arc<AtomicUsize>,
    counts: TransferHandle,
    patience: Patience,
}

impl Sink {
    async fn put(&self, packet: Packet) -> Result<(), Status> {
        let packet = match self.queue.try_send(packet) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Status::cancelled("the receiver went away")),
            Err(TrySendError::Full(packet)) => packet,
        };
        self.queue.send_timeout(packet, self.patience.taking).await.map_err(|problem| match problem {
            SendTimeoutError::Closed(_) => Status::cancelled("the receiver went away"),
            SendTimeoutError::Timeout(_) => Status::deadline_exceeded(format!(
                "the receiver took nothing for {} s",
                self.patience.taking.as_secs()
            )),
        })
    }

    /// [`Self::put`] for the blocking threads of a runtime.
    fn put_blocking(&self, packet: Packet) -> Result<(), Status> {
        tokio::runtime::Handle::current().block_on(self.put(packet))
    }
}
