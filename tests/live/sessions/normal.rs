//! What differs from run to run, made the same: addresses, ids, digests, durations, and lines that depend on how fast
//! the machine is.

use std::collections::{HashMap, HashSet};

use regex::{Captures, Regex};

use crate::house::House;

pub struct Normal {
    /// Texts of this run, and what stands for them; the longest first.
    known: Vec<(String, String)>,
}

impl Normal {
    pub fn of(house: &House, also: Vec<(String, String)>) -> Self {
        let ready = house.ready();
        let mut known = vec![
            (house.image("shop"), "registry.example.com/shop".to_owned()),
            (house.image("other"), "registry.example.com/other".to_owned()),
            (house.image("").trim_end_matches('/').to_owned(), "registry.example.com".to_owned()),
            (house.registry().to_owned(), "registry.example.com".to_owned()),
            (ready["ssh"].as_str().unwrap().to_owned(), "builder:2222".to_owned()),
            (house.home.path().display().to_string(), "~".to_owned()),
        ];
        for builder in ready["builders"].as_array().unwrap() {
            known.push((builder.as_str().unwrap().to_owned(), "tcp://buildkit:1234".to_owned()));
        }
        known.extend(also);
        known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { known }
    }

    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (found, stands) in &self.known {
            text = text.replace(found, stands);
        }
        let text = counted(&text, r"sha256:[0-9a-f]{64}", "sha256:DIGEST-");
        let text = counted(&text, r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:KEY-");
        let text = swap(&text, r#""cache_namespace": "[0-9a-f]+""#, r#""cache_namespace": "OF-THE-APP""#);
        let text = swap(&text, r#""step_namespace": "[0-9a-f]+""#, r#""step_namespace": "OF-THE-APP""#);
        let text = builds(&text);
        let text = swap(&text, r"\(([0-9]+[smh] ?)+\)", "(N s)");
        let text = swap(&text, r"\b[0-9]+m[0-9]{2}s|\b[0-9]+\.[0-9]s", "N.Ns");
        let text = swap(
            &text,
            r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?Z?",
            "TIME",
        );
        // how a connection breaks is a matter of who looked first
        let text =
            swap(&text, r"(the connection to buildkitd broke): .*", "the connection to buildkitd broke: HOW");
        // of steps that several builds share at a time, the daemon tells one build's number
        let text = swap(&text, r"[0-9]+/[0-9]+\] FROM ", "1/N] FROM ");
        let text = swap(&text, r"\[?127\.0\.0\.1\]?(:[0-9]+)?", "builder");
        let lines = text.lines().filter(|line| !depends_on_speed(line)).map(|line| {
            // git pads what a server says, to wipe what stood there
            format!("{}\n", line.trim_end())
        });
        tags(&steps(&without_internal(&lines.collect::<String>())))
    }
}

/// Tags beyond the first move side by side.
fn tags(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for tagged in lines.chunk_by_mut(|a, b| a.contains("   tagged ") && b.contains("   tagged ")) {
        tagged.sort_unstable();
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn swap(text: &str, pattern: &str, with: &str) -> String {
    Regex::new(pattern).unwrap().replace_all(text, with).into_owned()
}

/// Every other match is another number.
fn counted(text: &str, pattern: &str, with: &str) -> String {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let number = |found: &Captures<'_>| {
        let next = seen.len() + 1;
        format!("{with}{}", seen.entry(found[0].to_owned()).or_insert(next))
    };
    Regex::new(pattern).unwrap().replace_all(text, number).into_owned()
}

/// Ids of builds: 32 digits, or the last ten of them.
fn builds(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let number = |found: &Captures<'_>| {
        let short = found[0][found[0].len() - 10..].to_owned();
        let at = seen.iter().position(|known| *known == short).unwrap_or_else(|| {
            seen.push(short);
            seen.len() - 1
        });
        format!("{}BUILD-{}", if found[0].len() == 32 { "ID-OF-" } else { "" }, at + 1)
    };
    Regex::new(r"\b(?:0[0-9a-f]{31}|[0-9a-f]{10})\b").unwrap().replace_all(text, number).into_owned()
}

/// Heartbeats, downloads, and what is shown of transfers.
fn depends_on_speed(line: &str) -> bool {
    let line = line.trim_start_matches("remote: ");
    line.starts_with("...")
        || line.starts_with("Warning: Permanently added")
        || (line.starts_with('#')
            && Regex::new(r"^#[0-9]+ .* [0-9.]+ (B|kB|MB|GB)\s*$").unwrap().is_match(line))
}

/// Internal steps that end well are shown where they took long, which is a matter of what else the machine does.
fn without_internal(text: &str) -> String {
    let opens = Regex::new(r"^(?:remote: |)(#[0-9]+) (?:\[(?:[^\]]* )?internal\]|\[auth\])").unwrap();
    let ends = Regex::new(r"^(?:remote: |)(#[0-9]+) (?:DONE|CACHED)").unwrap();
    let of_step = Regex::new(r"^(?:remote: |)(#[0-9]+)\b").unwrap();
    let number = |what: &Regex, line: &str| what.captures(line).map(|found| found[1].to_owned());
    let lines: Vec<&str> = text.lines().collect();
    // each command counts its own
    let commands = lines.chunk_by(|_, next| !next.starts_with("$ "));
    let kept = commands.flat_map(|shown| {
        let numbers = |what: &Regex| -> HashSet<String> {
            shown.iter().filter_map(|line| number(what, line)).collect()
        };
        let (opened, ended) = (numbers(&opens), numbers(&ends));
        let is_left_out = |line: &&&str| {
            number(&of_step, line).is_some_and(|number| opened.contains(&number) && ended.contains(&number))
        };
        shown.iter().filter(|line| !is_left_out(line)).map(|line| format!("{line}\n")).collect::<Vec<_>>()
    });
    kept.collect()
}

/// BuildKit numbers its steps as it meets them: shown are 1, 2, 3 in the order of the screen. A base image and a copied
/// file are DONE, whether the daemon had them from somebody else or not.
fn steps(text: &str) -> String {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let number = |found: &Captures<'_>| {
        let next = seen.len() + 1;
        format!("{}#{}", &found[1], seen.entry(found[2].to_owned()).or_insert(next))
    };
    let text = Regex::new(r"(?m)^(remote: |)#([0-9]+)\b").unwrap().replace_all(text, number).into_owned();
    let mut copied = String::new();
    text.lines()
        .map(|line| {
            if line.contains("] FROM ") || line.contains("] COPY ") {
                copied = line.split_once(" [").map_or_else(String::new, |(step, _)| format!("{step} CACHED"));
            }
            if line == copied {
                format!("{}\n", line.replace("CACHED", "DONE N.Ns"))
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}

#[test]
fn internal_steps_that_were_slow_are_left_out() {
    let text = "\
$ git push builder main
remote: #2 [linux/amd64 internal] load the application
remote: #1 [linux/amd64 web] FROM busybox
remote: #2 DONE N.Ns
remote: #1 DONE N.Ns
remote: #12 [linux/amd64 web] make
$ git push builder main
remote: #2 [internal] load metadata for missing
remote: #2 ERROR N.Ns: not found
$ git push builder main
remote: #2 [linux/amd64] a step
";
    let without = "\
$ git push builder main
remote: #1 [linux/amd64 web] FROM busybox
remote: #1 DONE N.Ns
remote: #12 [linux/amd64 web] make
$ git push builder main
remote: #2 [internal] load metadata for missing
remote: #2 ERROR N.Ns: not found
$ git push builder main
remote: #2 [linux/amd64] a step
";
    assert_eq!(without_internal(text), without);
}
