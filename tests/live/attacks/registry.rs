//! A registry that fails at chosen tags, in front of the real one: a push is refused with nothing changed, or accepted and
//! completed later.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{leaves_nothing, shop};
use crate::house::House;
use crate::standing::Standing;
use crate::support::engines;

/// A proxy that answers 503 to the PUT of some tags. One request a connection, so that each is seen.
struct Faulty {
    address: String,
    failing: Arc<Mutex<BTreeSet<String>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Faulty {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let failing = Arc::<Mutex<BTreeSet<String>>>::default();
        let refused = Arc::<Mutex<Vec<String>>>::default();
        let shared = (failing.clone(), refused.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (failing, refused) = shared.clone();
                // a connection that breaks is its client's to notice
                std::thread::spawn(move || relay(client, &failing, &refused));
            }
        });
        Self { address, failing, refused }
    }

    fn fail(&self, tags: &[&str]) {
        *self.failing.lock().unwrap() = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self.refused.lock().unwrap().clear();
    }
}

fn relay(
    client: TcpStream,
    failing: &Mutex<BTreeSet<String>>,
    refused: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let tag = path.rsplit_once("/manifests/").map(|(_, tag)| tag.to_owned()).unwrap_or_default();
    let mut client = client;
    if head.starts_with("PUT ") && failing.lock().unwrap().contains(&tag) {
        refused.lock().unwrap().push(tag);
        std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        return client.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let mut upstream = TcpStream::connect(&engines().registry)?;
    upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    let mut up = upstream.try_clone()?;
    let sending = std::thread::spawn(move || {
        let _ = std::io::copy(&mut reader, &mut up);
    });
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)?;
    let _ = upstream.shutdown(Shutdown::Both);
    sending.join().unwrap();
    Ok(())
}

#[test]
fn ref_and_tags_agree_where_the_registry_fails_at_any_tag() {
    let registry = Faulty::start();
    let mut house = House::start_on("faulty", &registry.address, &[], &[]);
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let standing = |house: &House| {
        let at = |tag| house.digest("shop", tag);
        (house.remote_refs(&dir)["refs/heads/main"].clone(), at("main"), at("latest"))
    };

    // before the first shared tag: refused, nothing has changed
    let before = standing(&house);
    let attack = Standing::of(&house);
    let commit = house.commit(&dir, &[("greeting", "two\n")], "two");
    let own = format!("git-{}", &commit[..12]);
    for failing in [own.as_str(), "main"] {
        registry.fail(&[failing]);
        house
            .push(&dir, &["main"])
            .failed()
            .shows("! [remote rejected] main -> main (")
            .shows("503")
            .shows("hint: ");
        assert!(registry.refused.lock().unwrap().contains(&failing.to_owned()));
        assert_eq!(standing(&house), before, "{failing}");
        leaves_nothing(&house);
    }

    attack.holds_beside_builds(&house, &[("push_answered", "503"); 2]);

    // after it: accepted, said, and completed once the registry is well again
    registry.fail(&["latest"]);
    house.push(&dir, &["main"]).succeeded().shows("latest");
    let (head, main, latest) = standing(&house);
    assert_eq!(head, commit);
    assert_ne!(main, before.1);
    assert_eq!(latest, before.2, "the registry refused it");
    registry.fail(&[]);
    house.until("the last tag has followed", |house| house.digest("shop", "latest") == main);
    assert_eq!(standing(&house), (commit, main.clone(), main));
    house.commit(&dir, &[("greeting", "three\n")], "three");
    house.push(&dir, &["main"]).succeeded();
    leaves_nothing(&house);
}
