//! The receiving side of a file transfer, writing a directory of ours: tonistiigi/fsutil's receiver.
//!
//! Invariants: the sender is always heard while it is asked, and never asked for more at once than it can note, so that
//! neither side waits for the other; a file appears whole, with the bytes that were announced, or not at all; nothing is
//! deleted before everything has arrived; the transfer ends with both FINs, or with a status. Disk work blocks, and is
//! done on a thread for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};

use bytes::Bytes;
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::fsutil::types::{Packet, Stat};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::DirExport;
use super::order::{self, Order, split};
use super::tree::{Place, Tree, set_attributes};
use crate::buildkit::session::filesync::{Patience, mode, shown};
use crate::buildkit::session::outgoing::Outbox;

/// Files asked for and not yet whole. Go's sender notes 128 beyond the four that it sends.
pub(super) const ASKED_AT_ONCE: usize = 64;
/// Packets waiting for the disk.
const QUEUE: usize = 8;
/// More entries than this are refused.
const MAX_ENTRIES: u32 = 1_000_000;

/// Takes a whole transfer.
pub(super) async fn receive(
    mut inbound: Streaming<Bytes>,
    outbox: Outbox<Bytes>,
    export: DirExport,
    patience: Patience,
) -> Result<(), Status> {
    let (orders, queue) = mpsc::channel(QUEUE);
    let (asks, mut asked) = mpsc::channel(ASKED_AT_ONCE);
    let mut disk: JoinHandle<Result<(), Status>> =
        spawn_blocking(move || Receiver::run(&export, queue, &asks));
    let mut heard = Instant::now();
    let mut carried = None;
    let mut finished = false;
    loop {
        tokio::select! {
            ask = asked.recv(), if !finished => {
                heard = Instant::now();
                let packet = match ask {
                    Some(id) => Packet { id, ..packet(PacketType::PacketReq) },
                    None => {
                        (&mut disk).await.map_err(|_| Status::internal("writing the export broke off"))??;
                        finished = true;
                        packet(PacketType::PacketFin)
                    }
                };
                outbox.put(packet.encode_to_vec().into()).await?;
            }
            room = orders.reserve(), if carried.is_some() && !finished => {
                let packet = carried.take();
                // without room the disk has failed, and says so at once
                if let (Ok(room), Some(packet)) = (room, packet) {
                    room.send(packet);
                }
            }
            received = inbound.message(), if carried.is_none() => {
                heard = Instant::now();
                let Some(raw) = received? else {
                    return Err(Status::cancelled("the sender closed the stream before its FIN"));
                };
                let packet = Packet::decode(raw).map_err(|_| Status::invalid_argument("not a packet"))?;
                match packet.r#type() {
                    PacketType::PacketFin if finished => return Ok(()),
                    PacketType::PacketErr => return Err(sender_failed(&packet)),
                    PacketType::PacketFin | PacketType::PacketReq => {
                        return Err(Status::invalid_argument("a packet that no sender sends here"));
                    }
                    _ if finished => return Err(Status::invalid_argument("a packet behind the end")),
                    PacketType::PacketStat | PacketType::PacketData => carried = Some(packet),
                }
            }
            () = tokio::time::sleep_until(heard + patience.asking), if carried.is_none() => {
                let seconds = patience.asking.as_secs();
                return Err(Status::deadline_exceeded(format!("the sender was silent for {seconds} s")));
            }
        }
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

fn sender_failed(packet: &Packet) -> Status {
    Status::aborted(format!("the sender failed: {}", shown(packet.data.get(..4096).unwrap_or(&packet.data))))
}

/// A file that is announced.
#[derive(Debug)]
struct Announced {
    id: u32,
    stat: Stat,
}

/// A file that is coming in.
#[derive(Debug)]
struct Incoming {
    stat: Stat,
    file: File,
    place: Place,
    left: u64,
}

/// The disk's side of a transfer.
struct Receiver {
    tree: Tree,
    order: Order,
    delete: bool,
    /// Bytes of files that may still be announced.
    room: u64,
    /// Every path announced, and whether it can have another name.
    known: HashMap<Vec<u8>, bool>,
    count: u32,
    listed: bool,
    waiting: VecDeque<Announced>,
    incoming: BTreeMap<u32, Incoming>,
    /// Made when all files are there.
    links: Vec<Stat>,
    dirs: Vec<Stat>,
}

impl Receiver {
    fn run(
        export: &DirExport,
        mut queue: mpsc::Receiver<Packet>,
        asks: &mpsc::Sender<u32>,
    ) -> Result<(), Status> {
        let tree = Tree::open(&export.path, export.delete).map_err(|cause| {
            super::write_status(&io::Error::new(cause.kind(), format!("its directory: {cause}")))
        })?;
        let mut this = Self {
            tree,
            order: Order::default(),
            delete: export.delete,
            room: export.limit_bytes.unwrap_or(u64::MAX),
            known: HashMap::new(),
            count: 0,
            listed: false,
            waiting: VecDeque::new(),
            incoming: BTreeMap::new(),
            links: Vec::new(),
            dirs: Vec::new(),
        };
        loop {
            this.ask(asks)?;
            if this.listed && this.incoming.is_empty() && this.waiting.is_empty() {
                return this.finish();
            }
            let Some(packet) = queue.blocking_recv() else {
                return Err(Status::cancelled("the transfer broke off"));
            };
            match (packet.r#type(), packet.stat) {
                (PacketType::PacketStat, _) if this.listed => {
                    return Err(Status::invalid_argument("an entry behind the last one"));
                }
                (PacketType::PacketStat, None) => this.listed = true,
                (PacketType::PacketStat, Some(stat)) => this.entry(stat)?,
                _ => this.data(packet.id, &packet.data)?,
            }
        }
    }

    /// Asks for waiting files, as many as may be under way.
    fn ask(&mut self, asks: &mpsc::Sender<u32>) -> Result<(), Status> {
        while self.incoming.len() < ASKED_AT_ONCE {
            let Some(Announced { id, stat }) = self.waiting.pop_front() else { break };
            let path = stat.path.as_bytes();
            let mut place = self.tree.place(path).map_err(|cause| failed(path, &cause))?;
            let file = place.file().map_err(|cause| failed(path, &cause))?;
            let left = u64::try_from(stat.size).unwrap_or_default();
            self.incoming.insert(id, Incoming { stat, file, place, left });
            asks.blocking_send(id).map_err(|_| Status::cancelled("the transfer broke off"))?;
        }
        Ok(())
    }

    /// One announced entry.
    fn entry(&mut self, stat: Stat) -> Result<(), Status> {
        let id = self.count;
        if id >= MAX_ENTRIES {
            return Err(Status::resource_exhausted(format!("more than {MAX_ENTRIES} entries")));
        }
        self.count += 1;
        let path = stat.path.as_bytes().to_vec();
        let kind = stat.mode & mode::TYPE;
        self.order
            .take(&path, kind == mode::DIR)
            .map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        let is_link = kind == 0 && !stat.linkname.is_empty();
        if is_link && self.known.get(stat.linkname.as_bytes()) != Some(&true) {
            return Err(Status::invalid_argument(format!(
                "\"{}\" is another name of \"{}\", which is no file announced before",
                shown(&path),
                shown(stat.linkname.as_bytes())
            )));
        }
        self.known.insert(path.clone(), kind == 0 && !is_link);
        let made = match kind {
            0 if is_link => {
                self.links.push(stat);
                return Ok(());
            }
            0 if stat.size < 0 => {
                return Err(Status::invalid_argument(format!("{} has no size", shown(&path))));
            }
            0 => {
                let size = u64::try_from(stat.size).unwrap_or_default();
                self.room = self.room.checked_sub(size).ok_or_else(|| {
                    Status::resource_exhausted(format!(
                        "{} makes the result larger than is taken here",
                        shown(&path)
                    ))
                })?;
                self.waiting.push_back(Announced { id, stat });
                return Ok(());
            }
            mode::DIR => {
                self.dirs.push(stat);
                self.tree.make_dir(&path)
            }
            mode::SYMLINK => self.symlink(&path, &stat),
            mode::FIFO => self.fifo(&path, &stat),
            _ => {
                return Err(Status::failed_precondition(format!(
                    "{} is neither file, directory, link nor pipe, and cannot be written into a directory: \
                     leave it out of the result, or export a tar",
                    shown(&path)
                )));
            }
        };
        made.map_err(|cause| failed(&path, &cause))
    }

    fn symlink(&mut self, path: &[u8], stat: &Stat) -> io::Result<()> {
        let mut place = self.tree.place(path)?;
        place.symlink(stat.linkname.as_bytes())?;
        place.set_link_time(stat.mod_time)?;
        place.finish()
    }

    fn fifo(&mut self, path: &[u8], stat: &Stat) -> io::Result<()> {
        let mut place = self.tree.place(path)?;
        let pipe = place.fifo()?;
        set_attributes(&pipe, permissions(stat), stat.mod_time, stat.xattrs.iter())?;
        place.finish()
    }

    /// A piece of a file; an empty one ends it.
    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Status> {
        let Some(incoming) = self.incoming.get_mut(&id) else {
            return Err(Status::invalid_argument(format!("content of entry {id}, which was not asked for")));
        };
        let path = incoming.stat.path.as_bytes();
        if !data.is_empty() {
            let length = data.len() as u64;
            let Some(left) = incoming.left.checked_sub(length) else {
                return Err(Status::data_loss(format!("{} is longer than announced", shown(path))));
            };
            incoming.left = left;
            return incoming.file.write_all(data).map_err(|cause| failed(path, &cause));
        }
        if incoming.left > 0 {
            let problem = format!("{} is {} bytes shorter than announced", shown(path), incoming.left);
            return Err(Status::data_loss(problem));
        }
        let Some(Incoming { stat, file, place, .. }) = self.incoming.remove(&id) else { return Ok(()) };
        set_attributes(&file, permissions(&stat), stat.mod_time, stat.xattrs.iter())
            .and_then(|()| place.finish())
            .map_err(|cause| failed(stat.path.as_bytes(), &cause))
    }

    /// Everything has arrived: other names, deletions, and what only the last change to a directory may set.
    fn finish(mut self) -> Result<(), Status> {
        for stat in std::mem::take(&mut self.links) {
            self.hard_link(&stat).map_err(|cause| failed(stat.path.as_bytes(), &cause))?;
        }
        let dirs = std::mem::take(&mut self.dirs);
        if self.delete {
            let known = &self.known;
            let all = std::iter::once("").chain(dirs.iter().map(|stat| stat.path.as_str()));
            for dir in all {
                let pruned = self.tree.prune(dir.as_bytes(), |path| known.contains_key(path));
                pruned.map_err(|cause| failed(dir.as_bytes(), &cause))?;
            }
        }
        // from the inside, because a mode may close the way in
        for stat in dirs.iter().rev() {
            let path = stat.path.as_bytes();
            self.tree
                .dir(path)
                .and_then(|dir| set_attributes(&*dir, permissions(stat), stat.mod_time, stat.xattrs.iter()))
                .map_err(|cause| failed(path, &cause))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, stat: &Stat) -> io::Result<()> {
        let (dir, name) = split(stat.linkname.as_bytes());
        order::check(stat.linkname.as_bytes()).map_err(io::Error::other)?;
        let dir = self.tree.dir(dir)?;
        let mut place = self.tree.place(stat.path.as_bytes())?;
        place.hard_link(&dir, name)?;
        place.finish()
    }
}

/// The mode as the kernel has it, without the type.
fn permissions(stat: &Stat) -> u32 {
    let bit = |bit: u32, unix: u32| if stat.mode & bit != 0 { unix } else { 0 };
    stat.mode & mode::PERMISSIONS
        | bit(mode::SETUID, 0o4000)
        | bit(mode::SETGID, 0o2000)
        | bit(mode::STICKY, 0o1000)
}

/// Names the path as the sender knows it, never where it is here.
fn failed(path: &[u8], cause: &io::Error) -> Status {
    super::write_status(&io::Error::new(cause.kind(), format!("{}: {cause}", shown(path))))
}
