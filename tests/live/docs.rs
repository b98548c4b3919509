//! The documents against the program: every command line of README.md and of the guides is in a table here that says how
//! it is run, and the runnable ones are run as they stand, by a shell, in the order that a reader would.
//!
//! What a document leaves open (DIR, BUILD, addresses) is filled in; nothing else of a line is changed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::engines;

const README: &str = include_str!("../../README.md");
const PUSHING: &str = include_str!("../../docs/guides/pushing.md");
const OVER_SSH: &str = include_str!("../../docs/guides/ssh.md");
const OPERATING: &str = include_str!("../../docs/guides/operating.md");
const PATIENCE: Duration = Duration::from_secs(120);

/// How a documented line is run.
enum Run {
    /// In the background, ready before the next line; ends the server before it.
    Serve,
    /// Exits 0 and shows all of these.
    Shows(&'static [&'static str]),
    /// Once with each of the guide's push options.
    EachPushOption,
    /// Not here: why, or by which test.
    Elsewhere(&'static str),
}
use Run::{EachPushOption, Elsewhere, Serve, Shows};

/// Every command line, in the words of the documents.
const COMMANDS: &[(&str, Run)] = &[
    ("deploy/quickstart", Elsewhere("tests/live/quickstart.rs")),
    ("tests/run", Elsewhere(".ci/run calls it")),
    ("tests/run push", Elsewhere(".ci/run calls it; arguments go to cargo test")),
    ("tests/bench", Elsewhere("tests/live/docs.rs runs one scenario, below")),
    ("lemnos serve --data DIR", Serve),
    ("lemnos serve --data /var/lib/lemnos", Serve),
    (
        "lemnos serve --data DIR --registry registry.example.com/team --builder \
         tcp://amd64.example.com:1234,platform=linux/amd64,ca=ca.pem,cert=cert.pem,key=key.pem --builder \
         tcp://arm64.example.com:1234,platform=linux/arm64,ca=ca.pem,cert=cert.pem,key=key.pem",
        Serve,
    ),
    ("lemnos builders list", Shows(&["STATE", "amd64"])),
    (
        "lemnos builders add unix:///run/buildkit/buildkitd.sock,name=spare,platform=linux/arm64,max=2",
        Shows(&["Added spare"]),
    ),
    ("lemnos builders drain spare", Shows(&["spare is drained"])),
    ("lemnos builders resume spare", Shows(&["spare gets solves again"])),
    ("lemnos builders remove spare", Shows(&["Removed spare"])),
    ("lemnos config", Shows(&["SETTING", "limits.push_bytes", "default"])),
    ("lemnos keys add \"$USER\" ~/.ssh/id_ed25519.pub", Shows(&["SHA256:", "for ada"])),
    ("lemnos keys add ada ada.pub", Shows(&["SHA256:", "for ada"])),
    (
        "lemnos registry login registry.example.com -u USER --password-stdin <FILE",
        Elsewhere("tests/live/credentials.rs logs in to a registry"),
    ),
    (
        "lemnos registry login ghcr.io/acme --app shop -u USER --password-stdin <FILE",
        Elsewhere("tests/live/credentials.rs logs an app in"),
    ),
    ("lemnos registry list", Shows(&["lemnos registry login"])),
    ("lemnos registry logout ghcr.io/acme --app shop", Elsewhere("tests/live/credentials.rs logs out")),
    (
        "lemnos secrets add shop npm_token <FILE",
        Elsewhere("tests/live/secrets.rs adds secrets; there is no FILE here"),
    ),
    ("lemnos secrets add APP NAME", Elsewhere("a mention; tests/live/secrets.rs follows it")),
    ("lemnos secrets add shop default --ssh <KEY", Elsewhere("tests/live/secrets.rs adds a key")),
    ("lemnos secrets add APP default --ssh", Elsewhere("as above")),
    ("lemnos secrets list shop", Elsewhere("tests/live/secrets.rs lists them")),
    ("lemnos secrets remove shop npm_token", Elsewhere("tests/live/secrets.rs removes one")),
    ("lemnos users add grace --admin", Shows(&["Added grace, an admin"])),
    ("lemnos users list", Shows(&["grace", "admin", "all"])),
    ("lemnos users role grace member", Shows(&["grace is a member"])),
    ("lemnos apps grant shop grace --read", Shows(&["grace may only read shop"])),
    ("lemnos users remove grace", Shows(&["Removed grace with 0 keys and 1 grant"])),
    ("lemnos keys add --app shop --write --name ci ci.pub", Shows(&["for deploy:shop (write) (ci)"])),
    (
        "lemnos keys import ada --github ada",
        Elsewhere("asks github.com; src/admin/import/tests.rs asks a server of its own"),
    ),
    ("lemnos keys import ada --url https://gitlab.example.com/ada.keys", Elsewhere("as above")),
    ("lemnos users add", Elsewhere("a mention; run with its user above")),
    ("lemnos keys list", Shows(&["FINGERPRINT", "ada"])),
    ("lemnos apps create shop", Shows(&["Created app shop", "git remote add builder"])),
    ("lemnos apps grant shop \"$USER\"", Shows(&["ada may push to shop"])),
    ("lemnos apps grant shop ada", Shows(&["ada may push to shop"])),
    (
        "lemnos apps set shop platforms=linux/amd64,linux/arm64 branches='release/*' build-tags=true",
        Shows(&["linux/amd64,linux/arm64", "release/*"]),
    ),
    ("lemnos apps show shop", Shows(&["release/*", "ada"])),
    ("lemnos builds list --app shop", Shows(&["shop", "succeeded"])),
    ("lemnos builds logs BUILD -f", Shows(&["Received main at", "Done in"])),
    ("lemnos audit --since 7d --app shop", Shows(&["create_app", "grant ada"])),
    ("lemnos audit -f --json", Elsewhere("tests/live/audit.rs follows the record")),
    ("lemnos audit --request ID", Elsewhere("tests/live/audit.rs asks for one request")),
    ("lemnos audit --verify", Shows(&["as they were written"])),
    ("ssh -p 2222 git@localhost help", Shows(&["Hello ada", "logs BUILD [-f]"])),
    ("ssh -p 2222 git@localhost builds shop", Shows(&["shop", "succeeded"])),
    ("ssh -p 2222 git@localhost logs BUILD -f", Shows(&["Received main at", "Done in"])),
    ("ssh -p 2222 git@builder.example.com help", Shows(&["Hello ada", "logs BUILD [-f]"])),
    ("ssh -p 2222 git@builder.example.com whoami", Shows(&["user  ada", "SHA256:"])),
    ("ssh -p 2222 git@builder.example.com apps", Shows(&["IMAGE", "shop"])),
    ("ssh -p 2222 git@builder.example.com builds shop", Shows(&["shop", "succeeded"])),
    ("ssh -p 2222 git@builder.example.com builds shop --json", Shows(&["\"state\": \"succeeded\""])),
    ("ssh -p 2222 git@builder.example.com show BUILD", Shows(&["refs/heads/main", "succeeded"])),
    ("ssh -p 2222 git@builder.example.com logs BUILD", Shows(&["Received main at", "Done in"])),
    ("ssh -p 2222 git@builder.example.com logs BUILD -f", Shows(&["Received main at", "Done in"])),
    ("ssh -p 2222 git@builder.example.com keys list", Shows(&["FINGERPRINT", "ada"])),
    (
        "ssh -p 2222 git@builder.example.com keys add < ~/.ssh/id_ed25519.pub",
        Shows(&["Known already: SHA256:"]),
    ),
    (
        "ssh -p 2222 git@builder.example.com apps set shop \"'label.about=two words'\"",
        Elsewhere("administrators only; tests/it/verbs.rs quotes so"),
    ),
    ("lemnos apps list", Elsewhere("a mention; tests/it/verbs.rs")),
    ("git remote add builder ssh://git@localhost:2222/shop.git", Shows(&[])),
    ("git remote add builder ssh://git@builder.example.com:2222/shop.git", Shows(&[])),
    ("git push builder main", Shows(&["Received main at", "Done in", "main -> main"])),
    ("git push -o OPTION builder main", EachPushOption),
    (
        "skopeo inspect --raw --tls-verify=false docker://localhost:5000/shop:main",
        Shows(&["application/vnd.oci.image.index.v1+json", "amd64", "arm64"]),
    ),
    (
        "lemnos doctor",
        Shows(&[
            "ok    server: process",
            "ok    ssh:",
            "ok    http:",
            "ok    registry:",
            "ok    database: sound",
        ]),
    ),
    ("lemnos backup /backup/lemnos", Shows(&["Backed up 1 apps to", "Left out: the SSH host keys"])),
    ("lemnos restore /backup/lemnos --data NEWDIR", Shows(&["Restored 1 apps to", "new SSH host keys"])),
    ("lemnos serve --data NEWDIR", Elsewhere("tests/live/backup.rs")),
    ("lemnos detect", Shows(&["dockerfile"])),
    ("lemnos plan", Shows(&["linux/amd64", "linux/arm64"])),
    ("lemnos build . --push -t localhost:5000/shop:mine", Shows(&["pushing manifest for localhost"])),
    ("lemnos build", Elsewhere("a mention; tests/live/build_command.rs")),
    ("docker buildx build", Elsewhere("Docker's")),
    ("git fetch --unshallow", Elsewhere("a mention: the refusal that names it is receive's to test")),
    ("git push deis main", Elsewhere("history")),
    ("docker login", Elsewhere("Docker's")),
];

/// Blocks that are no commands, by how they begin; each is checked below.
const BLOCKS: &[&str] = &["remote: -----> Received", "{\"ssh\":", "dockerfile_path:", "base_images = "];

/// The indented blocks, as lines: continuations joined, explanations (`   # …`) cut off.
fn blocks(document: &str) -> Vec<Vec<String>> {
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let (mut blank, mut inside, mut joins) = (true, false, false);
    for line in document.lines() {
        assert!(!line.trim_start().starts_with("```"), "the documents indent their commands: {line}");
        let code = line.strip_prefix("    ").filter(|_| blank || inside);
        if let Some(code) = code {
            if !inside {
                blocks.push(Vec::new());
            }
            let code = code.split("   #").next().unwrap().trim_end();
            let (code, more) = code.strip_suffix('\\').map_or((code, false), |code| (code.trim_end(), true));
            let block = blocks.last_mut().unwrap();
            if joins {
                let last = block.last_mut().unwrap();
                *last = format!("{last} {}", code.trim_start());
            } else {
                block.push(code.to_owned());
            }
            joins = more;
        }
        inside = code.is_some();
        blank = line.trim().is_empty();
    }
    blocks
}

fn block(document: &str, begin: &str) -> Vec<String> {
    blocks(document).into_iter().find(|block| block[0].starts_with(begin)).unwrap()
}

/// Every command line of a document: of its blocks, and those mentioned in a sentence.
fn commands(document: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for block in blocks(document) {
        if !BLOCKS.iter().any(|begin| block[0].starts_with(begin)) {
            found.extend(block);
        }
    }
    let prose: Vec<&str> = document.lines().filter(|line| !line.starts_with("    ")).collect();
    for span in prose.join("\n").split('`').skip(1).step_by(2) {
        let span = span.replace('\n', " ");
        let program =
            ["lemnos ", "git ", "docker ", "skopeo ", "ssh -p "].iter().any(|p| span.starts_with(p));
        if program && !found.contains(&span) {
            found.push(span);
        }
    }
    found
}

fn how(line: &str) -> &'static Run {
    let known = COMMANDS.iter().find(|(known, _)| *known == line);
    &known.unwrap_or_else(|| panic!("a documented command that nothing runs: {line:?}; add it to COMMANDS")).1
}

#[test]
fn every_documented_command_is_in_the_table_and_the_other_way_round() {
    let all: Vec<String> = [README, PUSHING, OVER_SSH, OPERATING].into_iter().flat_map(commands).collect();
    for line in &all {
        how(line);
    }
    for (line, _) in COMMANDS {
        assert!(all.iter().any(|l| l == line), "no document has {line:?} any more");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (line, run) in COMMANDS {
        if let Elsewhere(place) = run
            && let Some(program) = line.split(' ').next().filter(|p| p.contains('/'))
        {
            assert!(root.join(program).is_file(), "{line}");
            let file = place.split(' ').next().unwrap();
            assert!(root.join(file).exists(), "{line} is said to be run by {file}");
        }
    }
}

/// Somebody who reads the documents and types what they say.
struct Reader {
    home: TempDir,
    server: Option<Child>,
}

impl Reader {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("lemnos-docs-").tempdir().unwrap();
        let reader = Self { home, server: None };
        std::fs::create_dir_all(reader.at(".ssh")).unwrap();
        std::fs::create_dir_all(reader.at("shop")).unwrap();
        reader.prepare("ssh-keygen -q -t ed25519 -N '' -C ada -f ~/.ssh/id_ed25519");
        reader.prepare("cp ~/.ssh/id_ed25519.pub ada.pub && ssh-keygen -q -t ed25519 -N '' -C ci -f ci");
        std::fs::write(
            reader.at("shop/Dockerfile"),
            "FROM busybox\nCOPY greeting /greeting\nRUN uname -m > /machine\n",
        )
        .unwrap();
        std::fs::write(reader.at("shop/greeting"), "hello\n").unwrap();
        reader.prepare("git init -q -b main && git add Dockerfile greeting && git commit -q -m first");
        reader
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn shell(&self, line: &str) -> Command {
        let home = self.home.path().display();
        let program = Path::new(env!("CARGO_BIN_EXE_lemnos")).parent().unwrap().to_owned();
        let mut path = vec![program];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let ssh = format!(
            "ssh -F /dev/null -i {home}/.ssh/id_ed25519 -o IdentitiesOnly=yes -o LogLevel=ERROR \
             -o UserKnownHostsFile={home}/known_hosts -o StrictHostKeyChecking=accept-new"
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.at("shop"))
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", self.home.path())
            .env("USER", "ada")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_SSH_COMMAND", ssh)
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.com")])
            .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.com")])
            .env("LEMNOS_DATA", self.at("data"))
            // ports of its own, and engines as a machine has them on its PATH
            .envs([("LEMNOS_SSH", "127.0.0.1:0"), ("LEMNOS_HTTP", "127.0.0.1:0")])
            .env("LEMNOS_REGISTRY_LISTEN", "127.0.0.1:0")
            .env("LEMNOS_MIRRORS", format!("docker.io={}", engines().base_registry))
            .env("LEMNOS_BUILDKITD", &engines().buildkitd)
            .env("LEMNOS_REGISTRY_PROGRAM", &engines().registry_program)
            .stdin(Stdio::null());
        command
    }

    /// What a reader does without being told; must succeed.
    fn prepare(&self, line: &str) -> String {
        let (ok, screen) = self.type_in(line);
        assert!(ok, "{line}\n{screen}");
        screen
    }

    fn type_in(&self, line: &str) -> (bool, String) {
        let output = self.shell(line).output().unwrap();
        let screen = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&screen).into_owned())
    }

    fn ready(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.at("data/lemnos.json")).ok()?).ok()
    }

    /// The line with what the document leaves open filled in.
    fn filled(&self, line: &str) -> String {
        let mut line = line.replace("--data DIR", "--data ~/data").replace("NEWDIR", "~/restored");
        line = line.replace("/backup/lemnos", "~/backup");
        line = line.replace("/var/lib/lemnos", "~/data");
        for arch in ["amd64", "arm64"] {
            let there = format!("tcp://{arch}.example.com:1234,platform=linux/{arch},");
            let here = format!("{},platform=linux/{arch},name={arch},", engines().buildkit);
            line = line.replace(&there, &here);
        }
        line = line.replace(",ca=ca.pem,cert=cert.pem,key=key.pem", "");
        let prefix = self.home.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        line = line.replace("registry.example.com/team", &format!("{}/{prefix}", engines().registry));
        if let Some(ready) = self.ready() {
            let said = |key: &str| ready[key].as_str().unwrap().to_owned();
            let port = said("ssh").rsplit(':').next().unwrap().to_owned();
            for host in ["localhost", "builder.example.com"] {
                let here = format!("$GIT_SSH_COMMAND -p {port} git@127.0.0.1");
                line = line.replace(&format!("ssh -p 2222 git@{host}"), &here);
            }
            line = line.replace("builder.example.com:2222", &said("ssh"));
            line = line.replace("localhost:2222", &said("ssh")).replace("localhost:5000", &said("registry"));
        }
        if line.contains("BUILD") {
            let builds: Value =
                serde_json::from_str(&self.prepare("lemnos builds list --app shop --json")).unwrap();
            line = line.replace("BUILD", builds[0]["id"].as_str().unwrap());
        }
        line
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("server.log")).unwrap_or_default()
    }

    fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let killed = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let began = Instant::now();
        while server.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.ready().is_none(), "lemnos.json is removed when the server stops");
    }

    fn serve(&mut self, line: &str) {
        self.stop();
        let log = std::fs::File::create(self.at("server.log")).unwrap();
        let mut command = self.shell(&format!("exec {}", self.filled(line)));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.server = Some(child);
        let began = Instant::now();
        while self.ready().is_none() {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "not ready: {line}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types one documented line; what the screen then shows.
    fn follow(&mut self, line: &str) -> String {
        match how(line) {
            Elsewhere(_) => String::new(),
            Serve => {
                self.serve(line);
                String::new()
            }
            Shows(texts) => {
                if line.starts_with("git remote add") {
                    self.type_in("git remote remove builder");
                }
                if line.starts_with("git push") {
                    self.prepare("git commit -q --allow-empty -m next");
                }
                let screen = self.prepare(&self.filled(line));
                for text in *texts {
                    assert!(screen.contains(text), "{line}: no {text:?} in\n{screen}");
                }
                screen
            }
            EachPushOption => {
                for option in push_options() {
                    self.push_with(line, &option);
                }
                self.prepare("git commit -q --allow-empty -m next");
                let (_, screen) = self.type_in("git push -o nonsense builder main");
                for option in push_options() {
                    let name = option.split('=').next().unwrap();
                    assert!(screen.contains(name), "{name} is documented, and not in the list of\n{screen}");
                }
                String::new()
            }
        }
    }

    fn push_with(&self, line: &str, option: &str) {
        self.prepare("git commit -q --allow-empty -m next");
        let (given, expected) = match option {
            "no-cache" | "rebuild" => (option.to_owned(), "RUN uname"),
            "color" => (option.to_owned(), "\u{1b}["),
            "plan" => (option.to_owned(), "(plan"),
            "try" => (option.to_owned(), ":try-"),
            "detach" => (option.to_owned(), "goes on by itself"),
            "cancel-on-disconnect" => (option.to_owned(), "Done in"),
            "platform=OS/ARCH" => ("platform=linux/amd64 -o try".to_owned(), ":try-"),
            "build-arg=NAME=VALUE" => (format!("{option} -o try"), ":try-"),
            unknown => panic!("the guide has a push option that nothing runs: {unknown}"),
        };
        let (ok, screen) = self.type_in(&line.replace("OPTION", &given));
        let moves = matches!(option, "no-cache" | "rebuild" | "color" | "detach" | "cancel-on-disconnect");
        assert_eq!(ok, moves, "{option}\n{screen}");
        assert!(screen.contains(expected), "{option}: no {expected:?} in\n{screen}");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            if std::thread::panicking() {
                eprintln!("--- the server's log\n{}", self.log());
            }
            // with SIGTERM, so that the engines go in order
            let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// The first column of the guide's table.
fn push_options() -> Vec<String> {
    let section = PUSHING.split("## Push options").nth(1).unwrap().split("\n## ").next().unwrap();
    let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

/// A screen's line without what differs from one push to the next.
fn shape(line: &str) -> String {
    let line = line.trim_start_matches("remote:").trim();
    let words = line.split_whitespace().map(|word| match word.trim_end_matches(',') {
        id if id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()) => "ID",
        step if step.starts_with('#') => "STEP",
        time if time.ends_with('s') && time.starts_with(|c: char| c.is_ascii_digit()) => "TIME",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_the_readme_and_the_pushers_guide_say_works_line_by_line() {
    let mut reader = Reader::new();
    let mut screen = String::new();
    for line in commands(README) {
        screen.push_str(&reader.follow(&line));
    }
    // the screen that the README shows is the one that its push shows
    let registry = reader.ready().unwrap()["registry"].as_str().unwrap().to_owned();
    let shown: Vec<String> = screen.replace(&registry, "localhost:5000").lines().map(shape).collect();
    for line in block(README, "remote: -----> Received").iter().filter(|line| !line.contains('…')) {
        assert!(shown.contains(&shape(line)), "README: {line}\nis not in\n{}", shown.join("\n"));
    }

    // the server is the README's; what a pusher reads starts with it running
    for line in commands(PUSHING).iter().filter(|line| !line.starts_with("lemnos config")) {
        reader.follow(line);
    }

    for line in commands(OVER_SSH) {
        reader.follow(&line);
    }

    // the guide's build-config.yaml is one that a push takes
    let yaml = block(PUSHING, "dockerfile_path:").join("\n");
    std::fs::write(reader.at("shop/build-config.yaml"), yaml).unwrap();
    std::fs::create_dir(reader.at("shop/deploy")).unwrap();
    std::fs::write(reader.at("shop/deploy/Dockerfile"), "FROM busybox AS release\nARG VERSION\n").unwrap();
    let plan = reader.prepare("lemnos plan --json");
    for word in ["deploy/Dockerfile", "release", "VERSION", "1.2", "stable"] {
        assert!(plan.contains(word), "no {word:?} in\n{plan}");
    }
    reader.stop();
}

#[test]
fn what_the_operators_guide_says_works_line_by_line() {
    let mut reader = Reader::new();
    let remote = "git remote add builder ssh://git@localhost:2222/shop.git";
    for line in commands(OPERATING) {
        if line.starts_with("lemnos builds list") {
            reader.follow(remote);
            reader.follow("git push builder main");
        }
        if line.contains("ca=ca.pem") {
            // certificates and hosts are the reader's; that the flags are taken as they stand is ours
            let config = reader.prepare(&line.replace("lemnos serve --data DIR", "lemnos config"));
            assert!(config.contains("tcp://arm64.example.com:1234"), "{config}");
        }
        reader.follow(&line);
    }
    // lemnos.json has the fields that the guide shows
    let shown: Value = serde_json::from_str(&block(OPERATING, "{\"ssh\":").join("\n")).unwrap();
    let ready = reader.ready().unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&shown), keys(&ready));
    let healthz = format!("http://{}/healthz", ready["http"].as_str().unwrap());
    reader.prepare(&format!("curl -sf {healthz}"));
    reader.stop();
}

#[test]
fn the_operators_guide_knows_every_flag_of_the_server() {
    let help = Command::new(env!("CARGO_BIN_EXE_lemnos")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim_start().split(' ').next()?.strip_prefix("--"));
    let missing: Vec<&str> = flags.filter(|flag| !OPERATING.contains(&format!("`--{flag}"))).collect();
    assert!(missing.is_empty(), "docs/guides/operating.md does not have {missing:?}");
    let known = |key: &str| OPERATING.contains(&format!("| `{key}` |"));
    let missing: Vec<&str> =
        lemnos::admin::settings::KEYS.iter().map(|(key, _)| *key).filter(|key| !known(key)).collect();
    assert!(missing.is_empty(), "docs/guides/operating.md does not have the settings {missing:?}");
}

/// The shortest of its scenarios, so that the documented command still works; what it measures is not judged here.
#[test]
fn the_benchmark_runs_both_sides() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench");
    let output = Command::new(bench)
        .args(["--rounds", "1", "noop"])
        .env("LEMNOS", env!("CARGO_BIN_EXE_lemnos"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let screen = [output.stdout, output.stderr].concat();
    let screen = String::from_utf8_lossy(&screen);
    assert!(output.status.success(), "{screen}");
    for text in ["noop       ours  median", "noop       peer  median", "ours/peer"] {
        assert!(screen.contains(text), "no {text:?} in\n{screen}");
    }
    let times = screen.lines().find_map(|line| line.strip_prefix("Every time, in microseconds: ")).unwrap();
    std::fs::remove_file(times).unwrap();
}
