//! What is refused, where, and with which remedy.

use std::fmt::Write as _;

use lemnos::kinds::spin::{SpinConfig, find};
use lemnos::model::tree::MemoryTree;
use lemnos::model::{EntryKind, SourcePolicy, SourceRules, Tenant};

use super::{at_root, plan_of, said, tree};

const HEAD: &str =
    "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ component = \"a\" }]\n";

/// A component `a` with these lines in it.
fn component(lines: &str) -> String {
    format!("{HEAD}[component.a]\nsource = \"a.wasm\"\n{lines}\n")
}

fn refused(manifest: &str) -> String {
    match plan_of(&tree(manifest, &["a.wasm", "b.wasm", "dir/x"]), &SpinConfig::default()) {
        Err(error) => said(&error),
        Ok((_, notes)) => format!("taken: {notes:?}"),
    }
}

fn table(cases: &[String]) -> String {
    cases.iter().fold(String::new(), |mut table, case| {
        let shown = case.strip_prefix(HEAD).unwrap_or(case).trim_end().replace('\n', " | ");
        write!(table, "{shown}\n{}\n\n", refused(case)).unwrap();
        table
    })
}

#[test]
fn manifests_that_are_none() {
    let cases = [
        "",
        "spin_manifest_version = 3",
        "spin_manifest_version = \"2\"",
        "spin_manifest_version = 1",
        "spin_version = 2",
        "spin_manifest_version = 2\nspin_version = \"1\"",
        "spin_manifest_version = 2\n\nver\n",
        "spin_manifest_version = 2\n[component.a]\n[component.a]\n",
        "spin_manifest_version = 2\ntrigger = {}\n",
        "spin_manifest_version = 2\napplication = {}\ntrigger = {}\n",
        "spin_manifest_version = 2\napplication.name = 7\ntrigger = {}\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger = {}\ncomponents = {}\n",
        "spin_manifest_version = 2\napplication = { name = \"x\", autors = [] }\ntrigger = {}\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = { component = \"a\" }\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ component = \"a\" }]\n",
        "spin_manifest_version = 2\napplication = { name = \"x\", targets = [{}] }\ntrigger = {}\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ id = \"t\" }, { id = \"t\" }]\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ at = 2026-01-01 }]\n",
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ at = nan }]\n",
        "spin_manifest_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\" }\n[[component]]\nid = \"a\"\nsource = \"a.wasm\"\n",
        "spin_manifest_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\" }\n[[component]]\nid = \"a b\"\nsource = \"a.wasm\"\n[component.trigger]\n",
        "spin_manifest_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\" }\n[[component]]\nid = \"Aa\"\nsource = \"a.wasm\"\n[component.trigger]\n[[component]]\nid = \"aa\"\nsource = \"b.wasm\"\n[component.trigger]\n",
        "spin_manifest_version = \"1\"\nname = \"x\"\ntrigger = { address = \"http\" }\n",
        "spin_manifest_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\" }\n[[component]]\nid = \"a\"\nsource = \"a.wasm\"\nvariables = {}\n[component.trigger]\n",
    ]
    .map(str::to_owned);
    insta::assert_snapshot!(table(&cases));
}

#[test]
fn components_that_are_none() {
    let cases = [
        format!("{HEAD}[component.A_b]\nsource = \"a.wasm\"\n"),
        format!("{HEAD}[component.aa]\nsource = \"a.wasm\"\n"),
        format!("{HEAD}[component.a]\n"),
        format!("{HEAD}[component.a]\nsource = \"c.wasm\"\n"),
        format!("{HEAD}[component.a]\nsource = \"dir\"\n"),
        format!("{HEAD}[component.a]\nsource = \"../a.wasm\"\n"),
        format!("{HEAD}[component.a]\nsource = \"\"\n"),
        format!("{HEAD}[component.a]\nsource = {{ url = \"https://x/y\" }}\n"),
        format!("{HEAD}[component.a]\nsource = {{ url = \"https://x/y\", digest = \"not-a-digest\" }}\n"),
        format!(
            "{HEAD}[component.a]\nsource = {{ url = \"file:///x\", digest = \"sha256:{}\" }}\n",
            "0".repeat(64)
        ),
        format!(
            "{HEAD}[component.a]\nsource = {{ url = \"https://u:p@x/y\", digest = \"sha256:{}\" }}\n",
            "0".repeat(64)
        ),
        format!("{HEAD}[component.a]\nsource = {{ package = \"a:b\", version = \">=1.0\" }}\n"),
        format!("{HEAD}[component.a]\nsource = {{ package = \"a:b\", version = \"01.0.0\" }}\n"),
        format!("{HEAD}[component.a]\nsource = {{ package = \"b\", version = \"1.0.0\" }}\n"),
        format!(
            "{HEAD}[component.a]\nsource = {{ package = \"a:b\", version = \"1.0.0\", registry = \"https://r\" }}\n"
        ),
        format!("{HEAD}[component.a]\nsource = {{ package = \"a:b\" }}\n"),
        component("environment = { A = 1 }"),
        component("comand = \"x\""),
        component("build.comand = \"x\""),
        component("build.command = []"),
        component("build.command = \" \""),
        component("build.command = 3"),
        component("build = { command = \"cargo build\", workdir = \"/x\" }"),
        component("allowed_outbound_hosts = [\"example.com\"]"),
        component("allowed_outbound_hosts = [\"https://a\", \"https://b/path\"]"),
        component("allowed_outbound_hosts = [\"https://{{ host }}\"]"),
        component("allowed_outbound_hosts = [\"https://{{ host\"]"),
        component("allowed_http_hosts = [\"ftp://x\"]"),
        component("key_value_stores = [\"b@d\"]"),
        component("variables = { BIG = \"x\" }"),
        component("files = [\"..\"]"),
        component("files = [\"dir/.\"]"),
        component("files = [\"/etc/*\"]"),
        component("files = [\"dir/../../x\"]"),
        component("files = [\"a**\"]"),
        component("files = [\"nothing\"]"),
        component("files = [{ source = \"dir\" }]"),
        component("files = [{ source = \"dir\", destination = \"/a/../b\" }]"),
        component("files = [{ source = \"dir/x\", destination = \"/\" }]"),
        component("exclude_files = [\"[\"]"),
    ];
    insta::assert_snapshot!(table(&cases));
}

#[test]
fn variables_are_judged_with_their_defaults() {
    let with = |variable: &str, hosts: &str| {
        format!(
            "{HEAD}[variables]\n{variable}\n[component.a]\nsource = \"a.wasm\"\nallowed_outbound_hosts = [{hosts:?}]\n"
        )
    };
    let cases = [
        with("host = { default = \"invalid host\" }", "https://{{ host }}"),
        with("host = { default = \"\" }", "https://{{ host }}"),
        with("host = { required = true }", "nonsense {{ host }}"),
        with("host = { default = \"x\" }", "https://{{ hots }}"),
        with("host = { default = \"x\", required = true }", "https://{{ host }}"),
        with("host = {}", "https://{{ host }}"),
        with("HOST = { default = \"x\" }", "https://a"),
    ];
    insta::assert_snapshot!(table(&cases));
}

#[test]
fn what_needs_composing_is_refused_by_name() {
    let two = |a: &str, b: &str| {
        format!("{HEAD}[component.a]\nsource = \"a.wasm\"\n{a}\n[component.b]\nsource = \"b.wasm\"\n{b}\n")
    };
    let cases = [
        component("[component.a.dependencies]\n\"foo:bar\" = \"0.1.0\""),
        two("dependencies.\"b:b\" = { component = \"b\" }", ""),
        two("dependencies.\"b:b\" = { component = \"bb\" }", ""),
        two("dependencies.\"b:b\" = { path = \"b.wasm\", component = \"b\" }", ""),
        two("dependencies.\"b:b\" = { pat = \"b.wasm\" }", ""),
        two("dependencies.\"b:b\" = { path = \"b.wasm\" }", "dependencies.\"a:a\" = { component = \"a\" }"),
        two("dependencies.\"a:a\" = { component = \"a\" }", ""),
        "spin_manifest_version = 2\napplication.name = \"x\"\n[[trigger.http]]\ncomponent = \"a\"\ndependencies = { middleware = [{ path = \"m.wasm\" }] }\n[component.a]\nsource = \"a.wasm\"\n".to_owned(),
    ];
    insta::assert_snapshot!(table(&cases));
}

#[test]
fn profiles_and_images_that_are_not_there_are_refused() {
    let manifest = component("[component.a.profile.debug]\nenvironment = { A = \"1\" }");
    let mut refused = String::new();
    for config in ["profile: deugb", "profile: other", "images: {b: x}", "images: {a: 'not an image'}"] {
        let config: SpinConfig = serde_yaml::from_str(config).unwrap();
        let manifest = format!("{manifest}[component.a.build]\ncommand = \"cargo build\"\n");
        let error = plan_of(&tree(&manifest, &["a.wasm"]), &config).unwrap_err();
        writeln!(refused, "{}", said(&error)).unwrap();
    }
    assert!(serde_yaml::from_str::<SpinConfig>("profil: x").is_err());
    insta::assert_snapshot!(refused);
}

#[test]
fn the_operators_rules_hold_for_images_and_addresses() {
    let policy = SourcePolicy {
        base_images: vec!["r.example.com/base/*".to_owned()],
        remote_sources: vec!["files.example.com".to_owned()],
        ..SourcePolicy::default()
    };
    let own = "r.example.com/team/x".parse().unwrap();
    let tenant = Tenant { own: &own, prefix: None, others: &[], frontends: &[] };
    let rules = SourceRules::new(&policy, &tenant).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut said_of = String::new();
    for (source, build) in [
        ("\"a.wasm\"".to_owned(), "build.command = \"cargo build\""),
        (format!("{{ url = \"https://elsewhere.example.com/a\", digest = \"{digest}\" }}"), ""),
        (format!("{{ url = \"https://files.example.com/a\", digest = \"{digest}\" }}"), ""),
        ("{ registry = \"wa.example.com\", package = \"a:b\", version = \"1.0.0\" }".to_owned(), ""),
    ] {
        let manifest = format!("{HEAD}[component.a]\nsource = {source}\n{build}\n");
        let result = lemnos::kinds::spin::plan(
            &tree(&manifest, &["a.wasm"]),
            &at_root(),
            &SpinConfig::default(),
            &rules,
        );
        writeln!(said_of, "{}", result.map_or_else(|error| said(&error), |_| "taken".to_owned())).unwrap();
    }
    insta::assert_snapshot!(said_of);
}

#[test]
fn bounds_and_odd_trees() {
    let many: String = (0..257).fold(HEAD.to_owned(), |mut text, n| {
        write!(text, "[component.a{n}]\nsource = \"a.wasm\"\n").unwrap();
        text
    });
    assert!(refused(&many).contains("more than 256 components"), "{}", refused(&many));
    let deep = format!("{HEAD}x = {}1{}\n", "[".repeat(40), "]".repeat(40));
    assert!(
        refused(
            &deep
                .replace("x =", "[[trigger.http]]\nx =")
                .replace("trigger.http = [{ component = \"a\" }]\n", "")
        )
        .contains("levels deep")
    );
    let large = MemoryTree::default().with("spin.toml", &"# x\n".repeat(200_000));
    assert!(
        plan_of(&large, &SpinConfig::default()).unwrap_err().to_string().contains("at most 524288 are read")
    );
    let tree = MemoryTree::default().with("web/spin.toml", "").with("web/deep/x", "").with("other/x", "");
    assert_eq!(find(&tree, "web/deep").unwrap().unwrap().manifest, "web/spin.toml");
    assert_eq!(find(&tree, "other").unwrap(), None);
    let tree = tree.with_kind("spin.toml", EntryKind::Symlink, "web/spin.toml");
    assert_eq!(find(&tree, "").unwrap(), None, "a link is no manifest");
    let control = refused(&component("\"a\\u001b[31m\" = 1"));
    assert!(!control.contains('\u{1b}'), "{control:?}");
}

#[test]
fn detection_says_what_it_found_and_what_it_did_not() {
    let settings = lemnos::model::AppSettings::default();
    let said = |tree: &MemoryTree, config: &str| {
        let config = (!config.is_empty()).then(|| lemnos::kinds::BuildConfig::parse(config).unwrap());
        match lemnos::detect::detect(tree, &settings, config.as_ref()) {
            Ok(detected) => format!("{}: {}", detected.kind, detected.evidence),
            Err(error) => error.to_string(),
        }
    };
    let two = "[[trigger.redis]]\nchannel = \"c\"\ncomponent = { source = \"b.wasm\" }\n[component.b]\nsource = \"b.wasm\"\n";
    assert_eq!(
        said(&tree(&component(""), &[]), ""),
        "spin: spin.toml at the root (version 2, 1 component, http)"
    );
    let older = "spin_version = \"1\"\nname = \"x\"\ntrigger.type = \"http\"\n";
    assert_eq!(
        said(&tree(older, &[]), ""),
        "spin: spin.toml at the root (version 1, 0 components, no trigger)"
    );
    assert_eq!(
        said(&tree("not TOML", &[]), ""),
        "spin: spin.toml at the root",
        "a broken one is one all the same"
    );
    let below = MemoryTree::default().with("web/spin.toml", &(component("") + two)).with("web/app/x", "");
    assert!(
        said(&below, "")
            .contains("no spin.toml at the root (there is web/spin.toml: context_path chooses it)")
    );
    assert_eq!(
        said(&below, "context_path: web/app"),
        "spin: web/spin.toml (version 2, 2 components, http and redis)"
    );
}
