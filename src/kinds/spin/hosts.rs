//! Whom a component may talk to: `allowed_outbound_hosts`, the older `allowed_http_hosts`, and what both mean.
//!
//! An entry that Spin would refuse when the application starts is refused here, with the reason. Texts are kept as they are
//! written. Must not look a name up.

use std::net::Ipv6Addr;

/// What an entry is beside being valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outbound {
    /// It is another component of the application (`NAME.spin.internal`): the host must know how to reach one.
    pub chaining: bool,
}

/// The host name of components as seen by each other.
const CHAINING_SUFFIX: &str = ".spin.internal";

/// One entry without variables: `SCHEME://HOST[:PORT]`, each with `*`.
pub(super) fn outbound(entry: &str) -> Result<Outbound, String> {
    if entry == "insecure:allow-all" {
        return Err("write *://*:* to allow everything".to_owned());
    }
    let (scheme, rest) = entry
        .trim()
        .split_once("://")
        .ok_or("there is no scheme: write SCHEME://HOST[:PORT], for example https://example.com")?;
    if scheme != "*" && (scheme.is_empty() || !scheme.chars().all(char::is_alphabetic)) {
        return Err("a scheme is letters only, or *".to_owned());
    }
    let (host, port) = split_port(rest)?;
    check_port(port, scheme)?;
    check_host(host)
}

/// Host and port; the colons of an address in brackets are the host's.
fn split_port(rest: &str) -> Result<(&str, &str), String> {
    match rest.rsplit_once(':') {
        Some((host, tail)) if !tail.contains(']') && !is_network(rest) => match tail.split_once('/') {
            Some((_, path)) if !path.is_empty() => Err("a path has no place in it".to_owned()),
            Some((port, _)) => Ok((host, port)),
            None => Ok((host, tail)),
        },
        _ => Ok((rest, "")),
    }
}

fn check_port(port: &str, scheme: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u16>().is_ok();
    match port {
        "*" => Ok(()),
        "" if ["http", "https", "postgres", "mysql", "redis", "mqtt"].contains(&scheme) => Ok(()),
        "" => Err(format!("the scheme {scheme:?} has no port of its own: write one, or :*")),
        _ => match port.split_once("..") {
            Some((from, to)) if number(from) && number(to) => Ok(()),
            None if number(port) => Ok(()),
            _ => Err(format!("the port {port:?} is no number from 0 to 65535, no range FROM..TO and not *")),
        },
    }
}

fn check_host(host: &str) -> Result<Outbound, String> {
    let host = host.trim();
    if host == "*" || host == "self" || host == "self.alt" || is_network(host) {
        return Ok(Outbound { chaining: false });
    }
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains('/') {
        return Err("a path has no place in it".to_owned());
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.contains('*') {
        return Err("* stands for a whole host, or for its first part (*.example.com)".to_owned());
    }
    if host == name
        && name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .is_some_and(|n| n.parse::<Ipv6Addr>().is_ok())
    {
        return Ok(Outbound { chaining: false });
    }
    if !is_domain(name) {
        return Err(format!("{name:?} is no host name"));
    }
    let chaining = format!(".{}", name.to_ascii_lowercase()).ends_with(CHAINING_SUFFIX)
        && (host != name || name.len() >= CHAINING_SUFFIX.len());
    Ok(Outbound { chaining })
}

fn is_domain(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == '.';
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
}

/// An address with an optional prefix length.
fn is_network(text: &str) -> bool {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|bits| bits <= most))
}

/// `allowed_http_hosts` as outbound hosts. `databases`: what was open before there were outbound hosts stays open.
pub(super) fn from_http(entries: &[String], databases: bool) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    if databases {
        hosts.extend(["redis://*:*", "mysql://*:*", "postgres://*:*"].map(str::to_owned));
    }
    if entries.iter().any(|entry| entry == "insecure:allow-all") {
        hosts.extend(["http://*:*", "https://*:*", "http://self"].map(str::to_owned));
        return Ok(hosts);
    }
    for entry in entries {
        let place = http_host(entry).map_err(|why| format!("{entry:?}: {why}"))?;
        if place == "self" {
            hosts.push("http://self".to_owned());
        } else {
            hosts.extend([format!("http://{place}"), format!("https://{place}")]);
        }
    }
    Ok(hosts)
}

/// `HOST[:PORT]` of an older entry, the scheme and its own port left out.
fn http_host(entry: &str) -> Result<String, &'static str> {
    let (own_port, rest) = match entry.split_once("//") {
        Some(("http:", rest)) => ("80", rest),
        Some(("https:", rest)) => ("443", rest),
        Some(_) => return Err("only http:// and https:// have a place in it"),
        None => ("80", entry),
    };
    let rest = match rest.split_once('/') {
        Some((_, path)) if !path.is_empty() => return Err("a path has no place in it"),
        Some((rest, _)) => rest,
        None => rest,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (rest, ""),
    };
    let in_brackets = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if !is_domain(host) && in_brackets.is_none_or(|h| h.parse::<Ipv6Addr>().is_err()) {
        return Err("it is no host name");
    }
    let host = host.to_ascii_lowercase();
    match port {
        "" => Ok(host),
        port if port == own_port => Ok(host),
        port if port.parse::<u16>().is_ok() => Ok(format!("{host}:{port}")),
        _ => Err("its port is no number from 0 to 65535"),
    }
}

/// The variables that a text names in `{{ }}`; an error where braces are left open.
pub(super) fn variables(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("there is a {{ without its }}")?;
        names.push(name.trim().to_owned());
        rest = after;
    }
    Ok(names)
}

/// `text` with each `{{ name }}` replaced; none where a value is not known.
pub(super) fn filled_in(text: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        filled.push_str(before);
        filled.push_str(&value(name.trim())?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbound_hosts_are_judged() {
        for good in [
            "*://*:*",
            "http://example.com",
            "https://example.com:8443",
            "https://example.com/",
            "http://*.example.com",
            "redis://127.0.0.1:6379",
            "tcp://10.0.0.0/8:1000..2000",
            "http://[::1]:3000",
            "http://[::1]",
            "mqtt://broker:1883/",
            "http://self",
            "https://self.alt",
            "http://10.0.0.0/8",
            "postgres://*:*",
            " http://a ",
        ] {
            assert_eq!(outbound(good), Ok(Outbound { chaining: false }), "{good}");
        }
        for chained in ["http://api.spin.internal", "http://*.spin.internal", "http://API.Spin.Internal:80"] {
            assert_eq!(outbound(chained), Ok(Outbound { chaining: true }), "{chained}");
        }
        assert_eq!(outbound("http://spin.internal"), Ok(Outbound { chaining: false }), "not a component");
        let said: Vec<String> = [
            "*",
            "",
            "example.com",
            "http2://x",
            "{http,https}://x",
            "ftp://x",
            "tcp://*",
            "http://x:",
            "http://x:99999",
            "http://x:1..b",
            "http://x/path",
            "http://x:80/path",
            "http://a*b",
            "http://*.*.x",
            "http://a b",
            "http://",
            "http://[::g]",
            "insecure:allow-all",
            "http://10.0.0.0/40",
        ]
        .iter()
        .map(|bad| format!("{bad}: {}", outbound(bad).map_or_else(|why| why, |_| "taken".to_owned())))
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn older_entries_become_outbound_hosts() {
        let of = |entries: &[&str], databases| {
            from_http(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>(), databases)
        };
        assert_eq!(of(&[], true).unwrap(), ["redis://*:*", "mysql://*:*", "postgres://*:*"]);
        assert_eq!(
            of(&["Example.com", "http://a:80/", "https://b:444", "self", "c:8080"], false).unwrap(),
            [
                "http://example.com",
                "https://example.com",
                "http://a",
                "https://a",
                "http://b:444",
                "https://b:444",
                "http://self",
                "http://c:8080",
                "https://c:8080"
            ]
        );
        assert_eq!(
            of(&["x", "insecure:allow-all"], false).unwrap(),
            ["http://*:*", "https://*:*", "http://self"]
        );
        for bad in ["ftp://x", "x/y", "a b", "x:port", ""] {
            assert!(of(&[bad], false).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_of_a_text_are_found() {
        assert_eq!(variables("a{{ b }}c{{d}}").unwrap(), ["b", "d"]);
        assert!(variables("{{ a }} {{ b").is_err());
        assert_eq!(filled_in("http://{{ h }}:{{p}}", |n| Some(n.to_uppercase())).unwrap(), "http://H:P");
        assert_eq!(filled_in("{{ h }}", |_| None), None);
    }
}
