//! What a build may take from outside: the operator's policy as data, and the rules that it becomes for one app.
//!
//! The daemon holds the rules for whatever a Dockerfile or frontend asks for (`solve` hands them over); the planner and
//! the session ask the same rules, so that nobody has another opinion. Of all the rules that match, the last one decides.
//! Rules speak of BuildKit's names of sources: `docker-image://HOST/PATH:TAG@DIGEST`, `https://…`, `git://HOST/…`.

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::image::{canonical_host, is_registry_host};
use super::{ImageName, ImagePrefix};

/// The operator's settings. The default allows every base image and every public address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourcePolicy {
    /// Patterns of base images; empty: any.
    pub base_images: Vec<String>,
    /// Whether a base image must be named by digest.
    pub by_digest: bool,
    /// Whether a frontend image must be.
    pub frontends_by_digest: bool,
    /// Patterns of what `ADD` may fetch from the network; empty: any public address.
    pub remote_sources: Vec<String>,
}

impl SourcePolicy {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether `pattern` can stand in `base_images`: `*`, or `HOST[:PORT]/PATH[:TAG]` with `*` for a part of a component, or at
/// the end for all that follows.
pub fn is_image_pattern(pattern: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-/:*[]".contains(&b);
    let host = pattern.split_once('/').map(|(host, _)| host.replace('*', "x"));
    pattern == "*" || pattern.bytes().all(fits) && host.is_some_and(|host| is_registry_host(&host))
}

/// Whether `pattern` can stand in `remote_sources`: `none`, or `HOST[:PORT][/PATH]` with `*` as in image patterns.
pub fn is_remote_pattern(pattern: &str) -> bool {
    let fits = |b: u8| b.is_ascii_graphic() && !b"\"'\\`<>{}|^".contains(&b);
    let host = pattern.split('/').next().unwrap_or_default();
    !host.is_empty() && !pattern.contains("://") && !host.contains('@') && pattern.bytes().all(fits)
}

/// Why a source is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It lies where images of apps are, and is not this app's.
    NotOwn,
    NotListed {
        allowed: Vec<String>,
    },
    NoDigest,
    PrivateAddress,
    RemoteNotListed {
        allowed: Vec<String>,
    },
}

impl Refusal {
    /// The policy, as the end of "IMAGE is refused: …".
    pub fn policy(&self) -> String {
        match self {
            Self::NotOwn => {
                "it lies among the images of apps, and an app takes its own and allowed base images only"
                    .to_owned()
            }
            Self::NotListed { allowed } => format!("base images here are {}", allowed.join(", ")),
            Self::NoDigest => "base images are to be named by digest here".to_owned(),
            Self::PrivateAddress => "builds fetch nothing from addresses inside this network".to_owned(),
            Self::RemoteNotListed { allowed } if allowed.iter().all(|entry| entry == "none") => {
                "builds fetch nothing from the network here".to_owned()
            }
            Self::RemoteNotListed { allowed } => format!("builds fetch from {} only", allowed.join(", ")),
        }
    }

    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotOwn => {
                "build on another image, or ask the operator to name this one in base_images (lemnos.toml)"
            }
            Self::NotListed { .. } => {
                "use one of these, or ask the operator to add the image to base_images (lemnos.toml)"
            }
            Self::NoDigest => {
                "write IMAGE@sha256:…; `docker buildx imagetools inspect IMAGE` shows the digest"
            }
            Self::PrivateAddress | Self::RemoteNotListed { .. } => {
                "commit the file, or ask the operator to add the address to remote_sources (lemnos.toml)"
            }
        }
    }
}

/// One rule: sources whose name matches are allowed, or refused for a reason.
#[derive(Debug, Clone)]
pub struct Rule {
    /// A regular expression in the syntax that Go and Rust share.
    pub pattern: String,
    /// Where not the name itself is looked at, but this attribute of sources whose name begins with `git://`.
    pub attribute: Option<&'static str>,
    pub refused: Option<Refusal>,
    matcher: Regex,
}

/// The rules of one app's builds.
#[derive(Debug, Clone, Default)]
pub struct SourceRules {
    rules: Vec<Rule>,
    own: Option<ImageName>,
}

/// Whose rules are made, and what else there is.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'a> {
    /// The app's own image.
    pub own: &'a ImageName,
    /// Where images of apps are put; what lies below is some app's, or will be.
    pub prefix: Option<&'a ImagePrefix>,
    /// The images of all other apps.
    pub others: &'a [ImageName],
    /// Frontend images that may be used.
    pub frontends: &'a [String],
}

const IMAGE: &str = r"docker-image(\+blob)?://";
const DIGEST: &str = "@sha256:[0-9a-f]{64}";
/// Other apps' images a rule.
const NAMES_PER_RULE: usize = 200;
/// The attribute in which BuildKit keeps a git source's whole address.
const GIT_ADDRESS: &str = "git.fullurl";

/// Hosts that are no public address: loopback, private, link-local (cloud metadata), names that end inside, and every
/// spelling of an address but the usual one.
const PRIVATE_HOST: &str = concat!(
    r"(localhost|([^/@:?#]+\.)?(localhost|local|internal|localdomain|home\.arpa|invalid)|ip6-localhost|ip6-loopback",
    r"|0x[0-9a-fx.]*|[0-9]+(\.[0-9]+){0,2}|0[0-9]+\.[0-9.]+|[0-9.]*\.0[0-9]+(\.[0-9]+)*",
    r"|0\.[0-9.]+|10\.[0-9.]+|127\.[0-9.]+|169\.254\.[0-9.]+|192\.168\.[0-9.]+|172\.(1[6-9]|2[0-9]|3[01])\.[0-9.]+",
    r"|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\.[0-9.]+|192\.0\.0\.[0-9]+|198\.1[89]\.[0-9.]+|2(2[4-9]|[3-5][0-9])\.[0-9.]+",
    r"|\[[^23][^]]*\]|\[2002:[^]]*\]|\[[23][0-9a-f]{0,2}:[^]]*\]|\[[^]]*%[^]]*\])",
);

impl SourceRules {
    /// The rules of an app. None where a pattern is none, which `config` has refused long before.
    pub fn new(policy: &SourcePolicy, tenant: &Tenant<'_>) -> Option<Self> {
        let mut all = Building::default();
        all.base_images(policy, tenant)?;
        all.of_apps(policy, tenant)?;
        all.remote(policy)?;
        Some(Self { rules: all.rules, own: Some(tenant.own.clone()) })
    }

    /// No rules: for builds of those who run the builder themselves.
    pub fn open(own: ImageName) -> Self {
        Self { rules: Vec::new(), own: Some(own) }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Why the source of this name is refused; none where it is allowed.
    pub fn refuses(&self, identifier: &str) -> Option<&Refusal> {
        let last = self
            .rules
            .iter()
            .rfind(|rule| rule.attribute.is_none() && rule.matcher.is_match(identifier.as_bytes()));
        last.and_then(|rule| rule.refused.as_ref())
    }

    /// Whether the operator has named the address of the web, so that it may also lie inside the network; where there are no
    /// rules, whoever builds runs the builder.
    pub fn vouches(&self, address: &str) -> bool {
        self.rules.is_empty() || {
            let last = self
                .rules
                .iter()
                .rfind(|rule| rule.attribute.is_none() && rule.matcher.is_match(address.as_bytes()));
            last.is_some_and(|rule| rule.refused.is_none())
        }
    }

    /// What of `actions` (`pull`, `push`) the app may do with a repository of a registry.
    pub fn actions(&self, host: &str, repository: &str, actions: &[&str]) -> Vec<&'static str> {
        let Ok(image) = format!("{host}/{repository}").parse::<ImageName>() else { return Vec::new() };
        let may: &[&'static str] = match &self.own {
            Some(own) if own.same_repository(&image) => &["pull", "push"],
            _ if self.may_pull(&image) => &["pull"],
            _ => &[],
        };
        may.iter().filter(|action| actions.contains(action)).copied().collect()
    }

    /// Whether some tag or digest of it may be pulled: the source rules have judged which one.
    fn may_pull(&self, image: &ImageName) -> bool {
        let host = match canonical_host(image.host()).as_str() {
            "docker.io" => "docker.io".to_owned(),
            _ => image.host().to_owned(),
        };
        let last = self.rules.iter().rfind(|rule| {
            let name = format!("docker-image://{host}/{}", image.path());
            // a rule that tells tags and digests apart says nothing of the repository but that it is known
            rule.attribute.is_none()
                && rule.refused != Some(Refusal::NoDigest)
                && (rule.matcher.is_match(name.as_bytes())
                    || tagless(&rule.pattern).is_some_and(|r| r.is_match(name.as_bytes())))
        });
        last.is_none_or(|rule| rule.refused.is_none())
    }
}

/// Bytes, as Go's names of hosts are ASCII: what is not matches no letter of another case.
fn matcher(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

/// The rule's expression without what it says of tag and digest.
fn tagless(pattern: &str) -> Option<Regex> {
    let (repository, _) = pattern.split_once("(:")?;
    matcher(&format!("{repository}$"))
}

#[derive(Default)]
struct Building {
    rules: Vec<Rule>,
}

impl Building {
    fn add(&mut self, pattern: String, refused: Option<Refusal>) -> Option<()> {
        let matcher = matcher(&pattern)?;
        self.rules.push(Rule { pattern, attribute: None, refused, matcher });
        Some(())
    }

    fn base_images(&mut self, policy: &SourcePolicy, tenant: &Tenant<'_>) -> Option<()> {
        let allowed = &policy.base_images;
        if !allowed.is_empty() && !allowed.iter().any(|pattern| pattern == "*") {
            self.add(format!("^{IMAGE}"), Some(Refusal::NotListed { allowed: allowed.clone() }))?;
            for pattern in allowed {
                self.add(image_expression(pattern, false), None)?;
            }
        }
        if policy.by_digest {
            self.add(format!("^{IMAGE}[^@]*$"), Some(Refusal::NoDigest))?;
        }
        for frontend in tenant.frontends {
            self.add(image_expression(frontend, policy.frontends_by_digest), None)?;
        }
        Some(())
    }

    fn of_apps(&mut self, policy: &SourcePolicy, tenant: &Tenant<'_>) -> Option<()> {
        if let Some(prefix) = tenant.prefix {
            let below = match prefix.as_str().split_once('/') {
                Some((host, path)) => format!("{}/{}/", host_expression(host), regex::escape(path)),
                None => format!("{}/", host_expression(prefix.host())),
            };
            self.add(format!("(?i)^{IMAGE}{below}"), Some(Refusal::NotOwn))?;
        }
        // by path, whatever the host: a mirror or another name of the registry would lead to the same image
        let names: Vec<String> = tenant.others.iter().map(|name| regex::escape(name.path())).collect();
        for names in names.chunks(NAMES_PER_RULE) {
            let any = names.join("|");
            self.add(format!("(?i)^{IMAGE}[^/]+/({any})([:@]|$)"), Some(Refusal::NotOwn))?;
        }
        for pattern in policy.base_images.iter().filter(|pattern| names_an_app(pattern, tenant)) {
            self.add(image_expression(pattern, policy.by_digest), None)?;
        }
        let (host, path) = (host_expression(tenant.own.host()), regex::escape(tenant.own.path()));
        self.add(format!("^{IMAGE}{host}/{path}(:[^@]+)?({DIGEST})?$"), None)
    }

    fn remote(&mut self, policy: &SourcePolicy) -> Option<()> {
        let allowed = &policy.remote_sources;
        let address = |host: &str| format!("(?i)^(https?|git|ssh)://([^/@]*@)?{host}");
        if !allowed.is_empty() {
            self.add(address(""), Some(Refusal::RemoteNotListed { allowed: allowed.clone() }))?;
        }
        let inside = address(&format!(r"{PRIVATE_HOST}\.?(:[0-9]*)?([/?#]|$)"));
        let listed: Vec<String> = allowed
            .iter()
            .filter(|pattern| *pattern != "none")
            .map(|pattern| address(&remote_expression(pattern)))
            .collect();
        if allowed.is_empty() {
            self.add(inside, Some(Refusal::PrivateAddress))?;
        }
        for pattern in listed {
            self.add(pattern, None)?;
        }
        self.git_addresses()
    }

    /// The rules of remote names once more, for the attribute that git sources are really fetched by.
    fn git_addresses(&mut self) -> Option<()> {
        let remote = self.rules.iter().filter(|rule| rule.pattern.contains("|git|ssh)://"));
        let of_attribute: Vec<Rule> =
            remote.map(|rule| Rule { attribute: Some(GIT_ADDRESS), ..rule.clone() }).collect();
        self.rules.extend(of_attribute);
        Some(())
    }
}

/// A pattern that means an image of apps by name, not one that happens to reach over them.
fn names_an_app(pattern: &str, tenant: &Tenant<'_>) -> bool {
    let literal = pattern.split('*').next().unwrap_or_default();
    let below = tenant.prefix.is_some_and(|prefix| {
        literal
            .strip_prefix(prefix.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| !rest.is_empty())
    });
    below || literal == pattern
}

/// Every name of a registry's host, as far as names tell.
fn host_expression(host: &str) -> String {
    let canonical = canonical_host(host);
    if canonical == "docker.io" {
        return r"(docker\.io|index\.docker\.io|registry-1\.docker\.io)".to_owned();
    }
    let (name, port) = match canonical.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, format!(":{port}")),
        _ => (canonical.as_str(), String::new()),
    };
    let loopback = name == "localhost"
        || (name.starts_with("127.") && name.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    if loopback {
        return format!(r"(localhost|[0-9][0-9a-fx.]*|\[[^]]*\]){port}");
    }
    regex::escape(&canonical)
}

/// A pattern of `base_images` or `frontends` as an expression over whole names.
fn image_expression(pattern: &str, by_digest: bool) -> String {
    let digest = if by_digest { DIGEST.to_owned() } else { format!("({DIGEST})?") };
    if let Some((name, named)) = pattern.split_once('@') {
        return format!("^{IMAGE}{}(:[^@]+)?@{}$", glob(&full_name(name), "[^/:@]*"), regex::escape(named));
    }
    let last = pattern.rfind('/').map_or(0, |at| at + 1);
    let tag_at = pattern.get(last..).and_then(|name| name.find(':')).map(|at| last + at);
    let (name, tag) = match tag_at {
        Some(at) => {
            (pattern.get(..at).unwrap_or_default(), pattern.get(at + 1..).map(|tag| glob(tag, "[^@]*")))
        }
        None => (pattern, None),
    };
    let name = full_name(name);
    let repository = match name.strip_suffix('*') {
        Some(start) => format!("{}[^:@]*", glob(start, "[^/:@]*")),
        None => glob(&name, "[^/:@]*"),
    };
    match tag {
        Some(tag) => format!("^{IMAGE}{repository}(:{tag}){digest}$"),
        None => format!("^{IMAGE}{repository}(:[^@]+)?{digest}$"),
    }
}

/// Docker's short names written out.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if is_registry_host(&host.replace('*', "x")) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// `HOST[:PORT][/PATH]` at the beginning of an address, after its scheme.
fn remote_expression(pattern: &str) -> String {
    let (host, path) = pattern.split_once('/').map_or((pattern, None), |(host, path)| (host, Some(path)));
    let host = glob(host, "[^/@:?#]*");
    match path {
        None => format!("{host}([/?#]|$)"),
        Some(path) => match path.strip_suffix('*') {
            Some(start) => format!("{host}/{}", glob(start, "[^/?#]*")),
            None => format!("{host}/{}([?#]|$)", glob(path, "[^/?#]*")),
        },
    }
}

/// `*` stands for `any`, everything else for itself.
fn glob(pattern: &str, any: &str) -> String {
    pattern.split('*').map(regex::escape).collect::<Vec<_>>().join(any)
}

#[cfg(test)]
mod tests;
