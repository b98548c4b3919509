//! Who gets to what, with a whole lemnos, git and OpenSSH's client: deploy keys, grants to read, certificates, and what
//! is taken away in the middle of a connection.

use std::process::{Command, Output, Stdio};

use crate::house::{APP, House};

struct Place {
    house: House,
}

/// A branch that does not build, so that git alone answers.
const ASIDE: &str = "refs/heads/aside";

impl Place {
    fn new(keys: &[&str]) -> Self {
        let house = House::new();
        for key in keys {
            keygen(&house, &["-t", "ed25519", "-N", "", "-C", key, "-f", key]);
        }
        Self { house }
    }

    /// A push of a new commit to `ASIDE` of an app with this key.
    fn push(&self, key: &str, app: &str) -> (bool, String) {
        let commit = self.house.commit(None, &[("a", "b")], key);
        let mut push = self.house.push_command(&[]);
        // the command that there is, with another key, another app and other refs
        let ssh = push.get_envs().find(|(name, _)| *name == "GIT_SSH_COMMAND").unwrap().1.unwrap();
        let ssh = ssh.to_str().unwrap().replace("/id ", &format!("/{key} "));
        let url = push.get_args().last().unwrap().to_str().unwrap().replace(APP, app);
        let mut git = Command::new("git");
        git.env_clear().envs(push.get_envs().filter_map(|(name, value)| Some((name, value?))));
        git.env("GIT_SSH_COMMAND", ssh).arg("--git-dir").arg(self.house.work());
        git.args(["push", &url, &format!("+{commit}:{ASIDE}")]);
        push.stdin(Stdio::null());
        said(&git.output().unwrap())
    }

    /// Whether the key may fetch the app, and what is said.
    fn fetch(&self, key: &str, app: &str) -> (bool, String) {
        // protocol 0: the refs come at once, and a flush packet ends it
        let mut ssh = self.house.ssh(key, &["-T"], &[&format!("git-upload-pack '{app}'")]);
        let output = ssh.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (!text.contains("ERR "), text)
    }

    fn lemnos(&self, line: &str) {
        self.house.lemnos(&line.split(' ').collect::<Vec<_>>());
    }
}

fn keygen(house: &House, arguments: &[&str]) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.current_dir(house.home.path()).arg("-q").args(arguments).stdin(Stdio::null());
    assert!(keygen.status().unwrap().success(), "{arguments:?}");
}

fn said(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn deploy_keys_and_grants_fetch_or_push_what_they_say() {
    let place = Place::new(&["reads", "writes", "bob", "eve"]);
    let key = |name: &str| place.house.home.path().join(name).with_extension("pub").display().to_string();
    place.house.serve();
    place.lemnos("apps create blog");
    place.lemnos(&format!("keys add --app {APP} {}", key("reads")));
    place.lemnos(&format!("keys add --app {APP} --write {}", key("writes")));
    for user in ["bob", "eve"] {
        place.lemnos(&format!("keys add {user} {}", key(user)));
    }
    place.lemnos(&format!("apps grant {APP} bob --read"));

    for (key, fetches, refusal) in [
        ("writes", true, None),
        ("reads", true, Some("this deploy key is read-only")),
        ("bob", true, Some("bob has read-only access")),
        ("eve", false, Some("there is no app")),
    ] {
        assert_eq!(place.fetch(key, APP).0, fetches, "{key}");
        let (pushed, text) = place.push(key, APP);
        assert_eq!(pushed, refusal.is_none(), "{key}: {text}");
        assert!(refusal.is_none_or(|refusal| text.contains(refusal)), "{key}: {text}");
    }
    // forbidden and missing, byte by byte
    for key in ["writes", "reads", "bob", "eve"] {
        let (_, forbidden) = place.fetch(key, "blog");
        let (_, missing) = place.fetch(key, "glob");
        assert_eq!(forbidden.replace("blog", "glob"), missing, "{key}");
        assert!(forbidden.contains("there is no app"), "{key}: {forbidden}");
    }
    // a deploy key has no verbs, and knows who it is
    let asked = |line: &str| place.house.ssh("writes", &["-T"], &[line]).output().unwrap();
    let whoami = String::from_utf8(asked("whoami --json").stdout).unwrap();
    assert!(whoami.contains(&format!("\"deploy:{APP}\"")), "{whoami}");
    let refused = asked("builds");
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn a_certificate_pushes_until_it_is_revoked_and_its_user_until_removed() {
    let place = Place::new(&["ca", "laptop"]);
    let home = place.house.home.path();
    let revoked = home.join("revoked");
    std::fs::write(&revoked, "").unwrap();
    let trust =
        [("LEMNOS_SSH_USER_CA_KEYS", home.join("ca.pub")), ("LEMNOS_SSH_REVOKED_KEYS", revoked.clone())];
    let trust = trust.map(|(name, path)| (name, path.display().to_string()));
    place.house.set_env(&trust.each_ref().map(|(name, path)| (*name, path.as_str())));
    keygen(&place.house, &["-s", "ca", "-I", "cy@laptop", "-n", "cy", "-z", "42", "laptop.pub"]);
    place.house.serve();
    let (pushed, text) = place.push("laptop", APP);
    assert!(!pushed && text.contains("Permission denied"), "{text}");
    place.lemnos("users add cy");
    let (pushed, text) = place.push("laptop", APP);
    assert!(!pushed && text.contains("there is no app"), "{text}");
    place.lemnos(&format!("apps grant {APP} cy"));
    let (pushed, text) = place.push("laptop", APP);
    assert!(pushed, "{text}");

    // one connection from here on
    let control = format!("ControlPath={}", home.join("control").display());
    let multiplexed = ["-T", "-o", &control, "-o", "ControlMaster=auto", "-o", "ControlPersist=60"];
    let ask = |line: &str| {
        let mut ssh = place.house.ssh("laptop", &multiplexed, &[line]);
        // the master that stays behind keeps standard error open
        let output = ssh.stderr(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let fetch = format!("git-upload-pack '{APP}'");
    assert!(ask("whoami").contains("cy"));
    assert!(ask(&fetch).contains(ASIDE));
    std::fs::write(&revoked, "serial: 42\n").unwrap();
    assert!(ask(&fetch).contains("it is revoked"));
    std::fs::write(&revoked, "").unwrap();
    place.lemnos(&format!("apps revoke {APP} cy"));
    assert!(ask(&fetch).contains("there is no app"));
    place.lemnos(&format!("apps grant {APP} cy"));
    assert!(ask(&fetch).contains(ASIDE));
    place.lemnos("users remove cy");
    assert!(ask(&fetch).contains("there is no user cy any more"));
    let ended = place.house.ssh("laptop", &["-o", &control, "-O", "exit"], &[]).output().unwrap();
    assert!(ended.status.success(), "it was one connection all the time");
    let audit = Command::new(env!("CARGO_BIN_EXE_lemnos"))
        .env_clear()
        .env("HOME", home)
        .env("LEMNOS_DATA", place.house.data())
        .args(["audit", "--json"])
        .output()
        .unwrap();
    let audit = String::from_utf8(audit.stdout).unwrap();
    assert!(audit.contains("certificate \\\"cy@laptop\\\", serial 42, of SHA256:"), "{audit}");
}
