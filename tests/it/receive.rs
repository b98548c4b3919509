//! Pushes, clones and attacks against a `Receiver`, with a real git client wherever one would say it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use lemnos::model::{AppSettings, BuildId};
use lemnos::receive::{Limits, refs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

mod attacks;
mod fixture;
mod housekeeping;

use fixture::{Clone, Gate, Handler, PATIENCE, Raw, Server, create};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_decided_by_the_handler_and_seen_by_the_pusher() {
    let handler = Handler::deciding(|push, update, output| {
        output.line(&format!("----> {} by {}", update.name.short(), push.user));
        Ok(())
    });
    let mut server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    let head = clone.ok(&["rev-parse", "HEAD"]).await;

    let (ok, said) = clone.push(&server, &["main"]).await;
    assert!(ok, "{said}");
    assert!(
        said.contains("remote: received 1 ref(s)") && said.contains("remote: ----> main by tester"),
        "{said}"
    );
    assert_eq!(server.reference("refs/heads/main"), Some(head.clone()));
    let pushes = handler.seen();
    assert_eq!(pushes[0].id, "0123456789abcdef0123456789abcdef");
    assert_eq!((pushes[0].updates[0].is_create(), pushes[0].updates[0].new.as_str()), (true, head.as_str()));
    assert!(!pushes[0].atomic);
    let ended = server.ended().await;
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));

    // nothing to push: one child, no hook, no handler
    let (ok, said) = clone.push(&server, &["main"]).await;
    assert!(ok && said.contains("Everything up-to-date"), "{said}");
    assert_eq!(server.ended().await.status, 0);
    assert_eq!(handler.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hooks_are_a_program_of_their_own_where_it_stands_beside_this_one() {
    let hook_of = |server: &Server| server.dir.path().join("run/git/hooks/proc-receive");
    let server = Server::start(Handler::accepting()).await;
    let program = Path::new(env!("CARGO_BIN_EXE_lemnos-hook"));
    assert_eq!(std::fs::read_link(hook_of(&server)).unwrap(), program);

    // without it, or with another version's, all of lemnos serves
    let elsewhere = tempfile::tempdir().unwrap();
    let lemnos = elsewhere.path().join("lemnos");
    symlink(env!("CARGO_BIN_EXE_lemnos"), &lemnos).unwrap();
    for other in [false, true] {
        if other {
            let stale = elsewhere.path().join("lemnos-hook");
            std::fs::write(&stale, "#!/bin/sh\necho lemnos-hook 0.0.0\n").unwrap();
            std::fs::set_permissions(&stale, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let (handler, limits) = (Handler::accepting(), Limits::default());
        let server = Server::of_program(lemnos.clone(), handler, limits, AppSettings::default()).await;
        assert!(std::fs::read_to_string(hook_of(&server)).unwrap().starts_with("#!/bin/sh"), "{other}");
        let clone = Clone::with_commit().await;
        let (ok, said) = clone.push(&server, &["main"]).await;
        assert!(ok && said.contains("remote: received 1 ref(s)"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ref_has_its_own_answer() {
    let handler = Handler::deciding(|_, update, _| match update.name.short() {
        "main" => Err("build failed: Dockerfile:3 RUN make,\nexit 2".to_owned()),
        _ => Ok(()),
    });
    let server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    clone.ok(&["branch", "other"]).await;
    clone.ok(&["tag", "light"]).await;
    clone.ok(&["tag", "-a", "-m", "x", "annotated"]).await;
    let (ok, said) = clone.push(&server, &["main", "other", "light", "annotated"]).await;
    assert!(!ok);
    assert!(
        said.contains("! [remote rejected] main -> main (build failed: Dockerfile:3 RUN make, exit 2)"),
        "{said}"
    );
    assert!(said.contains("* [new branch]      other -> other"), "{said}");
    assert!(said.contains("* [new tag]         light -> light"), "{said}");
    assert_eq!(server.reference("refs/heads/main"), None);
    assert!(server.reference("refs/heads/other").is_some());
    let annotated = clone.ok(&["rev-parse", "annotated"]).await;
    assert_eq!(server.reference("refs/tags/annotated"), Some(annotated));
    let names: Vec<_> = handler.seen()[0].updates.iter().map(|u| u.name.to_string()).collect();
    assert_eq!(names, ["refs/heads/main", "refs/heads/other", "refs/tags/light", "refs/tags/annotated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_and_atomic_pushes_and_deletions_reach_the_handler_as_they_are() {
    let handler = Handler::accepting();
    let server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    let first = clone.ok(&["rev-parse", "HEAD"]).await;
    clone.ok(&["branch", "other"]).await;
    let (ok, said) = clone.push(&server, &["--atomic", "main", "other"]).await;
    assert!(ok, "{said}");
    assert!(handler.seen()[0].atomic && handler.seen()[0].updates.len() == 2);

    clone.ok(&["commit", "-q", "--amend", "-m", "rewritten"]).await;
    let second = clone.ok(&["rev-parse", "HEAD"]).await;
    let (ok, _) = clone.push(&server, &["main"]).await;
    assert!(!ok, "git itself asks for force");
    let (ok, said) = clone.push(&server, &["--force", "main"]).await;
    assert!(ok && said.contains("(forced update)"), "{said}");
    let forced = handler.seen()[1].updates[0].clone();
    assert_eq!((forced.old.as_str(), forced.new.as_str()), (first.as_str(), second.as_str()));

    // the branch that HEAD names can go too, if the handler says so
    let (ok, said) = clone.push(&server, &["--delete", "main"]).await;
    assert!(ok && said.contains("- [deleted]         main"), "{said}");
    assert!(handler.seen()[2].updates[0].is_delete());
    assert_eq!(server.reference("refs/heads/main"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn push_options_are_parsed_and_unknown_ones_refused_by_name() {
    let handler = Handler::accepting();
    let server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    let (ok, said) = clone.push(&server, &["-o", "try", "-o", "platform=linux/arm64", "main"]).await;
    assert!(ok, "{said}");
    let options = handler.seen()[0].options.clone();
    assert!(options.dry_try && options.platforms.len() == 1);

    clone.commit("a", "a").await;
    let (ok, said) = clone.push(&server, &["-o", "cache=no", "main"]).await;
    assert!(!ok);
    assert!(
        said.contains(
            "[remote rejected] main -> main (unknown push option \"cache=no\"; known ones: no-cache,"
        ),
        "{said}"
    );
    assert_eq!(handler.seen().len(), 1, "the handler never saw it");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_reaches_the_pusher_while_the_handler_works() {
    let gate = Gate::new();
    let server = Server::start(Handler::gated(&gate)).await;
    let clone = Clone::with_commit().await;
    let mut command = clone.command(&["push", &server.url(), "main"]);
    let mut pushing = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(pushing.stderr.take().unwrap()).lines();
    let mut next =
        async || tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("silence").unwrap();
    while !next().await.expect("no line came while the handler waited").contains("received 1 ref(s)") {}
    gate.go.add_permits(1);
    while !next().await.expect("no line came after that").contains("the gate is open") {}
    assert!(pushing.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_fetches_and_archives_work_in_both_protocols_and_hide_what_is_ours() {
    let server = Server::start(Handler::accepting()).await;
    let clone = Clone::with_commit().await;
    let first = clone.ok(&["rev-parse", "HEAD"]).await;
    let second = clone.commit("app/main.c", "int main;").await;
    let (ok, said) = clone.push(&server, &["main"]).await;
    assert!(ok, "{said}");
    refs::keep(&server.repository(), &BuildId::generate(), &first.parse().unwrap()).unwrap();

    let reader = Clone::new().await;
    for version in ["0", "2"] {
        let protocol = format!("protocol.version={version}");
        let listed = reader.ok(&["-c", &protocol, "ls-remote", &server.url()]).await;
        assert!(listed.contains("refs/heads/main") && !listed.contains("lemnos"), "{listed}");
        let whole = format!("whole{version}");
        reader.ok(&["-c", &protocol, "clone", "-q", &server.url(), &whole]).await;
        assert_eq!(reader.ok(&["-C", &whole, "rev-parse", "HEAD"]).await, second);
        let shallow = format!("shallow{version}");
        reader.ok(&["-c", &protocol, "clone", "-q", "--depth=1", &server.url(), &shallow]).await;
        assert_eq!(reader.ok(&["-C", &shallow, "rev-list", "--count", "HEAD"]).await, "1");
    }
    let archive =
        reader.run(&["archive", "--format=tar", &format!("--remote={}", server.url()), "main", "app"]).await;
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    let names: Vec<_> = tar::Archive::new(&archive.stdout[..])
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.contains(&"app/main.c".to_owned()), "{names:?}");
    // only what a ref names, not any id
    let archive = reader.run(&["archive", &format!("--remote={}", server.url()), &first]).await;
    assert!(!archive.status.success());
    assert!(server.children().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_without_a_branch_gets_the_app_s_main_branch() {
    let settings = AppSettings { main_branch: "trunk".to_owned(), ..AppSettings::default() };
    let server = Server::with(Handler::accepting(), Limits::default(), settings).await;
    let clone = Clone::with_commit().await;
    let (ok, said) = clone.push(&server, &["main:trunk", "main:another"]).await;
    assert!(ok, "{said}");
    clone.ok(&["clone", "-q", &server.url(), "copy"]).await;
    assert_eq!(clone.ok(&["-C", "copy", "symbolic-ref", "HEAD"]).await, "refs/heads/trunk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_push_without_its_history_is_refused_with_a_remedy() {
    let handler = Handler::accepting();
    let mut server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    clone.commit("a", "a").await;
    let origin = format!("file://{}", clone.path().display());
    clone.ok(&["clone", "-q", "--depth=1", &origin, "shallow"]).await;
    let url = server.url();
    let before = server.files();
    let output = clone.run(&["-C", "shallow", "push", &url, "main"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("shallow update not allowed"), "{said}");
    assert!(said.contains("remote: hint: run git fetch --unshallow, then push again"), "{said}");
    assert_eq!(server.ended().await.stderr, "");
    assert!(handler.seen().is_empty());
    assert_eq!(server.files(), before);

    // with the history on the server, a push from the same clone is like any other
    assert!(clone.push(&server, &["main"]).await.0);
    assert_eq!(server.ended().await.stderr, "");
    clone.ok(&["-C", "shallow", "commit", "-q", "--allow-empty", "-m", "more"]).await;
    let output = clone.run(&["-C", "shallow", "push", &url, "main"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.ended().await.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_refuses_every_ref() {
    let handler = Handler::deciding(|_, _, _| panic!("for the test"));
    let server = Server::start(handler).await;
    let clone = Clone::with_commit().await;
    let (ok, said) = clone.push(&server, &["main"]).await;
    assert!(!ok && said.contains("(internal error: the server has no answer for this ref)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_after_its_pack_does_not_stop_the_push() {
    let gate = Gate::new();
    let mut server = Server::start(Handler::gated(&gate)).await;
    let clone = Clone::with_commit().await;
    let head = clone.ok(&["rev-parse", "HEAD"]).await;
    let mut pushing = clone.command(&["push", &server.url(), "main"]).stderr(Stdio::null()).spawn().unwrap();
    gate.reached().await;
    pushing.kill().await.unwrap();
    assert_eq!(server.reference("refs/heads/main"), None);
    gate.go.add_permits(1);
    let ended = server.ended().await;
    assert_eq!(server.reference("refs/heads/main"), Some(head), "{ended:?}");
    assert!(server.children().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn finishing_waits_for_the_running_push_and_takes_no_other() {
    let gate = Gate::new();
    let mut server = Server::start(Handler::gated(&gate)).await;
    let clone = Clone::with_commit().await;
    let mut pushing = clone.command(&["push", &server.url(), "main"]).stderr(Stdio::null()).spawn().unwrap();
    gate.reached().await;
    let receiver = server.receiver.clone();
    let finishing = tokio::spawn(async move { receiver.finish().await });
    let listed = loop {
        // until `finish` has run, a listing is still served
        let listed = clone.run(&["ls-remote", &server.url()]).await;
        let ended = server.ended().await;
        if ended.status != 0 {
            assert!(ended.stderr.contains("the server is stopping"), "{ended:?}");
            break listed;
        }
    };
    assert!(!listed.status.success() && !finishing.is_finished());
    gate.go.add_permits(1);
    assert!(pushing.wait().await.unwrap().success());
    tokio::time::timeout(PATIENCE, finishing).await.expect("finish hangs").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_inside_its_pack_leaves_nothing() {
    let mut server = Server::start(Handler::accepting()).await;
    let clone = Clone::with_commit().await;
    assert!(clone.push(&server, &["main"]).await.0);
    server.ended().await;
    let before = server.files();
    for n in 0..150 {
        std::fs::write(clone.path().join(format!("f{n}")), format!("file {n}")).unwrap();
    }
    let tip = clone.commit_all("many").await;
    let pack = clone.pack(&tip).await;
    let whole = [Raw::opening(&[create("refs/heads/new", &tip)]), pack].concat();
    for part in 0..20 {
        let cut = whole.len() * part / 20;
        let mut raw = Raw::connect(&server).await;
        raw.stream.write_all(&whole[..cut]).await.unwrap();
        drop(raw);
        server.ended().await;
        assert_eq!(server.files(), before, "after {cut} of {} bytes", whole.len());
        assert!(server.children().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_ended() {
    let mut server = Server::limited(Limits { stall_seconds: 1, ..Limits::default() }).await;
    let mut raw = Raw::connect(&server).await;
    let ended = server.ended().await;
    assert!(ended.stderr.contains("error: nothing came for a long time"), "{ended:?}");
    assert_eq!(raw.stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(server.children().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_repository_steers_nothing() {
    let server = Server::start(Handler::accepting()).await;
    let clone = Clone::with_commit().await;
    let repository = server.repository();
    let marker = server.dir.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", marker.display());
    std::fs::create_dir(repository.join("hooks")).unwrap();
    for hook in ["pre-receive", "update", "post-receive", "post-update", "reference-transaction"] {
        let path = repository.join("hooks").join(hook);
        std::fs::write(&path, &script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let evil = format!(
        "[core]\n\tbare = true\n\thooksPath = {0}\n\tfsmonitor = touch {1}\n[uploadpack]\n\tpackObjectsHook = touch {1}\n",
        repository.join("hooks").display(),
        marker.display()
    );
    std::fs::write(repository.join("config"), evil).unwrap();
    symlink("/etc", repository.join("info/attributes")).unwrap();
    let (ok, said) = clone.push(&server, &["main"]).await;
    assert!(ok, "{said}");
    clone.ok(&["clone", "-q", &server.url(), "copy"]).await;
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_push_upon_history_that_no_ref_holds_is_refused_with_a_remedy_too() {
    let mut server = Server::start(Handler::deciding(|_, _, _| Err("not this time".to_owned()))).await;
    let clone = Clone::with_commit().await;
    // its objects stay, without a ref
    assert!(!clone.push(&server, &["main"]).await.0);
    server.ended().await;
    clone.commit("a", "a").await;
    let origin = format!("file://{}", clone.path().display());
    clone.ok(&["clone", "-q", "--depth=1", &origin, "shallow"]).await;
    let output = clone.run(&["-C", "shallow", "push", &server.url(), "main"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("shallow update not allowed"), "{said}");
    let ended = server.ended().await;
    assert!(ended.stderr.contains("hint: run git fetch --unshallow, then push again"), "{ended:?}");
}
