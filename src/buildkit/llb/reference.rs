//! Image references, completed as Go's distribution/reference does: `alpine` is `docker.io/library/alpine:latest`.

use std::sync::LazyLock;

use regex::Regex;

/// Longest repository path.
const PATH_LIMIT: usize = 255;

const DEFAULT_DOMAIN: &str = "docker.io";

const COMPONENT: &str = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const DOMAIN: &str = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";
const TAG: &str = r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}";
const DIGEST: &str = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[[:xdigit:]]{32,}";

static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
    let name = format!("(?:(?:{DOMAIN})/)?{COMPONENT}(?:/{COMPONENT})*");
    Regex::new(&format!("^({name})(?::({TAG}))?(?:@({DIGEST}))?$")).expect("written here")
});
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!("^(?:({DOMAIN})/)?({COMPONENT}(?:/{COMPONENT})*)$")).expect("written here")
});

/// A reference with its domain written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    name: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
}

impl Reference {
    pub(super) fn parse(given: &str) -> Result<Self, String> {
        if given.len() == 64 && given.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("64 hexadecimal digits are an image's id, not its name".into());
        }
        let (domain, rest) = with_domain(given);
        let repository = rest.split(':').next().unwrap_or_default();
        if repository.to_lowercase() != repository {
            return Err(format!("the repository name {repository} must be in lower case"));
        }
        let full = format!("{domain}/{rest}");
        let parts = WHOLE.captures(&full).ok_or("it is not of the form name[:tag][@digest]")?;
        let part = |at| parts.get(at).map(|m| m.as_str().to_owned());
        let name = part(1).unwrap_or_default();
        let path = NAME.captures(&name).and_then(|c| c.get(2)).map_or(name.as_str(), |m| m.as_str());
        if path.len() > PATH_LIMIT {
            return Err(format!("its repository name is longer than {PATH_LIMIT} characters"));
        }
        let digest = part(3);
        digest.as_deref().map_or(Ok(()), check_digest)?;
        Ok(Self { name, tag: part(2), digest })
    }

    /// With `latest` where neither a tag nor a digest is named.
    pub(super) fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

fn with_domain(given: &str) -> (&str, String) {
    let Some((first, rest)) = given.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("library/{given}"));
    };
    let (domain, rest) = match first {
        "index.docker.io" => (DEFAULT_DOMAIN, rest),
        "localhost" => (first, rest),
        _ if first.contains(['.', ':']) || first.to_lowercase() != first => (first, rest),
        _ => (DEFAULT_DOMAIN, given),
    };
    match domain == DEFAULT_DOMAIN && !rest.contains('/') {
        true => (domain, format!("library/{rest}")),
        false => (domain, rest.to_owned()),
    }
}

fn check_digest(digest: &str) -> Result<(), String> {
    let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(format!("{algorithm} is no digest algorithm that is known")),
    };
    match hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(()),
        false => Err(format!("its digest is not {length} hexadecimal digits in lower case")),
    }
}
