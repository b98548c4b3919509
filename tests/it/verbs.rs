//! The SSH door's own verbs: a whole lemnos with fakes behind it, OpenSSH's client in front, and the command line beside
//! it, which must say the same.

mod secrets;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::{APP, House, PATIENCE};

const BUILT: &str = "FROM scratch\n# fake: say hello from the step\n";

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn well(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }
}

/// A house where ada is an administrator, bob a member who may push to `shop`, and eve a member who may nothing.
struct Place {
    house: House,
}

impl Place {
    fn new() -> Self {
        let house = House::new();
        house.serve();
        let place = Self { house };
        for user in ["bob", "eve"] {
            place.keygen(user);
            let key = place.house.home.path().join(user).with_extension("pub");
            place.house.lemnos(&["keys", "add", user, key.to_str().unwrap()]);
        }
        place.house.lemnos(&["apps", "grant", APP, "bob"]);
        place.promote("ada");
        std::fs::copy(place.house.home.path().join("id"), place.house.home.path().join("ada")).unwrap();
        place
    }

    fn keygen(&self, name: &str) -> String {
        let path = self.house.home.path().join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
        assert!(keygen.stdin(Stdio::null()).status().unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    }

    fn promote(&self, user: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = lemnos::store::Store::open(&self.house.data()).await.unwrap();
            store.set_role(&user.parse().unwrap(), lemnos::model::Role::Admin).await.unwrap();
            store.close().await;
        });
    }

    /// `ssh builder LINE`, as a user types it.
    fn ssh(&self, user: &str, line: &str) -> Said {
        Said::of(self.house.ssh(user, &["-T"], &[line]).output().unwrap())
    }

    fn ssh_with(&self, user: &str, line: &str, stdin: &str) -> Said {
        let mut child = self.house.ssh(user, &["-T"], &[line]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        Said::of(child.wait_with_output().unwrap())
    }

    /// The same words at the operator's shell.
    fn local(&self, line: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
        command.env_clear().env("HOME", self.house.home.path()).env("LEMNOS_DATA", self.house.data());
        Said::of(command.args(line.split_whitespace()).stdin(Stdio::null()).output().unwrap())
    }

    fn push(&self, name: &str, dockerfile: &str) -> String {
        let commit = self.house.commit(None, &[("Dockerfile", dockerfile)], name);
        self.house.push(&[&format!("+{commit}:refs/heads/main")]);
        commit
    }

    fn builds(&self) -> Vec<Value> {
        serde_json::from_str(&self.ssh("ada", "builds --json").well()).unwrap()
    }

    fn newest(&self) -> String {
        self.builds()[0]["id"].as_str().unwrap().to_owned()
    }

    /// Begins a push whose build waits for `gate`, and returns when it builds.
    fn begin(&self, gate: &str) -> Child {
        let before = self.house.builder.seen().begun;
        let commit = self.house.commit(None, &[("Dockerfile", &waiting(gate))], gate);
        let push = self.house.push_command(&[&format!("+{commit}:refs/heads/main")]).spawn().unwrap();
        self.eventually("the build begins", || self.house.builder.seen().begun > before);
        push
    }

    #[track_caller]
    fn eventually(&self, what: &str, look: impl Fn() -> bool) {
        let began = Instant::now();
        while !look() {
            assert!(began.elapsed() < PATIENCE, "not so: {what}\n{}", self.house.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn waiting(gate: &str) -> String {
    format!("FROM scratch\n# fake: say before the gate\n# fake: await {gate}\n# fake: say after it\n")
}

/// A verb under way, line by line.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads on to a line that holds `text`.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "no {text:?} in\n{seen}");
            seen.push_str(&line);
            if line.contains(text) {
                return seen;
            }
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn both_doors_say_the_same() {
    let place = Place::new();
    place.push("good", BUILT);
    place.push("bad", "FROM scratch\n# fake: fail\n");
    let build = place.newest();
    for line in [
        "keys list",
        "keys list --json",
        "keys list bob",
        "keys list nobody",
        "apps",
        "apps --json",
        "apps list",
        "apps list --json",
        "apps show shop",
        "apps show shop --json",
        "apps show missing",
        "builds",
        "builds --json",
        "builds shop",
        "builds list --app shop --limit 1",
        "builds list --app shop --limit 1 --json",
        "builds missing",
        "builds shop list",
        "show BUILD",
        "show BUILD --json",
        "builds show BUILD",
        "show BUILD --resolved",
        "builds show BUILD --resolved --json",
        "show ffffffff",
        "logs BUILD",
        "logs BUILD -f",
        "logs BUILD --json",
        "builds logs BUILD",
        "cancel BUILD",
        "apps plan shop main",
        "apps plan shop main --json",
        "apps plan shop nowhere",
        "apps set shop label.x=1",
        "apps set shop nonsense=1",
        "apps destroy missing",
        "apps destroy missing --yes",
        "keys remove SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg",
    ] {
        let line = line.replace("BUILD", &build);
        let (local, remote) = (place.local(&line), place.ssh("ada", &line));
        assert_eq!(remote, local, "{line}");
        if line.contains("--json") && local.status == Some(0) {
            for value in serde_json::Deserializer::from_str(&remote.out).into_iter::<Value>() {
                value.unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
    // what changes something is undone in between
    for (line, undo) in [
        ("apps grant shop eve", "apps revoke shop eve"),
        ("apps revoke shop eve", "apps grant shop eve"),
        ("apps destroy new --yes", "apps create new"),
    ] {
        place.local(undo);
        let local = place.local(line);
        place.local(undo);
        assert_eq!(place.ssh("ada", line), local, "{line}");
        assert_eq!(local.status, Some(0), "{line}: {}", local.err);
    }
    let created = place.ssh("ada", "apps create new").well();
    assert!(
        created.starts_with("Created app new\n") && created.contains("ssh://git@THIS-HOST/new.git"),
        "{created}"
    );
}

#[test]
fn a_member_sees_and_may_what_was_granted() {
    let place = Place::new();
    place.push("good", BUILT);
    let build = place.newest();
    place.house.lemnos(&["apps", "create", "secret"]);
    insta::assert_snapshot!(place.ssh("bob", "whoami").well().lines().next().unwrap(), @"user  bob");
    let whoami: Value = serde_json::from_str(&place.ssh("bob", "whoami --json").well()).unwrap();
    assert_eq!((&whoami["user"], &whoami["role"]), (&"bob".into(), &"member".into()));
    assert!(whoami["key"].as_str().unwrap().starts_with("SHA256:"));
    assert!(place.ssh("ada", "whoami").well().contains("role  admin"));
    assert_eq!(place.local("whoami").well(), "the operator of this server: nothing is forbidden here\n");

    let names = |user: &str| -> Vec<String> {
        let apps: Vec<Value> = serde_json::from_str(&place.ssh(user, "apps --json").well()).unwrap();
        apps.iter().map(|app| app["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("ada"), ["secret", "shop"]);
    assert_eq!(names("bob"), ["shop"]);
    assert_eq!(names("eve"), [""; 0]);
    assert_eq!(place.ssh("bob", &format!("show {build}")), place.ssh("ada", &format!("show {build}")));
    for line in [
        "show BUILD",
        "show BUILD --resolved",
        "logs BUILD",
        "logs BUILD -f",
        "cancel BUILD",
        "retry BUILD",
        "plan shop main",
        "builds shop",
        "apps show shop",
    ] {
        // to eve there is nothing: as for what there never was
        let said = place.ssh("eve", &line.replace("BUILD", &build));
        assert_eq!((said.status, said.out.as_str()), (Some(3), ""), "{line}: {}", said.err);
        let never = place.ssh("eve", &line.replace("BUILD", &"f".repeat(32)).replace("shop", "never"));
        let shape = |said: &Said| {
            said.err.replace(&build, "B").replace(&"f".repeat(32), "B").replace("never", "shop")
        };
        assert_eq!(shape(&said), shape(&never), "{line}");
    }
    for line in [
        "apps create x",
        "apps destroy shop --yes",
        "apps grant shop bob",
        "apps revoke shop bob",
        "apps set shop target=x",
    ] {
        let said = place.ssh("bob", line);
        assert_eq!((said.status, said.out.as_str()), (Some(4), ""), "{line}");
        assert!(said.err.starts_with("error: only administrators may "), "{line}: {}", said.err);
    }
    assert!(place.house.log().contains("words=\"apps grant shop bob\""), "{}", place.house.log());
}

#[test]
fn help_names_what_the_one_who_asks_may_ask_for() {
    let place = Place::new();
    insta::assert_snapshot!(place.ssh("bob", "").well(), @r"
    Hello bob. This is lemnos: what you push here is built, and its image put into a registry.

      git remote add builder ssh://THIS-HOST/APP.git
      git push builder main

    git clone and git archive --remote work too. There is no shell; this can be asked for:

      help                     Say this; `help VERB` and `VERB --help` say more.
      keys add [USER] [FILE]   Register public keys of a user; the user appears with the first one
      keys list [USER]         List the keys, of all users or one
      keys remove FINGERPRINT  Remove a key: it opens nothing any more, connections that stand are not cut
      apps list                List the apps
      apps show APP            Show an app: its image, who may push, its settings
      builds list              List builds, newest first
      show BUILD               Show one build: short for `builds show`
      logs BUILD [-f]          Print a build's log: short for `builds logs`
      cancel BUILD             End a build: short for `builds cancel`
      retry BUILD              Build a commit again: short for `builds retry`
      whoami                   Say how you are known here
      plan APP REF             Print what a push of a ref or commit would build: short for `apps plan`

    --json prints JSON. Quotes and backslashes are as in a shell, and nothing expands.
    ");
    let admin = place.ssh("ada", "help").well();
    let listed = |help: &str| -> Vec<String> {
        let verbs =
            help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with("git "));
        verbs.map(|line| line.split("  ").next().unwrap().to_owned()).collect()
    };
    let (member, admin) = (listed(&place.ssh("bob", "help").well()), listed(&admin));
    assert!(member.iter().all(|verb| admin.contains(verb)) && admin.len() > member.len());
    // help and rights agree, verb by verb
    for verb in admin.iter().filter(|verb| *verb != "help") {
        // what may be left out is left out
        let line: String = verb
            .split_inclusive(']')
            .map(|part| part.split(" [").next().unwrap().trim_end_matches(']'))
            .collect();
        let line = line.replace("FINGERPRINT", "SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg");
        let line = line.replace("KEY=VALUE", "target=x").replace("BUILD", "ffffffff").replace("APP", "shop");
        let line = line
            .replace("USER", "eve")
            .replace("PLACE", "registry.example.com")
            .replace("destroy shop", "destroy shop --yes");
        let line = line.replace("ROLE", "member").replace("keys import eve", "keys import eve --github eve");
        let said = place.ssh_with("eve", &line, "secret\n");
        let admins_only = said.err.contains("only administrators may");
        assert_eq!(admins_only, !member.contains(verb), "{line}: {said:?}");
    }
    for (line, text) in [
        ("help keys add", "Usage: keys add"),
        ("keys add --help", "Usage: keys add"),
        ("apps set --help", "main-branch"),
        ("lemnos apps set --help", "main-branch"),
        ("keys", "Usage: keys"),
    ] {
        let said = place.ssh("bob", line);
        assert!((said.out + &said.err).contains(text), "{line}");
    }
}

#[test]
fn what_is_no_verb_is_said_in_plain_words() {
    let place = Place::new();
    let said = |line: &str| {
        let said = place.ssh("bob", line);
        assert_eq!((said.status, said.out.as_str()), (Some(2), ""), "{line}");
        said.err
    };
    insta::assert_snapshot!(said("bulids"), @r#"
    error: there is no shell and no command "bulids" here
    hint: did you mean builds? `help` lists what can be asked for here
    "#);
    insta::assert_snapshot!(said("rm -rf /"), @r#"
    error: there is no shell and no command "rm" here
    hint: `help` lists what can be asked for here
    "#);
    insta::assert_snapshot!(said("builds; id"), @r#"
    error: there is no shell and no command "builds;" here
    hint: did you mean builds? `help` lists what can be asked for here
    "#);
    insta::assert_snapshot!(said("show"), @r"
    error: the following required arguments were not provided:
      <BUILD>

    Usage: show <BUILD>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(said("apps show Shop"), @r#"
    error: "Shop" is not a valid app name
    hint: use 1 to 63 lower-case letters, digits and single '-', '.' or '_' between them, beginning and ending with a letter or digit
    "#);
    insta::assert_snapshot!(said("'unclosed"), @r"
    error: the command's quotes are not closed
    hint: `help` lists what can be asked for here
    ");
    // the one who typed it sees it escaped
    assert!(!said("'\u{202e}evil'").contains('\u{202e}'));
    assert!(!said("apps show '\u{202e}evil'").contains('\u{202e}'));
    assert!(!said("apps show --\u{202e}evil").contains('\u{202e}'));
    // quoting as in a shell
    let set = place
        .ssh("ada", "apps set shop 'label.words=two words' \"label.quote=a \\\"b\\\"\" build-arg.X=ä")
        .well();
    assert!(set.contains("quote=a \"b\"") && set.contains("words=two words") && set.contains("X=ä"), "{set}");
}

#[test]
fn keys_come_by_standard_input_or_as_words() {
    let place = Place::new();
    let (first, second) = (place.keygen("first"), place.keygen("second"));
    let added = place.ssh_with("bob", "keys add", &first).well();
    assert!(added.starts_with("Added SHA256:") && added.contains("for bob (first)"), "{added}");
    assert!(place.ssh("first", "whoami").well().contains("user  bob"), "it opens the door at once");
    let added = place.ssh("bob", &format!("keys add {second}").replace('\n', "")).well();
    assert!(added.contains("for bob (second)"), "{added}");
    assert_eq!(place.ssh("bob", "keys list --json"), place.local("keys list bob --json"));
    // a member names nobody else, an administrator does
    let said = place.ssh_with("bob", "keys add eve", &first);
    assert_eq!(said.status, Some(4), "{said:?}");
    let third = place.keygen("third");
    assert!(place.ssh_with("ada", "keys add eve -", &third).well().contains("for eve (third)"));
    // whose own key is taken away is out at once
    let fingerprint: Value = serde_json::from_str(&place.ssh("first", "whoami --json").well()).unwrap();
    let fingerprint = fingerprint["key"].as_str().unwrap();
    assert!(place.ssh("first", &format!("keys remove {fingerprint}")).well().starts_with("Removed"));
    assert_eq!(place.ssh("first", "whoami").status, Some(255));
    for (stdin, text) in [
        ("", "standard input is empty"),
        ("nonsense\n", "not a public key"),
        (&"x".repeat(2 << 20), "more than 1048576 bytes"),
    ] {
        let said = place.ssh_with("bob", "keys add", stdin);
        assert!(said.status == Some(2) && said.err.contains(text), "{said:?}");
    }
    let said = place.ssh("ada", "keys add eve eve.pub");
    assert!(said.err.contains("your files are not here"), "{said:?}");
}

#[test]
fn ctrl_c_ends_a_followed_log_and_not_the_build() {
    let place = Place::new();
    let push = place.begin("gate");
    let build = place.newest();
    let line = format!("logs {build} -f");
    let mut followed = Running::start(place.house.ssh("bob", &["-T"], &[&line]));
    let first = followed.until("before the gate");
    assert!(first.contains("Received main at") && !first.contains('\x1b') && !first.contains('\r'));

    // a terminal's Ctrl-C is a byte
    let mut terminal = place.house.ssh("bob", &["-tt"], &[&line]);
    let mut on_terminal = Running::start({
        terminal.stdin(Stdio::piped());
        terminal
    });
    let first = on_terminal.until("before the gate");
    assert!(first.contains("\r\n") && first.contains('\x1b'), "colours and line ends of a terminal");
    on_terminal.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(on_terminal.end().0, Some(130));

    // a client without one is killed by it
    let mut gone = Running::start(place.house.ssh("bob", &["-T"], &[&line]));
    gone.until("before the gate");
    gone.child.kill().unwrap();
    gone.child.wait().unwrap();

    assert_eq!(place.builds()[0]["state"], "running");
    place.house.builder.open("gate");
    let (status, rest) = followed.end();
    assert!(rest.contains("after it") && rest.contains("Done in"), "{rest}");
    assert_eq!(status, Some(0));
    assert!(push.wait_with_output().unwrap().status.success());
    assert_eq!(place.builds()[0]["state"], "succeeded");

    place.push("bad", "FROM scratch\n# fake: fail\n");
    let said = place.ssh("bob", &format!("logs {} -f", place.newest()));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert_eq!(said, place.local(&format!("logs {} -f", place.newest())));
}

#[test]
fn a_follower_who_does_not_read_holds_up_no_build() {
    let place = Place::new();
    let push = place.begin("gate");
    let line = format!("logs {} -f", place.newest());
    let mut follower = place.house.ssh("bob", &["-T"], &[&line]).spawn().unwrap();
    // stopped as by Ctrl-Z: it takes nothing any more
    let pid = rustix::process::Pid::from_child(&follower);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    place.house.builder.open("gate");
    assert!(push.wait_with_output().unwrap().status.success());
    assert_eq!(place.builds()[0]["state"], "succeeded");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let mut out = String::new();
    follower.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.contains("Done in"), "and finds all of it later: {out}");
    assert!(follower.wait().unwrap().success());
}

#[test]
fn cancel_and_retry_by_who_may_push() {
    let place = Place::new();
    let push = place.begin("never");
    let build = place.newest();
    let said = place.ssh("bob", &format!("cancel {build}")).well();
    assert!(said.starts_with("Cancelled build "), "{said}");
    assert!(!push.wait_with_output().unwrap().status.success());
    let shown: Value =
        serde_json::from_str(&place.ssh("bob", &format!("show {build} --json")).well()).unwrap();
    assert_eq!((&shown["state"], &shown["cancelled_by"]), (&"cancelled".into(), &"bob".into()));
    let again = place.ssh("bob", &format!("cancel {build}"));
    assert_eq!(again.status, Some(5), "{again:?}");
    place.push("good", BUILT);
    let build = place.newest();
    let said = place.ssh("bob", &format!("retry {build}")).well();
    assert!(said.starts_with("Queued build "), "{said}");
    let again = place.newest();
    assert_ne!(again, build);
    assert_eq!(place.ssh("bob", &format!("logs {again} -f")).status, Some(0));
    let shown: Value =
        serde_json::from_str(&place.ssh("bob", &format!("show {again} --json")).well()).unwrap();
    assert_eq!(shown["retry_of"], build);
    for verb in ["cancel", "retry"] {
        assert_eq!(place.ssh("eve", &format!("{verb} {build}")).status, Some(3));
    }
    let plan: Value = serde_json::from_str(&place.ssh("bob", "plan shop main --json").well()).unwrap();
    assert_eq!(plan["app"], "shop");
    assert_eq!(place.ssh("bob", "plan shop main").well(), place.local("apps plan shop main").well());
    // what git shows of a plan is its JSON
    assert_eq!(place.ssh("bob", "plan shop main --json"), place.local("apps plan shop main --json"));
}

#[test]
fn lists_keep_to_the_width_of_the_terminal() {
    let place = Place::new();
    place.push("good", BUILT);
    let typed = |columns: u32, line: &str| {
        let ssh = place.house.ssh("bob", &["-tt"], &[line]);
        let words: Vec<_> = ssh.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect();
        let mut script = Command::new("script");
        let inside = format!("stty cols {columns}; TERM=xterm exec ssh {}", words.join(" "));
        script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::null());
        let output = script.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let narrow = typed(60, "builds");
    assert!(narrow.lines().all(|line| line.chars().count() <= 60) && narrow.contains('…'), "{narrow}");
    let wide = typed(200, "builds");
    assert!(!wide.contains('…') && wide.contains("TOOK"), "{wide}");
    assert!(typed(50, "keys add --help").lines().all(|line| line.trim_end().chars().count() <= 50));
}

#[test]
fn destroying_asks_where_there_is_a_terminal() {
    let place = Place::new();
    place.house.lemnos(&["apps", "create", "old"]);
    let said = place.ssh("ada", "apps destroy old");
    assert!(said.status == Some(2) && said.err.contains("say --yes"), "{said:?}");
    for (typed, status) in [("shop\r", 2), ("\x04", 2), ("olf\x7fd\r", 0)] {
        let mut command = place.house.ssh("ada", &["-tt"], &["apps destroy old"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{typed:?}: {out}");
        assert!(out.contains("Type its name to go on: "), "{out}");
    }
    assert_eq!(place.ssh("ada", "apps show old").status, Some(3));
}

#[test]
fn a_platform_that_no_builder_takes_is_said_at_both_doors() {
    let place = Place::new();
    let note = "note: no builder takes linux/riscv64: pushes are refused until one does; there are: ";
    let line = format!("apps set {APP} platforms=linux/amd64,linux/riscv64");
    for said in [place.ssh("ada", &line).well(), place.local(&line).well()] {
        let last = said.lines().last().unwrap();
        assert!(last.starts_with(note) && last.ends_with(" (linux/amd64 linux/arm64)"), "{said}");
        assert!(said.contains("linux/amd64,linux/riscv64"), "it is set: {said}");
    }
    let view: Value = serde_json::from_str(&place.ssh("ada", &format!("{line} --json")).well()).unwrap();
    assert!(view["notes"][0].as_str().unwrap().starts_with(&note[6..]), "{view}");
    let said = place.ssh("ada", &format!("apps set {APP} platforms=linux/arm64")).well();
    assert!(!said.contains("note:"), "{said}");
    assert!(!place.ssh("ada", &format!("apps show {APP}")).well().contains("note:"));
}
