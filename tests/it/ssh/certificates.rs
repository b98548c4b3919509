//! User certificates, made with the real ssh-keygen and shown by the real ssh.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use lemnos::ssh::{Config, TrustFiles};
use tokio::process::Command;

use super::hostile::connect;
use super::support::{Host, Server, fingerprint, output, text};

/// A door that trusts one authority, with users ann and bob and no registered key.
struct Certified {
    server: Server,
    authority: tempfile::TempDir,
}

async fn keygen(arguments: &[&str], files: &[&Path]) {
    let made = Command::new("ssh-keygen").arg("-q").args(arguments).args(files).output().await.unwrap();
    assert!(made.status.success(), "{arguments:?}: {}", text(&made.stderr));
}

impl Certified {
    async fn start(kind: &str) -> Self {
        let authority = tempfile::tempdir().unwrap();
        let at = |name: &str| authority.path().join(name);
        for name in ["ca", "other-ca"] {
            keygen(&["-N", "", "-t", kind, "-f"], &[&at(name)]).await;
        }
        std::fs::write(at("revoked"), "# nothing yet\n").unwrap();
        let trust = TrustFiles { authorities: Some(at("ca.pub")), revoked: Some(at("revoked")) };
        let config = Config { trust, ..Config::default() };
        let server = Server::start_with(config, Host::default()).await;
        *server.host.people.lock().unwrap() = vec!["ann".parse().unwrap(), "bob".parse().unwrap()];
        Self { server, authority }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.authority.path().join(name)
    }

    fn revoke(&self, line: &str) {
        std::fs::write(self.at("revoked"), format!("{line}\n")).unwrap();
    }

    /// A new key, and a certificate for it beside it, where ssh looks.
    async fn certificate(&self, name: &str, authority: &str, arguments: &[&str]) -> PathBuf {
        let (key, _) = self.server.keygen(name, &["ed25519"]).await;
        self.certify(&key, authority, arguments).await;
        key
    }

    async fn certify(&self, key: &Path, authority: &str, arguments: &[&str]) {
        let authority = self.at(authority);
        let mut all = vec!["-s", authority.to_str().unwrap()];
        all.extend(arguments);
        keygen(&all, &[&key.with_extension("pub")]).await;
    }

    async fn log_in(&self, key: &Path, more: &[&str]) -> Output {
        output(&mut self.server.ssh(&[key], more, &["git-upload-pack echo"])).await
    }
}

/// Served: the part that `echo` plays ends so.
const SERVED: Option<i32> = Some(7);

#[tokio::test]
async fn a_certificate_logs_in_the_user_that_it_names() {
    let door = Certified::start("ed25519").await;
    let key = door
        .certificate("laptop", "ca", &["-I", "ann@laptop", "-n", "ann", "-V", "-1m:+5m", "-z", "7"])
        .await;
    let said = door.log_in(&key, &[]).await;
    assert_eq!(said.status.code(), SERVED, "{}", text(&said.stderr));
    let request = door.server.host.last_request();
    let public = russh::keys::load_public_key(key.with_extension("pub")).unwrap();
    assert_eq!((request.user.as_str(), request.key), ("ann", fingerprint(&public)));
    // for ever is a time as well
    let key =
        door.certificate("always", "ca", &["-I", "x", "-n", "git,bob,gone", "-V", "always:forever"]).await;
    assert_eq!(door.log_in(&key, &[]).await.status.code(), SERVED);
    assert_eq!(door.server.host.last_request().user.as_str(), "bob", "the sole principal that is a user");
    // RSA keys sign with SHA-2
    let (key, _) = door.server.keygen("rsa", &["rsa", "-b", "2048"]).await;
    door.certify(&key, "ca", &["-I", "x", "-n", "ann"]).await;
    let said = door.log_in(&key, &[]).await;
    assert_eq!(said.status.code(), SERVED, "{}", text(&said.stderr));
}

#[tokio::test]
async fn the_login_name_chooses_among_several_users() {
    let door = Certified::start("ed25519").await;
    let key = door.certificate("shared", "ca", &["-I", "x", "-n", "ann,bob"]).await;
    for name in ["ann", "bob"] {
        assert_eq!(door.log_in(&key, &["-l", name]).await.status.code(), SERVED);
        assert_eq!(door.server.host.last_request().user.as_str(), name);
    }
    let said = door.log_in(&key, &[]).await;
    assert!(
        text(&said.stderr).contains("its principals are several users: say which one"),
        "{}",
        text(&said.stderr)
    );
}

#[tokio::test]
async fn what_a_certificate_says_is_held_against_it() {
    let door = Certified::start("ed25519").await;
    let (now, ann) = (["-V", "-1m:+5m"], ["-I", "id", "-n", "ann"]);
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("stranger", "ca", &["-I", "id", "-n", "mallory"], "none of its principals is a user here"),
        ("everybody", "ca", &["-I", "id"], "it names no principals"),
        ("otherca", "other-ca", &ann, "its authority is not trusted here"),
        (
            "elsewhere",
            "ca",
            &["-I", "id", "-n", "ann", "-O", "source-address=10.0.0.0/8,192.0.2.1"],
            "not valid from this address",
        ),
        (
            "novel",
            "ca",
            &["-I", "id", "-n", "ann", "-O", "critical:novel@example.com=1"],
            "its critical option novel@example.com is not known here",
        ),
        (
            "forced",
            "ca",
            &["-I", "id", "-n", "ann", "-O", "force-command=git-upload-pack 'x"],
            "its critical option force-command cannot be understood",
        ),
    ];
    for (name, authority, arguments, expected) in cases {
        let arguments: Vec<&str> = arguments.iter().chain(&now).copied().collect();
        let key = door.certificate(name, authority, &arguments).await;
        let said = door.log_in(&key, &["-l", "ann"]).await;
        assert_eq!(said.status.code(), Some(255), "{name} got in");
        assert!(text(&said.stderr).contains(expected), "{name}: {}", text(&said.stderr));
    }
    // russh refuses these before anybody is asked, and the plain key that ssh offers next opens nothing
    for (name, when) in [("expired", "-2h:-1h"), ("early", "+1h:+2h")] {
        let key = door.certificate(name, "ca", &["-I", "id", "-n", "ann", "-V", when]).await;
        let said = door.log_in(&key, &["-l", "ann"]).await;
        assert_eq!(said.status.code(), Some(255), "{name} got in");
        assert!(
            text(&said.stderr)
                .contains("not named as one has expired or is not valid yet: see ssh-keygen -L"),
            "{name}: {}",
            text(&said.stderr)
        );
    }
    assert!(door.server.host.requests.lock().unwrap().is_empty());
}

/// What russh turns away by itself: it counts, it ends, and it is on record, though without the key.
#[tokio::test]
async fn a_certificate_out_of_its_time_is_counted_and_leaves_an_entry() {
    let door = Certified::start("ed25519").await;
    let (store, trail) = (door.server.record.store(), door.server.record.trail.clone());
    let path = door.certificate("expired", "ca", &["-I", "id", "-n", "ann", "-V", "-2h:-1h"]).await;
    let key = Arc::new(russh::keys::load_secret_key(&path, None).unwrap());
    let certificate = door.server.path("expired-cert.pub");
    let certificate = russh::keys::load_openssh_certificate(certificate).unwrap();
    let events = async || {
        trail.flush().await.unwrap();
        let all = lemnos::audit::Filter { limit: 100, ..Default::default() };
        let logged = store.audit(&all).await.unwrap();
        logged.into_iter().map(|l| (l.entry.event, l.entry.detail)).collect::<Vec<_>>()
    };

    // one that goes on and on
    let mut client = connect(&door.server).await;
    let mut refused = 0;
    while let Ok(answer) = client.authenticate_openssh_cert("ann", key.clone(), certificate.clone()).await {
        assert!(!answer.success(), "it got in");
        refused += 1;
        assert!(refused < 20, "nobody counts");
    }
    // russh lets two more pass than a door that sees the keys, and its client takes the good-bye for one more refusal
    assert!(refused <= Config::default().max_auth_tries + 3, "{refused} times");
    let mut changes = store.audit_changes();
    while events().await.is_empty() {
        super::support::soon(changes.changed()).await.unwrap();
    }
    let cut = lemnos::audit::Event::ConnectionCut { reason: "no-login".to_owned() };
    assert_eq!(events().await, [(cut, None)]);

    // one that asks why
    let mut client = connect(&door.server).await;
    let answer = client.authenticate_openssh_cert("ann", key, certificate).await.unwrap();
    assert!(!answer.success());
    let told = client.authenticate_keyboard_interactive_start("ann", None).await.unwrap();
    let told = format!("{told:?}");
    assert!(told.contains("none was offered that is in its time"), "{told}");
    let events = events().await;
    let (event, detail) = events.last().unwrap();
    let expected = lemnos::audit::Event::LoginRefused {
        ssh_user: "ann".to_owned(),
        algorithm: "none".to_owned(),
        reason: "no-key".to_owned(),
    };
    assert_eq!((events.len(), event), (2, &expected), "{events:?}");
    assert!(detail.as_ref().unwrap().contains("a certificate that has expired"), "{detail:?}");
    assert!(door.server.host.requests.lock().unwrap().is_empty());
}

/// OpenSSH's client keeps a host's certificate to itself; one that means no good does not.
#[tokio::test]
async fn a_host_is_no_user() {
    let door = Certified::start("ed25519").await;
    for (name, kind, opens) in [("user", &[][..], true), ("machine", &["-h"], false)] {
        let arguments: Vec<&str> = ["-I", "id", "-n", "ann"].iter().chain(kind).copied().collect();
        let path = door.certificate(name, "ca", &arguments).await;
        let key = russh::keys::load_secret_key(&path, None).unwrap();
        let certificate = door.server.path(&format!("{name}-cert.pub"));
        let certificate = russh::keys::load_openssh_certificate(certificate).unwrap();
        let mut client = connect(&door.server).await;
        let answer = client.authenticate_openssh_cert("ann", Arc::new(key), certificate).await.unwrap();
        assert_eq!(answer.success(), opens, "{name}");
    }
}

#[tokio::test]
async fn its_address_and_command_are_honoured_where_they_fit() {
    let door = Certified::start("ed25519").await;
    let limits = [
        "-I",
        "id",
        "-n",
        "ann",
        "-O",
        "source-address=127.0.0.0/8",
        "-O",
        "force-command=git upload-pack '/echo.git'",
    ];
    let key = door.certificate("narrow", "ca", &limits).await;
    let said = door.log_in(&key, &[]).await;
    assert_eq!(said.status.code(), SERVED, "{}", text(&said.stderr));
    let refused = output(&mut door.server.ssh(&[&key], &[], &["git-receive-pack echo"])).await;
    assert!(text(&refused.stdout).contains("allows one other command only"), "{}", text(&refused.stdout));
    let refused = output(&mut door.server.ssh(&[&key], &[], &["help"])).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
    assert_eq!(door.server.host.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_sha1_signature_of_the_authority_is_refused() {
    let door = Certified::start("rsa").await;
    let key = door.certificate("new", "ca", &["-t", "rsa-sha2-512", "-I", "id", "-n", "ann"]).await;
    let said = door.log_in(&key, &[]).await;
    assert_eq!(said.status.code(), SERVED, "{}", text(&said.stderr));
    let key = door.certificate("old", "ca", &["-t", "ssh-rsa", "-I", "id", "-n", "ann"]).await;
    let said = door.log_in(&key, &[]).await;
    assert!(text(&said.stderr).contains("its authority signed it with SHA-1"), "{}", text(&said.stderr));
}

#[tokio::test]
async fn revocation_is_by_serial_by_id_and_by_fingerprint() {
    let door = Certified::start("ed25519").await;
    let key = door.certificate("laptop", "ca", &["-I", "ann@laptop", "-n", "ann", "-z", "7"]).await;
    let of = |path: PathBuf| fingerprint(&russh::keys::load_public_key(path.with_extension("pub")).unwrap());
    let (own, authority, other) = (of(key.clone()), of(door.at("ca")), of(door.at("other-ca")));
    for (line, opens) in [
        ("serial: 8".to_owned(), true),
        ("serial: 7".to_owned(), false),
        (format!("serial: 7 {other}"), true),
        (format!("serial: 7 {authority}"), false),
        ("id: ann".to_owned(), true),
        ("id: ann@laptop".to_owned(), false),
        (format!("key: {other}"), true),
        (format!("key: {own}"), false),
        (format!("key: {authority}"), false),
        ("what is this?".to_owned(), false),
    ] {
        door.revoke(&line);
        let said = door.log_in(&key, &[]).await;
        assert_eq!(said.status.code() == SERVED, opens, "{line}: {}", text(&said.stderr));
    }
    // a registered key as well
    let alice = door.server.alice().await;
    door.revoke(&format!("key: {own}"));
    assert_eq!(door.log_in(&alice, &[]).await.status.code(), SERVED);
    door.revoke(&format!("key: {}", of(alice.clone())));
    let said = door.log_in(&alice, &[]).await;
    assert!(text(&said.stderr).contains("(revoked)"), "{}", text(&said.stderr));
}

#[tokio::test]
async fn what_is_revoked_in_the_middle_of_a_connection_opens_nothing_more() {
    let door = Certified::start("ed25519").await;
    let key = door.certificate("laptop", "ca", &["-I", "ann@laptop", "-n", "ann", "-z", "7"]).await;
    let control = format!("ControlPath={}", door.at("control").display());
    // ssh takes the first of several values: these stand before the test's own
    let run = async |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(std::process::Stdio::null());
        ssh.args(["-o", &control, "-o", "ControlMaster=auto", "-o", "ControlPersist=30"]);
        ssh.args(door.server.ssh_options(&[&key])).arg("git@127.0.0.1");
        // the master that stays behind keeps standard error open
        output(ssh.arg(command).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::piped()))
            .await
    };
    assert_eq!(run("git-upload-pack echo").await.status.code(), SERVED);
    assert!(door.at("control").exists(), "the connection stays");
    for (line, expected) in [
        ("serial: 7", "is not taken any more: it is revoked"),
        ("serial 7", "the server cannot look up keys"),
    ] {
        door.revoke(line);
        let said = text(&run("git-upload-pack echo").await.stdout);
        assert!(said.contains(expected), "{said}");
    }
    door.revoke("# forgiven");
    assert_eq!(run("git-upload-pack echo").await.status.code(), SERVED);
    door.server.host.people.lock().unwrap().clear();
    let said = text(&run("git-upload-pack echo").await.stdout);
    assert!(said.contains("there is no user ann any more"), "{said}");
    assert_eq!(run("whoami").await.status.code(), Some(4), "nor a verb");
    let mut exit = Command::new("ssh");
    exit.args(["-F", "/dev/null", "-o", &control, "-O", "exit", "git@127.0.0.1"]);
    assert!(output(&mut exit).await.status.success(), "it was one connection all the time");
}

#[tokio::test]
async fn without_an_authority_certificates_are_strangers() {
    let door = Certified::start("ed25519").await;
    let key = door.certificate("laptop", "ca", &["-I", "id", "-n", "ann"]).await;
    let closed = Server::start().await;
    closed.host.people.lock().unwrap().push("ann".parse().unwrap());
    let said = output(&mut closed.ssh(&[&key], &[], &["git-upload-pack echo"])).await;
    assert_eq!(said.status.code(), Some(255));
}

#[tokio::test]
async fn with_an_authority_a_plain_key_is_still_what_signed_and_registered() {
    let door = Certified::start("ed25519").await;
    let (stranger, _) = door.server.keygen("stranger", &["ed25519"]).await;
    let said = door.log_in(&stranger, &[]).await;
    assert!(text(&said.stderr).contains("none of these keys opens this server"), "{}", text(&said.stderr));
    let alice = door.server.alice().await;
    let said = output(&mut door.server.ssh(&[&stranger, &alice], &[], &["git-upload-pack echo"])).await;
    assert_eq!(said.status.code(), SERVED, "{}", text(&said.stderr));
    assert_eq!(door.server.host.last_request().user.as_str(), "alice");
}
