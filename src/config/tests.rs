//! Tests of the configuration: precedence, places of faults, the parsing of each shape.

use std::path::{Path, PathBuf};

use super::*;
use crate::buildkit::Address;

fn with_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

fn resolved(text: &str, flags: Layer, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let (dir, _) = with_file(text);
    resolve(Some(dir.path()), None, flags, &Environment::of(variables.iter().copied()))
}

fn origin_of(config: &Config, key: &str) -> String {
    let origin = &config.shown.iter().find(|shown| shown.key == key).unwrap().origin;
    match origin {
        Origin::File { line, .. } => format!("line {line}"),
        other => other.to_string(),
    }
}

/// The error without the directory's name, and what it suggests.
fn refusal(text: &str, flags: Layer, variables: &[(&str, &str)]) -> String {
    let (dir, _) = with_file(text);
    let error =
        resolve(Some(dir.path()), None, flags, &Environment::of(variables.iter().copied())).unwrap_err();
    let suggestion = match &error {
        ConfigError::UnknownKey { suggestion, .. } | ConfigError::UnknownVariable { suggestion, .. } => {
            suggestion
        }
        _ => &None,
    };
    let suggestion = suggestion.as_ref().map(|near| format!(" -> {near}")).unwrap_or_default();
    format!("{error}{suggestion}").replace(&dir.path().display().to_string(), "DIR")
}

fn in_file(text: &str) -> String {
    refusal(text, Layer::default(), &[])
}

fn flag(flag: &str, value: &str) -> Layer {
    Layer::default().flag(flag, [value.to_owned()])
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = "# ports\nssh = \"127.0.0.1:3\"\n";
    let check = |file: &str, flags: Layer, variable: &str, value: &str, origin: &str| {
        let config = resolved(file, flags, &[("LEMNOS_SSH", variable)]).unwrap();
        assert_eq!((config.ssh.to_string().as_str(), origin_of(&config, "ssh").as_str()), (value, origin));
    };
    check(file, flag("--ssh", "127.0.0.1:1"), "127.0.0.1:2", "127.0.0.1:1", "--ssh");
    check(file, Layer::default(), "127.0.0.1:2", "127.0.0.1:2", "LEMNOS_SSH");
    check(file, Layer::default(), "", "127.0.0.1:3", "line 2");
    check("", Layer::default(), "", "127.0.0.1:2222", "default");
}

#[test]
fn every_setting_is_read_and_shown_once_and_settable_by_its_variable() {
    let config = resolved("", Layer::default(), &[]).unwrap();
    let keys: Vec<_> = config.shown.iter().map(|shown| shown.key).collect();
    assert_eq!(keys, SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>());
    for setting in SETTINGS {
        let value = match (setting.shape, setting.default) {
            (_, Some(default)) => default,
            (Shape::Builders, None) => "unix:///run/b.sock",
            (Shape::List, None) if setting.key == "mirrors" => "docker.io=registry.example.com",
            (Shape::List, None) if setting.key == "base_images" => "docker.io/library/*",
            (_, None) if setting.key == "sbom_generator" => {
                "r.example.com/scan@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            }
            (_, None) => "registry.example.com",
        };
        let name = setting.variable();
        let config = resolved("", Layer::default(), &[(&name, value)]).unwrap();
        assert_eq!(origin_of(&config, setting.key), name);
    }
    assert_eq!(
        Setting::find("limits.push_bytes").map(Setting::variable).as_deref(),
        Some("LEMNOS_LIMITS_PUSH_BYTES")
    );
}

#[test]
fn a_file_may_say_everything() {
    let text = r#"
http = "[::1]:9000"
registry = "registry.example.com/team"
plain_http_hosts = ["mirror.internal:5000"]
concurrent_builds = 1_000
builders = [
    "unix:///run/buildkit/buildkitd.sock",
    { address = "tcp://10.0.0.5:1234", name = "arm", max = 8, platforms = ["linux/arm64", "linux/arm/v7"],
      ca = "pki/ca.pem", cert = "/pki/cert.pem", key = "pki/key.pem", server_name = "builder.example.com" },
]

[limits]
push_bytes = 0x1_0000
build_seconds = 60

[ssh_limits]
auth_tries = 3
"#;
    let (dir, file) = with_file(text);
    let config = resolve(Some(dir.path()), None, Layer::default(), &Environment::default()).unwrap();
    assert_eq!(config.file.as_deref(), Some(file.as_path()));
    assert_eq!(config.http.to_string(), "[::1]:9000");
    assert_eq!(config.image_prefix().unwrap().as_str(), "registry.example.com/team");
    assert_eq!(config.plain_http_hosts, ["mirror.internal:5000"]);
    assert_eq!((config.concurrent_builds, config.limits.push_bytes), (1_000, 65_536));
    assert_eq!((config.limits.build, config.ssh_limits.auth_tries), (Duration::from_secs(60), 3));
    let [local, arm] = config.builders.as_slice() else { panic!("{:?}", config.builders) };
    assert_eq!(local.name, "unix:///run/buildkit/buildkitd.sock");
    let expected = BuilderConfig {
        name: "arm".to_owned(),
        address: Address::Tcp { host: "10.0.0.5".to_owned(), port: 1234 },
        platforms: vec!["linux/arm64".parse().unwrap(), "linux/arm/v7".parse().unwrap()],
        tls: Some(BuilderTls {
            ca: Some(dir.path().join("pki/ca.pem")),
            client: Some(("/pki/cert.pem".into(), dir.path().join("pki/key.pem"))),
            server_name: Some("builder.example.com".to_owned()),
        }),
        max: Some(8),
    };
    assert_eq!(*arm, expected);
    assert_eq!(origin_of(&config, "limits.build_seconds"), "line 14");
    // what is printed is what the flag would take
    let printed = flag("--builder", &arm.to_string());
    assert_eq!(resolved("", printed, &[]).unwrap().builders, [expected]);
}

#[test]
fn builders_come_from_repeated_flags_and_from_buildkit_host_when_nothing_else_names_one() {
    let host = ("BUILDKIT_HOST", "tcp://127.0.0.1:1234");
    let config = resolved("", Layer::default(), &[host]).unwrap();
    assert_eq!(config.builders[0].address.to_string(), "tcp://127.0.0.1:1234");
    assert_eq!(origin_of(&config, "builders"), "BUILDKIT_HOST");
    let config = resolved("builders = [\"unix:///b.sock\"]", Layer::default(), &[host]).unwrap();
    assert_eq!(origin_of(&config, "builders"), "line 1");
    let two = Layer::default().flag(
        "--builder",
        ["unix:///a.sock,platform=linux/amd64".to_owned(), "tcp://[::1]:7,platform=linux/arm64".to_owned()],
    );
    let config = resolved("", two, &[host]).unwrap();
    let platforms: Vec<_> = config.builders.iter().map(|b| b.platforms[0].to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let spaced = ("LEMNOS_BUILDERS", "unix:///a.sock,platform=linux/amd64 unix:///b.sock");
    assert_eq!(resolved("", Layer::default(), &[spaced, host]).unwrap().builders.len(), 2);
}

#[test]
fn faults_in_the_file_have_their_line_and_a_suggestion() {
    insta::assert_snapshot!(in_file("ssh = \"127.0.0.1:1\"\nregisty = \"x\"\n"), @r#"DIR/lemnos.toml:2: unknown key "registy" -> registry"#);
    insta::assert_snapshot!(in_file("[limits]\n\npush_byte = 3\n"), @r#"DIR/lemnos.toml:3: unknown key "limits.push_byte" -> limits.push_bytes"#);
    insta::assert_snapshot!(in_file("[limit]\npush_bytes = 3\n"), @r#"DIR/lemnos.toml:1: unknown key "limit" -> limits"#);
    insta::assert_snapshot!(in_file("\nconcurrent_builds = \"four\"\n"), @r#"DIR/lemnos.toml:2: concurrent_builds = "\"four\"" is not a whole number"#);
    insta::assert_snapshot!(in_file("[limits]\ntree_depth = 0\n"), @r#"DIR/lemnos.toml:2: limits.tree_depth = "0" is not a whole number from 1 to 1000"#);
    insta::assert_snapshot!(in_file("plain_http_hosts = [\"http://x\"]\n"), @r#"DIR/lemnos.toml:1: plain_http_hosts = "http://x" is not a registry's HOST[:PORT] without scheme and path"#);
    insta::assert_snapshot!(in_file("frontends = \"x\"\n"), @r#"DIR/lemnos.toml:1: frontends = "\"x\"" is not an array of strings"#);
    let broken = in_file("ssh = \"127.0.0.1:1\"\nhttp = \n");
    assert!(broken.starts_with("DIR/lemnos.toml:2: "), "{broken}");
    let twice = in_file("ssh = \"127.0.0.1:1\"\nssh = \"127.0.0.1:2\"\n");
    assert!(twice.starts_with("DIR/lemnos.toml:2: duplicate key"), "{twice}");
}

#[test]
fn faults_in_flags_and_environment_are_named_by_them() {
    let bad_flag = |name: &str, value: &str| refusal("", flag(name, value), &[]);
    insta::assert_snapshot!(bad_flag("--ssh", "2222"), @r#"--ssh: ssh = "2222" is not an address to listen on: ADDR:PORT, for example 127.0.0.1:2222, 0.0.0.0:2222 or [::]:2222"#);
    insta::assert_snapshot!(bad_flag("--registry", "https://r.example.com"), @r#"--registry: registry = "https://r.example.com" is not a registry: HOST[:PORT][/PREFIX] without a scheme, for example registry.example.com/team"#);
    insta::assert_snapshot!(bad_flag("--builder", "nerdctl-container://x"), @r#"--builder: builders = "nerdctl-container://x" is not a builder's address: unix:///PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME, kube-pod://NAME, ssh://[USER@]HOST or docker://"#);
    insta::assert_snapshot!(bad_flag("--builder", "unix:///x,platfrom=linux/amd64"), @r#"--builder: builders = "unix:///x,platfrom=linux/amd64" is not a builder: unknown part "platfrom"; did you mean "platform"?"#);
    insta::assert_snapshot!(bad_flag("--builder", "unix:///x,arch=amd64"), @r#"--builder: builders = "unix:///x,arch=amd64" is not a builder: unknown part "arch"; known parts: platform=, name=, max=, ca=, cert=, key=, servername="#);
    insta::assert_snapshot!(bad_flag("--builder", "tcp://b:1,cert=/c"), @r#"--builder: builders = "tcp://b:1,cert=/c" is not a builder: cert and key go together"#);
    insta::assert_snapshot!(bad_flag("--builder", "unix:///x,ca=/c"), @r#"--builder: builders = "unix:///x,ca=/c" is not a builder: ca, cert, key and servername are for TLS, which goes with tcp:// and docker+tcp:// alone"#);
    let environment = |name: &str, value: &str| refusal("", Layer::default(), &[(name, value)]);
    insta::assert_snapshot!(environment("LEMNOS_REGISTY", "x.example.com"), @"unknown environment variable LEMNOS_REGISTY -> LEMNOS_REGISTRY");
    insta::assert_snapshot!(environment("LEMNOS_LIMITS_TREE_DEPTH", "deep"), @r#"LEMNOS_LIMITS_TREE_DEPTH: limits.tree_depth = "deep" is not a whole number from 1 to 1000"#);
    insta::assert_snapshot!(environment("BUILDKIT_HOST", "x-container://x"), @r#"BUILDKIT_HOST: builders = "x-container://x" is not a builder's address: unix:///PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME, kube-pod://NAME, ssh://[USER@]HOST or docker://"#);
}

#[test]
fn two_builders_of_one_name_are_refused() {
    let twice = Layer::default().flag("--builder", ["unix:///x".to_owned(), "unix:///x".to_owned()]);
    let said = refusal("", twice, &[]);
    assert!(said.contains("another one has the same name"), "{said}");
    let named = ["unix:///x".to_owned(), "unix:///x,name=second".to_owned()];
    assert_eq!(resolved("", Layer::default().flag("--builder", named), &[]).unwrap().builders.len(), 2);
}

#[test]
fn variables_that_a_service_named_lemnos_brings_along_are_left_alone() {
    let of_kubernetes = [
        ("LEMNOS_PORT", "tcp://10.0.0.1:2222"),
        ("LEMNOS_PORT_2222_TCP_ADDR", "10.0.0.1"),
        ("LEMNOS_SERVICE_HOST", "10.0.0.1"),
        ("LEMNOS_SERVICE_PORT_SSH", "2222"),
        ("LEMNOS_LOG", "debug"),
    ];
    let config = resolved("", Layer::default(), &of_kubernetes).unwrap();
    assert_eq!(config.ssh.to_string(), "127.0.0.1:2222");
}

#[test]
fn the_data_directory_is_the_flag_the_variable_or_the_platforms() {
    let found = |flag: Option<&str>, environment: Environment| {
        let (path, origin) = data_dir(flag.map(Path::new), &environment).unwrap();
        format!("{} ({origin})", path.display())
    };
    let home = ("HOME", "/home/ann");
    let variable = ("LEMNOS_DATA", "/srv/lemnos");
    assert_eq!(found(Some("/d"), Environment::of([home, variable])), "/d (--data)");
    assert_eq!(found(None, Environment::of([home, variable])), "/srv/lemnos (LEMNOS_DATA)");
    let xdg = ("XDG_DATA_HOME", "/xdg");
    assert_eq!(found(None, Environment::of([home, xdg])), "/xdg/lemnos (default)");
    assert_eq!(found(None, Environment::of([home]).as_root()), "/var/lib/lemnos (default)");
    if cfg!(target_os = "linux") {
        let relative = ("XDG_DATA_HOME", "xdg");
        assert_eq!(found(None, Environment::of([home, relative])), "/home/ann/.local/share/lemnos (default)");
    }
    let here = std::env::current_dir().unwrap().join("d");
    assert_eq!(found(Some("d"), Environment::default()), format!("{} (--data)", here.display()));
    assert!(matches!(data_dir(None, &Environment::default()), Err(ConfigError::NoDataDir)));
}

#[test]
fn a_file_that_was_named_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.toml");
    let result =
        |flag: Option<&Path>, environment| resolve(Some(dir.path()), flag, Layer::default(), &environment);
    assert!(matches!(result(Some(&absent), Environment::default()), Err(ConfigError::ReadFile { .. })));
    let named = Environment::of([("LEMNOS_CONFIG", absent.to_str().unwrap())]);
    assert!(matches!(result(None, named), Err(ConfigError::ReadFile { .. })));
    assert_eq!(result(None, Environment::default()).unwrap().file, None);
    std::fs::write(&absent, "#".repeat(2 << 20)).unwrap();
    // a data directory that is a file: not the configuration's fault
    let resolved = resolve(Some(&absent), None, Layer::default(), &Environment::default());
    assert_eq!(resolved.unwrap().file, None);
    assert!(matches!(result(Some(&absent), Environment::default()), Err(ConfigError::FileTooLarge { .. })));
}

#[test]
fn credentials_are_where_docker_keeps_them() {
    let of = |variables: &[(&str, &str)]| resolved("", Layer::default(), variables).unwrap().docker_config;
    assert_eq!(of(&[("HOME", "/home/ann")]), Some("/home/ann/.docker/config.json".into()));
    assert_eq!(of(&[("HOME", "/home/ann"), ("DOCKER_CONFIG", "/etc/d")]), Some("/etc/d/config.json".into()));
    assert_eq!(
        of(&[("DOCKER_CONFIG", "/etc/d"), ("LEMNOS_DOCKER_CONFIG", "/x.json")]),
        Some("/x.json".into())
    );
    assert_eq!(of(&[]), None);
}

#[test]
fn what_our_own_buildkitd_is_told() {
    let of = |variable: (&str, &str)| resolved("", Layer::default(), &[variable]);
    let mirrors =
        of(("LEMNOS_MIRRORS", "docker.io=127.0.0.1:5000/hub, docker.io=m.example.com,ghcr.io=m.example.com"));
    let expected = [
        ("docker.io".to_owned(), vec!["127.0.0.1:5000/hub".to_owned(), "m.example.com".to_owned()]),
        ("ghcr.io".to_owned(), vec!["m.example.com".to_owned()]),
    ];
    assert_eq!(mirrors.unwrap().mirrors, expected.into());
    for bad in ["docker.io", "docker.io=", "=m.example.com", "docker.io=http://m", "hub=m.example.com"] {
        assert!(of(("LEMNOS_MIRRORS", bad)).is_err(), "{bad}");
    }
    assert_eq!(of(("LEMNOS_NETWORK", "host")).unwrap().network, Network::Host);
    assert!(of(("LEMNOS_NETWORK", "bridge")).is_err());
    assert_eq!(of(("LEMNOS_LOG_FORMAT", "json")).unwrap().log_format, LogFormat::Json);
    assert!(of(("LEMNOS_LOG_FORMAT", "JSON")).is_err());
    assert_eq!(of(("LEMNOS_BUILD_CACHE_LIMIT", "40GB")).unwrap().build_cache_limit, "40GB");
    for bad in ["40", "0GB", "101%", "GB", "-1GB", "4 GB"] {
        assert!(of(("LEMNOS_BUILD_CACHE_LIMIT", bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_image_prefix_is_known_unless_the_port_is_to_be_picked() {
    let of = |listen: &str| resolved("", flag("--registry-listen", listen), &[]).unwrap().image_prefix();
    assert_eq!(of("127.0.0.1:5001").unwrap().as_str(), "127.0.0.1:5001");
    assert_eq!(of("localhost:5001").unwrap().as_str(), "127.0.0.1:5001");
    assert_eq!(of("127.0.0.1:0"), None);
}
