//! Pushes that must be refused, each leaving nothing behind: the rows of the list of demanded bad inputs.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lemnos::model::AppSettings;
use lemnos::receive::Limits;

use super::fixture::{Clone, Gate, Handler, PATIENCE, Raw, Server, ZERO, create};

const MIB: u64 = 1024 * 1024;

/// Pushes `tip` as `evil` beside an accepted `main`; the refusal must contain `wanted`, nothing may remain, and the record
/// must say the same.
async fn refused(server: &mut Server, clone: &Clone, tip: &str, wanted: &str) -> String {
    refused_as(server, clone, tip, wanted, wanted.trim_start_matches("error: ")).await
}

/// The same where the record has other words than the screen.
async fn refused_as(server: &mut Server, clone: &Clone, tip: &str, wanted: &str, on_record: &str) -> String {
    let event = "push_refused";
    let before = server.files();
    let (ok, said) = clone.push(server, &["--no-thin", &format!("{tip}:refs/heads/evil")]).await;
    assert!(!ok, "accepted: {said}");
    assert!(said.contains(wanted), "wanted {wanted:?} in: {said}");
    server.stands(&before, (event, on_record)).await;
    said
}

/// A server that holds `main` already, and the clone it came from.
async fn with_main(mut server: Server) -> (Server, Clone) {
    let clone = Clone::with_commit().await;
    assert!(clone.push(&server, &["main"]).await.0);
    server.ended().await;
    (server, clone)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_git_lets_through_are_refused_with_a_sentence() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let tip = clone.commit("new", "new").await;
    let pack = clone.pack(&tip).await;
    let before = server.files();
    let mut names: Vec<Vec<u8>> = [
        "refs/heads/--upload-pack=x",
        "refs/heads/-x",
        "refs/heads/x;id",
        "refs/heads/$(id)",
        "refs/heads/a\"b",
        "refs/heads/HEAD",
        "refs/hooks/post-receive",
        "refs/pull/1/head",
        "refs/notes/commits",
    ]
    .iter()
    .map(|n| n.as_bytes().to_vec())
    .collect();
    names.push(b"refs/heads/caf\xe9".to_vec());
    names.push([b"refs/heads/".to_vec(), vec![b'a'; 300]].concat());
    for name in names {
        let command = [format!("{ZERO} {tip} ").into_bytes(), name.clone()].concat();
        let said = Raw::push(&server, &[command], &pack).await;
        let name = String::from_utf8_lossy(&name).into_owned();
        assert!(
            said.contains("is not a valid ref name") && said.contains("hint: push to another name"),
            "{name}: {said}"
        );
        assert!(said.contains("pre-receive hook declined"), "{name}: {said}");
        server.stands(&before, ("push_refused", "is not a valid ref name")).await;
    }
    // the same ref twice, for two different ends
    let main = server.reference("refs/heads/main").unwrap();
    let said =
        Raw::push(&server, &[create("refs/heads/a", &tip), create("refs/heads/a", &main)], &pack).await;
    assert!(said.contains("names refs/heads/a more than once"), "{said}");
    server.stands(&before, ("push_refused", "names refs/heads/a more than once")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_git_refuses_stay_refused() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let tip = clone.commit("new", "new").await;
    let pack = clone.pack(&tip).await;
    let before = server.files();
    let invalid = "is not a valid ref name";
    // the line end makes a second command of the rest
    for (name, on_record) in [
        ("refs/heads/a..b", invalid),
        ("refs/heads/a b", invalid),
        ("refs/heads/a\nb", "is not a valid object id"),
        ("refs/heads/a.lock", invalid),
        ("HEAD", invalid),
        ("../../x", invalid),
        ("refs/lemnos/builds/x", invalid),
    ] {
        let said = Raw::push(&server, &[create(name, &tip)], &pack).await;
        assert!(!said.contains(&format!("ok {name}")), "{name}: {said}");
        server.ended().await;
        assert_eq!(
            server.files().into_iter().filter(|(n, _)| n.starts_with("refs")).collect::<Vec<_>>(),
            before.clone().into_iter().filter(|(n, _)| n.starts_with("refs")).collect::<Vec<_>>(),
            "{name}"
        );
        server.record.refused(&[("push_refused", on_record)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_fsck_knows_as_attacks_are_refused() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let blob = clone.write_object("blob", b"text").await;
    let empty = clone.tree(&[]).await;
    let modules =
        clone.write_object("blob", b"[submodule \"../../x\"]\n\tpath = a\n\turl = --upload-pack=x\n").await;
    for (what, entries, wanted) in [
        (".git", vec![("40000", ".git", empty.as_str())], "hasDotgit"),
        ("..", vec![("40000", "..", &empty)], "hasDotdot"),
        ("GIT~1", vec![("40000", "GIT~1", &empty)], "hasDotgit"),
        ("a slash", vec![("100644", "a/b", &blob)], "fullPathname"),
        ("twice", vec![("100644", "a", &blob), ("100644", "a", &blob)], "duplicateEntries"),
        ("linked .gitmodules", vec![("120000", ".gitmodules", &blob)], "gitmodulesSymlink"),
        ("evil .gitmodules", vec![("100644", ".gitmodules", &modules)], "gitmodules"),
    ] {
        let tip = clone.commit_tree(&clone.tree(&entries).await).await;
        let said = refused_as(&mut server, &clone, &tip, "[remote rejected]", "git refused it").await;
        assert!(said.contains(wanted), "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_build_configuration_is_refused_where_it_would_be_read() {
    let settings = AppSettings {
        dockerfile_path: Some("docker/app.Dockerfile".to_owned()),
        context_path: Some("context".to_owned()),
        ..AppSettings::default()
    };
    let (mut server, _) =
        with_main(Server::with(Handler::accepting(), Limits::default(), settings).await).await;
    for path in [
        "Dockerfile",
        "Containerfile",
        ".dockerignore",
        "Dockerfile.dockerignore",
        "build-config.yaml",
        "spin.toml",
        "melange.yaml",
        ".ko.yaml",
        "go.mod",
        "docker/app.Dockerfile",
        "docker/app.Dockerfile.dockerignore",
        "context/Dockerfile",
        "docker",
    ] {
        let clone = Clone::new().await;
        let place = clone.path().join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink("/etc/passwd", place).unwrap();
        let tip = clone.commit_all("link").await;
        let said = refused(&mut server, &clone, &tip, "is a symbolic link").await;
        assert!(said.contains(&format!("error: {path} in refs/heads/evil")), "{path}: {said}");
        assert!(said.contains("hint: replace the link by the file"), "{said}");
    }
    // links elsewhere are nobody's business
    let clone = Clone::with_commit().await;
    std::fs::create_dir(clone.path().join("src")).unwrap();
    symlink("/etc/passwd", clone.path().join("src/Dockerfile")).unwrap();
    clone.commit_all("harmless").await;
    let (ok, said) = clone.push(&server, &["main:harmless"]).await;
    assert!(ok, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_bomb_is_refused_at_once() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let mut id = clone.write_object("blob", b"boom").await;
    let mut mode = "100644";
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
        let entries: Vec<(&str, &str, &str)> =
            names.iter().map(|n| (mode, n.as_str(), id.as_str())).collect();
        id = clone.tree(&entries).await;
        mode = "40000";
    }
    let tip = clone.commit_tree(&id).await;
    let began = Instant::now();
    refused(&mut server, &clone, &tip, "the tree of refs/heads/evil has more than 200000 paths").await;
    // a walk of 10^10 paths takes hours; the push with client, hooks and git takes a moment, also on a busy machine
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_deflates_well_is_measured_as_it_inflates() {
    let limits = Limits {
        max_input_bytes: MIB,
        max_blob_bytes: 16 * MIB,
        max_new_bytes: 24 * MIB,
        ..Limits::default()
    };
    let (mut server, clone) = with_main(Server::limited(limits).await).await;
    std::fs::create_dir(clone.path().join("data")).unwrap();
    std::fs::write(clone.path().join("data/zeros"), vec![0; 20 << 20]).unwrap();
    let tip = clone.commit_all("zeros").await;
    let said =
        refused(&mut server, &clone, &tip, "error: data/zeros is 20 MiB; one object may have 16 MiB").await;
    assert!(said.contains("hint: take the file out of the commits"), "{said}");

    let clone = Clone::with_commit().await;
    for n in 0..3_u8 {
        std::fs::write(clone.path().join(format!("part{n}")), vec![n; 9 << 20]).unwrap();
    }
    let tip = clone.commit_all("parts").await;
    refused(&mut server, &clone, &tip, "brings more than 24 MiB of inflated objects").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_claims_a_huge_result_is_refused() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    // a blob, and a delta upon it whose header claims 8 GiB
    let base = vec![b'x'; 64];
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let base_id = clone.write_object("blob", &base).await;
    let mut delta = vec![64];
    let mut size: u64 = 8 << 30;
    while size > 0x7f {
        delta.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    delta.push(size as u8);
    delta.extend([0x90, 64]);
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
    pack.extend([0xb0, 0x04]);
    pack.extend(deflate(&base));
    assert!(delta.len() < 16);
    pack.push(0x70 | delta.len() as u8);
    pack.extend(hex::decode(base_id).unwrap());
    pack.extend(deflate(&delta));
    let digest = sha1_of(&clone, &pack).await;
    pack.extend(digest);
    let before = server.files();
    let main = server.reference("refs/heads/main").unwrap();
    let said = Raw::push(&server, &[create("refs/heads/evil", &main)], &pack).await;
    assert!(said.contains("unpack") && !said.contains("ok refs/heads/evil"), "{said}");
    server.stands(&before, ("push_refused", "git refused it")).await;
}

/// git's own SHA-1 over raw bytes: the trailer that `index-pack` would put there.
async fn sha1_of(clone: &Clone, pack: &[u8]) -> Vec<u8> {
    let path = clone.path().join("unsigned.pack");
    std::fs::write(&path, pack).unwrap();
    let output = Command::new("sha1sum").arg(&path).output().unwrap();
    hex::decode(&output.stdout[..40]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_over_the_input_limit_is_refused() {
    let (mut server, clone) =
        with_main(Server::limited(Limits { max_input_bytes: MIB, ..Limits::default() }).await).await;
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(3 << 20)
    .collect();
    std::fs::write(clone.path().join("noise"), noise).unwrap();
    let tip = clone.commit_all("noise").await;
    let before = server.files();
    let pack = clone.pack(&tip).await;
    let said = Raw::push(&server, &[create("refs/heads/evil", &tip)], &pack).await;
    assert!(said.contains("pack exceeds maximum allowed size"), "{said}");
    server.stands(&before, ("push_refused", "git refused it")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_packs_are_refused() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let tip = clone.commit("new", "some new text").await;
    let pack = clone.pack(&tip).await;
    let before = server.files();
    let mut checksum = pack.clone();
    *checksum.last_mut().unwrap() ^= 1;
    let mut middle = pack.clone();
    middle[pack.len() / 2] ^= 0x10;
    // complete in itself, but without the commit that the command names
    let other = clone.pack(&clone.ok(&["rev-parse", "HEAD^"]).await).await;
    for (what, bad, on_record) in [
        ("checksum", checksum, "git refused it"),
        ("middle", middle, "git refused it"),
        ("missing objects", other, "the objects could not be read"),
    ] {
        let said = Raw::push(&server, &[create("refs/heads/evil", &tip)], &bad).await;
        assert!(!said.contains("ok refs/heads/evil"), "{what}: {said}");
        server.stands(&before, ("push_refused", on_record)).await;
    }
}

/// Every hundredth of the way: the client is gone in the middle of commands and pack.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_off_anywhere_leaves_nothing() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let tip = clone.commit("new", &"some new text\n".repeat(400)).await;
    let mut bytes = Raw::opening(&[create("refs/heads/evil", &tip)]);
    let commands = bytes.len();
    bytes.extend(clone.pack(&tip).await);
    let before = server.files();
    for percent in 0..100 {
        let mut raw = Raw::connect(&server).await;
        let part = &bytes[..bytes.len() * percent / 100];
        tokio::io::AsyncWriteExt::write_all(&mut raw.stream, part).await.unwrap();
        drop(raw);
        server.ended().await;
        assert_eq!(server.files(), before, "at {percent} %");
    }
    // those that got as far as a command were refused, each once; before that nothing was asked
    let asked = (0..100).filter(|percent| bytes.len() * percent / 100 >= commands).count();
    server.record.refused(&vec![("push_refused", "git refused it"); asked]).await;
    // and the same bytes, all of them, are a push
    assert!(
        Raw::push(&server, &[create("refs/heads/evil", &tip)], &clone.pack(&tip).await)
            .await
            .contains("ok refs/heads/evil")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_refs_are_refused_by_the_check_and_a_flood_of_them_before_it() {
    let (mut server, clone) =
        with_main(Server::limited(Limits { max_updates: 3, ..Limits::default() }).await).await;
    let tip = clone.ok(&["rev-parse", "HEAD"]).await;
    let pack = clone.pack(&tip).await;
    let before = server.files();
    let commands: Vec<_> = (0..4).map(|n| create(&format!("refs/heads/b{n}"), &tip)).collect();
    let said = Raw::push(&server, &commands, &pack).await;
    assert!(said.contains("has more than 3 ref commands"), "{said}");
    server.stands(&before, ("push_refused", "has more than 3 ref commands")).await;
    let flood: Vec<_> = (0..20_000).map(|n| create(&format!("refs/heads/b{n}"), &tip)).collect();
    let mut raw = Raw::connect(&server).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &Raw::opening(&flood)).await;
    let ended = server.ended().await;
    assert!(ended.stderr.contains("names more refs or options than one push may"), "{ended:?}");
    assert_eq!(server.files(), before);
    server.record.refused(&[("push_refused", "more refs or options than one push may name")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_no_commit_is_refused_and_a_tag_may_be_anything() {
    let (mut server, clone) = with_main(Server::start(Handler::accepting()).await).await;
    let blob = clone.write_object("blob", b"a key").await;
    clone.ok(&["tag", "key", &blob]).await;
    let (ok, said) = clone.push(&server, &["key"]).await;
    assert!(ok, "{said}");
    server.ended().await;
    let before = server.files();
    let said = Raw::push(&server, &[create("refs/heads/evil", &blob)], &clone.pack(&blob).await).await;
    assert!(said.contains("refs/heads/evil would point at a blob"), "{said}");
    server.stands(&before, ("push_refused", "refs/heads/evil would point at a blob")).await;
}

fn hook(name: &str, environment: &[(&str, &str)], input: &[u8]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
    command.args(["hook", name]).env_clear().envs(environment.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_called_by_hand_is_refused() {
    let gate = Gate::new();
    let handler = Handler::gated(&gate);
    let mut server = Server::start(handler.clone()).await;
    let clone = Clone::with_commit().await;
    let socket = server.dir.path().join("run/git/hook.sock");
    let socket = socket.to_str().unwrap();
    let refusal = |output: std::process::Output| {
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };

    assert!(refusal(hook("pre-receive", &[], b"")).contains("answers to a push that runs"));
    let own = Command::new(env!("CARGO_BIN_EXE_lemnos-hook")).env_clear().output().unwrap();
    assert!(refusal(own).contains("answers to a push that runs"));
    let forged = [("LEMNOS_HOOK_SOCKET", socket), ("LEMNOS_HOOK_TOKEN", "0000")];
    assert!(refusal(hook("proc-receive", &forged, b"")).contains("its token belongs to no running push"));

    // the token of a push that runs, taken from its process: each hook has been asked and is not asked again
    let mut pushing = clone.command(&["push", &server.url(), "main"]).stderr(Stdio::null()).spawn().unwrap();
    gate.reached().await;
    let pid = server.children()[0];
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let token =
        environment.split('\0').find_map(|v| v.strip_prefix("LEMNOS_HOOK_TOKEN=")).unwrap().to_owned();
    let stolen = [("LEMNOS_HOOK_SOCKET", socket), ("LEMNOS_HOOK_TOKEN", token.as_str())];
    let head = clone.ok(&["rev-parse", "HEAD"]).await;
    let version = "000eversion=1\n0000";
    let command = format!("{ZERO} {head} refs/heads/stolen");
    let input = format!("{version}{:04x}{command}0000", command.len() + 4);
    assert!(refusal(hook("proc-receive", &stolen, input.as_bytes())).contains("refs that were not checked"));
    assert!(refusal(hook("pre-receive", &stolen, command.as_bytes())).contains("asked before"));
    assert!(refusal(hook("update", &stolen, b"")).contains("no such hook"));
    gate.go.add_permits(1);
    assert!(pushing.wait().await.unwrap().success());
    server.ended().await;
    assert!(refusal(hook("proc-receive", &stolen, b"")).contains("its token belongs to no running push"));
    assert_eq!(handler.seen().len(), 1);
    let stranger = ("hook_refused", "its token belongs to no running push");
    let asked = ["refs that were not checked", "was asked before", "there is no such hook"];
    let [first, second, third] = asked.map(|reason| ("push_refused", reason));
    server.record.refused(&[stranger, first, second, third, stranger]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_s_environment_is_ours_alone() {
    let gate = Gate::new();
    let mut server = Server::start(Handler::gated(&gate)).await;
    let clone = Clone::with_commit().await;
    let mut pushing = clone.command(&["push", &server.url(), "main"]).stderr(Stdio::null()).spawn().unwrap();
    gate.reached().await;
    let receive_pack = server
        .children()
        .into_iter()
        .find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(git_argument().as_bytes())
        })
        .expect("no receive-pack runs");
    let environment = std::fs::read_to_string(format!("/proc/{receive_pack}/environ")).unwrap();
    let mut names: Vec<&str> = environment
        .split('\0')
        .filter_map(|v| v.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("GIT_CONFIG_KEY_") && !name.starts_with("GIT_CONFIG_VALUE_"))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "GIT_ALLOC_LIMIT",
            "GIT_ATTR_NOSYSTEM",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_GLOBAL",
            "GIT_CONFIG_NOSYSTEM",
            "GIT_OPTIONAL_LOCKS",
            "GIT_TERMINAL_PROMPT",
            "HOME",
            "LC_ALL",
            "LEMNOS_HOOK_EXE",
            "LEMNOS_HOOK_SOCKET",
            "LEMNOS_HOOK_TOKEN",
            "PATH"
        ]
    );
    gate.go.add_permits(1);
    let ended = tokio::time::timeout(PATIENCE, pushing.wait()).await.unwrap().unwrap();
    assert!(ended.success());
    server.ended().await;
}

fn git_argument() -> String {
    let path: PathBuf = super::fixture::git_path();
    format!("{}\0receive-pack\0", path.display())
}
