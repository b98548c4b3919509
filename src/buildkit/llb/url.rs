//! URLs, read and written as Go's net/url does, for the remotes of git sources.
//!
//! Byte for byte: the text that comes out names a repository in a digest. Only what has a scheme and `//` is read.

use std::net::Ipv6Addr;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    scheme: String,
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) host: Vec<u8>,
    pub(super) path: Vec<u8>,
    escaped_path: String,
    bare_query: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    User,
    Host,
    Zone,
    Path,
    Fragment,
    Query,
}

impl Url {
    /// `scheme` is what stands before the `://` of `text`.
    pub(super) fn parse(scheme: &str, text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("a control character in the URL".into());
        }
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        unescape(fragment, Part::Fragment)?;
        let scheme = scheme.to_lowercase();
        let rest = text.get(scheme.len() + 1..).unwrap_or_default();
        let bare_query = rest.ends_with('?') && rest.matches('?').count() == 1;
        let rest = rest.split('?').next().unwrap_or_default();
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(userinfo(user)?), host),
            None => (None, authority),
        };
        let host = parse_host(&scheme, host)?;
        let decoded = unescape(path, Part::Path)?;
        let escaped_path = match path.bytes().all(may_stand_in_path) {
            true => path.to_owned(),
            false => escape(&decoded, Part::Path),
        };
        Ok(Self { scheme, user, host, path: decoded, escaped_path, bare_query })
    }

    /// Without query and fragment.
    pub(super) fn remote(&self) -> String {
        let mut out = format!("{}:", self.scheme);
        if !self.host.is_empty() || !self.path.is_empty() || self.user.is_some() {
            out.push_str("//");
        }
        if let Some((name, password)) = &self.user {
            out.push_str(&escape(name, Part::User));
            if let Some(password) = password {
                out.push(':');
                out.push_str(&escape(password, Part::User));
            }
            out.push('@');
        }
        out.push_str(&escape(&self.host, Part::Host));
        out.push_str(&self.escaped_path);
        if self.bare_query {
            out.push('?');
        }
        out
    }
}

fn userinfo(text: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !text.chars().all(fine) {
        return Err("a user name with characters that must be escaped".into());
    }
    match text.split_once(':') {
        None => Ok((unescape(text, Part::User)?, None)),
        Some((name, password)) => Ok((unescape(name, Part::User)?, Some(unescape(password, Part::User)?))),
    }
}

fn parse_host(scheme: &str, host: &str) -> Result<Vec<u8>, String> {
    match host.rfind('[') {
        Some(0) => return literal(host),
        Some(_) => return Err("an address in brackets that is not all of the host".into()),
        None => {}
    }
    let strict = scheme == "http" || scheme == "https";
    let colon = if strict { host.find(':') } else { host.rfind(':') };
    if let Some(at) = colon {
        check_port(host.get(at..).unwrap_or_default())?;
    }
    unescape(host, Part::Host)
}

/// `[address]`, `[address%25zone]`, with or without a port.
fn literal(host: &str) -> Result<Vec<u8>, String> {
    let (address, port) = host.rsplit_once(']').ok_or("a bracket that is not closed in the host")?;
    let address = address.get(1..).unwrap_or_default();
    check_port(port)?;
    let mut plain = match address.find("%25") {
        None => unescape(address, Part::Host)?,
        Some(at) => {
            let (address, zone) = address.split_at(at);
            [unescape(address, Part::Host)?, unescape(zone, Part::Zone)?].concat()
        }
    };
    let text = String::from_utf8_lossy(&plain).into_owned();
    let (ip, zone) = text.split_once('%').map_or((text.as_str(), None), |(ip, zone)| (ip, Some(zone)));
    if ip.parse::<Ipv6Addr>().is_err() || zone == Some("") {
        return Err("no IPv6 address in the host's brackets".into());
    }
    plain.insert(0, b'[');
    plain.push(b']');
    plain.extend(unescape(port, Part::Host)?);
    Ok(plain)
}

fn check_port(text: &str) -> Result<(), String> {
    let digits = text.strip_prefix(':').unwrap_or(if text.is_empty() { "" } else { "x" });
    match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!("the port {text:?} is no number")),
    }
}

/// Whether a query can be read, as Go's ParseQuery does.
pub(super) fn query_is_readable(query: &str) -> bool {
    query.split('&').all(|pair| !pair.contains(';') && unescape(pair, Part::Query).is_ok())
}

fn must_escape(byte: u8, part: Part) -> bool {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => false,
        b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' | b'<' | b'>' | b'"'
            if matches!(part, Part::Host | Part::Zone) =>
        {
            false
        }
        b'!' | b'(' | b')' | b'*' if part == Part::Fragment => false,
        b'$' | b'&' | b'+' | b',' | b':' | b';' | b'=' if matches!(part, Part::Host | Part::Zone) => false,
        b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@' => match part {
            Part::Path => byte == b'?',
            Part::User => matches!(byte, b'@' | b'/' | b'?' | b':'),
            Part::Fragment => false,
            Part::Host | Part::Zone | Part::Query => true,
        },
        _ => true,
    }
}

/// Of a path that is kept as it was written.
fn may_stand_in_path(byte: u8) -> bool {
    b"!$&'()*+,;=:@[]%".contains(&byte) || !must_escape(byte, Part::Path)
}

fn escape(text: &[u8], part: Part) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if must_escape(byte, part) {
            let _ = write!(out, "%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

fn unescape(text: &str, part: Part) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let host = matches!(part, Part::Host | Part::Zone);
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            if host && byte.is_ascii() && must_escape(*byte, part) {
                return Err(format!("the character {:?} in the host", char::from(*byte)));
            }
            out.push(*byte);
            continue;
        }
        let bad = || format!("an escape in {text:?} that cannot be read");
        let [high, low, after @ ..] = rest else { return Err(bad()) };
        let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(bad);
        let value = u8::try_from(digit(*high)? * 16 + digit(*low)?).map_err(|_| bad())?;
        let percent = value == b'%';
        let refused = match part {
            Part::Host => value < 0x80 && !percent,
            Part::Zone => !percent && value != b' ' && must_escape(value, Part::Host),
            _ => false,
        };
        if refused {
            return Err(bad());
        }
        out.push(value);
        rest = after;
    }
    Ok(out)
}
