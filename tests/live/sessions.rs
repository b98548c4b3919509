//! Transcripts: what people see, command by command, kept in tests/sessions as documentation that is checked.
//!
//! Each test plays one session against the real parts and compares what was shown with its file. With
//! `LEMNOS_TEST_SESSIONS=write` the files are written anew, to be read before they are committed.

mod normal;
mod refused;
mod served;
mod waited;

use std::path::PathBuf;

use crate::house::{House, Said};
use normal::Normal;

/// A session being played.
struct Session<'a> {
    house: &'a House,
    text: String,
    also: Vec<(String, String)>,
}

impl<'a> Session<'a> {
    /// `about`: what the session shows, as its first lines.
    fn new(house: &'a House, about: &str) -> Self {
        let mut text = String::new();
        for line in about.lines() {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        Self { house, text, also: Vec::new() }
    }

    /// Something of this session alone that differs from run to run, and what stands for it.
    fn stands(&mut self, text: &str, with: &str) {
        self.also.push((text.to_owned(), with.to_owned()));
    }

    /// A remark between two commands.
    fn note(&mut self, text: &str) {
        self.text.push_str(&format!("\n# {text}\n"));
    }

    /// A command as its user typed it, and all that it showed.
    fn shown(&mut self, typed: &str, said: &Said) {
        self.text.push_str(&format!("\n$ {typed}\n{}{}", said.stdout, said.stderr));
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        match said.code {
            Some(0) => {}
            Some(code) => self.text.push_str(&format!("[exit {code}]\n")),
            None => self.text.push_str("[killed]\n"),
        }
    }

    /// Runs `git push builder …` and shows it.
    fn push(&mut self, dir: &std::path::Path, args: &[&str]) -> Said {
        let said = self.house.push(dir, args);
        self.shown(&format!("git push builder {}", args.join(" ")), &said);
        said
    }

    /// Runs `lemnos …` on the server's machine and shows it.
    fn lemnos(&mut self, args: &[&str]) -> Said {
        let said = self.house.lemnos(args);
        self.shown(&format!("lemnos {}", args.join(" ")), &said);
        said
    }

    /// Compares with tests/sessions/`name`.txt.
    #[track_caller]
    fn is(self, name: &str) {
        let text = Normal::of(self.house, self.also).text(&self.text);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sessions/{name}.txt"));
        if std::env::var_os("LEMNOS_TEST_SESSIONS").is_some_and(|v| v == "write") {
            std::fs::write(&path, &text).unwrap();
            return;
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; write it with LEMNOS_TEST_SESSIONS=write\n{text}", path.display())
        });
        assert!(
            kept == text,
            "tests/sessions/{name}.txt says something else; if what is shown now is right, write it anew with \
             LEMNOS_TEST_SESSIONS=write and read it\n--- kept\n{kept}\n--- shown now\n{text}"
        );
    }
}

/// A house with one app for linux/amd64 alone, so that steps come in one order.
fn shop(house: &House) {
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
}

/// What pushers are shown belongs to them: no session without its file, no file without its session.
#[test]
fn every_file_has_its_session() {
    let sources = [
        include_str!("sessions/served.rs"),
        include_str!("sessions/refused.rs"),
        include_str!("sessions/waited.rs"),
    ];
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/sessions");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let call = format!(".is(\"{}\")", name.trim_end_matches(".txt"));
        assert!(sources.iter().any(|source| source.contains(&call)), "no session writes {name}");
    }
}
