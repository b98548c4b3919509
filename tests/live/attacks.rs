//! Attacks on a whole server, by those who push: what each door refuses alone is in `tests/it`, here is what only shows
//! end to end, on the disk, in the registry and on the screens of others.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::house::{House, Said};

mod registry;

const QUICK: &str = "FROM busybox\nCOPY greeting /greeting\n";

/// An app that ada may push to and that builds for one platform.
pub fn small_app(house: &House, name: &str) {
    house.app(name);
    house.lemnos(&["apps", "set", name, "platforms=linux/amd64"]).succeeded();
}

fn shop(house: &House) -> PathBuf {
    small_app(house, "shop");
    house.repository("shop", &[("Dockerfile", QUICK), ("greeting", "hello\n")])
}

/// What no ended push may leave in the repositories: quarantines, locks, and hidden refs but those by which builds that did not
/// succeed can be done again.
fn leftovers(house: &House) -> Vec<String> {
    let said = house.lemnos(&["builds", "list", "--limit", "1000", "--json"]).succeeded();
    let builds: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let ended = |build: &&serde_json::Value| {
        !["queued", "running", "succeeded"].contains(&build["state"].as_str().unwrap())
    };
    let kept: Vec<&str> =
        builds.as_array().unwrap().iter().filter(ended).map(|b| b["id"].as_str().unwrap()).collect();
    let mut found = Vec::new();
    let mut waiting = vec![house.data().join("repositories")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let hidden =
                path.parent().unwrap().ends_with("refs/lemnos/builds") && !kept.contains(&name.as_str());
            let temporary = ["tmp_", "incoming-", ".removed-"].iter().any(|prefix| name.starts_with(prefix));
            if temporary || hidden || name.ends_with(".lock") {
                found.push(path.display().to_string());
            }
            if name == "packed-refs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let ids = text.lines().filter_map(|line| line.rsplit_once("refs/lemnos/builds/"));
                found.extend(ids.filter(|(_, id)| !kept.contains(id)).map(|(_, id)| id.to_owned()));
            }
            if entry.file_type().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found
}

#[track_caller]
pub fn leaves_nothing(house: &House) {
    assert_eq!(leftovers(house), Vec::<String>::new());
}

/// Objects of all repositories, packed or loose.
fn objects(house: &House) -> usize {
    let mut count = 0;
    let mut waiting = vec![house.data().join("repositories")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else if entry.path().components().any(|part| part.as_os_str() == "objects") {
                count += 1;
            }
        }
    }
    count
}

fn peak_memory_kib(house: &House) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.server_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Fails where the text could steer a terminal or show itself in another order than its bytes.
#[track_caller]
fn harmless(what: &str, text: &str) {
    let steers = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let bad: Vec<&str> = text.lines().filter(|line| line.chars().any(steers)).collect();
    assert!(bad.is_empty(), "{what}: {bad:?}");
}

/// Writes an object of `content` into the clone's store and returns its id.
fn object(house: &House, dir: &Path, args: &[&str], content: &[u8]) -> String {
    let mut child =
        house.git_command(dir).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit_of(house: &House, dir: &Path, tree: &str) -> String {
    object(house, dir, &["commit-tree", tree, "-m", "crafted"], b"")
}

#[test]
fn what_is_refused_leaves_no_object_and_no_file() {
    let house = House::start_with("refuse", &[], &[("LEMNOS_LIMITS_BLOB_BYTES", "1048576")]);
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let (stored, refs) = (objects(&house), house.remote_refs(&dir));

    // a Dockerfile that is a link out of the tree, at the root and where the tree's own settings point
    std::fs::remove_file(dir.join("Dockerfile")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("Dockerfile")).unwrap();
    house.commit(&dir, &[], "link");
    house
        .push(&dir, &["main"])
        .failed()
        .shows("Dockerfile in refs/heads/main is a symbolic link")
        .hides("root:");
    house.git(&dir, &["reset", "-q", "--hard", "HEAD~1"]).succeeded();

    // ten levels of ten names each for one tree
    let mut id = object(&house, &dir, &["hash-object", "-w", "--stdin"], b"boom");
    let mut mode = "100644 blob";
    for _ in 0..10 {
        let tree: String = (0..10).map(|n| format!("{mode} {id}\tf{n}\n")).collect();
        id = object(&house, &dir, &["mktree"], tree.as_bytes());
        mode = "040000 tree";
    }
    let bomb = commit_of(&house, &dir, &id);
    house.push(&dir, &[&format!("{bomb}:refs/heads/bomb")]).failed().shows("more than 200000 paths");

    // a blob that deflates to nothing
    let zeros = object(&house, &dir, &["hash-object", "-w", "--stdin"], &vec![0; 3 << 20]);
    let tree = object(&house, &dir, &["mktree"], format!("100644 blob {zeros}\tzeros\n").as_bytes());
    let large = commit_of(&house, &dir, &tree);
    house
        .push(&dir, &[&format!("{large}:refs/heads/large")])
        .failed()
        .shows("zeros is 3 MiB; one object may have 1 MiB");

    // names that are the server's own, or that a shell or git would read as something else
    let tip = house.commit(&dir, &[("greeting", "other\n")], "other");
    for name in [
        "refs/pull/1/head",
        "refs/lemnos/builds/0123",
        "refs/hooks/post-receive",
        "refs/heads/--upload-pack=x",
        "refs/heads/$(id)",
        "refs/heads/x;id",
        "refs/heads/HEAD",
    ] {
        house.push(&dir, &[&format!("{tip}:{name}")]).failed().shows("rejected");
    }
    // the same names from a client that checks nothing
    for name in
        ["refs/../../x", "HEAD", "refs/heads/a..b", "refs/heads/x.lock", "config", "refs/heads/a\u{1b}[8m"]
    {
        let said = raw_push(&house, &dir, name, &tip, || {});
        assert!(!said.contains(&format!("ok {name}")), "{name}: {said:?}");
    }
    let verbs = [
        "git-receive-pack '--help'",
        "git-upload-pack --strict '/shop.git'",
        "git-receive-pack '../shop.git'",
    ];
    for exec in verbs {
        let said = ssh(&house, "id", &[exec]);
        assert!(!said.ok && !said.stderr.contains("usage: git"), "{exec}: {said:?}");
    }

    assert_eq!(house.remote_refs(&dir), refs);
    assert_eq!(objects(&house), stored, "objects of refused pushes");
    leaves_nothing(&house);
    assert!(peak_memory_kib(&house) < 200 << 10, "{} KiB", peak_memory_kib(&house));
    house.push(&dir, &["main"]).succeeded();
}

/// `ssh` to the server with one exec request.
fn ssh(house: &House, key: &str, exec: &[&str]) -> Said {
    let output = ssh_command(house, key).args(exec).output().unwrap();
    Said {
        ok: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn ssh_command(house: &House, key: &str) -> std::process::Command {
    let ready = house.ready();
    let (host, port) = ready["ssh"].as_str().unwrap().split_once(':').unwrap();
    let words = house.ssh_command(key);
    let mut words = words.split_whitespace();
    let mut command = house.command(words.next().unwrap());
    command.args(words).args(["-p", port, &format!("git@{host}")]).stdin(Stdio::null());
    command
}

/// A push by a client of our own: `between` runs after the server has shown its refs. Returns all that it said after that.
fn raw_push(house: &House, dir: &Path, name: &str, tip: &str, between: impl FnOnce()) -> String {
    let mut child = ssh_command(house, "id")
        .arg("git-receive-pack '/shop.git'")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut from = child.stdout.take().unwrap();
    let mut length = [0; 4];
    loop {
        from.read_exact(&mut length).unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        from.read_exact(&mut vec![0; length - 4]).unwrap();
    }
    between();
    let pack = house
        .git_command(dir)
        .args(["pack-objects", "--stdout", "--revs", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(format!("{tip}\n").as_bytes())?;
            child.wait_with_output()
        })
        .unwrap()
        .stdout;
    let line = format!("{} {tip} {name}\0report-status", "0".repeat(40));
    let mut to = child.stdin.take().unwrap();
    // a server that refuses early may have closed
    let _ = to.write_all(format!("{:04x}{line}0000", line.len() + 4).as_bytes());
    let _ = to.write_all(&pack);
    drop(to);
    let mut said = Vec::new();
    from.read_to_end(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    said.extend(output.stderr);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn nothing_that_is_pushed_steers_a_terminal() {
    let house = House::start("steer");
    small_app(&house, "shop");
    let dir = house.repository("shop", &[("greeting", "hello\n")]);
    let show = |said: &Said| {
        harmless("the pusher's screen", &said.stderr);
        let newest = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
        for args in [&["builds", "logs", &newest][..], &["builds", "show", &newest], &["builds", "list"]] {
            let said = house.lemnos(args).succeeded();
            harmless(&format!("{args:?}"), &said.stdout);
            harmless(&format!("{args:?}"), &said.stderr);
        }
    };
    // the subject, a step's name, its output, and the excerpt of the failing line
    let dockerfile = "FROM busybox\n\
        RUN printf 'a\\033]0;title\\007b\\033[2Jc\\302\\2332Kd\\rlast\\n\\033[8mconcealed\\n\\342\\200\\256override\\n'\n\
        RUN echo \u{1b}]0;title\u{7}\u{1b}[2J\u{9b}8m\u{202e}done\r; exit 3\n";
    house.commit(
        &dir,
        &[("Dockerfile", dockerfile)],
        "subject \u{1b}]0;title\u{7}\u{1b}[2J\u{9b}2K\u{202e}end",
    );
    let said = house.push(&dir, &["main"]).failed().shows("concealed").shows("exit 3");
    show(&said);

    // names and values that messages repeat: of files, of keys, of build arguments
    for (files, options) in [
        (&[("build-config.yaml", "\"build_\\e[8margs\": 1\n")][..], &[][..]),
        (
            &[("build-config.yaml", "build_args:\n  - \"A=\\x9b8m\\u202e\\e[8m\"\n"), ("Dockerfile", QUICK)],
            &["-o", "plan"],
        ),
        (
            &[
                ("build-config.yaml", "dockerfile_path: \"a\\u202eb\"\n"),
                ("a\u{202e}b", "# syntax=e\u{1b}[8mvil/x\nFROM busybox\n"),
            ],
            &[],
        ),
        (
            &[
                ("build-config.yaml", "dockerfile_path: \"a\\u202eb\"\n"),
                ("a\u{202e}b", "FROM busybox\nMAINTAINER eve\nRUN exit 1\n"),
            ],
            &[],
        ),
        (&[("build-config.yaml", "{}\n"), ("Dockerfile", "FROM busybox\nCOPY no\u{1b}[8msuch /\n")], &[]),
        (&[("Dockerfile", "FRO\u{1b}[8mM busybox\n")], &[]),
        (&[("Dockerfile", "FROM busybox AS \u{1b}[8mx\nFROM scratch\nCOPY --from=no\u{1b}[8mx / /\n")], &[]),
        (
            &[
                ("Dockerfile", "FROM busybox\nCOPY . /\n"),
                (
                    "sub\u{1b}[8mdir/model\u{202e}",
                    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
                ),
            ],
            &[],
        ),
    ] {
        house.commit(&dir, files, "next");
        let mut args = options.to_vec();
        args.push("main");
        show(&house.push(&dir, &args).failed());
        for command in ["detect", "plan"] {
            let output = house.command(env!("CARGO_BIN_EXE_lemnos")).arg(command).arg(&dir).output().unwrap();
            harmless(command, &String::from_utf8_lossy(&output.stdout));
            harmless(command, &String::from_utf8_lossy(&output.stderr));
        }
    }
    leaves_nothing(&house);
}

#[test]
fn a_frontend_of_the_pusher_s_choice_is_not_even_looked_up() {
    let house = House::start("front");
    let dir = shop(&house);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let evil = format!("{}/evil/frontend:1", listener.local_addr().unwrap());

    let with_syntax = format!("# syntax={evil}\n{QUICK}");
    house.commit(&dir, &[("Dockerfile", &with_syntax)], "syntax");
    house
        .push(&dir, &["main"])
        .failed()
        .shows(&format!("Dockerfile:1: the frontend image \"{evil}\" of the syntax line is not allowed here"))
        .shows("hint: remove the syntax line");
    let argument = format!("BUILDKIT_SYNTAX={evil}");
    let config = format!("build_args:\n  - {argument}\n");
    house.commit(&dir, &[("Dockerfile", QUICK), ("build-config.yaml", &config)], "argument");
    house
        .push(&dir, &["main"])
        .failed()
        .shows("build-config.yaml:2: build argument \"BUILDKIT_SYNTAX\" is reserved");
    house.commit(&dir, &[("build-config.yaml", "{}\n")], "none");
    for name in ["BUILDKIT_SYNTAX", "buildkit_syntax", "BUILDKIT_CACHE_MOUNT_NS"] {
        let option = format!("build-arg={name}={evil}");
        house.push(&dir, &["-o", "try", "-o", &option, "main"]).failed().shows("is reserved");
    }
    house
        .lemnos(&["apps", "set", "shop", &format!("build-args={argument}")])
        .failed()
        .shows("BUILDKIT_SYNTAX");
    // an argument that the file declares itself is an argument like any other
    let declared = format!("ARG BUILDKIT_SYNTAX={evil}\n{QUICK}");
    house.commit(&dir, &[("Dockerfile", &declared)], "declared");
    house.push(&dir, &["main"]).succeeded();
    let asked = listener.accept().map(|(_, from)| from);
    assert!(asked.is_err(), "somebody asked for the frontend: {asked:?}");
}

#[test]
fn steps_get_no_rights_of_the_machine() {
    let house = House::start("rights");
    let dir = shop(&house);
    for flag in ["--security=insecure", "--network=host"] {
        let dockerfile = format!("# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN {flag} id > /never\n");
        house.commit(&dir, &[("Dockerfile", &dockerfile)], flag);
        let said = house.push(&dir, &["main"]).failed();
        let said =
            said.shows(&format!("Dockerfile:3: RUN {flag} is refused by BuildKit: builds get no such right"));
        let said = said.shows("hint: insecure and host-network steps are not allowed on this server");
        said.shows("! [remote rejected] main -> main (build failed: ");
    }
    assert_eq!(house.manifest("shop", "main"), None);
    leaves_nothing(&house);
}

#[test]
fn cache_mounts_of_two_apps_never_meet() {
    let house = House::start("mounts");
    small_app(&house, "shop");
    small_app(&house, "bank");
    // the stamp keeps BuildKit's layer cache out of it: every build runs its step
    let mount = |stamp: &str, command: &str| {
        format!("FROM busybox\nRUN --mount=type=cache,id=shared,target=/c : {stamp}; {command}\n")
    };
    let stamp = |n: u32| format!("{}-{n}", house.prefix);
    let bank = house.repository("bank", &[("Dockerfile", &mount(&stamp(1), "echo secret > /c/key"))]);
    house.push(&bank, &["main"]).succeeded();
    let look = "ls -A /c > /seen; cat /c/* >> /seen 2>/dev/null; true";
    let shop = house.repository("shop", &[("Dockerfile", &mount(&stamp(2), look))]);
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "");
    // the owner finds what it left
    house.commit(&bank, &[("Dockerfile", &mount(&stamp(3), look))], "look");
    house.push(&bank, &["main"]).succeeded();
    assert_eq!(house.image_file("bank", "main", "linux/amd64", "seen").unwrap(), "key\nsecret\n");

    // nor through the layer cache: one app's step, to the letter, does not serve another, whose mount holds other things
    let same = mount(&stamp(4), look);
    house.commit(&bank, &[("Dockerfile", &same)], "the same");
    house.push(&bank, &["main"]).succeeded();
    assert_eq!(house.image_file("bank", "main", "linux/amd64", "seen").unwrap(), "key\nsecret\n");
    house.commit(&shop, &[("Dockerfile", &same)], "the same");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "");
    // it serves its own app, which is what a cache is for
    house.commit(&shop, &[("unused", "x")], "the same again");
    house.push(&shop, &["main"]).succeeded().shows("CACHED");
}

#[test]
fn users_reach_their_own_apps_alone() {
    let house = House::start("users");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let refs = house.remote_refs(&dir);
    house.generate_key("eve");
    let key = house.home.path().join("eve.pub");
    house.lemnos(&["keys", "add", "eve", key.to_str().unwrap()]).succeeded();
    house.lemnos(&["apps", "create", "den"]).succeeded();
    house.lemnos(&["apps", "grant", "den", "eve"]).succeeded();

    // missing and forbidden read the same, whatever is asked
    let commit = refs["refs/heads/main"].clone();
    let as_eve = |args: &[&str], app: &str| {
        let url = house.url(app);
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "URL" { url.as_str() } else { arg }).collect();
        let mut command = house.git_command(&dir);
        let output = command.env("GIT_SSH_COMMAND", house.ssh_command("eve")).args(args).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).replace(app, "APP"))
    };
    for args in [
        &["push", "URL", "main"][..],
        &["push", "URL", "--force", "main:refs/heads/other"],
        &["push", "URL", ":main"],
        &["fetch", "URL", &commit],
        &["archive", "--remote", "URL", "main"],
    ] {
        assert_eq!(as_eve(args, "shop"), as_eve(args, "nowhere"), "{args:?}");
    }
    assert_eq!(house.remote_refs(&dir), refs);
    assert_eq!(house.builds("shop").len(), 1);

    // what a client sets in its environment reaches neither git nor the hooks
    let trace = house.home.path().join("trace");
    let mut settings = house.ssh_command("id");
    for (name, value) in [
        ("GIT_TRACE", trace.to_str().unwrap()),
        ("GIT_DIR", "/nonexistent"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", "/nonexistent"),
        ("LD_PRELOAD", "/nonexistent.so"),
    ] {
        settings.push_str(&format!(" -o SetEnv={name}={value}"));
    }
    std::fs::remove_file(dir.join("Dockerfile")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("Dockerfile")).unwrap();
    house.commit(&dir, &[], "link");
    let mut command = house.git_command(&dir);
    let output = command.env("GIT_SSH_COMMAND", settings).args(["push", "builder", "main"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is a symbolic link"), "{said}");
    assert!(!trace.exists() && !said.contains("nonexistent"), "{said}");
    leaves_nothing(&house);
}

#[test]
fn a_key_that_was_removed_is_refused_on_the_open_connection() {
    let house = House::start("revoked");
    let dir = shop(&house);
    let socket = house.home.path().join("control");
    let shared = |house: &House| format!("{} -o ControlPath={}", house.ssh_command("id"), socket.display());
    let mut master = house.command("sh");
    let ready = house.ready();
    let (host, port) = ready["ssh"].as_str().unwrap().split_once(':').unwrap();
    let mut master = master
        .args(["-c", &format!("exec {} -o ControlMaster=yes -N -p {port} git@{host}", shared(&house))])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    while !socket.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "no control socket");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ask = || {
        let mut command = house.git_command(&dir);
        command.env("GIT_SSH_COMMAND", shared(&house)).args(["ls-remote", "builder"]).output().unwrap()
    };
    assert!(ask().status.success());
    let keys: serde_json::Value =
        serde_json::from_str(&house.lemnos(&["keys", "list", "--json"]).succeeded().stdout).unwrap();
    let fingerprint = keys[0]["fingerprint"].as_str().unwrap();
    house.lemnos(&["keys", "remove", fingerprint]).succeeded();
    let said = ask();
    let _ = master.kill();
    let _ = master.wait();
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("is no longer registered"), "{said:?}");
}

#[test]
fn nobody_takes_another_s_image_or_a_reserved_tag() {
    let house = House::start("owner");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let before = house.digest("shop", "latest");
    house.app("bank");
    let image = house.image("shop");
    let other_name = image.replace("127.0.0.1", "localhost");
    for name in [&image, &other_name] {
        let said = house.lemnos(&["apps", "set", "bank", &format!("image={name}")]).failed();
        said.shows("shop").shows("hint: ");
    }
    house.lemnos(&["apps", "set", "shop", "branches=*", "build-tags=true"]).succeeded();
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout;
    for (name, words) in [
        ("refs/heads/latest", "reserved"),
        ("refs/tags/latest", "reserved"),
        (&format!("refs/heads/git-{}", &commit[..12]), "reserved"),
        ("refs/heads/git/0123456789ab", "reserved"),
        ("refs/heads/try/x", "reserved"),
        ("refs/heads/@latest", "reserved"),
        ("refs/tags/main", "main"),
        ("refs/heads/#main", "main"),
    ] {
        house.push(&dir, &[&format!("HEAD:{name}")]).failed().shows(words).shows("hint: ");
    }
    assert_eq!(house.digest("shop", "latest"), before);
    assert_eq!(house.remote_refs(&dir).len(), 2, "HEAD and main");
    leaves_nothing(&house);
}

#[test]
fn a_push_into_an_app_that_is_gone_reaches_nobody() {
    let house = House::start("destroy");
    let dir = shop(&house);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    // between the server's refs and the client's pack the app goes, and another of its name comes
    let said = raw_push(&house, &dir, "refs/heads/main", &commit, || {
        house.lemnos(&["apps", "destroy", "shop", "--yes"]).succeeded();
        small_app(&house, "shop");
    });
    assert!(!said.contains("ok refs/heads/main"), "{said:?}");
    assert!(house.remote_refs(&dir).is_empty(), "the new app got the old one's push");
    assert!(house.builds("shop").is_empty());
    assert_eq!(house.manifest("shop", "main"), None);
    let repositories = std::fs::read_dir(house.data().join("repositories")).unwrap().count();
    assert_eq!(repositories, 1, "the old app's repository came back");

    // an app whose build runs is not destroyed under it
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 2\n")], "slow");
    let client = house.begin_push(&dir, &["main"]).until("started");
    house.lemnos(&["apps", "destroy", "shop", "--yes"]).failed().shows("is running").shows("hint: wait");
    client.finish().succeeded();
    leaves_nothing(&house);
}

#[test]
fn twenty_pushes_at_once_all_end_right() {
    let house = House::start("many");
    let apps = ["a0", "a1", "a2", "a3"];
    let mut clients = Vec::new();
    for app in apps {
        small_app(&house, app);
        house.lemnos(&["apps", "set", app, "branches=*"]).succeeded();
        let dir = house.repository(app, &[("Dockerfile", QUICK), ("greeting", app)]);
        for n in 0..5 {
            let branch = format!("b{n}");
            house.git(&dir, &["checkout", "-q", "-b", &branch, "main"]).succeeded();
            let text = format!("{app} {branch}\n");
            let dockerfile = if n == 4 { "FROM busybox\nRUN false\n" } else { QUICK };
            let commit = house.commit(&dir, &[("greeting", &text), ("Dockerfile", dockerfile)], &branch);
            clients.push((app, dir.clone(), branch, commit, n != 4));
        }
    }
    let said: Vec<Said> = std::thread::scope(|scope| {
        let push = |(_, dir, branch, _, _): &(_, PathBuf, String, _, _)| house.push(dir, &[branch]);
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(move || push(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ((app, dir, branch, commit, good), said) in clients.iter().zip(said) {
        let refs = house.remote_refs(dir);
        let reference = refs.get(&format!("refs/heads/{branch}"));
        let manifest = house.manifest(app, branch);
        if *good {
            said.succeeded();
            assert_eq!(reference, Some(commit));
            let revision = &manifest.unwrap()["annotations"]["org.opencontainers.image.revision"];
            assert_eq!(revision, commit.as_str());
        } else {
            said.failed().shows("build failed: Dockerfile:2");
            assert_eq!((reference, manifest), (None, None));
        }
    }
    for app in apps {
        let states: Vec<_> =
            house.builds(app).iter().map(|b| b["state"].as_str().unwrap().to_owned()).collect();
        assert_eq!(states.iter().filter(|s| *s == "succeeded").count(), 4, "{states:?}");
        assert_eq!(states.iter().filter(|s| *s == "failed").count(), 1, "{states:?}");
    }
    leaves_nothing(&house);
}

#[test]
fn many_writers_of_one_ref_leave_it_at_one_of_them() {
    let house = House::start("writers");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let commits: Vec<String> = (0..6)
        .map(|n| {
            house.git(&dir, &["checkout", "-q", "-B", &format!("w{n}"), "main"]).succeeded();
            house.commit(&dir, &[("greeting", &format!("writer {n}\n"))], "mine")
        })
        .collect();
    // each overwrites what it saw, and one takes the ref away in the middle of it
    let mut specs: Vec<String> = commits.iter().map(|commit| format!("+{commit}:refs/heads/main")).collect();
    specs.push(":refs/heads/main".to_owned());
    let said: Vec<Said> = std::thread::scope(|scope| {
        let push = |spec: &str| house.git(&dir, &["push", &house.url("shop"), spec]);
        let threads: Vec<_> = specs.iter().map(|spec| scope.spawn(move || push(spec))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(said.iter().any(|said| said.ok), "{said:?}");
    for said in said.iter().filter(|said| !said.ok) {
        assert!(said.stderr.contains("rejected]") && said.stderr.contains("hint: "), "{}", said.stderr);
    }
    if let Some(head) = house.remote_refs(&dir).get("refs/heads/main") {
        for tag in ["main", "latest"] {
            let revision =
                &house.manifest("shop", tag).unwrap()["annotations"]["org.opencontainers.image.revision"];
            assert_eq!(revision, head.as_str(), "{tag}");
        }
    }
    assert!(house.builds("shop").iter().all(|build| build["state"] != "running"));
    leaves_nothing(&house);
}

#[test]
fn options_of_any_bytes_are_refused_or_taken() {
    let house = House::start("options");
    let dir = shop(&house);
    let push = |options: &[&std::ffi::OsStr]| {
        let mut command = house.git_command(&dir);
        command.args(["push", "builder", "main"]);
        for option in options {
            command.arg("-o").arg(option);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(!said.contains("server error") && !said.contains("hung up"), "{said}");
        harmless("the pusher's screen", &said);
        said
    };
    let bytes =
        |bytes: &'static [u8]| -> &std::ffi::OsStr { std::os::unix::ffi::OsStrExt::from_bytes(bytes) };
    let long = "x".repeat(60_000);
    push(&[bytes(b"build-arg=A=\xff\xfe"), bytes(b"try")]);
    push(&[bytes(b"\x1b]0;title\x07\x1b[8mno-cache")]);
    push(&[bytes(b"try=\xc2\x9b8m\xe2\x80\xae")]);
    push(&[bytes(b"")]);
    push(&[std::ffi::OsStr::new(&long)]);
    push(&vec![bytes(b"no-cache"); 200]);
    assert!(house.remote_refs(&dir).is_empty());
    leaves_nothing(&house);
}

#[test]
fn patterns_and_links_do_not_make_the_server_work_without_end() {
    let house = House::start("work");
    let dir = shop(&house);
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    for n in 0..300 {
        std::os::unix::fs::symlink(format!("l{0}/l{0}", n + 1), dir.join(format!("l{n}"))).unwrap();
    }
    for from in ["loop/x", "l0/x"] {
        house.commit(&dir, &[("Dockerfile", &format!("FROM busybox\nCOPY {from} /x\n"))], "links");
        house.push(&dir, &["main"]).failed().shows("too many links");
    }
    // patterns on which a matcher that goes back would never end, and more of them than there is memory for
    let hard = format!("{}b\n!{}c\n", "**/a*a*".repeat(40), "**/*a?".repeat(200)).repeat(20);
    let deep = format!("{}/f", ["a".repeat(31).as_str(); 40].join("/"));
    house.commit(
        &dir,
        &[("Dockerfile", "FROM busybox\nCOPY . /x\n"), (".dockerignore", &hard), (&deep, "x")],
        "hard",
    );
    house.push(&dir, &["main"]).succeeded();
    let many: String = (0..20_000).map(|n| format!("**/{n}*x?{n}**/y\n")).collect();
    house.commit(&dir, &[(".dockerignore", &many)], "many");
    house
        .push(&dir, &["main"])
        .failed()
        .shows("the patterns with wildcards have more than 65536 bytes together");
    assert!(peak_memory_kib(&house) < 200 << 10, "{} KiB", peak_memory_kib(&house));
    leaves_nothing(&house);
}

#[test]
fn a_flood_of_output_is_bounded_and_the_push_ends() {
    let house = House::start("flood");
    small_app(&house, "shop");
    // a line of text, a line without end, and lines without text
    let dockerfile = "FROM busybox\n\
        RUN yes flood | head -c 50000000\n\
        RUN head -c 25000000 /dev/zero | tr '\\0' x\n\
        RUN yes '' | head -c 25000000\n\
        RUN echo the end\n";
    let dir = house.repository("shop", &[("Dockerfile", dockerfile)]);
    house.push(&dir, &["main"]).succeeded().shows("clipped").shows("the end").shows("Done in ");
    let stored: u64 = std::fs::read_dir(house.data())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(stored < 100 << 20, "{stored} bytes are kept");
    assert!(peak_memory_kib(&house) < 300 << 10, "{} KiB", peak_memory_kib(&house));
    leaves_nothing(&house);
}

#[test]
fn idle_http_connections_take_nothing_from_a_push() {
    let house = House::start("idle");
    let dir = shop(&house);
    let address = house.ready()["http"].as_str().unwrap().parse().unwrap();
    // what the door does not take waits in the kernel; what the kernel does not take times out
    let open = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3));
    let idle: Vec<_> = (0..600).map_while(|n| open(n).ok()).collect();
    assert!(idle.len() >= 256, "{}", idle.len());
    house.push(&dir, &["main"]).succeeded();
    let held = std::fs::read_dir(format!("/proc/{}/fd", house.server_pid())).unwrap().count();
    assert!(held < 400, "{held} descriptors are open");
}
