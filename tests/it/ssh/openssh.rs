//! With the real OpenSSH client and the real git.

use super::support::{Host, LIMIT, Server, output, output_of, soon, text};
use lemnos::ssh::{Config, GitService};
use tokio::process::Command;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_key_logs_in() {
    let server = Server::start().await;
    for (name, kind, more) in [
        ("ed25519", &["ed25519"][..], &[][..]),
        ("p256", &["ecdsa", "-b", "256"], &[]),
        ("p384", &["ecdsa", "-b", "384"], &[]),
        ("p521", &["ecdsa", "-b", "521"], &[]),
        ("rsa", &["rsa", "-b", "2048"], &[]),
        ("rsa256", &["rsa", "-b", "3072"], &["-o", "PubkeyAcceptedAlgorithms=rsa-sha2-256"]),
        ("rsa512", &["rsa", "-b", "2048"], &["-o", "PubkeyAcceptedAlgorithms=rsa-sha2-512"]),
    ] {
        let (path, public) = server.keygen(name, kind).await;
        server.host.add(&public, name);
        let out =
            output_of(&mut server.ssh(&[&path], more, &["git-upload-pack 'echo.git'"]), b"hi".to_vec()).await;
        assert_eq!(
            (out.status.code(), text(&out.stdout).as_str()),
            (Some(7), "hi"),
            "{name}: {}",
            text(&out.stderr)
        );
        assert_eq!(server.host.last_request().user.as_str(), name);
        assert_eq!(server.host.last_request().key, super::support::fingerprint(&public));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_keys_and_sha1_do_not() {
    let server = Server::start().await;
    let (small, public) = server.keygen("small", &["rsa", "-b", "1024"]).await;
    server.host.add(&public, "small");
    let out = output(&mut server.ssh(&[&small], &[], &["git-upload-pack echo"])).await;
    assert_eq!(out.status.code(), Some(255));
    assert!(text(&out.stderr).contains("RSA of 1024 bits: 2048 to 8192 are taken"), "{}", text(&out.stderr));

    let (rsa, public) = server.keygen("rsa", &["rsa", "-b", "2048"]).await;
    server.host.add(&public, "rsa");
    let sha1 = ["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"];
    let out = output(&mut server.ssh(&[&rsa], &sha1, &["git-upload-pack echo"])).await;
    assert_eq!(out.status.code(), Some(255), "{}", text(&out.stderr));
    assert!(server.host.requests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_user_name_and_both_spellings_serve() {
    let server = Server::start().await;
    let key = server.alice().await;
    for (line, service) in [
        ("git-receive-pack '/echo.git'", GitService::ReceivePack),
        ("git receive-pack 'echo'", GitService::ReceivePack),
        ("git-upload-pack 'echo'", GitService::UploadPack),
        ("git upload-archive \"echo.git\"", GitService::UploadArchive),
    ] {
        let out = output_of(&mut server.ssh(&[&key], &["-l", "root"], &[line]), b"in".to_vec()).await;
        assert_eq!(out.status.code(), Some(7), "{line}: {}", text(&out.stderr));
        assert_eq!((text(&out.stdout), text(&out.stderr)), ("in".to_owned(), "echoed\n".to_owned()));
        let request = server.host.last_request();
        assert_eq!(
            (request.service, request.app.id.as_str(), request.user.as_str()),
            (service, "id-echo", "alice")
        );
        assert!(
            request.id.len() == 32 && request.id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{}",
            request.id
        );
        assert_eq!((request.peer.ip(), request.protocol), (server.address.ip(), None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_valid_git_protocol_comes_through() {
    let server = Server::start().await;
    let key = server.alice().await;
    for (value, expected) in
        [("version=2", Some("version=2")), ("version=2;x", None), ("--split-string=x", None)]
    {
        let more = ["-o", "SendEnv=GIT_*", "-o", "SendEnv=LD_PRELOAD"];
        let mut ssh = server.ssh(&[&key], &more, &["git-upload-pack echo"]);
        ssh.env("GIT_PROTOCOL", value).env("GIT_CONFIG_COUNT", "1").env("GIT_SSH_COMMAND", "sh -c id");
        let out = output(&mut ssh).await;
        assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
        assert_eq!(server.host.last_request().protocol.as_deref(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_clones_pushes_fetches_and_archives() {
    let server = Server::start().await;
    let key = server.alice().await;
    let bare = server.path("bare.git");
    *server.host.repository.lock().unwrap() = bare.clone();
    let git = async |args: &[&str]| {
        let out = output(server.git(&key).args(args)).await;
        assert!(out.status.success(), "git {args:?}: {}", text(&out.stderr));
        out
    };
    let work = server.path("work").display().to_string();
    git(&["init", "-q", "--bare", &bare.display().to_string()]).await;
    git(&["init", "-q", &work]).await;
    std::fs::write(server.path("work/file"), "one\n").unwrap();
    // More than the channel window, so that it must be refilled on the way.
    let noise: Vec<u8> = (0u32..5 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    std::fs::write(server.path("work/noise"), noise).unwrap();
    git(&["-C", &work, "add", "."]).await;
    git(&["-C", &work, "-c", "core.compression=0", "commit", "-q", "-m", "one"]).await;
    git(&["-C", &work, "-c", "core.compression=0", "push", "-q", &server.url("repo.git"), "main"]).await;
    assert_eq!(server.host.last_request().service, GitService::ReceivePack);

    let clone = server.path("clone").display().to_string();
    git(&["clone", "-q", &server.url("repo"), &clone]).await;
    assert_eq!(server.host.last_request().protocol.as_deref(), Some("version=2"));
    assert_eq!(std::fs::read(server.path("clone/noise")).unwrap().len(), 20 << 20);
    git(&["-C", &clone, "fetch", "-q"]).await;
    let archive = git(&["archive", "--remote", &server.url("repo"), "main", "file"]).await;
    assert_eq!(server.host.last_request().service, GitService::UploadArchive);
    assert!(text(&archive.stdout).contains("one\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_shows_a_refusal_as_one_sentence() {
    let server = Server::start().await;
    let key = server.alice().await;
    let url = server.url("secret.git");
    for args in [&["ls-remote", &url][..], &["archive", "--remote", &url, "main"], &["push", &url, "main"]] {
        let work = server.path("work");
        output(server.git(&key).args(["init", "-q"]).arg(&work)).await;
        let out =
            output(server.git(&key).arg("-C").arg(&work).args(["commit", "-q", "--allow-empty", "-m", "x"]))
                .await;
        assert!(out.status.success() || args[0] != "ls-remote", "{}", text(&out.stderr));
        let out = output(server.git(&key).arg("-C").arg(&work).args(args)).await;
        assert_eq!(
            text(&out.stderr),
            "fatal: remote error: there is no app secret that alice may use\n",
            "{args:?}"
        );
        assert_eq!(out.status.code(), Some(128));
    }
    let out = output(server.git(&key).args(["ls-remote", &server.url("UPPER")])).await;
    assert!(
        text(&out.stderr)
            .starts_with("fatal: remote error: \"/UPPER\" is no app name: use 1 to 63 lower-case"),
        "{}",
        text(&out.stderr)
    );
    assert!(server.host.requests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_unknown_keys_is_told_what_to_do() {
    let server = Server::start().await;
    let (path, public) = server.keygen("stranger", &["ed25519"]).await;
    let out = output(&mut server.ssh(&[&path], &[], &["git-upload-pack echo"])).await;
    let told = text(&out.stderr).replace(super::support::fingerprint(&public).as_str(), "SHA256:…");
    insta::assert_snapshot!(told, @"
    lemnos: none of these keys opens this server:
      SHA256:… (ssh-ed25519)
    Register one: lemnos keys add YOU < ~/.ssh/id_ed25519.pub
    git@127.0.0.1: Permission denied (publickey).
    ");
    assert_eq!(out.status.code(), Some(255));

    let out = output(&mut server.ssh(&[], &[], &["git-upload-pack echo"])).await;
    insta::assert_snapshot!(text(&out.stderr), @"
    lemnos: log in with an SSH key; none was offered
    Register one: lemnos keys add YOU < ~/.ssh/id_ed25519.pub
    git@127.0.0.1: Permission denied (publickey).
    ");

    // BatchMode turns off every round with the user; OpenSSH then shows no more than this.
    let out = output(&mut server.ssh(&[&path], &["-o", "BatchMode=yes"], &["git-upload-pack echo"])).await;
    insta::assert_snapshot!(text(&out.stderr), @"git@127.0.0.1: Permission denied (publickey,keyboard-interactive).");
}

/// Runs `script` beside an agent that holds `keys`, in this order.
fn with_agent(server: &Server, keys: &[&std::path::Path], command: &str) -> Command {
    let keys: Vec<_> = keys.iter().map(|k| k.display().to_string()).collect();
    let options: Vec<String> = server
        .ssh_options(&[])
        .into_iter()
        .map(|o| o.replace("IdentitiesOnly=yes", "IdentitiesOnly=no"))
        .collect();
    let script = format!(
        "ssh-add -q {} && exec ssh {} git@127.0.0.1 \"{command}\"",
        keys.join(" "),
        options.join(" ").replace("-o IdentityFile=none", "")
    );
    let mut agent = Command::new("ssh-agent");
    agent.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", server.dir.path());
    agent.args(["-a", &server.path("agent").display().to_string(), "sh", "-c", &script]).kill_on_drop(true);
    agent.stdin(std::process::Stdio::null());
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_to_its_good_key() {
    let server = Server::start().await;
    let mut keys = Vec::new();
    for n in 0..5 {
        keys.push(server.keygen(&format!("stranger{n}"), &["ed25519"]).await.0);
    }
    let alice = server.alice().await;
    let strangers: Vec<_> = keys.iter().map(|k| k.as_path()).collect();
    let mut all = strangers.clone();
    all.push(&alice);
    let out = output(&mut with_agent(&server, &all, "git-upload-pack echo")).await;
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(7), "echoed\n"));
    assert_eq!(server.host.last_request().user.as_str(), "alice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_too_many_keys_is_told_to_choose() {
    let server = Server::start().await;
    let mut keys = Vec::new();
    for n in 0..8 {
        keys.push(server.keygen(&format!("stranger{n}"), &["ed25519"]).await.0);
    }
    let keys: Vec<_> = keys.iter().map(|k| k.as_path()).collect();
    let out = output(&mut with_agent(&server, &keys, "git-upload-pack echo")).await;
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(255));
    assert_eq!(told.matches("SHA256:").count(), 6, "{told}");
    assert!(
        told.contains("Only 6 keys are tried: name the right one with ssh -o IdentitiesOnly=yes -i FILE"),
        "{told}"
    );
    server.record.refused(&[("login_refused", "unknown-key"); 6]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_git_is_a_verb() {
    let server = Server::start().await;
    let key = server.alice().await;
    let out = output(&mut server.ssh(&[&key], &[], &[])).await;
    let said = (out.status.code(), text(&out.stdout), text(&out.stderr));
    assert_eq!(said, (Some(3), "alice: [] None\n".to_owned(), "said\n".to_owned()));

    // OpenSSH joins its arguments with spaces: what shall stay together is quoted for the other end
    let out =
        output(&mut server.ssh(&[&key], &[], &["set", "'a b'", "größe=\"x\\\"y\"", "$HOME;", "*"])).await;
    assert_eq!(text(&out.stdout), "alice: [\"set\", \"a b\", \"größe=x\\\"y\", \"$HOME;\", \"*\"] None\n");

    let out = output(&mut server.ssh(&[&key], &[], &["git", "status"])).await;
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(2), ""));
    assert_eq!(
        text(&out.stderr),
        "error: there is no shell and no command \"git status\" here\nhint: `help` lists what can be asked for here\n"
    );

    let out = output_of(&mut server.ssh(&[&key], &[], &["echo"]), b"a line\n".to_vec()).await;
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"a line\n"[..]));

    let out = output(&mut server.ssh(&[&key], &[], &["panic"])).await;
    assert_eq!(out.status.code(), Some(70));
    assert!(text(&out.stderr).starts_with("lemnos: internal error"), "{}", text(&out.stderr));

    let out = output(&mut server.ssh(&[&key], &["-s"], &["sftp"])).await;
    assert_eq!(out.status.code(), Some(255));
    assert!(text(&out.stderr).contains("subsystem request failed"), "{}", text(&out.stderr));
    let out = output(&mut server.ssh(&[&key], &["-W", "127.0.0.1:22"], &[])).await;
    assert_eq!(out.status.code(), Some(255));
    assert!(text(&out.stderr).contains("administratively prohibited"), "{}", text(&out.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_negotiated_is_not_open_to_truncation_and_not_compressed() {
    let server = Server::start().await;
    let key = server.alice().await;
    let out =
        output(&mut server.ssh(&[&key], &["-vv", "-o", "Compression=yes"], &["git-upload-pack echo"])).await;
    let log = text(&out.stderr);
    assert_eq!(out.status.code(), Some(7), "{log}");
    let theirs = log.split("peer server KEXINIT proposal").nth(1).unwrap();
    let of = |what: &str| {
        let line = theirs.lines().find_map(|l| l.strip_prefix("debug2: ")?.strip_prefix(what)).unwrap();
        line.trim_start_matches(": ").to_owned()
    };
    assert_eq!(
        of("KEX algorithms"),
        "mlkem768x25519-sha256,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,ext-info-s,kex-strict-s-v00@openssh.com"
    );
    assert_eq!(of("host key algorithms"), "ssh-ed25519,ecdsa-sha2-nistp256");
    assert_eq!(
        of("ciphers ctos"),
        "aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr"
    );
    assert_eq!(of("MACs stoc"), "hmac-sha2-256,hmac-sha2-512");
    assert_eq!(of("compression ctos"), "none");
    for more in [
        &["-c", "aes128-gcm@openssh.com"][..],
        &["-c", "aes128-ctr", "-m", "hmac-sha2-256"],
        &["-o", "KexAlgorithms=ecdh-sha2-nistp384"],
    ] {
        let out =
            output_of(&mut server.ssh(&[&key], more, &["git-upload-pack echo"]), vec![b'z'; 100_000]).await;
        assert_eq!((out.status.code(), out.stdout.len()), (Some(7), 100_000), "{more:?}");
    }
    let out =
        output(&mut server.ssh(&[&key], &["-c", "chacha20-poly1305@openssh.com"], &["git-upload-pack echo"]))
            .await;
    assert!(text(&out.stderr).contains("no matching cipher found"), "{}", text(&out.stderr));
    server.record.refused(&[("connection_cut", "protocol: No common Cipher algorithm")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_data_goes_both_ways_unharmed() {
    let server = Server::start().await;
    let key = server.alice().await;
    let data: Vec<u8> = (0u32..10 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let out = output_of(&mut server.ssh(&[&key], &[], &["git-receive-pack echo"]), data.clone()).await;
    assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
    assert!(out.stdout == data, "{} bytes came back of {}", out.stdout.len(), data.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_does_not_stop_its_push() {
    let host = Host { release: Some(Semaphore::new(0)), ..Host::default() };
    let server = Server::start_with(Config::default(), host).await;
    let key = server.alice().await;
    let mut child = server
        .ssh(&[&key], &[], &["git-receive-pack held"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    soon(server.host.began.notified()).await;
    soon(child.kill()).await.unwrap();
    server.shutdown.cancel();
    // The server stops only when the push is done.
    let mut running = server.running;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), &mut running).await.is_err());
    server.host.release.as_ref().unwrap().add_permits(1);
    soon(running).await.unwrap().unwrap();
    assert_eq!(*server.host.served.lock().unwrap(), [("held".to_owned(), 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_for_nobody_stops() {
    let server = Server::start().await;
    let key = server.alice().await;
    let mut child = server
        .ssh(&[&key], &[], &["git-upload-pack flood"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 1000];
    tokio::io::AsyncReadExt::read_exact(child.stdout.as_mut().unwrap(), &mut some).await.unwrap();
    soon(child.kill()).await.unwrap();
    soon(server.host.one_served.notified()).await;
    let (_, written) = server.host.served.lock().unwrap()[0].clone();
    assert!(written < 64 << 20, "{written} bytes were packed for nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_lets_sessions_end_and_takes_no_new_ones() {
    let host = Host { release: Some(Semaphore::new(0)), ..Host::default() };
    let server = Server::start_with(Config::default(), host).await;
    let key = server.alice().await;
    let session = tokio::spawn({
        let mut ssh = server.ssh(&[&key], &[], &["git-receive-pack held"]);
        async move { output(&mut ssh).await }
    });
    soon(server.host.began.notified()).await;
    server.shutdown.cancel();
    let late = output(&mut server.ssh(&[&key], &["-o", "ConnectTimeout=5"], &["git-upload-pack echo"])).await;
    assert_eq!(late.status.code(), Some(255));
    server.host.release.as_ref().unwrap().add_permits(1);
    let out = soon(session).await.unwrap();
    assert_eq!(
        (out.status.code(), out.stdout.len(), text(&out.stderr)),
        (Some(0), 1 << 20, "finished\n".to_owned())
    );
    tokio::time::timeout(LIMIT, server.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_that_breaks_down_has_its_own_status() {
    let server = Server::start().await;
    let key = server.alice().await;
    let out = output(&mut server.ssh(&[&key], &[], &["git-receive-pack panic"])).await;
    assert_eq!(out.status.code(), Some(70));
    assert!(
        text(&out.stderr).contains("internal error; the server's log knows more about request"),
        "{}",
        text(&out.stderr)
    );
}
