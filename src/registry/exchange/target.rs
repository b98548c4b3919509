//! Where a registry sends a client: the place of an upload, and the storage that holds a blob. Pure.
//!
//! Invariant: what is not of the registry's own origin gets no signature, and nothing leaves an encrypted connection for one
//! in the clear.

use reqwest::Url;

use super::super::fault::Problem;
use super::super::host;

/// A place to go on at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub url: Url,
    /// Scheme, host and port are those that were asked.
    pub own: bool,
}

/// The place that `location` names, absolute or relative to what was `asked`.
pub fn follow(asked: &Url, location: &str, plain_http: &[String]) -> Result<Target, Problem> {
    let refuse = |what: &str| {
        let shown: String = location.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect();
        Problem::Nonsense { what: format!("it points to {shown:?}, {what}") }
    };
    if location.is_empty() {
        return Err(Problem::Nonsense { what: "it points nowhere: there is no Location".to_owned() });
    }
    let url = asked.join(location).map_err(|_| refuse("which is no address"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("an address with a password in it"));
    }
    let host = url.host_str().ok_or_else(|| refuse("an address without a host"))?;
    let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let own = url.origin() == asked.origin();
    let allowed = match url.scheme() {
        "https" => true,
        "http" => own || asked.scheme() == "http" && host::is_plain_http(&named, plain_http),
        _ => false,
    };
    if !allowed {
        return Err(refuse("which is in the clear"));
    }
    Ok(Target { url, own })
}

/// The place of an upload, where a blob of this digest ends.
pub fn ending(mut url: Url, digest: &crate::model::Digest) -> Url {
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    #[test]
    fn signatures_stay_with_their_origin_and_nothing_goes_in_the_clear() {
        let plain = ["lan:5000".to_owned()];
        let of = |asked: &str, location: &str| {
            follow(&asked.parse().unwrap(), location, &plain)
                .map(|target| (target.url.to_string(), target.own))
        };
        let secure = "https://r.example.com/v2/shop/blobs/uploads/";
        for (location, url, own) in [
            ("/v2/shop/blobs/uploads/1?s=a", "https://r.example.com/v2/shop/blobs/uploads/1?s=a", true),
            ("2", "https://r.example.com/v2/shop/blobs/uploads/2", true),
            ("https://r.example.com:443/x", "https://r.example.com/x", true),
            ("https://r.example.com:8443/x", "https://r.example.com:8443/x", false),
            ("https://cdn.example.net/x", "https://cdn.example.net/x", false),
            ("//cdn.example.net/x", "https://cdn.example.net/x", false),
        ] {
            assert_eq!(of(secure, location).unwrap(), (url.to_owned(), own), "{location}");
        }
        for location in [
            "",
            "http://r.example.com/x",
            "http://127.0.0.1/x",
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "https://u:p@r.example.com/x",
            "https://",
        ] {
            assert!(of(secure, location).is_err(), "{location}");
        }
        let clear = "http://127.0.0.1:5000/v2/shop/blobs/uploads/";
        assert!(!of(clear, "http://127.0.0.1:5001/x").unwrap().1);
        assert!(!of(clear, "http://lan:5000/x").unwrap().1);
        assert!(of(clear, "http://169.254.169.254/x").is_err());
    }

    #[test]
    fn what_an_upload_carries_is_kept() {
        let url = "https://r/v2/a/blobs/uploads/1?_state=a%2Bb%3D".parse().unwrap();
        let digest = Digest::of(b"");
        let expected = format!(
            "https://r/v2/a/blobs/uploads/1?_state=a%2Bb%3D&digest={}",
            digest.as_str().replace(':', "%3A")
        );
        assert_eq!(ending(url, &digest).as_str(), expected);
    }
}
