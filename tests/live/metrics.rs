//! What `/metrics` says of a whole server: well-formed, never going back, and true of what was done.

use std::collections::{BTreeMap, BTreeSet};

use crate::house::House;

/// One scrape, parsed as strictly as the format is written down.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    /// By name and labels, as they stand.
    series: BTreeMap<String, f64>,
}

fn scrape(house: &House) -> Scrape {
    let url = format!("http://{}/metrics", house.ready()["http"].as_str().unwrap());
    let output = house.command("curl").args(["-sS", "-w", "%{content_type}", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (text, content_type) = text.rsplit_once('\n').unwrap();
    assert_eq!(content_type, "text/plain; version=0.0.4");
    let mut scrape = Scrape::default();
    let mut helped = BTreeSet::new();
    let mut open = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "no HELP before {line}");
            assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            open = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let mut letters = name.chars();
            assert!(letters.next().is_some_and(|c| c.is_ascii_alphabetic()), "{line}");
            assert!(letters.all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            let family = match scrape.types[&open].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
                _ => Some(name),
            };
            assert_eq!(family, Some(open.as_str()), "{line}");
            for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                let (key, quoted) = label.split_once('=').unwrap();
                let value = quoted.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                assert!(key.chars().all(|c| c.is_ascii_lowercase()), "{line}");
                assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+".contains(c)), "{line}");
            }
            let known = scrape.series.insert(series.to_owned(), value.parse().unwrap());
            assert!(known.is_none(), "twice: {line}");
        }
    }
    scrape
}

impl Scrape {
    fn of(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in {:?}", self.series))
    }
}

#[test]
fn a_push_and_a_refused_login_are_counted_and_nothing_goes_back() {
    let mut house = House::start("metrics");
    house.app("shop");
    let before = scrape(&house);
    let dir = house.repository("shop", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    house.push(&dir, &["HEAD:refs/heads/main"]).succeeded();
    house.push(&dir, &["HEAD:refs/heads/x;id"]).failed();
    house.generate_key("stranger");
    let git_ssh = house.ssh_command("stranger");
    let url = format!("ssh://git@{}/shop.git", house.ready()["ssh"].as_str().unwrap());
    house.git_with(&dir, &[("GIT_SSH_COMMAND", &git_ssh)], &["ls-remote", &url]).failed();
    // the last connection's end is the door's to notice
    house.until("connections are closed", |house| scrape(house).of("lemnos_ssh_connections") == 0.0);
    let after = scrape(&house);

    let more = |series: &str| after.of(series) - before.of(series);
    // a registry that several tests use at once may fail for a moment
    let retries = f64::from(u32::try_from(house.server_log().matches("; again in ").count()).unwrap());
    for (series, times) in [
        ("lemnos_pushes_total{result=\"accepted\"}", 1.0),
        ("lemnos_pushes_total{result=\"refused\"}", 1.0),
        ("lemnos_builds_total{kind=\"dockerfile\",state=\"succeeded\"}", 1.0),
        ("lemnos_builds_total{kind=\"dockerfile\",state=\"failed\"}", 0.0),
        ("lemnos_ssh_logins_total", 2.0),
        ("lemnos_ssh_refusals_total{reason=\"login\"}", 1.0),
        // git ends well when it has told a client that a ref is refused
        ("lemnos_git_requests_total{service=\"git-receive-pack\",status=\"ok\"}", 2.0),
        ("lemnos_git_requests_total{service=\"git-receive-pack\",status=\"failed\"}", 0.0),
        ("lemnos_queue_running", 0.0),
        ("lemnos_registry_retries_total", retries),
    ] {
        assert_eq!(more(series).to_bits(), f64::to_bits(times), "{series}: {}", more(series));
    }
    for stage in ["receive", "queue", "plan", "solve", "assemble", "tag"] {
        let count = more(&format!("lemnos_stage_duration_seconds_count{{stage=\"{stage}\"}}"));
        assert_eq!(count.to_bits(), 1f64.to_bits(), "{stage}: {count}");
    }
    assert!(more("lemnos_registry_requests_total{status=\"2xx\"}") > 0.0);
    assert_eq!(after.of("lemnos_builders{state=\"up\"}").to_bits(), 1f64.to_bits());
    assert!(after.of("process_resident_memory_bytes") > 0.0 && after.of("process_open_fds") > 3.0);

    assert_eq!(before.series.keys().collect::<Vec<_>>(), after.series.keys().collect::<Vec<_>>());
    for (series, value) in &after.series {
        let family = series.split('{').next().unwrap();
        let gauge = after.types.get(family).is_some_and(|kind| kind == "gauge");
        assert!(gauge || *value >= before.series[series], "{series} went back");
    }
}
