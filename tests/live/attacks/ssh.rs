//! Who logs in, and what of a client reaches the server: other people's apps, its environment, a key that was taken away.

use std::process::Stdio;
use std::time::Duration;

use super::shop;
use crate::house::House;
use crate::standing::Standing;

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

    let standing = Standing::of(&house);
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
    let missing = ["shop", "nowhere"].map(|app| format!("there is no app {app} that eve may use"));
    let mut refused: Vec<_> =
        missing.iter().map(|why| ("request_refused", why.as_str())).collect::<Vec<_>>().repeat(5);
    refused.push(("push_refused", "Dockerfile in refs/heads/main is a symbolic link"));
    standing.holds(&house, &refused);
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
    let standing = Standing::of(&house);
    let keys: serde_json::Value =
        serde_json::from_str(&house.lemnos(&["keys", "list", "--json"]).succeeded().stdout).unwrap();
    let fingerprint = keys[0]["fingerprint"].as_str().unwrap();
    house.lemnos(&["keys", "remove", fingerprint]).succeeded();
    let said = ask();
    let _ = master.kill();
    let _ = master.wait();
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("is no longer registered"), "{said:?}");
    standing.holds(&house, &[("request_refused", "is no longer registered")]);
}
