//! Where an image name leads: API host, path, scheme, and the key its credentials stand under. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::ImageName;
use crate::model::image::canonical_host;

/// Docker Hub's API; `docker.io` itself only serves web pages.
const HUB_API: &str = "registry-1.docker.io";
/// The key of Docker Hub's credentials in docker's config file, fixed by history.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The names that all mean Docker Hub.
pub fn is_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com")
}

/// The host that serves the API of `host`.
pub fn api_host(host: &str) -> &str {
    if is_hub(host) { HUB_API } else { host }
}

/// The repository's path in the API: Docker Hub's official images live in `library/`.
pub fn api_path(image: &ImageName) -> String {
    match image.path() {
        path if is_hub(image.host()) && !path.contains('/') => format!("library/{path}"),
        path => path.to_owned(),
    }
}

/// Where an image is looked for: at the mirrors of its registry, in their order, and last where its name says. `mirrors`:
/// registry host -> each `HOST[:PORT][/PREFIX]`, as BuildKit means them.
pub fn places(image: &ImageName, mirrors: &BTreeMap<String, Vec<String>>) -> Vec<ImageName> {
    let host = canonical_host(image.host());
    let named = mirrors.iter().filter(|(registry, _)| canonical_host(registry) == host);
    let path = api_path(image);
    // a name that grows too long by its prefix is none
    let mirrored =
        named.flat_map(|(_, all)| all).filter_map(|mirror| format!("{mirror}/{path}").parse().ok());
    mirrored.chain([image.clone()]).collect()
}

/// `host` without its port and brackets.
pub fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// `localhost`, 127.0.0.0/8 or ::1, with any port. Names are not resolved: a name that merely points there is not loopback.
pub fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `host` is spoken to in plain http.
pub fn is_plain_http(host: &str, configured: &[String]) -> bool {
    is_loopback(host) || configured.iter().any(|entry| entry.eq_ignore_ascii_case(host))
}

/// Whether a token service at `realm_host` is the registry's own: the same host, or one in the same domain (`gitlab.example.com`
/// for `registry.example.com`, `auth.docker.io` for `registry-1.docker.io`). A shared public suffix alone is no shared domain:
/// the common part must have two labels more than nothing, three where the second-last is as short as in `co.uk`.
pub fn is_same_site(registry_host: &str, realm_host: &str) -> bool {
    let registry = without_port(registry_host).to_ascii_lowercase();
    let realm = without_port(realm_host).to_ascii_lowercase();
    if registry == realm {
        return true;
    }
    if registry.parse::<IpAddr>().is_ok() || realm.parse::<IpAddr>().is_ok() {
        return false;
    }
    let common: Vec<&str> =
        registry.rsplit('.').zip(realm.rsplit('.')).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let needed = match common.as_slice() {
        [country, second, ..] if country.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    common.len() >= needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_configured_hosts_are_plain() {
        let configured = ["registry.lan:5000".to_owned()];
        for host in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "registry.lan:5000"]
        {
            assert!(is_plain_http(host, &configured), "{host}");
        }
        for host in [
            "localhost.example.com:5000",
            "127.0.0.1.example.com",
            "registry.lan",
            "registry.lan:5001",
            "10.0.0.1:5000",
            "[::2]:5000",
        ] {
            assert!(!is_plain_http(host, &configured), "{host}");
        }
    }

    #[test]
    fn docker_hub_has_one_form() {
        let path = |text: &str| api_path(&text.parse().unwrap());
        assert_eq!(path("docker.io/shop"), "library/shop");
        assert_eq!(path("docker.io/team/shop"), "team/shop");
        assert_eq!(path("localhost:5000/shop"), "shop");
        assert_eq!(api_host("docker.io"), "registry-1.docker.io");
        assert_eq!(api_host("index.docker.io"), "registry-1.docker.io");
        assert_eq!(api_host("docker.io.example.com"), "docker.io.example.com");
    }

    #[test]
    fn mirrors_come_before_the_registry_itself() {
        let mirrors = BTreeMap::from([
            ("docker.io".to_owned(), vec!["127.0.0.1:5000".to_owned(), "mirror.example.org/hub".to_owned()]),
            ("cgr.dev".to_owned(), vec!["127.0.0.1:5000".to_owned()]),
        ]);
        let places = |text: &str| {
            let found = places(&text.parse().unwrap(), &mirrors);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let hub = ["127.0.0.1:5000/library/golang", "mirror.example.org/hub/library/golang"];
        assert_eq!(places("docker.io/golang"), [hub[0], hub[1], "docker.io/golang"]);
        assert_eq!(
            places("index.docker.io/library/golang"),
            [hub[0], hub[1], "index.docker.io/library/golang"]
        );
        assert_eq!(
            places("cgr.dev/chainguard/static"),
            ["127.0.0.1:5000/chainguard/static", "cgr.dev/chainguard/static"]
        );
        assert_eq!(places("127.0.0.1:5000/shop"), ["127.0.0.1:5000/shop"]);
        // it would be longer than names may be
        let long = format!("docker.io/team/{}", "x".repeat(235));
        assert_eq!(places(&long).len(), 2);
    }

    #[test]
    fn a_token_service_belongs_to_its_registry_or_not() {
        let same = [
            ("registry-1.docker.io", "auth.docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("registry.example.com:5000", "gitlab.example.com"),
            ("registry.example.co.uk", "auth.example.co.uk"),
            ("127.0.0.1:5000", "127.0.0.1:5001"),
        ];
        for (registry, realm) in same {
            assert!(is_same_site(registry, realm), "{registry} {realm}");
        }
        let other = [
            ("registry.example.com", "example.org"),
            ("registry.example.com", "example.com.attacker.net"),
            ("one.co.uk", "two.co.uk"),
            ("ghcr.io", "quay.io"),
            ("10.0.0.1", "10.1.0.1"),
            ("docker.io", "xdocker.io"),
        ];
        for (registry, realm) in other {
            assert!(!is_same_site(registry, realm), "{registry} {realm}");
        }
    }
}
