//! Loopback ports for servers that are stopped and started again, or that are told their port.
//!
//! A port that the kernel gave and that nobody listens on may be given to any connection that goes out meanwhile. These lie
//! below those, and belong to one test process for as long as it runs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as Name, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below the kernel's own choice, which begins with 32768.
const ALL: Range<u16> = 20_000..32_000;
/// How many a process takes at once.
const BLOCK: u16 = 200;

/// What is left of this process's blocks, and the names by which other test processes see that those are taken.
static OWN: Mutex<(Range<u16>, Vec<UnixListener>)> = Mutex::new((0..0, Vec::new()));

/// A port that is nobody else's, and that nothing listens on.
pub fn own() -> SocketAddr {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(port) = own.0.next() else {
            let free = ALL.step_by(BLOCK.into()).find_map(|first| Some((first, taken(first)?)));
            let (first, taken) = free.expect("a block of ports");
            own.0 = first..first + BLOCK;
            own.1.push(taken);
            continue;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).map(Ends).is_ok() {
            return address;
        }
    }
}

/// A listening socket that ends when this goes, for all who have it: a child that another thread has just forked has a copy until
/// it is the other program, and nobody else could listen there for that long.
pub struct Ends(pub TcpListener);

impl Drop for Ends {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both).expect("a listening socket");
    }
}

/// The block that begins with this port, where no process has it.
fn taken(first: u16) -> Option<UnixListener> {
    let name = Name::from_abstract_name(format!("lemnos-tests-ports-{first}")).unwrap();
    UnixListener::bind_addr(&name).ok()
}
