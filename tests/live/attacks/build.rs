//! What a pushed tree has the server and its builders do: frontends, rights, cache mounts, patterns, output.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{QUICK, harmless, leaves_nothing, peak_memory_kib, shop, small_app};
use crate::house::{House, Said};
use crate::standing::Standing;

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
    let (address, asked) = nothing_there();
    let standing = Standing::of(&house);
    let evil = format!("{address}/evil/frontend:1");

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
    standing.holds_beside_builds(
        &house,
        &[
            ("push_answered", "of the syntax line is not allowed here"),
            ("push_answered", "build-config.yaml:2: build argument \"BUILDKIT_SYNTAX\" is reserved"),
            ("push_answered", "\"BUILDKIT_SYNTAX\" is reserved"),
            ("push_answered", "\"buildkit_syntax\" is reserved"),
            ("push_answered", "\"BUILDKIT_CACHE_MOUNT_NS\" is reserved"),
            ("administered", "\"BUILDKIT_SYNTAX\" is reserved"),
        ],
    );
    // an argument that the file declares itself is an argument like any other
    let declared = format!("ARG BUILDKIT_SYNTAX={evil}\n{QUICK}");
    house.commit(&dir, &[("Dockerfile", &declared)], "declared");
    house.push(&dir, &["main"]).succeeded();
    assert_eq!(asked.load(Ordering::SeqCst), 0, "somebody asked for the frontend");
}

/// A registry that has nothing, says so at once, and counts who asked: whoever is let through to it ends soon.
fn nothing_there() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (address, asked)
}

#[test]
fn steps_get_no_rights_of_the_machine() {
    let house = House::start("rights");
    let dir = shop(&house);
    let standing = Standing::of(&house);
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
    standing.holds_beside_builds(
        &house,
        &[
            ("push_answered", "security.insecure is not allowed"),
            ("push_answered", "network.host is not allowed"),
        ],
    );
}

#[test]
fn cache_mounts_of_two_apps_never_meet() {
    let house = House::start("mounts");
    small_app(&house, "shop");
    small_app(&house, "bank");
    let standing = Standing::of(&house);
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
    standing.refused(&house, &[]);
}

#[test]
fn patterns_and_links_do_not_make_the_server_work_without_end() {
    let house = House::start("work");
    let dir = shop(&house);
    let standing = Standing::of(&house);
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
    let refused = ["too many links", "too many links", "the patterns with wildcards have more than 65536 by"];
    standing.refused(&house, &refused.map(|why| ("push_answered", why)));
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
