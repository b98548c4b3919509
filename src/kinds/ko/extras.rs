//! `ko_config` of `build-config.yaml`: which programs, what they are put on, and what ko's own file has no keys for.
//!
//! Read only when a tree is built as ko would; an unknown key is an error with its line. Must not look at the tree beyond
//! this one file.

use std::collections::BTreeMap;

use super::errors::KoError;
use super::reference;
use super::yaml::{self, At, Node};
use crate::kinds::BUILD_CONFIG;
use crate::kinds::errors::shown;
use crate::model::closest::closest;
use crate::model::{ImageName, Invalid, KoExtras};

const KEYS: [&str; 15] = [
    "import_path",
    "all",
    "base_image",
    "go_version",
    "toolchain",
    "ports",
    "workdir",
    "args",
    "env",
    "labels",
    "annotations",
    "destinations",
    "sbom_tags",
    "config",
    "resolve",
];
const LIMIT_ITEMS: usize = 256;
const LIMIT_TEXT_BYTES: usize = 32 * 1024;

/// What it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KoWishes {
    /// `./cmd/app` or `example.com/app/cmd/app`.
    pub import_path: Option<At<String>>,
    /// One image for each main package.
    pub all: bool,
    pub base_image: Option<At<String>>,
    /// `1.26` or `1.26.3`
    pub go_version: Option<At<String>>,
    /// A whole image, in place of the one that goes with the version.
    pub toolchain: Option<At<String>>,
    /// Where ko's own file is, if not at the root.
    pub config: Option<At<String>>,
    /// Kubernetes YAML whose references become images: files and directories of the tree.
    pub resolve: Vec<At<String>>,
    pub extras: KoExtras,
}

fn wrong<T>(at: &At<T>, problem: impl Into<String>) -> KoError {
    KoError::Config {
        file: BUILD_CONFIG.to_owned(),
        line: at.line,
        column: at.column,
        problem: problem.into(),
    }
}

fn invalid(at: &At<String>, what: &'static str, allowed: &'static str) -> KoError {
    let problem = Invalid::new(what, &shown(&at.value), allowed);
    KoError::Value { place: format!("{BUILD_CONFIG}:{}", at.line), problem }
}

impl KoWishes {
    /// The text of `build-config.yaml`.
    pub fn parse(text: &str) -> Result<Self, KoError> {
        let Node::Map(entries) = yaml::parse(BUILD_CONFIG, text)?.value else { return Ok(Self::default()) };
        let Some((_, node)) = entries.into_iter().find(|(key, _)| key.value == "ko_config") else {
            return Ok(Self::default());
        };
        let place = At { value: (), line: node.line, column: node.column };
        let entries = match node.value {
            Node::Null => return Ok(Self::default()),
            Node::Map(entries) => entries,
            other => return Err(wrong(&place, format!("ko_config is {}, not a mapping", other.kind()))),
        };
        let mut wishes = Self::default();
        for (key, value) in entries {
            wishes.take(&key, value)?;
        }
        Ok(wishes)
    }

    fn take(&mut self, key: &At<String>, value: At<Node>) -> Result<(), KoError> {
        let name = key.value.as_str();
        let extras = &mut self.extras;
        match name {
            "all" => match value.value {
                Node::Bool(all) => self.all = all,
                _ => return Err(wrong(&value, "all is true or false")),
            },
            "sbom_tags" => match value.value {
                Node::Bool(tagged) => extras.sbom_tags = tagged,
                _ => return Err(wrong(&value, "sbom_tags is true or false")),
            },
            "import_path" => self.import_path = Some(text(name, value)?),
            "config" => self.config = Some(text(name, value)?),
            "base_image" => self.base_image = Some(image(name, value)?),
            "toolchain" => self.toolchain = Some(image(name, value)?),
            "go_version" => {
                let version = text(name, value)?;
                let ok = version.value.split('.').count() >= 2
                    && version.value.len() <= 20
                    && version.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
                if !ok {
                    return Err(invalid(&version, "version of Go", "1.26 or 1.26.3, in quotes"));
                }
                self.go_version = Some(version);
            }
            "ports" => extras.ports = ports(list(name, value)?)?,
            "workdir" => {
                let dir = text(name, value)?;
                if !dir.value.starts_with('/') || dir.value.split('/').any(|part| part == "..") {
                    return Err(invalid(&dir, "working directory", "an absolute path without '..'"));
                }
                extras.workdir = Some(dir.value);
            }
            "resolve" => {
                self.resolve = match value.value {
                    Node::Text(_) => vec![text(name, value)?],
                    _ => list(name, value)?,
                }
            }
            "args" => extras.args = list(name, value)?.into_iter().map(|arg| arg.value).collect(),
            "env" => {
                let list = list(name, value)?;
                let named =
                    |entry: &&At<String>| entry.value.split_once('=').is_none_or(|(name, _)| name.is_empty());
                if let Some(entry) = list.iter().find(named) {
                    return Err(invalid(entry, "environment variable", "NAME=VALUE"));
                }
                extras.env = list.into_iter().map(|entry| entry.value).collect();
            }
            "labels" => extras.labels = pairs(name, value)?,
            "annotations" => extras.annotations = pairs(name, value)?,
            "destinations" => {
                for entry in list(name, value)? {
                    let parsed = entry.value.parse::<ImageName>().map_err(|problem| KoError::Value {
                        place: format!("{BUILD_CONFIG}:{}", entry.line),
                        problem,
                    })?;
                    if !extras.destinations.contains(&parsed) {
                        extras.destinations.push(parsed);
                    }
                }
            }
            unknown => {
                let meant =
                    closest(unknown, KEYS).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                return Err(wrong(key, format!("unknown key {:?} in ko_config{meant}", shown(unknown))));
            }
        }
        Ok(())
    }
}

fn text(key: &str, node: At<Node>) -> Result<At<String>, KoError> {
    let place = At { value: (), line: node.line, column: node.column };
    match node.value {
        Node::Text(text) if text.len() > LIMIT_TEXT_BYTES || text.contains('\0') => {
            Err(wrong(&place, format!("{key}: at most {LIMIT_TEXT_BYTES} bytes without NUL are taken")))
        }
        Node::Text(text) => Ok(place.map(|()| text)),
        Node::Whole(number) => Ok(place.map(|()| number.to_string())),
        other => Err(wrong(&place, format!("{key} is {}, not a text: write it in quotes", other.kind()))),
    }
}

fn list(key: &str, node: At<Node>) -> Result<Vec<At<String>>, KoError> {
    let place = At { value: (), line: node.line, column: node.column };
    let items = match node.value {
        Node::Null => Vec::new(),
        Node::List(items) => items,
        other => return Err(wrong(&place, format!("{key} is {}, not a list", other.kind()))),
    };
    if items.len() > LIMIT_ITEMS {
        return Err(wrong(&place, format!("{key} has more than {LIMIT_ITEMS} entries")));
    }
    items.into_iter().map(|item| text(key, item)).collect()
}

fn pairs(key: &str, node: At<Node>) -> Result<BTreeMap<String, String>, KoError> {
    let place = At { value: (), line: node.line, column: node.column };
    let entries = match node.value {
        Node::Null => Vec::new(),
        Node::Map(entries) => entries,
        other => return Err(wrong(&place, format!("{key} is {}, not a mapping", other.kind()))),
    };
    if entries.len() > LIMIT_ITEMS {
        return Err(wrong(&place, format!("{key} has more than {LIMIT_ITEMS} entries")));
    }
    let mut pairs = BTreeMap::new();
    for (name, value) in entries {
        if name.value.is_empty() || name.value.contains(['=', '\0', '\n']) {
            return Err(wrong(&name, format!("{key}: {:?} is no name", shown(&name.value))));
        }
        pairs.insert(name.value, text(key, value)?.value);
    }
    Ok(pairs)
}

fn image(key: &str, node: At<Node>) -> Result<At<String>, KoError> {
    let text = text(key, node)?;
    match reference::full(&text.value) {
        Ok(_) => Ok(text),
        Err(problem) => {
            Err(wrong(&text, format!("{key}: {:?} is not an image: {problem}", shown(&text.value))))
        }
    }
}

/// `8080`, `53/udp`; TCP being understood.
fn ports(entries: Vec<At<String>>) -> Result<Vec<String>, KoError> {
    let mut ports = Vec::new();
    for entry in entries {
        let (number, protocol) = entry.value.split_once('/').unwrap_or((&entry.value, "tcp"));
        let number = number.parse::<u16>().ok().filter(|number| *number > 0);
        match (number, protocol) {
            (Some(number), "tcp" | "udp" | "sctp") => ports.push(format!("{number}/{protocol}")),
            _ => return Err(invalid(&entry, "port", "a number from 1 to 65535, and /tcp, /udp or /sctp")),
        }
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_taken() {
        let text = "build_backend: ko\nko_config:\n  import_path: ./cmd/a\n  all: true\n  base_image: busybox\n  go_version: '1.25'\n  toolchain: r.example.com/go:1\n  ports: [8080, 53/udp, 8080/tcp]\n  workdir: /data\n  args: [serve, '--port=8080']\n  env: [A=1, 'B=']\n  labels: {team: shop}\n  annotations: {org.example.x: 'y'}\n  destinations: [r.example.com/a, r.example.com/b, r.example.com/a]\n  sbom_tags: true\n  config: deploy/ko.yaml\n  resolve: [deploy, web.yaml]\n";
        let wishes = KoWishes::parse(text).unwrap();
        assert_eq!(wishes.import_path.unwrap(), At { value: "./cmd/a".to_owned(), line: 3, column: 16 });
        assert!(wishes.all);
        assert_eq!(wishes.base_image.unwrap().value, "busybox");
        assert_eq!(wishes.go_version.unwrap().value, "1.25");
        assert_eq!(wishes.toolchain.unwrap().value, "r.example.com/go:1");
        assert_eq!(wishes.config.unwrap().value, "deploy/ko.yaml");
        assert_eq!(
            wishes.resolve.iter().map(|at| at.value.as_str()).collect::<Vec<_>>(),
            ["deploy", "web.yaml"]
        );
        let one = KoWishes::parse("ko_config:\n  resolve: deploy\n").unwrap();
        assert_eq!(one.resolve, [At { value: "deploy".to_owned(), line: 2, column: 12 }]);
        let json = serde_json::to_value(&wishes.extras).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "ports": ["53/udp", "8080/tcp"], "workdir": "/data", "args": ["serve", "--port=8080"], "env": ["A=1", "B="],
                "labels": {"team": "shop"}, "annotations": {"org.example.x": "y"},
                "destinations": ["r.example.com/a", "r.example.com/b"], "sbom_tags": true
            })
        );
        for empty in ["", "target: x\n", "ko_config:\n", "ko_config: {}\n"] {
            assert_eq!(KoWishes::parse(empty).unwrap(), KoWishes::default(), "{empty:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_line_and_column() {
        let mut said = String::new();
        for text in [
            "ko_config: [a]\n",
            "ko_config:\n  import_pth: a\n",
            "ko_config:\n  ports: [70000]\n",
            "ko_config:\n  ports: 80\n",
            "ko_config:\n  workdir: data\n",
            "ko_config:\n  env: [A]\n",
            "ko_config:\n  destinations: [UPPER]\n",
            "ko_config:\n  base_image: 'a b'\n",
            "ko_config:\n  go_version: latest\n",
            "ko_config:\n  labels: [a]\n",
            "ko_config:\n  all: 'yes'\n",
            "ko_config:\n  args: [1.5]\n",
            "ko_config:\n  resolve: true\n",
        ] {
            said.push_str(&format!("{}\n", KoWishes::parse(text).unwrap_err()));
        }
        assert_eq!(
            said,
            "\
build-config.yaml:1:12: ko_config is a list, not a mapping
build-config.yaml:2:3: unknown key \"import_pth\" in ko_config; did you mean import_path?
build-config.yaml:2: \"70000\" is not a valid port
build-config.yaml:2:10: ports is a number, not a list
build-config.yaml:2: \"data\" is not a valid working directory
build-config.yaml:2: \"A\" is not a valid environment variable
build-config.yaml:2: \"UPPER\" is not a valid image name
build-config.yaml:2:15: base_image: \"a b\" is not an image: its name is 2 to 255 lower-case letters, digits, '_', '-', '.' and '/'
build-config.yaml:2: \"latest\" is not a valid version of Go
build-config.yaml:2:11: labels is a list, not a mapping
build-config.yaml:2:8: all is true or false
build-config.yaml:2:10: args is a fraction, not a text: write it in quotes
build-config.yaml:2:12: resolve is true or false, not a list
"
        );
    }
}
