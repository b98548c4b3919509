//! Tests of fetching keys: the guard's table, and a server of our own for the rest.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X\n";

fn checked(text: &str, reach: Reach) -> Result<Url, Report> {
    KeySource::Url(text.to_owned()).url(reach)
}

#[test]
fn only_public_addresses_are_reached_however_they_are_written() {
    for text in [
        "http://example.com/ann.keys",
        "file:///etc/passwd",
        "ext::sh -c id",
        "git://10.0.0.1/x",
        "/etc/passwd",
        "-uX",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://0/",
        "https://10.1.2.3/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://172.31.255.255/",
        "https://192.168.0.1/",
        "https://198.18.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://user@example.com/",
        "https://example.com:x@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com%0a.internal/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: inside",
    ] {
        let refused = checked(text, Reach::Public);
        assert!(refused.is_err(), "{text} became {refused:?}");
    }
    for text in ["https://example.com/ann.keys", "https://8.8.8.8/x", "https://[2606:4700::1111]:8443/x"] {
        checked(text, Reach::Public).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn the_operator_may_reach_inside_and_speaks_in_clear_to_this_machine_alone() {
    for text in ["https://10.1.2.3/x", "http://127.0.0.1:8080/x", "http://localhost/x"] {
        checked(text, Reach::Inside).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    assert!(checked("http://10.1.2.3/x", Reach::Inside).is_err());
    assert!(checked("file:///etc/passwd", Reach::Inside).is_err());
}

#[test]
fn a_github_name_is_one() {
    let url = |name: &str| KeySource::Github(name.to_owned()).url(Reach::Public);
    assert_eq!(url("Octo-Cat").unwrap().as_str(), "https://github.com/Octo-Cat.keys");
    for name in ["", "a/b", "..", "a.keys?x=", "ann@evil", &"a".repeat(40)] {
        assert!(url(name).is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_name_that_resolves_inside_is_not_connected_to() {
    let name = || "localhost".parse::<Name>().unwrap();
    assert!(Guard(Reach::Public).resolve(name()).await.is_err());
    assert!(Guard(Reach::Inside).resolve(name()).await.unwrap().next().is_some());
}

/// Answers each connection with the next of the texts; `{port}` in them is its own.
async fn answering(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            // a client that has heard enough hangs up
            let _ = stream.write_all(answer.replace("{port}", &port.to_string()).as_bytes()).await;
        }
    });
    format!("http://127.0.0.1:{port}/ann.keys")
}

fn page(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect_to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

async fn imported(url: String) -> Result<Vec<(UserKey, bool)>, Report> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    import(&store, &"ann".parse().unwrap(), &KeySource::Url(url), true).await
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let url = answering(vec![redirect_to("http://127.0.0.1:{port}/moved"), page(KEY), page(KEY)]).await;
    let ann = "ann".parse().unwrap();
    let source = KeySource::Url(url);
    let first = import(&store, &ann, &source, true).await.unwrap();
    assert_eq!(first.iter().map(|(_, new)| *new).collect::<Vec<_>>(), [true]);
    assert_eq!((first[0].0.user.as_str(), first[0].0.comment.as_str()), ("ann", "127.0.0.1/ann.keys"));
    let again = import(&store, &ann, &source, true).await.unwrap();
    assert!(!again[0].1);
}

#[tokio::test]
async fn what_is_no_small_page_of_keys_is_refused() {
    for (answers, expected) in [
        (vec![page("<html>\n")], "line 1"),
        (vec![page("")], "there is no key"),
        (vec![page(&"# x\n".repeat(70_000))], "more than 262144 bytes"),
        (
            vec!["HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()],
            "there is no page",
        ),
        (vec!["HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()], "answers 500"),
        (vec![redirect_to("/again"); 5], "redirects more than 3 times"),
        (vec![redirect_to("http://169.254.169.254/")], "only https"),
        (vec![redirect_to("file:///etc/passwd")], "redirects elsewhere"),
    ] {
        let report = imported(answering(answers).await).await.unwrap_err();
        assert!(report.message.contains(expected), "{report}");
    }
}
