//! How progress is shown, as snapshots of one scripted build, and as a property: nothing foreign steers a terminal.

use std::collections::BTreeMap;

use bytes::Bytes;
use lemnos::buildkit::{
    Display, Mode, Moment, NoTerminal, Position, Range, Size, SolveEvent, Source, Vertex, VertexLog,
    VertexStatus, Warning,
};
use lemnos_proto::pb;
use proptest::prelude::*;
use prost::Message as _;

/// The daemon's clock is a minute ahead of ours.
const SHIFT: i64 = 60_000;

fn at(ms: i64) -> Option<Moment> {
    Some(Moment::from_ms(SHIFT + ms))
}

fn now(ms: i64) -> Moment {
    Moment::from_ms(ms)
}

fn step(name: &str, started: i64, completed: Option<i64>) -> SolveEvent {
    with(name, started, completed, |_| {})
}

fn with(name: &str, started: i64, completed: Option<i64>, change: impl FnOnce(&mut Vertex)) -> SolveEvent {
    let mut vertex = Vertex {
        digest: name.into(),
        name: name.into(),
        started: at(started),
        completed: completed.and_then(at),
        ..Vertex::default()
    };
    change(&mut vertex);
    SolveEvent::Vertex(vertex)
}

fn log(name: &str, ms: i64, data: &'static str) -> SolveEvent {
    SolveEvent::Log(VertexLog {
        vertex: name.into(),
        stream: 1,
        at: at(ms),
        data: Bytes::from_static(data.as_bytes()),
    })
}

fn layer(name: &str, current: i64, ms: i64, completed: Option<i64>) -> SolveEvent {
    SolveEvent::Status(VertexStatus {
        vertex: name.into(),
        id: "sha256:0123".into(),
        current,
        total: 4_000_000,
        at: at(ms),
        started: at(500),
        completed: completed.and_then(at),
        ..VertexStatus::default()
    })
}

const LOAD: &str = "[internal] load build definition from Dockerfile";
const AMD: &str = "[linux/amd64 2/3] RUN make -j 4";
const ARM: &str = "[linux/arm64 2/3] RUN make -j 4";
const FROM: &str = "[linux/arm64 1/3] FROM docker.io/library/busybox";

/// A build of two platforms in four acts; the last one fails.
fn acts() -> Vec<(i64, Vec<SolveEvent>)> {
    let position = Position { line: 3, character: 0 };
    let warning = Warning {
        vertex: LOAD.into(),
        short: "FromAsCasing: 'as' and 'FROM' keywords' casing do not match".into(),
        source: Some(Source {
            filename: "Dockerfile".into(),
            ranges: vec![Range { start: position, end: position }],
            ..Source::default()
        }),
        ..Warning::default()
    };
    vec![
        (
            400,
            vec![
                step(LOAD, 0, Some(100)),
                SolveEvent::Warning(warning),
                with("[linux/amd64 1/3] FROM docker.io/library/busybox", 150, Some(160), |v| v.cached = true),
                step(FROM, 150, None),
            ],
        ),
        (
            2_000,
            vec![
                layer(FROM, 1_200_000, 1_900, None),
                step(AMD, 1_000, None),
                log(AMD, 1_500, "cc -c a.c\ncc -c"),
            ],
        ),
        (
            9_000,
            vec![
                log(AMD, 3_000, " b.c\r\n\u{1b}[31mwarning:\u{1b}[0m x\n"),
                layer(FROM, 4_000_000, 3_000, Some(3_000)),
                step(FROM, 150, Some(3_500)),
                step(ARM, 3_600, None),
                log(ARM, 4_000, "10%\r20%\r30%"),
            ],
        ),
        (
            15_000,
            vec![
                log(ARM, 14_000, "\nno rule\n"),
                with(ARM, 3_600, Some(14_500), |v| v.error = Some("process \"make\": exit code: 2".into())),
                with(AMD, 1_000, Some(14_600), |v| v.error = Some("x: context canceled".into())),
            ],
        ),
    ]
}

#[test]
fn plain_is_a_log_that_grows() {
    let mut display = Display::new(Mode::Plain, true, true).unwrap();
    let mut text = String::new();
    for (ms, events) in acts() {
        text.push_str(&display.update(&events, now(ms)));
    }
    text.push_str(&display.finish(now(15_000), Size::default()));
    insta::assert_snapshot!(text);
}

#[test]
fn a_step_that_waits_gets_its_turn() {
    let mut display = Display::new(Mode::Plain, false, false).unwrap();
    let first = display.update(&[step("a", 0, None), step("b", 0, None), log("a", 100, "one\n")], now(0));
    assert_eq!(first, "#1 a\n#1 0.100 one\n");
    assert_eq!(display.update(&[log("b", 1_000, "two\n")], now(1_000)), "");
    assert_eq!(display.update(&[log("a", 3_000, "three\n")], now(3_000)), "#1 3.000 three\n");
    assert_eq!(display.tick(now(4_900), Size::default()), "");
    assert_eq!(display.tick(now(5_000), Size::default()), "#1 ...\n\n#2 b\n#2 1.000 two\n");
    let ended = display.update(&[step("a", 0, Some(5_500))], now(5_500));
    assert_eq!(ended, "#2 ...\n\n#1 a\n#1 DONE 5.5s\n");
}

#[test]
fn a_tree_is_redrawn_in_place() {
    let mut display = Display::new(Mode::Auto, true, false).unwrap();
    let mut text = String::new();
    for (ms, events) in acts() {
        assert_eq!(display.update(&events, now(ms)), "");
        text.push_str(&format!("--- {ms} ms\n{}", display.tick(now(ms), Size { columns: 60, rows: 24 })));
    }
    text.push_str("--- end\n");
    text.push_str(&display.finish(now(15_000), Size { columns: 60, rows: 24 }));
    insta::assert_snapshot!(text.replace('\u{1b}', "ESC").replace('\r', "CR"));
}

/// What stands on a terminal of that size after `text`: only what the tree uses is understood.
fn screen(text: &str, rows: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at = lines.len() - 1;
        rest = if let Some(after) = rest.strip_prefix("\u{1b}[K").or_else(|| rest.strip_prefix("\u{1b}[J")) {
            after
        } else if let Some(sequence) = rest.strip_prefix("\u{1b}[") {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
            if sequence[end..].starts_with('A') {
                let up: usize = sequence[..end].parse().unwrap();
                assert!(up < rows, "a frame of {up} lines on {rows}");
                lines.truncate(at - up);
                lines.push(String::new());
            }
            &sequence[end + 1..]
        } else {
            match c {
                '\n' => lines.push(String::new()),
                '\r' => {}
                c => lines[at].push(c),
            }
            &rest[c.len_utf8()..]
        };
    }
    lines
}

#[test]
fn a_small_terminal_gets_a_small_frame_with_what_works() {
    for rows in 2..12_u16 {
        let size = Size { columns: 40, rows };
        let mut display = Display::new(Mode::Tty, true, true).unwrap();
        let mut text = String::new();
        for (ms, events) in acts().into_iter().take(3) {
            display.update(&events, now(ms));
            text.push_str(&display.tick(now(ms), size));
        }
        let shown = screen(&text, usize::from(rows));
        assert!(shown.len() <= usize::from(rows), "{shown:?}");
        assert!(shown.iter().all(|line| line.chars().count() < 40), "{shown:?}");
        assert!(shown[0].starts_with("[+] Building 8.6s (3/5)"), "{shown:?}");
        let works = shown.iter().filter(|line| line.contains("2/3] RUN")).count();
        assert!(rows < 8 || works == 2, "{rows}: {shown:?}");
    }
}

#[test]
fn rawjson_is_a_line_a_call_and_quiet_is_nothing() {
    let mut json = Display::new(Mode::RawJson, true, true).unwrap();
    let mut quiet = Display::new(Mode::Quiet, true, true).unwrap();
    for (ms, events) in acts() {
        let line = json.update(&events, now(ms));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let count = |kind: &str| value[kind].as_array().map_or(0, Vec::len);
        assert_eq!(count("vertexes") + count("statuses") + count("logs") + count("warnings"), events.len());
        assert_eq!(quiet.update(&events, now(ms)), "");
    }
    assert_eq!(json.finish(now(0), Size::default()) + &quiet.finish(now(0), Size::default()), "");
}

/// Go's client reads it by these names; the live test compares with what buildctl prints.
#[test]
fn rawjson_tells_the_steps_by_which_a_warned_of_file_came() {
    let metadata = pb::OpMetadata {
        description: BTreeMap::from([("a".into(), "b".into())]),
        caps: BTreeMap::from([("source.local".into(), true), ("off".into(), false)]),
        ..Default::default()
    };
    let place = pb::Location {
        source_index: 1,
        ranges: vec![pb::Range {
            start: Some(pb::Position { line: 3, character: 0 }),
            end: Some(pb::Position::default()),
        }],
    };
    let info = pb::SourceInfo { filename: "f".into(), data: b"x".to_vec(), ..Default::default() };
    let definition = pb::Definition {
        def: vec![b"op".to_vec()],
        metadata: BTreeMap::from([("sha256:0".into(), metadata)]),
        source: Some(pb::Source {
            locations: BTreeMap::from([("sha256:0".into(), pb::Locations { locations: vec![place] })]),
            infos: vec![info],
        }),
    };
    let source = Source { definition: definition.encode_to_vec().into(), ..Source::default() };
    let warning = Warning { vertex: "a".into(), source: Some(source), ..Warning::default() };
    let mut json = Display::new(Mode::RawJson, false, false).unwrap();
    let line = json.gather(vec![SolveEvent::Warning(warning)], now(0));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    insta::assert_json_snapshot!(value["warnings"][0]["sourceInfo"]["definition"], @r#"
    {
      "Source": {
        "infos": [
          {
            "data": "eA==",
            "filename": "f"
          }
        ],
        "locations": {
          "sha256:0": {
            "locations": [
              {
                "ranges": [
                  {
                    "end": {},
                    "start": {
                      "line": 3
                    }
                  }
                ],
                "sourceIndex": 1
              }
            ]
          }
        }
      },
      "def": [
        "b3A="
      ],
      "metadata": {
        "sha256:0": {
          "caps": {
            "off": false,
            "source.local": true
          },
          "description": {
            "a": "b"
          }
        }
      }
    }
    "#);
}

#[test]
fn text_for_people_waits_for_the_tick_and_a_tree_for_a_terminal() {
    let mut display = Display::new(Mode::Plain, false, false).unwrap();
    let steps = || vec![step("a", 0, None), step("b", 0, None), log("b", 100, "one\n")];
    assert_eq!(display.gather(steps(), now(0)), "");
    assert_eq!(display.gather(vec![log("a", 100, "two\n")], now(0)), "");
    assert_eq!(display.tick(now(100), Size::default()), "#1 a\n#1 0.100 two\n");
    assert_eq!(display.tick(now(200), Size::default()), "");
    assert_eq!(display.gather(vec![step("a", 0, Some(300))], now(300)), "");
    let rest = display.finish(now(300), Size::default());
    assert!(rest.starts_with("#1 DONE 0.3s\n") && rest.contains("#2 0.100 one\n"), "{rest}");
    // a daemon that talks faster than the ticks is not kept in memory
    let many: Vec<_> = (0..2_000).map(|n| log("b", n, "more\n")).collect();
    let mut fast = Display::new(Mode::Plain, false, false).unwrap();
    fast.gather(steps(), now(0));
    assert!(fast.gather(many, now(1)).contains(" more\n"));
    assert_eq!(Display::new(Mode::Tty, false, false).unwrap_err(), NoTerminal);
    assert!(NoTerminal.to_string().contains("plain"));
}

#[test]
fn modes_are_parsed() {
    for mode in ["auto", "tty", "plain", "rawjson", "quiet"] {
        assert_eq!(mode.parse::<Mode>().unwrap().to_string(), mode);
    }
    assert!("fancy".parse::<Mode>().unwrap_err().to_string().contains("rawjson"));
}

/// Text with what terminals obey in it.
fn foreign() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "\u{1b}[2J",
            "\u{1b}]0;x\u{7}",
            "\u{9b}31m",
            "\r",
            "\n",
            "\u{8}",
            "\u{202e}",
            "\u{1b}",
            "\u{1b}P",
            "\u{7f}",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_foreign_steers_a_terminal(texts in prop::array::uniform6(foreign()), data in any::<Vec<u8>>(), end in any::<bool>()) {
        let [name, other, error, id, short, file] = texts;
        let mut events = vec![
            with("a", 0, None, |v| v.name = name),
            with("b", 0, None, |v| v.name = format!("[linux/{other} 1/2] x")),
            SolveEvent::Status(VertexStatus { vertex: "a".into(), id, started: at(1), ..VertexStatus::default() }),
            SolveEvent::Log(VertexLog { vertex: "a".into(), at: at(1), data: data.into(), ..VertexLog::default() }),
            SolveEvent::Log(VertexLog { vertex: "b".into(), at: at(1), data: error.clone().into(), ..VertexLog::default() }),
            SolveEvent::Warning(Warning {
                vertex: "a".into(),
                short,
                source: Some(Source { filename: file, ranges: vec![Range::default()], ..Source::default() }),
                ..Warning::default()
            }),
        ];
        if end {
            events.push(with("a", 0, Some(5), |v| v.error = Some(error)));
        }
        for mode in [Mode::Plain, Mode::Tty, Mode::RawJson] {
            let mut display = Display::new(mode, true, true).unwrap();
            let mut text = display.update(&events, now(10));
            text.push_str(&display.tick(now(10), Size::default()));
            text.push_str(&display.tick(now(20_000), Size::default()));
            text.push_str(&display.finish(now(20_000), Size::default()));
            // our own: up, to the line's begin, erase, and three colours
            for ours in ["\u{1b}[K", "\u{1b}[J", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[2m", "\u{1b}[0m"] {
                text = text.replace(ours, "");
            }
            for up in 1..24 {
                text = text.replace(&format!("\u{1b}[{up}A\r"), "");
            }
            let steers = text.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c));
            prop_assert_eq!(steers, None, "{:?}", text);
        }
    }
}
