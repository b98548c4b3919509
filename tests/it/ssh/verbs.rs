//! Verbs at the door: terminals, what ends them, and clients that do not read.

use std::sync::atomic::Ordering;

use russh::{Channel, ChannelMsg, Sig, client};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::hostile::{logged_in, run};
use super::support::{Host, Server, output, soon, text};

type Session = Channel<client::Msg>;

/// A channel with a terminal, on which `line` runs.
async fn on_terminal(client: &client::Handle<super::hostile::Trusting>, name: &str, line: &str) -> Session {
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, name, 72, 24, 0, 0, &[]).await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Success)));
    channel.exec(true, line).await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Success)));
    channel
}

/// The next output.
async fn said(channel: &mut Session) -> String {
    loop {
        match soon(channel.wait()).await.expect("the channel ended") {
            ChannelMsg::Data { data } => return String::from_utf8(data.to_vec()).unwrap(),
            ChannelMsg::WindowAdjusted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Everything until the end, and the exit status.
async fn rest(mut channel: Session) -> (String, Option<u32>) {
    let (mut out, mut status) = (Vec::new(), None);
    while let Some(message) = soon(channel.wait()).await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { .. } => panic!("a terminal has one stream"),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (String::from_utf8(out).unwrap(), status)
}

#[tokio::test]
async fn a_verb_is_told_of_the_terminal() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let (out, status) = rest(on_terminal(&client, "xterm", "say it").await).await;
    assert_eq!(
        (out.as_str(), status),
        ("alice: [\"say\", \"it\"] Some((Some(72), true))\r\nsaid\r\n", Some(3))
    );
    let (out, _) = rest(on_terminal(&client, "dumb", "say").await).await;
    assert!(out.contains("Some((Some(72), false))"), "{out}");
    assert_eq!(run(&client, "say").await.0, "alice: [\"say\"] None\nsaid\n", "and without one of none");
    let (out, status) = rest(on_terminal(&client, "xterm", "git nonsense").await).await;
    assert!(
        out.starts_with("error: there is no shell") && out.ends_with("here\r\n") && status == Some(2),
        "{out}"
    );
}

#[tokio::test]
async fn the_width_follows_the_terminal() {
    let host = Host { release: Some(Semaphore::new(0)), ..Host::default() };
    let server = Server::start_with(lemnos::ssh::Config::default(), host).await;
    let client = logged_in(&server, "alice").await;
    let channel = on_terminal(&client, "xterm", "width").await;
    soon(server.host.began.notified()).await;
    channel.window_change(133, 50, 0, 0).await.unwrap();
    // requests of one connection are taken in order: when this is answered, the one above was seen
    run(&client, "say").await;
    server.host.release.as_ref().unwrap().add_permits(1);
    assert_eq!(rest(channel).await, ("Some(133)\r\n".to_owned(), Some(0)));
}

#[tokio::test]
async fn keys_are_echoed_and_become_lines() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let channel = on_terminal(&client, "xterm", "echo").await;
    channel.data_bytes(&b"shopp\x7f\x1b[A\r"[..]).await.unwrap();
    channel.data_bytes(&b"two\r\x04"[..]).await.unwrap();
    let (out, status) = rest(channel).await;
    assert_eq!(out, "shopp\x08 \x08\r\ntwo\r\nshop\r\ntwo\r\n");
    assert_eq!(status, Some(0));
}

#[tokio::test]
async fn ctrl_c_and_signals_end_a_verb_with_130() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let mut channel = on_terminal(&client, "xterm", "wait").await;
    assert_eq!(said(&mut channel).await, "waiting\r\n");
    channel.data_bytes(&b"x\x03y"[..]).await.unwrap();
    assert_eq!(rest(channel).await.1, Some(130));
    soon(server.host.one_served.notified()).await;

    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "wait").await.unwrap();
    assert_eq!(said(&mut channel).await, "waiting\n");
    channel.signal(Sig::INT).await.unwrap();
    assert_eq!(rest(channel).await.1, Some(130));
    soon(server.host.one_served.notified()).await;

    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "echo").await.unwrap();
    channel.data_bytes(&b"no terminal: \x03 is a byte"[..]).await.unwrap();
    channel.eof().await.unwrap();
    assert_eq!(said(&mut channel).await, "no terminal: \x03 is a byte");
}

#[tokio::test]
async fn a_client_that_is_gone_ends_its_verb() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "wait").await.unwrap();
    assert_eq!(said(&mut channel).await, "waiting\n");
    drop(channel);
    drop(client);
    soon(server.host.one_served.notified()).await;
    assert_eq!(*server.host.served.lock().unwrap(), [("wait".to_owned(), 0)]);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_a_verb() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(false, "wait").await.unwrap();
    assert_eq!(said(&mut channel).await, "waiting\n");
    server.shutdown.cancel();
    let mut told = (String::new(), None);
    while let Some(message) = soon(channel.wait()).await {
        match message {
            ChannelMsg::ExtendedData { data, .. } => told.0 = String::from_utf8(data.to_vec()).unwrap(),
            ChannelMsg::ExitStatus { exit_status } => told.1 = Some(exit_status),
            _ => {}
        }
    }
    assert!(told.0.starts_with("lemnos: the server is stopping") && told.1 == Some(143), "{told:?}");
    soon(server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_its_own_verb_only() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    // nobody takes what comes: its window is used up, then the queue
    let stalled = on_terminal(&client, "xterm", "flood").await;
    let flooded = || server.host.flooded.load(Ordering::Relaxed);
    let mut before = 0;
    loop {
        let (_, status) = run(&logged_in(&server, "bob").await, "say").await;
        assert_eq!(status, Some(3), "others are served");
        if before > 0 && flooded() == before {
            break;
        }
        before = flooded();
    }
    assert!(before < 32 << 20, "{before} bytes are kept for a reader that takes none");
    // and Ctrl-C gets through all of it
    stalled.data_bytes(&b"\x03"[..]).await.unwrap();
    assert_eq!(rest(stalled).await.1, Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_brings_its_terminal() {
    let server = Server::start().await;
    let key = server.alice().await;
    let options: Vec<_> = server.ssh_options(&[&key]).into_iter().filter(|o| o != "-T").collect();
    let line = format!("stty cols 91; TERM=xterm ssh -tt {} git@127.0.0.1 say", options.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let out = output(&mut terminal).await;
    let seen = text(&out.stdout);
    assert_eq!(out.status.code(), Some(3), "{seen}");
    assert!(seen.contains("alice: [\"say\"] Some((Some(91), true))"), "{seen}");
}

#[tokio::test]
async fn git_takes_no_notice_of_a_terminal() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    let channel = on_terminal(&client, "xterm", "git-upload-pack echo").await;
    channel.data_bytes(&b"a\nb\x03\x04\r\x7f"[..]).await.unwrap();
    channel.eof().await.unwrap();
    let mut channel = channel;
    assert_eq!(said(&mut channel).await, "a\nb\x03\x04\r\x7f", "every byte as it is");
}
