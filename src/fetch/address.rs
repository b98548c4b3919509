//! Which addresses are public: what a push may have this machine speak to.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A name that stands for no public address.
#[derive(Debug, thiserror::Error)]
#[error("{host} is an address inside this network")]
struct Inside {
    host: String,
}

/// Resolves names as the system does, and leaves out what is not public.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> = all.iter().copied().filter(|at| is_public(at.ip())).collect();
            if public.is_empty() && !all.is_empty() {
                return Err(Inside { host }.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// The host that was refused, where that is why a request failed.
pub(super) fn refused(error: &reqwest::Error) -> Option<String> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(inside) = cause.downcast_ref::<Inside>() {
            return Some(inside.host.clone());
        }
        next = cause.source();
    }
    None
}

/// The address that stands in place of a name.
pub(super) fn literal(at: &Url) -> Option<IpAddr> {
    at.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is one of the public internet, by IANA's registries of special-purpose addresses. Those that carry
/// an IPv4 address inside (NAT64, 6to4, Teredo) are not: they lead wherever that one does.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(matches!(a, 0 | 10 | 127)
                || a >= 224
                || (a == 100 && (64..128).contains(&b))
                || (a == 169 && b == 254)
                || (a == 172 && (16..32).contains(&b))
                || (a == 192 && b == 168)
                || (a == 192 && b == 0 && matches!(c, 0 | 2))
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && matches!(b, 18 | 19))
                || (a == 198 && b == 51 && c == 100)
                || (a == 203 && b == 0 && c == 113))
        }
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            // global unicast, without the protocol assignments, documentation and 6to4
            a & 0xe000 == 0x2000
                && !(a == 0x2001 && b < 0x0200)
                && !(a == 0x2001 && b == 0x0db8)
                && a != 0x2002
                && !(a == 0x3fff && b < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_whole_internet_are_public() {
        for public in ["1.1.1.1", "100.63.0.1", "172.15.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
    }

    #[test]
    fn an_address_is_known_from_a_name() {
        let literal = |url: &str| literal(&Url::parse(url).unwrap()).map(|ip| ip.to_string());
        assert_eq!(literal("http://[::1]:80/x").as_deref(), Some("::1"));
        // other spellings are made the usual one by the parser
        assert_eq!(literal("http://0x7f000001/").as_deref(), Some("127.0.0.1"));
        assert_eq!(literal("http://2130706433/").as_deref(), Some("127.0.0.1"));
        assert_eq!(literal("http://example.com/"), None);
    }
}
