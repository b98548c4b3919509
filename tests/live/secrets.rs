//! Build secrets on a whole server: steps get them, and nothing that is said or kept afterwards has them (security row D6).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::house::{House, Said};

/// Values as nothing else spells them, so that one that leaked is found.
const TOKEN: &str = "canary/t0ken+0815==";
const FILE: &str =
    "-----BEGIN CANARY-----\nMIIcanaryLineOne0001\nMIIcanaryLineTwo0002\n-----END CANARY-----\n";
/// What of `FILE` is looked for.
const LINES: [&str; 2] = ["MIIcanaryLineOne0001", "MIIcanaryLineTwo0002"];

fn app(house: &House, name: &str) {
    house.app(name);
    house.lemnos(&["apps", "set", name, "platforms=linux/amd64"]).succeeded();
}

fn add(house: &House, app: &str, name: &str, value: &str) -> Said {
    house.lemnos_reading(&["secrets", "add", app, name], value)
}

/// The ways in which the token could be spelled.
fn spellings() -> Vec<String> {
    let encoded = STANDARD.encode(TOKEN);
    let url = "canary%2Ft0ken%2B0815%3D%3D".to_owned();
    // what only the secret decides of the base64 of a longer text
    let longer = STANDARD.encode(format!("user:{TOKEN}"));
    let inner: String = longer.chars().skip(8).take(20).collect();
    let mut all =
        vec![TOKEN.to_owned(), encoded.trim_end_matches('=').to_owned(), url, inner, hex::encode(TOKEN)];
    all.extend(LINES.map(str::to_owned));
    all
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    for spelled in spellings() {
        let found = bytes.windows(spelled.len()).any(|window| window == spelled.as_bytes());
        assert!(
            !found,
            "{what} has {spelled:?}:\n{}",
            String::from_utf8_lossy(bytes).get(..20_000.min(bytes.len())).unwrap_or("…")
        );
    }
}

/// Every file below `dir` but the sealing key.
#[track_caller]
fn clean_below(dir: &Path) {
    let mut waiting = vec![dir.to_owned()];
    let mut looked_at = 0;
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                looked_at += 1;
                clean(&entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap());
            }
        }
    }
    assert!(looked_at > 3);
}

/// Steps that say what they were trusted with, in every way that comes to mind. The file's name hides what they are.
fn telltale(last: &str) -> String {
    let prelude =
        "RUN --mount=type=secret,id=token --mount=type=secret,id=file T=$(cat /run/secrets/token); ";
    let steps = [
        "echo \"plain: $T :end\"",
        "echo \"base64: $(printf %s \"$T\" | base64) :end\"",
        "echo \"longer: $(printf 'user:%s' \"$T\" | base64 -w 8) :end\"",
        "echo \"hex: $(printf %s \"$T\" | od -An -tx1 | tr -d ' \\n') :end\"",
        "echo \"url: $(printf %s \"$T\" | sed 's,/,%2F,g; s,+,%2B,g; s,=,%3D,g') :end\"",
        "cat /run/secrets/file; echo lines :end",
        "printf 'split: canary/t0k'; sleep 1; printf 'en+0815== :end\\n'",
        "printf 'both: canary/t0k'; sleep 1; echo between >&2; sleep 1; printf 'en+0815== :end\\n'",
        "printf '\\033[31mcanary/t0\\033[0mken+0815== colour :end\\n'",
    ];
    let runs: String = steps.iter().map(|step| format!("{prelude}{step}\n")).collect();
    format!("FROM busybox\n{runs}{prelude}{last}\n")
}

/// D6: whatever a step says, no screen, log, record, file, image and provenance has a secret of the app.
#[test]
fn d6_secrets_stand_in_nothing_that_is_said_or_kept() {
    let house = House::start_with("secrets", &[], &[("LEMNOS_LOG", "debug")]);
    app(&house, "shop");
    house.lemnos(&["apps", "set", "shop", "attest=provenance:max"]).succeeded();
    add(&house, "shop", "token", TOKEN).succeeded().shows("RUN --mount=type=secret,id=token").hides("canary");
    add(&house, "shop", "file", FILE).succeeded();
    house.lemnos(&["secrets", "list", "shop"]).succeeded().shows("token").shows("file").hides("canary");
    house.ssh("secrets list shop").failed().shows("only administrators may list and change an app's secrets");
    house.lemnos(&["users", "role", "ada", "admin"]).succeeded();
    house.ssh("secrets list shop").succeeded().shows("token").hides("canary");

    let ends = format!("{} > /dev/null; echo \"$T\" | wc -c > /seen", "wc -c /run/secrets/file");
    let shop = house.repository("shop", &[("Dockerfile", &telltale(&ends))]);
    let said = house.push(&shop, &["main"]).succeeded().shows("plain: *** :end").shows("split: *** :end");
    clean("the screen", said.stderr.as_bytes());
    for kept in ["base64: ***", "longer: ", "hex: ***", "url: ***", "lines :end", "both: ", "colour :end"] {
        assert!(said.stderr.contains(kept), "missing {kept:?} in\n{}", said.stderr);
    }
    // the steps had it
    let seen = house.image_file("shop", "main", "linux/amd64", "seen").unwrap();
    assert_eq!(seen.trim(), (TOKEN.len() + 1).to_string());

    // a step that fails with it on its lips
    let fails = "echo \"cannot use $T\"; echo \"$(cat /run/secrets/file)\" >&2; printf %s \"$T\"; exit 3";
    house.commit(&shop, &[("Dockerfile", &telltale(fails))], "fails");
    let said = house.push(&shop, &["main"]).failed().shows("exit 3").shows("cannot use ***");
    clean("the screen of the failure", said.stderr.as_bytes());

    for build in house.builds("shop") {
        let id = build["id"].as_str().unwrap();
        clean("the record", build.to_string().as_bytes());
        for words in [
            vec!["builds", "logs", id],
            vec!["builds", "logs", id, "--json"],
            vec!["builds", "show", id],
            vec!["builds", "show", id, "--json"],
        ] {
            let said = house.lemnos(&words);
            assert!(!said.stdout.is_empty(), "{words:?}: {}", said.stderr);
            clean(&words.join(" "), said.stdout.as_bytes());
            clean(&words.join(" "), said.stderr.as_bytes());
        }
        clean("logs over ssh", house.ssh(&format!("logs {id}")).stdout.as_bytes());
    }
    clean("the audit record", house.lemnos(&["audit", "--json"]).stdout.as_bytes());
    clean("the server's log", house.server_log().as_bytes());
    clean_below(&house.data());

    // what is in the registry: configuration with history, and the provenance of everything
    let index = house.manifest("shop", "main").unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "{index}");
    let attests = manifests.last().unwrap();
    assert_eq!(attests["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    for manifest in manifests {
        let read = house.blob("shop", manifest["digest"].as_str().unwrap(), true);
        let manifest: serde_json::Value = serde_json::from_slice(&read).unwrap();
        let config = house.blob("shop", manifest["config"]["digest"].as_str().unwrap(), false);
        clean("the configuration", &config);
        for layer in manifest["layers"].as_array().unwrap() {
            let blob = house.blob("shop", layer["digest"].as_str().unwrap(), false);
            if layer["mediaType"].as_str().unwrap().contains("in-toto") {
                let text = String::from_utf8_lossy(&blob).into_owned();
                assert!(text.contains("slsa.dev/provenance"), "{text}");
                clean("the provenance", &blob);
            }
        }
    }
}

/// A secret that a step needs: without it the push is refused with the command that mends it; another app's is none; what can do
/// without does; a new value is no reason to build anew.
#[test]
fn a_missing_secret_is_named_with_its_remedy_and_another_apps_is_none() {
    let house = House::start("missing");
    app(&house, "shop");
    app(&house, "bank");
    add(&house, "bank", "npm", "canary-of-the-bank").succeeded();
    let needs =
        "FROM busybox\nRUN --mount=type=secret,id=npm,required=true cat /run/secrets/npm | wc -c > /seen\n";
    let shop = house.repository("shop", &[("Dockerfile", needs)]);
    house
        .push(&shop, &["main"])
        .failed()
        .shows("secret npm: not found")
        .shows("lemnos secrets add shop npm <FILE");
    add(&house, "shop", "npm", "abc").failed().shows("fewer than 4 bytes");
    add(&house, "shop", "npm", "12345").succeeded();
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "5\n");

    // a variable, of the step alone
    let variable =
        "FROM busybox\nRUN --mount=type=secret,id=npm,env=NPM printf %s \"$NPM\" | wc -c > /seen\n";
    house.commit(&shop, &[("Dockerfile", variable)], "as a variable");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "5\n");

    add(&house, "shop", "npm", "1234567").succeeded().shows("in place of an earlier value");
    house.commit(&shop, &[], "the same tree");
    house.push(&shop, &["main"]).succeeded().shows("Nothing to build");
    house.commit(&shop, &[], "again");
    house.push(&shop, &["-o", "no-cache", "main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "7\n");

    house.lemnos(&["secrets", "remove", "shop", "npm"]).succeeded();
    let optional = "FROM busybox\nRUN --mount=type=secret,id=npm ls /run/secrets > /seen 2>/dev/null; true\n";
    house.commit(&shop, &[("Dockerfile", optional)], "can do without");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "seen").unwrap(), "");
}

/// A build argument with a secret's value is noted, and with `provenance:max` refused, the value in neither.
#[test]
fn a_secret_in_a_build_argument_is_no_secret() {
    let house = House::start("argument");
    app(&house, "shop");
    add(&house, "shop", "npm", "canary-npm").succeeded();
    house.lemnos(&["apps", "set", "shop", "build-arg.NPM=canary-npm"]).succeeded();
    let shop = house.repository("shop", &[("Dockerfile", "FROM busybox\nARG NPM\nRUN echo $NPM\n")]);
    house
        .push(&shop, &["main"])
        .succeeded()
        .shows("the build argument NPM holds one of the app's secrets")
        .hides("canary-npm");
    house.lemnos(&["apps", "set", "shop", "attest=provenance:max"]).succeeded();
    house.commit(&shop, &[("more", "x")], "more");
    house.push(&shop, &["main"]).failed().shows("provenance:max would publish it").hides("canary-npm");
}

/// A key of the app signs for a step that mounts it, and is in nothing: not the key of another app, nor one with a passphrase.
#[test]
fn an_ssh_key_signs_for_the_step_that_mounts_it() {
    let house = House::start("ssh-mount");
    app(&house, "shop");
    let key = house.generate_key("deploy");
    let private = std::fs::read_to_string(&key).unwrap();
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let dockerfile = "FROM busybox\nCOPY root /\nCOPY key.pub /\n\
        RUN --mount=type=ssh ssh-add -L > /keys && ssh-add -T /key.pub\n";
    let shop = house.repository("shop", &[("Dockerfile", dockerfile), ("key.pub", &public)]);
    crate::services::install("/usr/bin/ssh-add", &shop.join("root"));
    house.commit(&shop, &[], "the program");
    house.push(&shop, &["main"]).failed().shows("ssh");
    house
        .lemnos_reading(&["secrets", "add", "shop", "default", "--ssh"], &public)
        .failed()
        .shows("not in OpenSSH's format");
    let added = house.lemnos_reading(&["secrets", "add", "shop", "default", "--ssh"], &private);
    added.succeeded().shows("RUN --mount=type=ssh");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "keys").unwrap().trim(), public.trim());
}

/// What a component's command says is masked as what a Dockerfile's step says is: such a command is given no secret, but may
/// have it from elsewhere.
#[test]
fn d6_commands_of_spin_components_tell_no_secret() {
    let house = House::start_with("secrets-spin", &[], &[("LEMNOS_LOG", "debug")]);
    house.app("shop");
    add(&house, "shop", "token", TOKEN).succeeded();
    let manifest = r#"spin_manifest_version = 2
application.name = "telltale"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "web.wasm"
[component.web.build]
command = "sh telltale"
"#;
    // the token is not in the tree, only what makes it
    let telltale = |last: &str| {
        format!(
            "T=$(echo dbobsz/u0lfo+0815== | tr b-z a-y)\necho \"plain: $T :end\"\necho \"base64: $(printf %s \"$T\" | base64) :end\"\n\
             echo \"longer: $(printf 'user:%s' \"$T\" | base64 -w 8) :end\"\nprintf 'split: canary/t0k'\nsleep 1\n\
             printf 'en+0815== :end\\n'\nprintf '\\000asm\\001\\000\\000\\000' > web.wasm\n{last}\n"
        )
    };
    let config = ("build-config.yaml", "spin_config:\n  image: busybox\n");
    let dir = house.repository("shop", &[("spin.toml", manifest), ("telltale", &telltale("")), config]);
    let said = house.push(&dir, &["main"]).succeeded().shows("plain: *** :end").shows("split: *** :end");
    said.shows("base64: ***").shows("longer: ");
    house.commit(&dir, &[("telltale", &telltale("echo \"no $T\" >&2; exit 3"))], "fails");
    let said = house.push(&dir, &["main"]).failed().shows("no ***");
    clean("the screen of the failure", said.stderr.as_bytes());
    let builds = house.builds("shop");
    assert_eq!(builds.len(), 2);
    for build in builds {
        let id = build["id"].as_str().unwrap();
        clean("the record", build.to_string().as_bytes());
        for json in [&["builds", "logs", id][..], &["builds", "logs", id, "--json"]] {
            let said = house.lemnos(json);
            assert!(said.stdout.contains("plain: ***"), "{}", said.stdout);
            clean("the log", said.stdout.as_bytes());
        }
    }
    clean("the server's log", house.server_log().as_bytes());
}
