//! Limits: how much a stranger, or a client that stands still, can cost; and what the audit record says of all that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lemnos::audit::{Event, Filter};
use lemnos::ssh::{Config, EarlyDrop};
use russh::ChannelMsg;
use russh::client;
use russh::keys::Algorithm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::hostile::{connect, connect_with, key, log_in, logged_in, registered, run};
use super::support::{Host, Server, soon};

async fn with(config: Config) -> Server {
    Server::start_with(config, Host::default()).await
}

/// Reads until the server closes.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end too.
    let _ = soon(stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test]
async fn whoever_does_not_log_in_is_cut_at_the_grace_limit() {
    let grace = Duration::from_millis(400);
    let server = with(Config { login_grace: grace, ..Config::default() }).await;
    let began = Instant::now();
    let silent = async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        closed(&mut stream).await;
        began.elapsed()
    };
    // One byte at a time, so that no timer of idleness would ever fire.
    let slow = async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut sink = Vec::new();
        let dribble = async {
            for byte in b"SSH-2.0-".iter().chain(std::iter::repeat(&b'x')) {
                if write.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(grace / 10).await;
            }
        };
        tokio::select! { _ = read.read_to_end(&mut sink) => {}, () = dribble => {} }
        began.elapsed()
    };
    // Through the key exchange, and then nothing.
    let exchanged = async {
        let client = connect(&server).await;
        let _ = soon(client).await;
        began.elapsed()
    };
    for elapsed in <[Duration; 3]>::from(soon(async { tokio::join!(silent, slow, exchanged) }).await) {
        assert!(elapsed >= grace && elapsed < Duration::from_secs(10), "{elapsed:?}");
    }
    server.record.refused(&[("connection_cut", "login-grace"); 3]).await;
    // Who has logged in stays.
    let client = logged_in(&server, "alice").await;
    tokio::time::sleep(grace + grace / 4).await;
    assert_eq!(run(&client, "git-upload-pack echo").await.1, Some(7));
}

#[tokio::test]
async fn strangers_of_one_source_and_in_all_are_bounded() {
    let server = with(Config { max_unauthenticated_per_source: 3, ..Config::default() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut greeting = [0; 8];
        soon(stream.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        held.push(stream);
    }
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    let text = String::from_utf8(closed(&mut refused).await).unwrap();
    assert_eq!(
        text,
        "lemnos: too many connections of this source that have not logged in, try again in a moment\r\n"
    );
    server
        .record
        .refused(&[("connection_dropped", "too many connections of this source that have not logged in")])
        .await;
    drop(held);
    soon(async {
        // The places are given back when the server has seen the connections end.
        while client::connect(Arc::default(), server.address, super::hostile::Trusting).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let server =
        with(Config { max_unauthenticated: EarlyDrop { start: 2, rate: 100, full: 9 }, ..Config::default() })
            .await;
    let first = logged_in(&server, "alice").await;
    let second = connect(&server).await;
    let third = connect(&server).await;
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    assert!(closed(&mut refused).await.starts_with(b"lemnos: too many connections that have not logged in"));
    server.record.refused(&[("connection_dropped", "too many connections that have not logged in")]).await;
    assert_eq!(run(&first, "git-upload-pack echo").await.1, Some(7));
    drop((second, third));
}

#[tokio::test]
async fn sessions_of_one_connection_are_bounded() {
    let server = with(Config { max_sessions_per_connection: 2, ..Config::default() }).await;
    let client = logged_in(&server, "alice").await;
    let first = client.channel_open_session().await.unwrap();
    let second = client.channel_open_session().await.unwrap();
    assert!(client.channel_open_session().await.is_err());
    drop(first);
    second.close().await.unwrap();
    soon(async {
        // The close is answered before the place is given back.
        while client.channel_open_session().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn channels_without_requests_cannot_stop_their_connection() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let idle = client.channel_open_session().await.unwrap();
    for _ in 0..1000 {
        idle.set_env(false, "GIT_PROTOCOL", "version=2").await.unwrap();
    }
    soon(idle.data_bytes(vec![0; 8 << 20])).await.unwrap();
    assert_eq!(run(&client, "git-upload-pack echo").await.1, Some(7));
}

#[tokio::test]
async fn a_connection_without_sessions_is_closed_after_a_while() {
    let server = with(Config { idle: Duration::from_millis(300), ..Config::default() }).await;
    let client = logged_in(&server, "alice").await;
    assert_eq!(run(&client, "git-upload-pack echo").await.1, Some(7));
    soon(client).await.ok();
}

#[tokio::test]
async fn a_client_that_takes_no_output_is_given_up_and_its_push_ends() {
    let server = with(Config { output_stall: Duration::from_millis(300), ..Config::default() }).await;
    // russh's client refills the window only for what was taken from this queue.
    let stingy =
        client::Config { channel_buffer_size: 1, window_size: 64 << 10, ..client::Config::default() };
    let mut client = connect_with(&server, stingy).await;
    assert!(log_in(&mut client, "git", &registered(&server, "alice")).await.success());
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "git-receive-pack flood").await.unwrap();
    soon(server.host.one_served.notified()).await;
    assert_eq!(*server.host.served.lock().unwrap(), [("flood".to_owned(), 64 << 20)]);
    drop(channel);
}

#[tokio::test]
async fn a_client_that_allows_no_packet_is_not_waited_for() {
    let server = Server::start().await;
    let none = client::Config { maximum_packet_size: 0, ..client::Config::default() };
    let mut client = connect_with(&server, none).await;
    assert!(log_in(&mut client, "git", &registered(&server, "alice")).await.success());
    assert!(soon(client.channel_open_session()).await.is_err());
    // It resolves when the connection is closed.
    let _ = soon(client).await;
}

#[tokio::test]
async fn tiny_windows_and_packets_carry_all_output() {
    let server = Server::start().await;
    let tiny = client::Config { maximum_packet_size: 7, window_size: 50, ..client::Config::default() };
    let mut client = connect_with(&server, tiny).await;
    assert!(log_in(&mut client, "git", &registered(&server, "alice")).await.success());
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "git-receive-pack echo").await.unwrap();
    channel.data_bytes(vec![b'q'; 2000]).await.unwrap();
    channel.eof().await.unwrap();
    let mut out: Vec<u8> = Vec::new();
    while let Some(message) = soon(channel.wait()).await {
        if let ChannelMsg::Data { data } = message {
            assert!(data.len() <= 7);
            out.extend(&data);
        }
    }
    assert_eq!(out, vec![b'q'; 2000]);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_off() {
    let host = Host { release: Some(tokio::sync::Semaphore::new(0)), ..Host::default() };
    let server =
        Server::start_with(Config { drain: Duration::from_millis(200), ..Config::default() }, host).await;
    let client = logged_in(&server, "alice").await;
    let session = tokio::spawn(async move { run(&client, "git-receive-pack held").await });
    soon(server.host.began.notified()).await;
    server.shutdown.cancel();
    soon(server.running).await.unwrap().unwrap();
    let _ = soon(session).await;
    assert!(server.host.served.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_login_and_every_refusal_is_on_record() {
    let server = Server::start().await;
    let (store, trail) = (server.record.store(), server.record.trail.clone());
    let mut client = connect(&server).await;
    assert!(!log_in(&mut client, "evil\u{1b}[2J\nuser", &key(Algorithm::Ed25519)).await.success());
    assert!(log_in(&mut client, "git", &registered(&server, "alice")).await.success());
    run(&client, "git-receive-pack echo").await;
    run(&client, "git-receive-pack secret").await;
    run(&client, "git-receive-pack '../x'").await;
    run(&client, "git sh").await;
    assert!(client.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    trail.flush().await.unwrap();
    let logged = store.audit(&Filter { limit: 100, ..Filter::default() }).await.unwrap();
    let peer = logged[0].entry.peer;
    assert!(peer.is_some() && logged.iter().all(|l| l.entry.peer == peer && l.entry.key.is_some()));
    let lines = logged.iter().map(|l| {
        let app = l.entry.app.as_ref().map(|app| format!(" {app}")).unwrap_or_default();
        format!("{}{app} {}", l.entry.actor, serde_json::to_string(&l.entry.event).unwrap())
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    anonymous {"type":"login_refused","ssh_user":"evil user","algorithm":"ssh-ed25519","reason":"unknown-key"}
    alice {"type":"logged_in","algorithm":"ssh-ed25519"}
    alice echo {"type":"request_accepted","service":"git-receive-pack"}
    alice secret {"type":"request_refused","service":"git-receive-pack","reason":"there is no app secret that alice may use"}
    alice {"type":"request_refused","service":null,"reason":"\"../x\" is no app name: use 1 to 63 lower-case letters, digits and single '-', '.' or '_' between them, beginning and ending with a letter or digit"}
    alice {"type":"request_refused","service":null,"reason":"there is no shell and no command \"git sh\" here"}
    alice {"type":"channel_refused","what":"forwarding"}
    "#);
}

#[tokio::test]
async fn dropped_connections_are_on_record_with_their_number() {
    let server = with(Config { max_connections: 1, ..Config::default() }).await;
    let (store, trail) = (server.record.store(), server.record.trail.clone());
    let _first = connect(&server).await;
    for _ in 0..20 {
        let mut dropped = TcpStream::connect(server.address).await.unwrap();
        let mut said = Vec::new();
        // it may be reset before its text has arrived
        let _ = soon(dropped.read_to_end(&mut said)).await;
    }
    let mut changes = store.audit_changes();
    loop {
        trail.flush().await.unwrap();
        let logged = store.audit(&Filter { limit: 100, ..Filter::default() }).await.unwrap();
        let reason = "too many connections".to_owned();
        assert!(logged.iter().all(|l| l.entry.event == Event::ConnectionDropped { reason: reason.clone() }));
        assert!(logged.len() < 10, "{logged:?}");
        if logged.iter().map(|l| l.entry.times).sum::<u64>() == 20 {
            break;
        }
        soon(changes.changed()).await.unwrap();
    }
}
