//! The words that people type, in a shell as `lemnos …` and over SSH as `ssh builder …`: one implementation for both doors.
//!
//! Words become an `admin::Request`, its `Response` becomes text or JSON; a [`Desk`] is all that a verb sees of its
//! door. Must not know which door it is, read the environment, files or the store, or decide who may do what: `admin` does.

pub mod apps;
pub mod audit;
pub mod builders;
pub mod builds;
pub mod keys;
pub mod line;
pub mod registry;
pub mod secrets;
pub mod table;
pub mod users;
pub mod whoami;

use std::io;
use std::ops::ControlFlow;

use async_trait::async_trait;

use crate::admin::{Request, Response, Step};
use crate::error::Report;
use crate::event::plain_json;
use crate::model::UserName;

/// What can be asked for at every door.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Users and what they may do.
    Users(users::Args),
    /// SSH keys and whose they are.
    Keys(keys::Args),
    /// Apps, their settings, and who may push to them.
    Apps(apps::Args),
    /// Past and running builds.
    Builds(builds::Args),
    /// Every login, push, change and refusal.
    Audit(audit::Args),
    /// The BuildKit daemons that build.
    Builders(builders::Args),
    /// Show one build: short for `builds show`.
    Show(builds::ShowArgs),
    /// Print a build's log: short for `builds logs`.
    Logs(builds::LogsArgs),
    /// End a build: short for `builds cancel`.
    Cancel(builds::CancelArgs),
    /// Build a commit again: short for `builds retry`.
    Retry(builds::RetryArgs),
    /// Say how you are known here.
    Whoami(whoami::Args),
    /// Credentials for registries, of one app or all.
    Registry(registry::Args),
    /// What an app's builds may mount: tokens, keys, other secrets.
    Secrets(secrets::Args),
}

impl Verb {
    /// Does it; the exit status.
    pub async fn run(self, desk: &mut dyn Desk) -> Result<u8, Report> {
        match self {
            Self::Users(args) => users::run(args, desk).await,
            Self::Keys(args) => keys::run(args, desk).await,
            Self::Apps(args) => apps::run(args, desk).await,
            Self::Builds(args) => builds::run(args, desk).await,
            Self::Audit(args) => audit::run(args, desk).await,
            Self::Builders(args) => builders::run(args, desk).await,
            Self::Show(args) => builds::show(args, desk).await,
            Self::Logs(args) => builds::logs(args, desk).await,
            Self::Cancel(args) => builds::cancel(args, desk).await,
            Self::Retry(args) => builds::retry(args, desk).await,
            Self::Whoami(args) => whoami::run(args, desk).await,
            Self::Registry(args) => registry::run(args, desk).await,
            Self::Secrets(args) => secrets::run(args, desk).await,
        }
    }
}

/// What a verb knows of the door it came through. It may be dropped at any point, when the caller goes away or breaks
/// off: what `execute` has begun is then still done to its end.
#[async_trait]
pub trait Desk: Send {
    /// Does one operation, as far as this caller may.
    async fn execute(&mut self, request: Request) -> Result<Response, Report>;

    /// Begins to follow a build's log from `from_seq` on.
    async fn follow(&mut self, build: &str, from_seq: u64) -> Result<Box<dyn Following>, Report>;

    /// Reads all of it, or `limit_bytes` and one more where there is more than that.
    async fn read(&mut self, from: Source<'_>, limit_bytes: u64) -> io::Result<Vec<u8>>;

    /// Prints; breaks off when nobody reads any more.
    async fn print(&mut self, text: &str) -> Result<ControlFlow<()>, Report>;

    /// Asks the person for a line; none where there is no terminal.
    async fn ask(&mut self, question: &str) -> Result<Option<String>, Report>;

    /// The user who asks, whose own things verbs mean when nobody is named; none for the operator.
    fn user(&self) -> Option<UserName>;

    /// What is known of the one who reads.
    fn screen(&self) -> Screen;

    /// Where git finds this server, as `ssh://git@localhost:2222`.
    fn remote(&self) -> Result<String, Report>;
}

/// Where a verb's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    Stdin,
    /// A file of the caller's; only a shell has any.
    File(&'a str),
}

/// The caller's terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns; none where it is no terminal.
    pub width: Option<usize>,
    pub color: bool,
}

/// A build's log on its way, page by page: the next one is read when this one was printed.
#[async_trait]
pub trait Following: Send {
    async fn next(&mut self) -> Result<Step, Report>;
}

/// Prints a value as indented JSON.
async fn print_json(desk: &mut dyn Desk, value: &(impl serde::Serialize + Sync)) -> Result<(), Report> {
    let text = json_text(value)?;
    desk.print(&text).await.map(drop)
}

/// Prints a text to its end; a reader that went away (`| head`) ends it quietly.
async fn print_text(desk: &mut dyn Desk, text: &str) -> Result<(), Report> {
    desk.print(text).await.map(drop)
}

/// A value as indented JSON without characters that a terminal would obey, with its final newline.
pub fn json_text(value: &impl serde::Serialize) -> Result<String, Report> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Report::internal(format!("writing JSON: {e}")))?;
    Ok(format!("{}\n", plain_json(&text)))
}

/// What stands before a word that it belongs behind.
fn misplaced(what: &str) -> Report {
    Report::user(format!("{what} stands before the subcommand")).hint("put it behind: see --help")
}

/// A server of another version may answer with something else.
pub fn unexpected(response: &Response) -> Report {
    let json = serde_json::to_string(response).unwrap_or_default();
    let said = json.chars().take(60).collect::<String>();
    Report::internal(format!("the server answered something else than was asked: {said}"))
        .hint("command and server must be of one version: restart the server after an upgrade")
}
