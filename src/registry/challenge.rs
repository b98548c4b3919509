//! `WWW-Authenticate` as registries use it (RFC 9110, section 11.6.1; distribution's token specification). Pure.

/// How the registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token from the service at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The strongest challenge of the header's values: Bearer before Basic; none where neither is offered.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    for value in values {
        for (scheme, parameters) in schemes(value) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer { realm, service: get("service") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            }
        }
    }
    basic.then_some(Challenge::Basic)
}

type Parameters = Vec<(String, String)>;

/// Splits `Scheme a="b", c=d, Other e="f"` into schemes with their parameters. A word without `=` begins a new scheme.
fn schemes(value: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = match after.trim_start().strip_prefix('=') {
            Some(after) => {
                let (parameter, after) = parameter_value(after.trim_start());
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_owned(), parameter));
                }
                after
            }
            None => {
                found.push((word.to_owned(), Vec::new()));
                after
            }
        };
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A token or quoted string at the start of `text`, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_at(text.find([' ', ',', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, quoted.get(at + 1..).unwrap_or("")),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn reads_what_registries_send() {
        let cases: [(&[&str], Option<Challenge>); 8] = [
            (
                &[
                    r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a:pull,push""#,
                ],
                bearer("https://auth.example.com/token", Some("registry")),
            ),
            (&[r#"Basic realm="x""#], Some(Challenge::Basic)),
            (&["Basic"], Some(Challenge::Basic)),
            (&[r#"Basic realm="a, Bearer realm=b""#], Some(Challenge::Basic)),
            (&[r#"Basic realm="x", Bearer realm="https://a/t""#], bearer("https://a/t", None)),
            (&[r#"Basic realm="x""#, "bearer REALM=https://a/t"], bearer("https://a/t", None)),
            (&["Bearer service=x"], None),
            (&["Negotiate", ""], None),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(values.iter().copied()), expected, "{values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_ends(value in "[a-zA-Z=\", \\\\]{0,60}") {
            parse([value.as_str()]);
        }
    }
}
