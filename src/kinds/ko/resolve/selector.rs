//! Label selectors as Kubernetes has them: `app=web,tier!=cache,env in (a,b),!canary,weight>3`. Pure.

/// Why a selector is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the selector {selector:?} {problem}: write KEY=VALUE, KEY!=VALUE, KEY, !KEY, KEY in (A,B), KEY notin (A,B), KEY>N or KEY<N, with commas between"
)]
pub struct SelectorError {
    selector: String,
    problem: String,
}

/// All of its requirements must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    There,
    NotThere,
    In(Vec<String>),
    /// Also met where the key is not there.
    NotIn(Vec<String>),
    More(i64),
    Less(i64),
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let refuse = |problem: String| SelectorError { selector: text.to_owned(), problem };
        let mut requirements = Vec::new();
        for part in parts(text) {
            requirements.push(requirement(part.trim()).map_err(refuse)?);
        }
        Ok(Self { requirements })
    }
}

/// Between the commas that are in no parentheses; none in an empty text.
fn parts(text: &str) -> Vec<&str> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut inside = false;
    text.split(|c| {
        inside = match c {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        c == ',' && !inside
    })
    .collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let of = |key: &str, wanted| Ok(Requirement { key: name(key)?, wanted });
    if let Some(key) = text.strip_prefix('!') {
        return of(key, Wanted::NotThere);
    }
    if let Some((left, values)) = text.split_once('(') {
        let values = values.trim_end().strip_suffix(')').ok_or("lacks a closing parenthesis")?;
        let values = values.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let mut words = left.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => of(key, Wanted::In(values)),
            (Some(key), Some("notin"), None) => of(key, Wanted::NotIn(values)),
            _ => Err("has parentheses without `in` or `notin`".to_owned()),
        };
    }
    let Some(at) = text.find(['=', '!', '<', '>']) else { return of(text, Wanted::There) };
    let (key, rest) = text.split_at(at);
    if let Some(rest) = rest.strip_prefix("!=") {
        return of(key, Wanted::NotIn(vec![value(rest)?]));
    }
    if let Some(rest) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        return of(key, Wanted::In(vec![value(rest)?]));
    }
    let number =
        |rest: &str| rest.trim().parse().map_err(|_| format!("compares with {rest:?}, which is no number"));
    match (rest.strip_prefix('>'), rest.strip_prefix('<')) {
        (Some(rest), _) => of(key, Wanted::More(number(rest)?)),
        (_, Some(rest)) => of(key, Wanted::Less(number(rest)?)),
        _ => Err("has a ! in a place of its own".to_owned()),
    }
}

/// A label's key: a name of 63 characters at most, with a domain before it or without one.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    let domain_ok = domain.is_none_or(|domain| {
        let label = |part: &str| {
            word(part)
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        domain.len() <= 253 && domain.split('.').all(label)
    });
    if domain_ok && name.len() <= 63 && word(name) {
        Ok(text.to_owned())
    } else {
        Err(format!("has the key {text:?}, which no label may have"))
    }
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || (text.len() <= 63 && word(text)) {
        Ok(text.to_owned())
    } else {
        Err(format!("has the value {text:?}, which no label may have"))
    }
}

/// Letters, digits, `-`, `_` and `.`, the first and the last a letter or a digit.
fn word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl Selector {
    /// Whether an object with these labels is meant.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let found = label(&requirement.key);
            let compared = |with: fn(i64, i64) -> bool, other: i64| {
                found.and_then(|value| value.parse().ok()).is_some_and(|value| with(value, other))
            };
            match &requirement.wanted {
                Wanted::There => found.is_some(),
                Wanted::NotThere => found.is_none(),
                Wanted::In(values) => found.is_some_and(|found| values.iter().any(|value| value == found)),
                Wanted::NotIn(values) => found.is_none_or(|found| !values.iter().any(|value| value == found)),
                Wanted::More(than) => compared(|value, other| value > other, *than),
                Wanted::Less(than) => compared(|value, other| value < other, *than),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector: Selector = selector.parse().unwrap();
        selector.matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn every_operator_of_kubernetes_is_known() {
        let web = [("app", "web"), ("tier", "front"), ("weight", "7"), ("example.com/team", "a")];
        for yes in [
            "",
            "app=web",
            "app==web",
            "app = web , tier!=cache",
            "app",
            "!canary",
            "app in (api, web)",
            "env notin (prod)",
            "tier notin (back,cache),app",
            "weight>3",
            "weight<8",
            "other!=x",
            "example.com/team=a",
        ] {
            assert!(chosen(yes, &web), "{yes}");
        }
        for no in [
            "app=api",
            "app!=web",
            "canary",
            "!app",
            "app in (api)",
            "app notin (web)",
            "weight>7",
            "weight<7",
            "app>3",
            "none>3",
            "app=web,tier=back",
            "app=",
            "env in ()",
        ] {
            assert!(!chosen(no, &web), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_said_so() {
        for wrong in [
            "=web",
            "app=a b",
            "app in web)",
            "app in (web",
            "app of (web)",
            "a b",
            "app>x",
            "app!web",
            ",",
            "-a=b",
            "a=b;c",
            "A.b/c=d",
        ] {
            let error = wrong.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains("the selector"), "{wrong}: {error}");
        }
    }
}
