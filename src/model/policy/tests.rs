//! Each rule against the names that should meet it, and those that try to pass beside it.

use super::*;

const DIGEST_A: &str = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn rules_at(prefix: &str, own: &str, others: &[&str], policy: &SourcePolicy) -> SourceRules {
    let others: Vec<ImageName> = others.iter().map(|name| name.parse().unwrap()).collect();
    let (own, prefix): (ImageName, ImagePrefix) = (own.parse().unwrap(), prefix.parse().unwrap());
    let frontends = ["docker.io/docker/dockerfile".to_owned(), "ghcr.io/x/frontend:1".to_owned()];
    let tenant = Tenant { own: &own, prefix: Some(&prefix), others: &others, frontends: &frontends };
    SourceRules::new(policy, &tenant).unwrap()
}

fn team(policy: &SourcePolicy) -> SourceRules {
    let others = ["r.example.com/team/blog", "ghcr.io/acme/wiki"];
    rules_at("r.example.com/team", "r.example.com/team/shop", &others, policy)
}

fn images(list: &[&str]) -> SourcePolicy {
    SourcePolicy { base_images: list.iter().map(|p| (*p).to_owned()).collect(), ..SourcePolicy::default() }
}

fn refused(rules: &SourceRules, image: &str) -> Option<Refusal> {
    rules.refuses(&format!("docker-image://{image}")).cloned()
}

#[test]
fn another_apps_images_are_refused_under_every_name() {
    let rules = team(&SourcePolicy::default());
    for image in [
        "r.example.com/team/blog:latest",
        "r.example.com/team/blog",
        "R.EXAMPLE.COM/team/blog:latest",
        "r.example.com/team/nobody-yet:1",
        "r.example.com/team/blog/sub:1",
        "ghcr.io/acme/wiki:latest",
        // a mirror, or another name of the same registry
        "docker.io/team/blog:latest",
        "mirror.example.net:5000/team/blog:latest",
    ] {
        for name in [image.to_owned(), format!("{image}{DIGEST_A}")] {
            assert_eq!(refused(&rules, &name), Some(Refusal::NotOwn), "{name}");
        }
    }
    assert!(rules.refuses(&format!("docker-image+blob://r.example.com/team/blog{DIGEST_A}")).is_some());
    for image in [
        "r.example.com/team/shop:main",
        "r.example.com/base/python:3",
        "r.example.com/teams/blog:1",
        "docker.io/library/busybox:latest",
        "docker.io/library/blog:latest",
        "ghcr.io/acme/wiki2:latest",
    ] {
        assert_eq!(refused(&rules, image), None, "{image}");
    }
}

#[test]
fn a_registry_on_this_machine_has_no_name_to_slip_through() {
    let rules =
        rules_at("localhost:5000", "localhost:5000/shop", &["localhost:5000/blog"], &SourcePolicy::default());
    for host in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "0.0.0.0",
        "127.1",
        "0x7f.1",
    ] {
        assert_eq!(refused(&rules, &format!("{host}:5000/blog:latest")), Some(Refusal::NotOwn), "{host}");
        assert_eq!(refused(&rules, &format!("{host}:5000/later:latest")), Some(Refusal::NotOwn), "{host}");
    }
    assert_eq!(refused(&rules, "127.0.0.1:5000/shop:latest"), None);
    assert_eq!(refused(&rules, "localhost:5001/anything:1"), None, "another registry");
}

#[test]
fn an_app_is_let_in_by_name_and_not_by_a_wide_pattern() {
    for (list, allowed) in [
        (vec!["r.example.com/*"], false),
        (vec!["*"], false),
        (vec!["r.example.com/team/*"], false),
        (vec!["r.example.com/team/blog"], true),
        (vec!["*", "r.example.com/team/bl*"], true),
    ] {
        let rules = team(&images(&list));
        assert_eq!(refused(&rules, "r.example.com/team/blog:1").is_none(), allowed, "{list:?}");
        assert_eq!(refused(&rules, "r.example.com/team/other:1"), Some(Refusal::NotOwn), "{list:?}");
    }
    assert_eq!(refused(&team(&images(&["ghcr.io/acme/*"])), "ghcr.io/acme/wiki:1"), Some(Refusal::NotOwn));
    assert_eq!(refused(&team(&images(&["ghcr.io/acme/wiki"])), "ghcr.io/acme/wiki:1"), None);
}

#[test]
fn base_images_are_those_that_are_listed() {
    let rules = team(&images(&[
        "docker.io/library/*",
        "gcr.io/distroless/static:nonroot",
        "*.example.net/base/*",
        "q.example.org/a*z",
    ]));
    for image in [
        "docker.io/library/busybox:latest",
        "docker.io/library/busybox",
        "gcr.io/distroless/static:nonroot",
        "a.example.net/base/x/y:1",
        "q.example.org/abz:1",
        "r.example.com/team/shop:main",
        // frontends are a list of their own
        "docker.io/docker/dockerfile:1",
        "ghcr.io/x/frontend:1",
    ] {
        assert_eq!(refused(&rules, image), None, "{image}");
        assert_eq!(refused(&rules, &format!("{image}{DIGEST_A}")), None, "{image} by digest");
    }
    for image in [
        "docker.io/evil/library/busybox:1",
        "docker.io/libraryx/busybox:1",
        "gcr.io/distroless/static:debug",
        "gcr.io/distroless/static",
        "evil.example.org/x.example.net/base/y:1",
        "a.b.example.com/base/y:1",
        "example.net/base/y:1",
        "q.example.org/a/z:1",
        "ghcr.io/x/frontend:2",
        "docker.io.example.com/library/busybox:1",
    ] {
        assert!(matches!(refused(&rules, image), Some(Refusal::NotListed { .. })), "{image}");
    }
}

#[test]
fn digests_can_be_required() {
    let policy =
        SourcePolicy { by_digest: true, ..images(&["docker.io/library/*", "r.example.com/team/blog"]) };
    let rules = team(&policy);
    assert_eq!(refused(&rules, "docker.io/library/busybox:latest"), Some(Refusal::NoDigest));
    assert_eq!(refused(&rules, &format!("docker.io/library/busybox:latest{DIGEST_A}")), None);
    assert_eq!(refused(&rules, &format!("docker.io/library/busybox{DIGEST_A}")), None);
    assert_eq!(refused(&rules, "r.example.com/team/blog:1"), Some(Refusal::NotOwn));
    assert_eq!(refused(&rules, &format!("r.example.com/team/blog:1{DIGEST_A}")), None);
    assert_eq!(refused(&rules, "r.example.com/team/shop:main"), None, "the app's own");
}

#[test]
fn nothing_is_fetched_from_inside_by_its_address() {
    let rules = team(&SourcePolicy::default());
    for host in [
        "localhost",
        "LocalHost:8080",
        "x.localhost",
        "localhost.",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.1:80",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "metadata.google.internal",
        "user:pass@127.0.0.1",
        "user@localhost:81",
        "printer.local",
        "224.0.0.1",
        "1.2.3.04",
    ] {
        for url in [format!("http://{host}/x"), format!("https://{host}"), format!("git://{host}/a.git#main")]
        {
            assert_eq!(rules.refuses(&url), Some(&Refusal::PrivateAddress), "{url}");
        }
    }
    for host in [
        "example.com",
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "localhost.example.com",
        "10.example.com",
        "[2606:4700::1111]",
        "internal.example.com",
    ] {
        for url in [format!("https://{host}/x"), format!("git://{host}/a/b.git#main")] {
            assert_eq!(rules.refuses(&url), None, "{url}");
        }
    }
    let git: Vec<_> = rules.rules().iter().filter(|rule| rule.attribute == Some("git.fullurl")).collect();
    assert!(
        git.iter()
            .any(|rule| rule.refused.is_some() && rule.matcher.is_match(b"https://169.254.169.254/a.git"))
    );
    assert!(
        git.iter()
            .any(|rule| rule.refused.is_some() && rule.matcher.is_match(b"ssh://git@10.0.0.1:22/a.git"))
    );
}

#[test]
fn remote_sources_are_those_that_are_listed() {
    let list = |entries: &[&str]| SourcePolicy {
        remote_sources: entries.iter().map(|e| (*e).to_owned()).collect(),
        ..SourcePolicy::default()
    };
    let rules = team(&list(&["files.example.com/pub/*", "10.0.0.5:8081", "git.example.com/team/a.git"]));
    for (url, allowed) in [
        ("https://files.example.com/pub/x/y.tgz", true),
        ("https://files.example.com/private", false),
        ("https://files.example.com.evil.net/pub/x", false),
        ("https://files.example.com@evil.net/pub/x", false),
        ("http://10.0.0.5:8081/x", true),
        ("http://10.0.0.5:80/x", false),
        ("git://git.example.com/team/a.git#main", true),
        ("git://git.example.com/team/b.git", false),
        ("https://example.com/", false),
    ] {
        assert_eq!(rules.refuses(url).is_none(), allowed, "{url}");
    }
    assert!(team(&list(&["none"])).refuses("https://example.com/x").is_some());
}

#[test]
fn tokens_are_lent_for_own_and_allowed_repositories() {
    let may =
        |rules: &SourceRules, host: &str, name: &str| rules.actions(host, name, &["pull", "push", "delete"]);
    let rules = team(&SourcePolicy::default());
    assert_eq!(may(&rules, "r.example.com", "team/shop"), ["pull", "push"]);
    assert_eq!(may(&rules, "r.example.com", "base/python"), ["pull"]);
    assert_eq!(may(&rules, "r.example.com", "team/blog"), [""; 0]);
    assert_eq!(may(&rules, "ghcr.io", "acme/wiki"), [""; 0]);
    assert_eq!(may(&rules, "r.example.com", "team/blog:x"), [""; 0], "no name at all");
    assert_eq!(rules.actions("r.example.com", "team/shop", &["pull"]), ["pull"]);
    let policy = SourcePolicy { by_digest: true, ..images(&["docker.io/library/busybox:1.*"]) };
    let rules = team(&policy);
    assert_eq!(may(&rules, "registry-1.docker.io", "library/busybox"), ["pull"]);
    assert_eq!(may(&rules, "registry-1.docker.io", "library/alpine"), [""; 0]);
    assert_eq!(may(&rules, "r.example.com", "base/python"), [""; 0]);
}

#[test]
fn patterns_are_checked_where_they_are_written() {
    for good in
        ["*", "docker.io/library/*", "r.example.com:5000/a:1.*", "localhost:5000/base", "*.example.com/x"]
    {
        assert!(is_image_pattern(good), "{good}");
    }
    for bad in
        ["", "busybox", "library/*", "https://r.example.com/x", "r.example.com/a b", "r.example.com/(x)"]
    {
        assert!(!is_image_pattern(bad), "{bad}");
    }
    for good in ["none", "example.com", "example.com:8080/x/*", "10.0.0.1/a"] {
        assert!(is_remote_pattern(good), "{good}");
    }
    for bad in ["", "https://example.com", "u@example.com/", "/x"] {
        assert!(!is_remote_pattern(bad), "{bad}");
    }
}
