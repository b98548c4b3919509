//! One push, end to end: real git and ssh in front, real buildkitd and registry behind.

use crate::house::{House, platforms};

/// Runs on both platforms; `uname -m` proves which.
const TWO_STEPS: &str = "FROM busybox\nCOPY greeting /greeting\nRUN uname -m > /machine\n";

fn shop(house: &House) -> std::path::PathBuf {
    house.app("shop");
    house.repository("shop", &[("Dockerfile", TWO_STEPS), ("greeting", "hello\n")])
}

#[test]
fn a_push_becomes_a_multi_arch_tag() {
    let house = House::start("e2e");
    let dir = shop(&house);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    house
        .push(&dir, &["main"])
        .succeeded()
        .shows("Received main at")
        .shows("Build kind: dockerfile (")
        .shows("[linux/amd64 3/3] RUN uname -m > /machine")
        .shows("[linux/arm64 3/3] RUN uname -m > /machine")
        .shows("sha256:")
        .shows(&format!("tagged {}:main", house.image("shop")))
        .shows(&format!("tagged {}:latest", house.image("shop")))
        .shows("Done in ");

    let index = house.manifest("shop", "main").unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let annotations = &index["annotations"];
    assert_eq!(annotations["org.opencontainers.image.revision"], commit.as_str());
    assert_eq!(annotations["org.opencontainers.image.title"], "shop");
    let digest = house.digest("shop", "main").unwrap();
    assert_eq!(house.digest("shop", "latest").as_ref(), Some(&digest));
    assert_eq!(house.digest("shop", &format!("git-{}", &commit[..12])).as_ref(), Some(&digest));

    assert_eq!(house.image_file("shop", "main", "linux/amd64", "machine").unwrap(), "x86_64\n");
    assert_eq!(house.image_file("shop", "main", "linux/arm64", "machine").unwrap(), "aarch64\n");
    assert_eq!(house.image_file("shop", "main", "linux/arm64", "greeting").unwrap(), "hello\n");

    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], commit);
    let builds = house.builds("shop");
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0]["state"], "succeeded");
    assert_eq!(builds[0]["digest"], digest.as_str());
    let id = builds[0]["id"].as_str().unwrap();
    house.lemnos(&["builds", "logs", id]).succeeded().shows("RUN uname -m > /machine").shows("Done in ");
}

#[test]
fn a_failing_step_rejects_the_push_and_changes_nothing() {
    let house = House::start("fail");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let (before, refs) = (house.digest("shop", "main"), house.remote_refs(&dir));

    house.commit(&dir, &[("Dockerfile", "FROM busybox\n\nRUN echo the last words; exit 3\n")], "break");
    let said = house
        .push(&dir, &["main"])
        .failed()
        .shows("| the last words")
        .shows("3: RUN echo the last words; exit 3")
        .shows("hint: ")
        .shows("! [remote rejected] main -> main (build failed: Dockerfile:3 RUN echo the last words; exit 3, exit 3)");
    let screen = said.stderr;
    assert!(
        screen.find("| the last words") < screen.find("error: RUN"),
        "the log tail comes before the cause:\n{screen}"
    );
    assert!(screen.find("hint: ") < screen.find("! [remote rejected]"), "{screen}");

    assert_eq!(house.digest("shop", "main"), before);
    assert_eq!(house.remote_refs(&dir), refs);
    assert_eq!(house.builds("shop")[0]["state"], "failed");

    house.commit(&dir, &[("Dockerfile", TWO_STEPS)], "mend");
    house.push(&dir, &["main"]).succeeded();
}

#[test]
fn an_unchanged_tree_is_not_solved_again() {
    let house = House::start("same");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let first = house.manifest("shop", "main").unwrap();
    house.commit(&dir, &[], "no change of the tree");
    house.push(&dir, &["main"]).succeeded().shows("Nothing to build").hides("RUN uname");
    let second = house.manifest("shop", "main").unwrap();
    assert_eq!(first["manifests"], second["manifests"]);
    assert_ne!(first["annotations"], second["annotations"], "the revision is the new commit");
    // asked for, it is solved again
    house.commit(&dir, &[], "again");
    house.push(&dir, &["-o", "no-cache", "main"]).succeeded().hides("Nothing to build").shows("RUN uname");
}

#[test]
fn a_changed_file_reaches_the_image_and_a_revert_too() {
    let house = House::start("edit");
    let dir = shop(&house);
    for (round, text) in ["hello\n", "jello\n", "hello\n", "cello\n"].into_iter().enumerate() {
        house.commit(&dir, &[("greeting", text)], &format!("round {round}"));
        house.push(&dir, &["main"]).succeeded();
        assert_eq!(house.image_file("shop", "main", "linux/amd64", "greeting").unwrap(), text);
        assert_eq!(house.image_file("shop", "main", "linux/arm64", "greeting").unwrap(), text);
    }
}

#[test]
fn options_plan_try_and_unknown() {
    let house = House::start("options");
    let dir = shop(&house);
    let said =
        house.push(&dir, &["-o", "plan", "main"]).failed().shows("! [remote rejected] main -> main (plan");
    assert!(said.stderr.contains("\"platforms\""), "{}", said.stderr);
    assert_eq!(house.manifest("shop", "main"), None);

    house
        .push(&dir, &["-o", "fast", "main"])
        .failed()
        .shows("unknown push option \"fast\"")
        .shows("no-cache");
    house.push(&dir, &["-o", "platform=linux/amd64", "main"]).failed().shows("only a try may be narrowed");

    let said = house
        .push(&dir, &["-o", "try", "-o", "platform=linux/arm64", "main"])
        .failed()
        .shows("! [remote rejected] main -> main (try");
    let tag = said
        .stderr
        .lines()
        .find_map(|l| l.split_once(":try-").map(|(_, rest)| format!("try-{}", rest.trim())))
        .unwrap_or_else(|| panic!("no try tag in:\n{}", said.stderr));
    assert_eq!(platforms(&house.manifest("shop", &tag).unwrap()), ["linux/arm64"]);
    assert_eq!(house.manifest("shop", "main"), None);
    assert!(house.remote_refs(&dir).is_empty());
}

#[test]
fn refs_that_do_not_build_are_stored_and_said_so() {
    let house = House::start("refs");
    let dir = shop(&house);
    house.git(&dir, &["branch", "topic"]).succeeded();
    house.git(&dir, &["tag", "v1"]).succeeded();
    house.push(&dir, &["topic", "v1"]).succeeded().shows("topic").shows("stored").hides("RUN uname");
    assert_eq!(house.manifest("shop", "topic"), None);
    let refs = house.remote_refs(&dir);
    assert!(refs.contains_key("refs/heads/topic") && refs.contains_key("refs/tags/v1"), "{refs:?}");

    house.lemnos(&["apps", "set", "shop", "branches=release/*", "build-tags=true"]).succeeded();
    house.git(&dir, &["branch", "release/1.x"]).succeeded();
    house.git(&dir, &["tag", "v2"]).succeeded();
    house.push(&dir, &["main", "release/1.x", "v2"]).succeeded();
    for tag in ["main", "latest", "release-1.x", "v2"] {
        assert!(house.manifest("shop", tag).is_some(), "{tag}");
    }
    assert_eq!(house.manifest("shop", "v2").unwrap()["annotations"]["org.opencontainers.image.version"], "2");

    house.push(&dir, &[":topic"]).succeeded();
    assert!(!house.remote_refs(&dir).contains_key("refs/heads/topic"));
}

#[test]
fn two_refs_never_share_a_tag() {
    let house = House::start("clash");
    let dir = shop(&house);
    house.lemnos(&["apps", "set", "shop", "branches=*"]).succeeded();
    house.git(&dir, &["branch", "a/b"]).succeeded();
    house.git(&dir, &["branch", "a-b"]).succeeded();
    house.push(&dir, &["a/b"]).succeeded();
    house.push(&dir, &["a-b"]).failed().shows("a/b").shows("hint: ");
}

#[test]
fn force_delete_and_atomic_pushes() {
    let house = House::start("force");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let first = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    house.commit(&dir, &[("greeting", "two\n")], "two");
    house.push(&dir, &["main"]).succeeded();
    house.git(&dir, &["reset", "-q", "--hard", &first]).succeeded();
    house.push(&dir, &["main"]).failed().shows("rejected");
    house.push(&dir, &["--force", "main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "greeting").unwrap(), "hello\n");

    // atomic: one build fails, so no ref moves, also not the one that only had to be stored
    house.git(&dir, &["branch", "topic"]).succeeded();
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN false\n")], "break");
    house.push(&dir, &["--atomic", "main", "topic"]).failed().shows("build failed: Dockerfile:2");
    let refs = house.remote_refs(&dir);
    assert_eq!(refs["refs/heads/main"], first);
    assert!(!refs.contains_key("refs/heads/topic"), "{refs:?}");
    // without it each ref has its own answer
    house.push(&dir, &["main", "topic"]).failed().shows("build failed: Dockerfile:2");
    assert!(house.remote_refs(&dir).contains_key("refs/heads/topic"));

    house.git(&dir, &["reset", "-q", "--hard", &first]).succeeded();
    house.push(&dir, &["--atomic", "main", ":topic"]).succeeded();
    assert!(!house.remote_refs(&dir).contains_key("refs/heads/topic"));
}

#[test]
fn clone_and_fetch_work_and_strangers_see_nothing() {
    let house = House::start("clone");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let copy = house.home.path().join("copy");
    house.git(&dir, &["clone", "-q", &house.url("shop"), copy.to_str().unwrap()]).succeeded();
    assert_eq!(std::fs::read_to_string(copy.join("greeting")).unwrap(), "hello\n");
    house.commit(&dir, &[("greeting", "more\n")], "more");
    house.push(&dir, &["main"]).succeeded();
    house.git(&copy, &["fetch", "-q", "--depth=1", "origin"]).succeeded();

    house.generate_key("stranger");
    let mut command = house.git_command(&dir);
    let said = command
        .env("GIT_SSH_COMMAND", house.ssh_command("stranger").replace("LogLevel=ERROR", "LogLevel=INFO"));
    let output = said.args(["ls-remote", "builder"]).output().unwrap();
    assert!(!output.status.success());

    // a registered user without a grant reads the same as a missing app
    house
        .lemnos(&["keys", "add", "eve", house.home.path().join("stranger.pub").to_str().unwrap()])
        .succeeded();
    let ask = |app: &str| {
        let mut command = house.git_command(&dir);
        command.env("GIT_SSH_COMMAND", house.ssh_command("stranger"));
        let output = command.args(["ls-remote", &house.url(app)]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).replace(app, "APP")
    };
    assert_eq!(ask("shop"), ask("nowhere"));
}

#[test]
fn a_single_platform_app_gets_an_index_too() {
    let house = House::start("single");
    let dir = shop(&house);
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64", "compression=zstd"]).succeeded();
    // content of its own: BuildKit keeps the compression of a layer that it has already
    house.commit(&dir, &[("greeting", &format!("{}\n", house.prefix))], "unique");
    house.push(&dir, &["main"]).succeeded();
    let index = house.manifest("shop", "main").unwrap();
    assert_eq!(platforms(&index), ["linux/amd64"]);
    let child = index["manifests"][0]["digest"].as_str().unwrap();
    let image = format!("docker://{}@{child}", house.image("shop"));
    let output =
        house.command("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]).output().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.last().unwrap()["mediaType"].as_str().unwrap().ends_with("+zstd"), "{manifest}");
}

#[test]
fn submodules_and_lfs_pointers_are_named_not_built_wrong() {
    let house = House::start("subs");
    let dir = shop(&house);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    house.commit(&dir, &[("model.bin", pointer), ("Dockerfile", "FROM busybox\nCOPY . /src\n")], "lfs");
    house.push(&dir, &["main"]).failed().shows("model.bin").shows("LFS");
    house.commit(&dir, &[(".dockerignore", "model.bin\n")], "ignore it");
    house.push(&dir, &["main"]).succeeded();

    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    std::fs::write(
        dir.join(".gitmodules"),
        "[submodule \"lib\"]\n\tpath = lib\n\turl = https://example.com/lib.git\n",
    )
    .unwrap();
    house.git(&dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib")]).succeeded();
    house.git(&dir, &["add", ".gitmodules"]).succeeded();
    house.git(&dir, &["commit", "-q", "-m", "submodule"]).succeeded();
    house.push(&dir, &["main"]).failed().shows("lib").shows("submodule");
}

#[test]
fn what_is_left_out_is_said_by_the_ignore_file_that_rules() {
    let house = House::start("ignored");
    house.app("shop");
    house
        .lemnos(&["apps", "set", "shop", "platforms=linux/amd64", "dockerfile=deploy/Dockerfile"])
        .succeeded();
    let own = "deploy/Dockerfile.dockerignore";
    let tree =
        [("deploy/Dockerfile", "FROM busybox\nCOPY . /x\n"), ("a", ""), ("b", ""), (".dockerignore", "a\n")];
    let dir = house.repository("shop", &tree);
    let there = |round: &str| {
        house.push(&dir, &["main"]).succeeded();
        let here =
            |file: &str| house.image_file("shop", "main", "linux/amd64", &format!("x/{file}")).is_some();
        assert!(here("deploy/Dockerfile"), "{round}");
        (here("a"), here("b"))
    };
    assert_eq!(there("the context's"), (false, true));
    house.commit(&dir, &[(own, "b\n")], "one of the Dockerfile's own");
    assert_eq!(there("its own"), (true, false));
    // BuildKit takes an empty one for a file, not for none
    house.commit(&dir, &[(own, "")], "empty");
    assert_eq!(there("an empty one of its own"), (true, true));
    house.git(&dir, &["rm", "-q", own, ".dockerignore"]).succeeded();
    house.commit(&dir, &[], "none");
    assert_eq!(there("none"), (true, true));
}

#[test]
fn a_failure_in_a_long_dockerfile_names_its_line() {
    let house = House::start("long");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("a", "")]);
    // one that goes with the request, and one that is asked for
    for lines in [600, 6000] {
        let talk = "# what this line says is of no importance\n".repeat(lines);
        let dockerfile = format!("FROM busybox\n{talk}RUN echo {lines}; exit 7\n");
        house.commit(&dir, &[("Dockerfile", &dockerfile), (".dockerignore", &talk)], "long");
        let said = house.push(&dir, &["main"]).failed();
        said.shows(&format!("Dockerfile:{} RUN echo {lines}; exit 7, exit 7", lines + 2)).hides("lost");
    }
}

#[test]
fn the_check_warnings_of_buildkit_are_shown_with_file_and_line() {
    let house = House::start("warn");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox AS Base\nMAINTAINER ada\n")]);
    house.push(&dir, &["main"]).succeeded().shows("warning: Dockerfile:2: ").hides("(line 2)");
}

#[test]
fn a_client_that_goes_away_does_not_stop_its_push() {
    let mut house = House::start("gone");
    house.app("shop");
    let dir =
        house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 3; date > /d\n")]);
    house.begin_push(&dir, &["main"]).until("started").kill();
    house.until("the build ends", |h| h.builds("shop").first().is_some_and(|b| b["state"] != "running"));
    assert_eq!(house.builds("shop")[0]["state"], "succeeded");
    assert!(house.manifest("shop", "main").is_some());
    assert!(house.remote_refs(&dir).contains_key("refs/heads/main"));
}

#[test]
fn two_builders_are_joined_by_digest_each_with_its_own_platform() {
    let arm = format!("{},platform=linux/arm64,name=arm", crate::support::engines().buildkit);
    let house = House::start_with("two", &["--builder", &arm], &[]);
    let dir = shop(&house);
    house
        .push(&dir, &["main"])
        .succeeded()
        .shows("on builder arm: linux/arm64")
        // how the step is called depends on who else builds it at the same time: BuildKit joins equal steps
        .shows("RUN uname -m > /machine");
    assert_eq!(platforms(&house.manifest("shop", "main").unwrap()), ["linux/amd64", "linux/arm64"]);
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "machine").unwrap(), "x86_64\n");
    assert_eq!(house.image_file("shop", "main", "linux/arm64", "machine").unwrap(), "aarch64\n");

    // one platform fails: the tags stay, and the other's work is not done again
    house.commit(
        &dir,
        &[("Dockerfile", "FROM busybox\nARG TARGETARCH\nRUN echo once > /a\nRUN test $TARGETARCH = amd64\n")],
        "half",
    );
    let before = house.digest("shop", "main");
    house
        .push(&dir, &["main"])
        .failed()
        .shows("build failed: Dockerfile:4")
        .shows("ended with exit code 1 on linux/arm64");
    assert_eq!(house.digest("shop", "main"), before);
}

#[test]
fn a_running_builds_log_is_followed_live_and_ends_with_the_build() {
    let mut house = House::start("follow");
    house.app("shop");
    let dockerfile = "FROM busybox\nRUN echo under way; sleep 3; echo over\n";
    let dir = house.repository("shop", &[("Dockerfile", dockerfile)]);
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let mut push = house
        .git_command(&dir)
        .args(["push", "builder", "main"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    house.until("the build runs", |h| !h.builds("shop").is_empty());
    let id = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    let mut follower = house
        .command(env!("CARGO_BIN_EXE_lemnos"))
        .args(["builds", "logs", &id, "-f", "--data", house.data().to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let (mut live, mut last) = (false, String::new());
    for line in lines.map(Result::unwrap) {
        if line.ends_with(" under way") {
            live = house.builds("shop")[0]["state"] == "running";
        }
        last = line;
    }
    assert!(live, "the step's first line came while the build ran");
    assert!(last.starts_with("-----> Done in "), "{last}");
    assert!(follower.wait().unwrap().success());
    assert!(push.wait().unwrap().success());
}
