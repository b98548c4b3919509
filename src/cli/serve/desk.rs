//! The verbs over SSH: what a [`Desk`] is for somebody at the other end of a connection.
//!
//! Every operation is decided by `admin` anew, for whoever the key belongs to at that moment.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::host::Host;
use crate::admin::{self, Caller, Follow, Request, Response, Step};
use crate::audit::{self, Event, Who};
use crate::console::line::{self, Audience, Line};
use crate::console::{Desk, Following, Screen, Source};
use crate::error::{Kind, Report};
use crate::event::plain_line;
use crate::model::{Role, UserName};
use crate::ssh::{Identity, VerbIo};

/// How long somebody may take to type or send what a verb reads.
const INPUT_WAIT: Duration = Duration::from_secs(300);
/// Of each word, and words, in the record of what was asked.
const RECORDED_CHARS: usize = 64;
const RECORDED_WORDS: usize = 16;

/// Runs what these words ask for; the exit status.
pub async fn run(host: &Host, who: &Identity, words: Vec<String>, io: VerbIo) -> u32 {
    let mut desk = Remote { host, who, io };
    let status = match answer(&mut desk, &words).await {
        Ok(status) => status,
        Err(report) => {
            desk.complain(&format!("{report}\n")).await;
            report.exit_status()
        }
    };
    tracing::info!(event = "verb", user = %who.user, key = %who.key, words = recorded(&words), status, "a verb over SSH");
    u32::from(status)
}

async fn answer(desk: &mut Remote<'_>, words: &[String]) -> Result<u8, Report> {
    let audience = match desk.caller().await? {
        Caller::Operator | Caller::User { role: Role::Admin, .. } => Audience::Admin,
        Caller::User { role: Role::Member, .. } => Audience::Member,
        Caller::DeployKey { .. } => Audience::DeployKey,
    };
    match line::parse(words, desk.who.user.as_str(), audience, desk.screen()) {
        Line::Word(word) => word.run(desk).await,
        Line::Help(text) => desk.print(&text).await.map(|_| 0),
        Line::Mistake(text) => {
            // what is asked of `admin` is on record there; this never gets so far
            let reason = format!("no such verb: {}", recorded(words));
            let event = Event::RequestRefused { service: None, reason };
            let entry = audit::entry(Who::of(&desk.who.user), event).key(desk.who.key.clone());
            desk.host.context.trail.note(entry);
            desk.complain(&text).await;
            Ok(2)
        }
    }
}

/// What was asked, for log and record: no values of settings, which may be secrets, and nothing that stands where a secret or
/// a password may have been typed.
fn recorded(words: &[String]) -> String {
    let names: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word == "lemnos").collect();
    let shown = match names.as_slice() {
        ["secrets", "add", ..] => 4,
        ["registry", "login", ..] => 3,
        _ => RECORDED_WORDS,
    };
    let all: Vec<String> = names.iter().map(|word| recorded_word(word)).collect();
    let rest = if all.len() > shown && shown < RECORDED_WORDS { " …" } else { "" };
    plain_line(&format!("{}{rest}", all.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(" ")))
}

fn recorded_word(word: &str) -> String {
    let (name, value) = word.split_once('=').map_or((word, ""), |(name, _)| (name, "=…"));
    format!("{}{value}", name.chars().take(RECORDED_CHARS).collect::<String>())
}

/// Somebody at the other end.
struct Remote<'a> {
    host: &'a Host,
    who: &'a Identity,
    io: VerbIo,
}

impl Remote<'_> {
    /// Who they are at this moment: what they logged in with may have been taken away since.
    async fn caller(&mut self) -> Result<Caller, Report> {
        self.host.caller(self.who).await?.ok_or_else(|| {
            Report::new(Kind::Forbidden, format!("the key {} is no longer registered", self.who.key))
        })
    }

    /// Says what went wrong; who is gone does not hear it.
    async fn complain(&mut self, text: &str) {
        drop(self.io.stderr.write_all(text.as_bytes()).await);
    }
}

#[async_trait]
impl Desk for Remote<'_> {
    async fn execute(&mut self, request: Request) -> Result<Response, Report> {
        let caller = self.caller().await?;
        let (store, context) = (self.host.store.clone(), self.host.context.clone());
        // in a task of its own: what was begun is done to its end, whatever becomes of the client
        let done = tokio::spawn(async move { admin::execute(&store, &context, &caller, request).await });
        done.await.map_err(|cause| Report::internal(format!("the operation broke down: {cause}")))?
    }

    async fn follow(&mut self, build: &str, from_seq: u64) -> Result<Box<dyn Following>, Report> {
        // whether they may, and that they did, is said of the first page
        self.execute(Request::BuildEvents { build: build.to_owned(), from_seq, limit: 1 }).await?;
        let caller = self.caller().await?;
        Ok(Box::new(admin::follow(&self.host.store, &caller, build, from_seq).await?))
    }

    async fn read(&mut self, from: Source<'_>, limit_bytes: u64) -> io::Result<Vec<u8>> {
        if let Source::File(_) = from {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "your files are not here"));
        }
        let mut bytes = Vec::new();
        let mut input = (&mut self.io.stdin).take(limit_bytes.saturating_add(1));
        match tokio::time::timeout(INPUT_WAIT, input.read_to_end(&mut bytes)).await {
            Ok(read) => read.map(|_| bytes),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came, or not all of it")),
        }
    }

    async fn print(&mut self, text: &str) -> Result<ControlFlow<()>, Report> {
        Ok(match self.io.stdout.write_all(text.as_bytes()).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    }

    async fn ask(&mut self, question: &str) -> Result<Option<String>, Report> {
        /// No answer to a question is longer.
        const LIMIT: usize = 4 << 10;
        if self.io.terminal.is_none() || self.print(question).await?.is_break() {
            return Ok(None);
        }
        let mut answer = Vec::new();
        let read = async {
            while !answer.ends_with(b"\n") && answer.len() < LIMIT {
                match self.io.stdin.read_u8().await {
                    Ok(byte) => answer.push(byte),
                    Err(_) => break,
                }
            }
        };
        // who does not answer in time has said no
        drop(tokio::time::timeout(INPUT_WAIT, read).await);
        Ok(Some(String::from_utf8_lossy(&answer).into_owned()))
    }

    fn user(&self) -> Option<UserName> {
        Some(self.who.user.clone())
    }

    fn screen(&self) -> Screen {
        match &self.io.terminal {
            None => Screen::default(),
            Some(terminal) => Screen { width: terminal.width(), color: terminal.color },
        }
    }

    /// Only the client knows by which name it came here.
    fn remote(&self) -> Result<String, Report> {
        Ok("ssh://git@THIS-HOST".to_owned())
    }
}

#[async_trait]
impl Following for Follow {
    async fn next(&mut self) -> Result<Step, Report> {
        Follow::next(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_holds_no_values_and_no_control_characters() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            recorded(&words(&["apps", "set", "shop", "build-arg.TOKEN=s3cret", "target="])),
            "apps set shop build-arg.TOKEN=… target=…"
        );
        assert_eq!(recorded(&words(&["secrets", "add", "shop", "npm", "s3cret"])), "secrets add shop npm …");
        assert_eq!(
            recorded(&words(&["lemnos", "registry", "login", "example.com", "-u", "ada", "-p", "s3cret"])),
            "registry login example.com …"
        );
        let long = recorded(&words(&["keys", "add", &"A".repeat(3_000)]));
        assert_eq!(long.len(), "keys add ".len() + RECORDED_CHARS);
        assert!(!recorded(&words(&["\u{202e}x"])).contains('\u{202e}'));
    }
}
