//! What git carries: refs, objects, push options, and names that would be somebody else's image or tag.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use super::{commit_of, harmless, object, shop, small_app, ssh, ssh_command};
use crate::house::House;
use crate::standing::Standing;

#[test]
fn what_is_refused_leaves_no_object_and_no_file() {
    let house = House::start_with("refuse", &[], &[("LEMNOS_LIMITS_BLOB_BYTES", "1048576")]);
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let standing = Standing::of(&house);

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

    let mut refused = vec![
        ("push_refused", "is a symbolic link"),
        ("push_refused", "more than 200000 paths"),
        ("push_refused", "zeros is 3 MiB; one object may have 1 MiB"),
    ];
    refused.extend([("push_refused", "is not a valid ref name"); 7 + 6]);
    refused.push(("request_refused", "options are not taken"));
    refused.push(("request_refused", "takes one app name and nothing else"));
    refused.push(("request_refused", "is no app name"));
    standing.holds(&house, &refused);
    house.push(&dir, &["main"]).succeeded();
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
fn options_of_any_bytes_are_refused_or_taken() {
    let house = House::start("options");
    let dir = shop(&house);
    let standing = Standing::of(&house);
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
    standing.holds_beside_builds(
        &house,
        &[
            ("push_answered", "no ref moved"),
            ("push_answered", "unknown push option"),
            ("push_answered", "unknown push option"),
            ("push_answered", "unknown push option \"\""),
            ("push_answered", "unknown push option \"xxx"),
            ("push_refused", "more than 64 commands or options"),
        ],
    );
}

#[test]
fn a_push_into_an_app_that_is_gone_reaches_nobody() {
    let house = House::start("destroy");
    let dir = shop(&house);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    let standing = Standing::of(&house);
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
    standing.refused(&house, &[("push_refused", "git refused it"), ("administered", "of shop is running")]);
}

#[test]
fn nobody_takes_another_s_image_or_a_reserved_tag() {
    let house = House::start("owner");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let before = house.digest("shop", "latest");
    house.app("bank");
    let standing = Standing::of(&house);
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
    let refused = [("administered", "belongs to app shop already"); 2].into_iter();
    let refused = refused.chain([("push_answered", "a name that lemnos gives itself"); 6]);
    let refused = refused.chain([("push_answered", "belongs to the main branch"); 2]);
    standing.holds_beside_builds(&house, &refused.collect::<Vec<_>>());
}
