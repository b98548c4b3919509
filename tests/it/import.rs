//! Keys from a forge over TLS: the real program against OpenSSL's own server, trusted by what `SSL_CERT_FILE` names.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::buildkit::tls::pki;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X\n";

/// Pages of whole HTTP answers, behind the certificate for 127.0.0.1 and no name of this machine.
struct Forge {
    dir: tempfile::TempDir,
    server: Child,
    port: u16,
}

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Forge {
    fn start(pages: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, answer) in pages {
            std::fs::write(dir.path().join(name), answer).unwrap();
        }
        let mut server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-HTTP", "-cert"])
            .arg(pki("server.pem"))
            .arg("-key")
            .arg(pki("server.key"))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the server ended at start");
            if let Some((_, port)) = line.trim().strip_prefix("ACCEPT ").and_then(|at| at.rsplit_once(':')) {
                break port.parse().unwrap();
            }
        };
        // it goes on talking, and would wait for a reader
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Self { dir, server, port }
    }

    /// What `keys import ann --url https://HOST:PORT/PAGE …` says, with `authority` as all that is trusted.
    fn import(&self, host: &str, page: &str, authority: &str, more: &[&str]) -> (bool, String) {
        let data = self.dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let url = format!("https://{host}:{}/{page}", self.port);
        run(&data, &pki(authority), &[&["keys", "import", "ann", "--url", &url], more].concat())
    }
}

fn run(data: &Path, authority: &Path, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
    command.args(words).env_clear().env("HOME", data).env("LEMNOS_DATA", data);
    let output = command.env("SSL_CERT_FILE", authority).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn page(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

#[test]
fn keys_come_over_tls_from_whom_the_named_authority_vouches_for_and_nobody_else() {
    let forge = Forge::start(&[
        ("ann.keys", page(KEY)),
        ("moved", redirect("/ann.keys")),
        ("clear", redirect("http://forge.example.com/ann.keys")),
        ("large", page(&"# x\n".repeat(70_000))),
    ]);
    let inside = &["--allow-private"][..];
    for (host, page, authority, more, expected) in [
        // the guard stands before any connection
        ("127.0.0.1", "ann.keys", "ca.pem", &[][..], "127.0.0.1 is no public address"),
        ("localhost", "ann.keys", "ca.pem", &[], "is no public address"),
        ("127.0.0.1", "ann.keys", "other.pem", inside, "UnknownIssuer"),
        ("localhost", "ann.keys", "ca.pem", inside, "not valid for name"),
        ("127.0.0.1", "clear", "ca.pem", inside, "it redirects elsewhere: only https is trusted with keys"),
        ("127.0.0.1", "large", "ca.pem", inside, "it sends more than 262144 bytes"),
    ] {
        let (well, said) = forge.import(host, page, authority, more);
        assert!(!well && said.contains(expected), "{host} {page} {authority} {more:?}: {said}");
    }
    let (_, none) = run(&forge.dir.path().join("data"), &pki("ca.pem"), &["keys", "list"]);
    assert!(!none.contains("SHA256:"), "{none}");

    let (well, said) = forge.import("127.0.0.1", "ann.keys", "ca.pem", inside);
    assert!(
        well && said.contains("Added SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg for ann"),
        "{said}"
    );
    let (well, said) = forge.import("127.0.0.1", "moved", "ca.pem", inside);
    assert!(well && said.contains("Known already"), "{said}");
}
