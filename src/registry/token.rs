//! Bearer tokens: asked of the registry's token service, kept until shortly before they expire.
//!
//! The realm comes from the network, so it is judged before a secret goes there: https (plain http only where the registry
//! itself is spoken to so), and in the registry's own domain or listed by the operator.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;

use super::credentials::Credential;
use super::host;

/// A token as it goes into `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub lifetime: Duration,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(for {} s)", self.lifetime.as_secs())
    }
}

/// Distribution's token specification: a token without a stated lifetime lives 60 s, and a shorter one is not to be stated.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);
/// Tokens are not used in their last seconds, so that none expires on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// Names the requests on the token service's side.
const CLIENT_ID: &str = "lemnos";

/// One question to a token service.
pub enum Question {
    /// GET, with a password as Basic where there is one.
    Get { url: Url, basic: Option<(String, String)> },
    /// POST of an OAuth form: an identity token is exchanged.
    Post { url: Url, form: String },
}

/// The question that gets a token for `scope` (several are parted by spaces), or the realm when it may not be asked with credentials.
pub fn question(
    registry_host: &str,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    credential: Option<&Credential>,
    rules: &Rules<'_>,
) -> Result<Question, String> {
    let mut url: Url = realm.parse().map_err(|_| realm.to_owned())?;
    if !rules.allow(registry_host, &url, credential.is_some()) {
        return Err(shown(&url));
    }
    match credential {
        Some(Credential { secret, identity_token: true, .. }) => {
            let mut form = Url::parse("form:/").map_err(|_| realm.to_owned())?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.unwrap_or(registry_host))
                .append_pair("client_id", CLIENT_ID)
                .append_pair("scope", scope)
                .append_pair("refresh_token", secret);
            Ok(Question::Post { url, form: form.query().unwrap_or_default().to_owned() })
        }
        other => {
            if let Some(service) = service {
                url.query_pairs_mut().append_pair("service", service);
            }
            for scope in scope.split(' ') {
                url.query_pairs_mut().append_pair("scope", scope);
            }
            let basic = other.map(|credential| (credential.username.clone(), credential.secret.clone()));
            Ok(Question::Get { url, basic })
        }
    }
}

/// Where credentials may go.
pub struct Rules<'a> {
    pub plain_http: &'a [String],
    pub token_hosts: &'a [String],
}

impl Rules<'_> {
    fn allow(&self, registry_host: &str, realm: &Url, secret: bool) -> bool {
        let Some(name) = realm.host_str() else { return false };
        let realm_host = realm.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let encrypted = match realm.scheme() {
            "https" => true,
            // in the clear only between hosts that are both spoken to so
            "http" => {
                host::is_plain_http(registry_host, self.plain_http)
                    && host::is_plain_http(&realm_host, self.plain_http)
            }
            _ => false,
        };
        let listed = || self.token_hosts.iter().any(|entry| entry.eq_ignore_ascii_case(&realm_host));
        encrypted && (!secret || host::is_same_site(registry_host, &realm_host) || listed())
    }
}

/// The realm without query and user info.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

/// Reads a token service's answer.
pub fn answer(body: &[u8]) -> Option<Token> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let text = filled(answer.token).or_else(|| filled(answer.access_token))?;
    let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Some(Token { text, lifetime: lifetime.clamp(DEFAULT_LIFETIME, LONGEST_LIFETIME) })
}

/// How a request is signed.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    Basic {
        username: String,
        secret: String,
    },
    /// `user` is whom the token was asked for, for messages.
    Bearer {
        token: Token,
        user: Option<String>,
    },
}

/// What signed the last requests of a host (Basic) or a host's repository (Bearer).
#[derive(Default)]
pub struct Cache(Mutex<HashMap<String, (Instant, Authorization)>>);

/// More repositories than that are not remembered at once.
const CACHE_LIMIT: usize = 1024;

impl Cache {
    pub fn get(&self, key: &str) -> Option<Authorization> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(key) {
            Some((until, authorization)) if *until > Instant::now() => Some(authorization.clone()),
            Some(_) => {
                entries.remove(key);
                None
            }
            None => None,
        }
    }

    pub fn put(&self, key: String, authorization: Authorization) {
        let lifetime = match &authorization {
            Authorization::Basic { .. } => LONGEST_LIFETIME,
            Authorization::Bearer { token, .. } => token.lifetime.saturating_sub(MARGIN),
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CACHE_LIMIT {
            let now = Instant::now();
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= CACHE_LIMIT {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now() + lifetime, authorization));
    }

    pub fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Credential {
        Credential { username: "ada".to_owned(), secret: "s3cret".to_owned(), identity_token: false }
    }

    #[test]
    fn secrets_go_to_the_registrys_own_token_service_only() {
        let token_hosts = ["sso.example.net".to_owned()];
        let plain = ["lan:5000".to_owned()];
        let rules = Rules { plain_http: &plain, token_hosts: &token_hosts };
        let with =
            |host: &str, realm: &str| question(host, realm, None, "s", Some(&password()), &rules).is_ok();
        let without = |host: &str, realm: &str| question(host, realm, None, "s", None, &rules).is_ok();
        assert!(with("registry-1.docker.io", "https://auth.docker.io/token"));
        assert!(with("registry.example.com", "https://registry.example.com/token"));
        assert!(with("registry.example.com", "https://sso.example.net/token"), "listed");
        assert!(with("127.0.0.1:5000", "http://127.0.0.1:5001/token"), "loopback to loopback");
        assert!(!with("registry.example.com", "https://evil.example.net/token"));
        assert!(!with("registry.example.com", "http://registry.example.com/token"), "in the clear");
        assert!(
            !with("registry.example.com", "http://127.0.0.1/token"),
            "a remote registry names a local service"
        );
        assert!(!with("127.0.0.1:5000", "http://169.254.169.254/token"));
        assert!(!with("lan:5000", "http://lan:5001/token"));
        assert!(!with("registry.example.com", "file:///etc/passwd"));
        assert!(!with("registry.example.com", "not a url"));
        assert!(without("registry.example.com", "https://elsewhere.example.net/token"), "nothing to lose");
        assert!(!without("registry.example.com", "http://elsewhere.example.net/token"));
    }

    #[test]
    fn an_identity_token_is_posted_never_put_into_a_url() {
        let rules = Rules { plain_http: &[], token_hosts: &[] };
        let identity =
            Credential { username: String::new(), secret: "refresh&me".to_owned(), identity_token: true };
        let realm = "https://r.example.com/oauth2/token?x=1";
        match question(
            "r.example.com",
            realm,
            Some("r.example.com"),
            "repository:shop:pull,push",
            Some(&identity),
            &rules,
        ) {
            Ok(Question::Post { url, form }) => {
                assert_eq!(url.as_str(), realm);
                assert_eq!(
                    form,
                    "grant_type=refresh_token&service=r.example.com&client_id=lemnos&scope=repository%3Ashop%3Apull%2Cpush&refresh_token=refresh%26me"
                );
            }
            _ => panic!("expected a POST"),
        }
    }

    #[test]
    fn a_password_is_asked_with_in_the_header() {
        let rules = Rules { plain_http: &[], token_hosts: &[] };
        match question(
            "r.example.com",
            "https://r.example.com/token",
            Some("svc"),
            "a b",
            Some(&password()),
            &rules,
        ) {
            Ok(Question::Get { url, basic }) => {
                assert_eq!(url.as_str(), "https://r.example.com/token?service=svc&scope=a&scope=b");
                assert_eq!(basic, Some(("ada".to_owned(), "s3cret".to_owned())));
            }
            _ => panic!("expected a GET"),
        }
    }

    #[test]
    fn answers_are_read_in_both_spellings() {
        let read = |text: &str| answer(text.as_bytes()).map(|token| (token.text, token.lifetime.as_secs()));
        assert_eq!(read(r#"{"token":"a","expires_in":300}"#), Some(("a".to_owned(), 300)));
        assert_eq!(read(r#"{"access_token":"b"}"#), Some(("b".to_owned(), 60)));
        assert_eq!(read(r#"{"token":"","access_token":"b","expires_in":1}"#), Some(("b".to_owned(), 60)));
        assert_eq!(read(r#"{"token":"a","expires_in":99999999}"#), Some(("a".to_owned(), 3600)));
        assert_eq!(read("{}"), None);
        assert_eq!(read("<html>"), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = Cache::default();
        for n in 0..2 * CACHE_LIMIT {
            cache.put(n.to_string(), Authorization::Basic { username: String::new(), secret: String::new() });
        }
        assert!(cache.0.lock().unwrap().len() <= CACHE_LIMIT);
        assert!(cache.get(&(2 * CACHE_LIMIT - 1).to_string()).is_some());
    }
}
