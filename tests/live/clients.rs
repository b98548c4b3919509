//! Git clients that others wrote: each clones, commits and pushes with its own SSH and its own git.

use std::path::PathBuf;

use crate::house::{House, Said};

/// Clones, pushes a change that builds, then one that does not.
fn works(name: &str, client: impl Fn(&House) -> std::process::Command) {
    let house = House::start(name);
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nCOPY greeting /greeting\nRUN test -s /greeting\n"),
            ("greeting", "hello\n"),
        ],
    );
    house.push(&dir, &["main"]).succeeded();
    let before = house.remote_refs(&dir)["refs/heads/main"].clone();
    let run = |clone: &str, content: &str| {
        let mut command = client(&house);
        command.arg(house.url("shop")).arg(house.home.path().join("id")).arg(house.home.path().join(clone));
        Said::of(command.args(["greeting", content]).output().unwrap())
    };
    let greeting = format!("hello from {name}\n");
    run("good", &greeting).succeeded().shows("RUN test -s /greeting").shows("Done in ");
    let after = house.remote_refs(&dir)["refs/heads/main"].clone();
    assert_ne!(after, before);
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "greeting").unwrap(), greeting);

    run("bad", "").failed().shows("build failed: Dockerfile:3 RUN test -s /greeting, exit 1");
    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], after, "a failed build moves nothing");
}

fn script(name: &str) -> impl Fn(&House) -> std::process::Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    move |house| {
        let mut command = house.command(&house.engines.clients_python);
        command.arg(&path);
        command
    }
}

#[test]
fn libgit2_clones_and_pushes() {
    works("libgit2", script("libgit2.py"));
}

#[test]
fn dulwich_over_paramiko_clones_and_pushes() {
    works("dulwich", script("dulwich_paramiko.py"));
}

#[test]
fn go_git_clones_and_pushes() {
    works("go-git", |house| house.command(&house.engines.go_git));
}

/// An agent that offers other keys first, and RSA keys, through OpenSSH.
#[test]
fn an_agent_with_several_keys_and_an_rsa_key_work() {
    let house = House::start("agent");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    house.generate_key("one");
    house.generate_key("two");
    let rsa = house.home.path().join("rsa");
    let made = house
        .command("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f"])
        .arg(&rsa)
        .output()
        .unwrap();
    Said::of(made).succeeded();
    house.lemnos(&["keys", "add", "ada", rsa.with_extension("pub").to_str().unwrap()]).succeeded();
    let script = format!(
        "ssh-add -q {home}/one {home}/two {home}/rsa && git ls-remote builder",
        home = house.home.path().display()
    );
    let known = house.home.path().join("known_hosts");
    let ssh = format!(
        "ssh -F /dev/null -o UserKnownHostsFile={} -o StrictHostKeyChecking=accept-new -o BatchMode=yes",
        known.display()
    );
    let mut command = house.command("ssh-agent");
    command.current_dir(&dir).env("GIT_SSH_COMMAND", ssh).args(["sh", "-c", &script]);
    Said::of(command.output().unwrap()).succeeded();
    let shown =
        Said::of(house.command("ssh-keygen").arg("-lf").arg(&rsa).output().unwrap()).succeeded().stdout;
    let fingerprint = shown.split(' ').find(|word| word.starts_with("SHA256:")).unwrap();
    let logins = house.audited("logged_in");
    assert!(logins.iter().any(|login| login["entry"]["key"] == fingerprint), "{fingerprint} in {logins:?}");
}
