//! Both versions of the manifest, brought into one normal form.

use lemnos::kinds::spin::SpinConfig;
use lemnos::model::{SpinCommand, SpinSource};

use super::{app, plan_of, tree};

/// Everything that version 2 has, but for what needs composing.
const WHOLE: &str = r#"
spin_manifest_version = 2

[application]
name = "shop"
version = "1.2.3"
description = "A shop"
authors = ["Ann <ann@example.com>", "Bo"]
targets = ["spin-up:3.3", { url = "https://example.com/env.toml" }, { path = "env.toml" }]

[application.trigger.redis]
address = "redis://localhost:6379"

[application.tool.lint]
level = "high"

[variables]
db_host = { default = "db.example.com", description = "Where the data is" }
token = { required = true, secret = true }

[[trigger.http]]
id = "front"
route = "/..."
component = "web"
executor = { type = "wagi", argv = "a ${ARGS}", numbers = [0x10, 1_000, 1.5, true] }

[[trigger.http]]
route = "/api"
component = "api"

[[trigger.redis]]
channel = "orders"
component = { source = "orders.wasm", description = "Written in place" }

[[trigger.redis]]
channel = "refunds"
component = "api"
[trigger.redis.components]
check = "web"
both = ["web", { source = "orders.wasm" }]

[component.web]
source = "target/wasm32-wasip1/release/web.wasm"
description = "Pages"
environment = { ZEBRA = "1", ALPHA = "two" }
files = ["static/**/*", { source = "img", destination = "/pictures" }]
exclude_files = ["**/*.psd"]
allowed_outbound_hosts = ["https://example.com", "http://api.spin.internal", "https://{{ db_host }}:5432"]
allowed_http_hosts = ["old.example.com:8080"]
key_value_stores = ["default"]
sqlite_databases = ["default", "more_data"]
ai_models = ["llama2-chat"]
variables = { db = "{{ db_host }}", secret = "x{{token}}" }
build = { command = "cargo build --release", workdir = "web/", watch = ["src/**/*.rs"] }
[component.web.tool.lint]
level = "low"

[component.api]
source = { url = "https://example.com/api.wasm", digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111" }
[component.api.profile.debug]
source = "api-debug.wasm"
environment = { LOG = "debug" }
build.command = ["cargo build", "cp target/a api-debug.wasm"]

[component.remote]
source = { registry = "wa.example.com", package = "shop:remote", version = "0.1.0-rc.1" }
"#;

#[test]
fn a_whole_manifest_is_read() {
    let config: SpinConfig = serde_yaml::from_str("{}").unwrap();
    let tree = tree(WHOLE, &["orders.wasm", "static/a", "img/b"]);
    let (plan, notes) = plan_of(&tree, &config).unwrap();
    assert_eq!(notes, ["spin.toml: targets are not checked"]);
    insta::assert_json_snapshot!(plan);
    let again: lemnos::model::SpinPlan =
        serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(again, plan);
}

#[test]
fn a_profile_changes_source_environment_and_command() {
    let config: SpinConfig = serde_yaml::from_str("profile: debug").unwrap();
    let (plan, _) = plan_of(&tree(WHOLE, &["orders.wasm"]), &config).unwrap();
    assert_eq!(plan.app.profile.as_deref(), Some("debug"));
    let api = plan.app.components.iter().find(|component| component.id == "api").unwrap();
    assert_eq!(api.source, SpinSource::Path("api-debug.wasm".to_owned()));
    assert_eq!(api.environment["LOG"], "debug");
    let build = api.build.as_ref().unwrap();
    assert!(
        matches!(&build.command, SpinCommand::Several(list) if list.len() == 2) && build.workdir.is_none()
    );
    let web = plan.app.components.iter().find(|component| component.id == "web").unwrap();
    assert_eq!(web.build.as_ref().unwrap().command, SpinCommand::One("cargo build --release".to_owned()));
    assert_eq!(plan.fetches.len(), 1, "the fetched component is built in this profile");
}

#[test]
fn version_1_is_the_version_2_that_it_means() {
    let pairs = [
        (
            r#"
spin_version = "1"
name = "lights"
version = "6.1"
authors = ["Ann"]
trigger = { type = "http", base = "/" }
[variables]
colour = { default = "red" }
[[component]]
id = "Four_Lights"
source = "lights.wasm"
description = "Counts"
files = ["lights/*"]
exclude_files = ["lights/five"]
config = { colour = "{{ colour }}" }
environment = { A = "1" }
key_value_stores = ["default"]
[component.trigger]
route = "/lights"
executor = { type = "http" }
[[component]]
id = "web"
source = "web.wasm"
allowed_http_hosts = ["example.com", "http://self"]
[component.trigger]
route = "/web"
"#,
            r#"
spin_manifest_version = 2
[application]
name = "lights"
version = "6.1"
authors = ["Ann"]
[application.trigger.http]
base = "/"
[variables]
colour = { default = "red" }
[[trigger.http]]
id = "trigger-four-lights"
component = "four-lights"
route = "/lights"
executor = { type = "http" }
[[trigger.http]]
id = "trigger-web"
component = "web"
route = "/web"
[component.four-lights]
source = "lights.wasm"
description = "Counts"
files = ["lights/*"]
exclude_files = ["lights/five"]
variables = { colour = "{{ colour }}" }
environment = { A = "1" }
key_value_stores = ["default"]
allowed_outbound_hosts = ["redis://*:*", "mysql://*:*", "postgres://*:*"]
[component.web]
source = "web.wasm"
allowed_outbound_hosts = [
  "redis://*:*", "mysql://*:*", "postgres://*:*",
  "http://example.com", "https://example.com", "http://self",
]
"#,
        ),
        (
            r#"
spin_manifest_version = "1"
name = "one"
trigger = { type = "redis", address = "redis://r:6379" }
[[component]]
id = "one"
source = "one.wasm"
allowed_outbound_hosts = ["redis://r:6379"]
allowed_http_hosts = ["insecure:allow-all"]
build = { command = "cargo build", workdir = "one" }
[component.trigger]
channel = "messages"
"#,
            r#"
spin_manifest_version = 2
application = { name = "one", trigger = { redis = { address = "redis://r:6379" } } }
trigger.redis = [{ id = "trigger-one", component = "one", channel = "messages" }]
[component.one]
source = "one.wasm"
allowed_outbound_hosts = ["redis://r:6379", "http://*:*", "https://*:*", "http://self"]
build = { command = "cargo build", workdir = "one" }
"#,
        ),
    ];
    for (older, newer) in pairs {
        assert_eq!(app(older), app(newer));
    }
}

#[test]
fn what_has_no_name_gets_the_one_that_spin_would_give() {
    let named = app(r#"
spin_manifest_version = 2
application.name = "names"
[[trigger.http]]
id = "a-http-trigger"
component = "b"
[[trigger.http]]
component = "a"
[[trigger.http]]
component = "a"
[[trigger.http]]
component = { source = "c.wasm" }
[[trigger.http]]
id = "BAD_id"
component = { source = "d.wasm" }
[[trigger.timer]]
id = "http-trigger3"
component = { source = "e.wasm" }
components = { more = { source = "f.wasm" } }
[[trigger.timer]]
[component.b]
source = "b.wasm"
[component.a]
source = "a.wasm"
[component.inline-component1]
source = "g.wasm"
"#);
    let triggers: Vec<String> = named
        .triggers
        .iter()
        .map(|trigger| {
            format!("{} {} {}", trigger.kind, trigger.id, serde_json::to_string(&trigger.config).unwrap())
        })
        .collect();
    let components: Vec<String> =
        named.components.iter().map(|component| format!("{} {:?}", component.id, component.source)).collect();
    insta::assert_snapshot!(format!("{}\n\n{}", triggers.join("\n"), components.join("\n")));
}

#[test]
fn components_keep_the_order_in_which_they_are_written() {
    let manifest = r#"
spin_manifest_version = 2
application.name = "order"
[component.zoo]
source = "z.wasm"
[component.ape]
source = "a.wasm"
[[trigger.timer]]
component = "ape"
[component.mid]
source = "m.wasm"
[[trigger.http]]
component = "zoo"
"#;
    let app = app(manifest);
    assert_eq!(app.components.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["zoo", "ape", "mid"]);
    assert_eq!(app.triggers.iter().map(|t| t.kind.as_str()).collect::<Vec<_>>(), ["timer", "http"]);
}
