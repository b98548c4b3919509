//! Go's answer to a description, and where ours differs from it. The Go program is kept running and asked line by line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lemnos::buildkit::llb::{Definition, LlbError};
use lemnos_proto::pb;
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What Go made of a description.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    pub error: String,
    ops: Vec<String>,
    metadata: BTreeMap<String, Value>,
    source: String,
    dump: String,
}

impl Answer {
    /// Why `ours` is not the same; none where it is.
    pub fn difference(&self, ours: &Result<Definition, LlbError>) -> Option<String> {
        let ours = match (ours, self.error.is_empty()) {
            (Err(_), false) => return None,
            (Err(error), true) => return Some(format!("we fail, Go does not: {error}")),
            (Ok(_), false) => return Some(format!("Go fails, we do not: {}", self.error)),
            (Ok(ours), true) => ours,
        };
        let ops: Vec<String> = ours.ops.iter().map(|op| STANDARD.encode(op)).collect();
        if ops != self.ops {
            let show = |ops: &[String]| {
                ops.iter()
                    .map(|op| {
                        let bytes = STANDARD.decode(op).unwrap();
                        format!("{op}\n  {:?}\n", pb::Op::decode(&bytes[..]))
                    })
                    .collect::<String>()
            };
            return Some(format!("operations\nours:\n{}Go's:\n{}", show(&ops), show(&self.ops)));
        }
        let dump = ours.to_json_lines().unwrap();
        let metadata: BTreeMap<String, Value> = dump
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|mut line| (line["Digest"].as_str().unwrap().to_owned(), line["OpMetadata"].take()))
            .collect();
        if metadata != self.metadata || !ours.metadata.keys().eq(self.metadata.keys()) {
            return Some(format!("metadata\nours: {metadata:#?}\nGo's: {:#?}", self.metadata));
        }
        let source = pb::Source::decode(&STANDARD.decode(&self.source).unwrap()[..]).unwrap();
        if ours.source.clone().unwrap_or_default() != source {
            return Some(format!("source maps\nours: {:#?}\nGo's: {source:#?}", ours.source));
        }
        let hash = hex::encode(Sha256::digest(&dump));
        (hash != self.dump).then(|| format!("the dump\nours: {dump}"))
    }
}

/// The Go program, running.
pub struct Oracle {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Oracle {
    /// Built in the tests' own directory; none where there is no Go.
    pub fn start() -> Option<Self> {
        let mut child =
            Command::new(super::go::program()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some(Self { child, to, from: BufReader::new(from) })
    }

    pub fn ask(&mut self, line: &str) -> Answer {
        writeln!(self.to, "{line}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect("the oracle answers");
        serde_json::from_value(answer["want"].clone()).unwrap()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
