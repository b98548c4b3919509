//! What there is to say of one build, asked together: its record, its provenance, its failure with the step's last words.
//!
//! Invariant: credentials of caches are left out.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::super::attachment::{self, Attachment, PROVENANCE};
use super::super::name::name;
use super::{Attached, Failed, Inspected, Material, Pair};
use crate::buildkit::{Client, Moment, Record, SolveError, SolveEvent, Source, State};
use crate::error::Report;

/// Lines of the failing step that are told, and the bytes of one.
const LOG_LINES: usize = 16;
const LINE_BYTES: usize = 64 << 10;
/// What only says what the client is capable of.
const CAPS: &str = "frontend.caps";
/// Told under headings of their own, or nowhere.
const KEPT_APART: [&str; 4] = ["filename", "context", "target", "platform"];
const PREFIXES: [&str; 5] = ["build-arg:", "label:", "context:", "vcs:", "attest:"];

pub async fn gather(client: &Client, mut record: Record) -> Result<Inspected, Report> {
    record.hide_credentials();
    let attachments = attachment::all(client, &record).await?;
    let mut inspected = of_record(&record, Moment::now());
    inspected.materials = materials(client, &attachments).await?;
    inspected.attachments = attachments.into_iter().map(attached).collect();
    if let Some(error) = client.history_failure(&record).await? {
        inspected.error = Some(failed(client, &record.reference, &error).await?);
    }
    Ok(inspected)
}

/// What the record itself says.
pub fn of_record(record: &Record, now: Moment) -> Inspected {
    let attrs = &record.frontend_attrs;
    let attr = |key: &str| attrs.get(key).cloned().unwrap_or_default();
    let dockerfile = match (attr("vcs:localdir:dockerfile").as_str(), attr("filename")) {
        ("" | ".", file) => file,
        (dir, file) => format!("{}/{file}", dir.trim_end_matches('/')),
    };
    let remote = attrs.contains_key("context");
    let of_source = |key: &str| if remote { String::new() } else { attr(key) };
    let ended = record.completed_at.unwrap_or(now);
    let duration = record.created_at.map(|begin| ended.since(begin)).unwrap_or_default();
    let rest = attrs.iter().filter(|(key, _)| {
        let key = key.as_str();
        key != CAPS && !KEPT_APART.contains(&key) && !PREFIXES.iter().any(|prefix| key.starts_with(prefix))
    });
    Inspected {
        name: name(attrs),
        r#ref: record.reference.clone(),
        context: attr("context"),
        dockerfile,
        repository: of_source("vcs:source"),
        revision: of_source("vcs:revision"),
        target: attr("target"),
        platform: attr("platform").split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect(),
        named_contexts: pairs(attrs, "context:"),
        started_at: record.created_at,
        completed_at: record.completed_at,
        duration: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
        status: match record.state() {
            State::Running => "running",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Canceled => "canceled",
        },
        num_completed_steps: record.completed_steps,
        num_total_steps: record.total_steps,
        num_cached_steps: record.cached_steps,
        build_args: pairs(attrs, "build-arg:"),
        labels: pairs(attrs, "label:"),
        options: rest.map(|(name, value)| Pair { name: name.clone(), value: value.clone() }).collect(),
        ..Inspected::default()
    }
}

fn pairs(attrs: &BTreeMap<String, String>, prefix: &str) -> Vec<Pair> {
    let named = attrs.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    named.map(|(name, value)| Pair { name: name.to_owned(), value: value.clone() }).collect()
}

fn attached(attachment: Attachment) -> Attached {
    let r#type = attachment.kind().to_owned();
    Attached { digest: attachment.descriptor.digest, platform: attachment.platform, r#type }
}

/// What the first provenance says that the build was made of.
async fn materials(client: &Client, attachments: &[Attachment]) -> Result<Vec<Material>, Report> {
    let Some(provenance) = attachments.iter().find(|one| one.kind().starts_with(PROVENANCE)) else {
        return Ok(Vec::new());
    };
    let blob = client.history_blob(&provenance.descriptor.digest).await?;
    Ok(blob.map(|blob| made_of(&blob)).unwrap_or_default())
}

/// Both versions of SLSA's predicate; it may stand in a statement.
fn made_of(provenance: &[u8]) -> Vec<Material> {
    let Ok(value) = serde_json::from_slice::<Value>(provenance) else { return Vec::new() };
    let predicate = value.get("predicate").unwrap_or(&value);
    let list =
        predicate.pointer("/buildDefinition/resolvedDependencies").or_else(|| predicate.get("materials"));
    let one = |material: &Value| {
        let digests = material.get("digest").and_then(Value::as_object);
        let digests = digests.into_iter().flatten();
        Some(Material {
            uri: material.get("uri")?.as_str()?.to_owned(),
            digests: digests.filter_map(|(kind, hex)| Some(format!("{kind}:{}", hex.as_str()?))).collect(),
        })
    };
    list.and_then(Value::as_array).into_iter().flatten().filter_map(one).collect()
}

async fn failed(client: &Client, reference: &str, error: &SolveError) -> Result<Failed, Report> {
    let mut failed = Failed {
        code: error.code as i32,
        message: error.message.clone(),
        sources: error.source.as_deref().and_then(excerpt).unwrap_or_default(),
        ..Failed::default()
    };
    if let Some(vertex) = &error.vertex {
        let (mut name, mut tail) = (vertex.name.clone(), Tail::default());
        client
            .build_logs(reference, |events| {
                for event in events {
                    match event {
                        SolveEvent::Vertex(v) if v.digest == vertex.digest => name = v.name,
                        SolveEvent::Log(log) if log.vertex == vertex.digest => {
                            tail.take(log.stream, &log.data)
                        }
                        _ => {}
                    }
                }
            })
            .await?;
        (failed.name, failed.logs) = (name, tail.lines());
    }
    Ok(failed)
}

/// The last lines of a step's two streams.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    /// By stream: what came after its last newline.
    open: BTreeMap<i64, Vec<u8>>,
}

impl Tail {
    fn take(&mut self, stream: i64, data: &[u8]) {
        let mut open = self.open.remove(&stream).unwrap_or_default();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES.saturating_sub(open.len());
            open.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                self.push(&std::mem::take(&mut open));
            }
        }
        self.open.insert(stream, open);
    }

    fn push(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        self.lines.push_back(line);
        if self.lines.len() > LOG_LINES {
            self.lines.pop_front();
        }
    }

    fn lines(mut self) -> Vec<String> {
        for line in std::mem::take(&mut self.open).into_values() {
            self.push(&line);
        }
        self.lines.into()
    }
}

/// The lines around a place in a definition file; those of the place are marked.
fn excerpt(source: &Source) -> Option<String> {
    let (first, last) = source.lines()?;
    let lines: Vec<&str> = source.text.lines().collect();
    let last = usize::try_from(last).ok()?.min(lines.len());
    let first = usize::try_from(first).ok().filter(|first| (1..=last).contains(first))?;
    let around = if first == last { 3 } else { 1 };
    let shown = first.saturating_sub(around).max(1)..=last.saturating_add(around).min(lines.len());
    let marked = |number: usize| {
        let covers = |from: u32, to: u32| (from as usize..=to.max(from) as usize).contains(&number);
        source.ranges.iter().any(|range| covers(range.start.line, range.end.line))
    };
    let mut text = format!("{}:{first}\n--------------------\n", source.filename);
    for number in shown {
        let line = lines.get(number - 1).copied().unwrap_or_default();
        let mark = if marked(number) { ">>>" } else { "   " };
        text.push_str(format!(" {number:>3} | {mark} {line}").trim_end());
        text.push('\n');
    }
    text.push_str("--------------------\n");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::{Position, Range};

    #[test]
    fn the_place_in_a_definition_file_is_shown_with_what_stands_around() {
        let at = |line| Position { line, character: 0 };
        let source = |start, end| Source {
            filename: "Dockerfile".to_owned(),
            text: (1..=9).map(|n| format!("RUN {n}\n")).collect(),
            ranges: vec![Range { start: at(start), end: at(end) }],
            ..Source::default()
        };
        insta::assert_snapshot!(excerpt(&source(2, 2)).unwrap(), @r"
        Dockerfile:2
        --------------------
           1 |     RUN 1
           2 | >>> RUN 2
           3 |     RUN 3
           4 |     RUN 4
           5 |     RUN 5
        --------------------
        ");
        insta::assert_snapshot!(excerpt(&source(8, 9)).unwrap(), @r"
        Dockerfile:8
        --------------------
           7 |     RUN 7
           8 | >>> RUN 8
           9 | >>> RUN 9
        --------------------
        ");
        assert_eq!(
            [excerpt(&source(0, 0)), excerpt(&source(10, 11)), excerpt(&Source::default())],
            [None, None, None]
        );
    }

    #[test]
    fn the_last_lines_of_both_streams_are_kept_whole() {
        let mut tail = Tail::default();
        for number in 0..20 {
            tail.take(1, format!("line {number}\n").as_bytes());
        }
        tail.take(1, b"be");
        tail.take(2, b"other\n\n");
        tail.take(1, b"gun\nend");
        let lines = tail.lines();
        assert_eq!(lines.len(), LOG_LINES);
        assert_eq!(lines[LOG_LINES - 4..], ["line 19", "other", "begun", "end"]);
    }

    #[test]
    fn materials_are_read_from_both_versions() {
        let old =
            r#"{"materials":[{"uri":"pkg:docker/busybox@latest","digest":{"sha256":"ab"}},{"uri":"x"},{}]}"#;
        let new = r#"{"predicate":{"buildDefinition":{"resolvedDependencies":[{"uri":"y","digest":{"sha1":"cd"}}]}}}"#;
        let material = |uri: &str, digests: &[&str]| Material {
            uri: uri.to_owned(),
            digests: digests.iter().map(|d| (*d).to_owned()).collect(),
        };
        assert_eq!(
            made_of(old.as_bytes()),
            [material("pkg:docker/busybox@latest", &["sha256:ab"]), material("x", &[])]
        );
        assert_eq!(made_of(new.as_bytes()), [material("y", &["sha1:cd"])]);
        assert_eq!(made_of(b"nonsense"), []);
    }

    #[test]
    fn a_record_is_sorted_into_what_people_look_for() {
        let attrs = [
            ("build-arg:A", "1"),
            ("label:b", "2"),
            ("context:base", "docker-image://x"),
            ("filename", "dev.Dockerfile"),
            ("vcs:localdir:dockerfile", "hack"),
            ("vcs:source", "https://git.example/a.git"),
            ("vcs:revision", "abc"),
            ("platform", "linux/amd64,linux/arm64"),
            ("target", "t"),
            ("no-cache", ""),
            ("cache-imports", r#"[{"Type":"s3","Attrs":{"ref":"r","secret_access_key":"x"}}]"#),
            ("frontend.caps", "moby.buildkit.frontend.inputs"),
        ];
        let mut record = Record {
            reference: "r".to_owned(),
            frontend_attrs: attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            created_at: Some(Moment::from_ms(1_000)),
            ..Record::default()
        };
        record.hide_credentials();
        let told = of_record(&record, Moment::from_ms(3_000));
        let list =
            |pairs: &[Pair]| pairs.iter().map(|p| format!("{}={}", p.name, p.value)).collect::<Vec<_>>();
        assert_eq!((told.status, told.duration), ("running", 2_000_000_000));
        assert_eq!((told.dockerfile.as_str(), told.target.as_str()), ("hack/dev.Dockerfile", "t"));
        assert_eq!((told.repository.as_str(), told.revision.as_str()), ("https://git.example/a.git", "abc"));
        assert_eq!(told.platform, ["linux/amd64", "linux/arm64"]);
        assert_eq!(
            (list(&told.build_args), list(&told.labels)),
            (vec!["A=1".to_owned()], vec!["b=2".to_owned()])
        );
        assert_eq!(list(&told.named_contexts), ["base=docker-image://x"]);
        assert_eq!(
            list(&told.options),
            [r#"cache-imports=[{"Type":"s3","Attrs":{"ref":"r"}}]"#, "no-cache="]
        );
    }
}
