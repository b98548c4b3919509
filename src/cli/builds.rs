//! `lemnos builds`: what was built, how it went, and the log of it.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use super::block_on;
use super::control::{DataArgs, unexpected};
use super::terminal::{Table, duration_text, print_json, print_text, print_while_read, time_text};
use crate::admin::{Request, Response};
use crate::config::Environment;
use crate::error::Report;
use crate::event::Recorded;
use crate::model::{Build, BuildState};
use crate::notify::text::TextRenderer;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List builds, newest first.
    List {
        /// Only of this app.
        #[arg(long)]
        app: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        /// Only builds older than this one: the next page.
        #[arg(long, value_name = "BUILD")]
        before: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one build.
    Show {
        /// Its id, or the last digits of it.
        build: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a build's log as its pusher saw it.
    Logs {
        /// Its id, or the last digits of it.
        build: String,
        /// Go on until the build has ended; exit 1 if it failed.
        #[arg(short, long)]
        follow: bool,
        /// One JSON object an event and line.
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let execute = |request| block_on(args.data.execute(request));
    match args.command {
        Command::List { app, limit, before, json } => {
            let app = app.map(|app| app.parse()).transpose()?;
            match execute(Request::ListBuilds { app, limit, before })? {
                Response::Builds(builds) if json => print_json(&builds)?,
                Response::Builds(builds) => print_text(&list(&builds))?,
                other => return Err(unexpected(&other)),
            }
        }
        Command::Show { build, json } => match execute(Request::ShowBuild { build })? {
            Response::Build(build) if json => print_json(&build)?,
            Response::Build(build) => print_text(&show(&build))?,
            other => return Err(unexpected(&other)),
        },
        Command::Logs { build, follow: true, json } => return follow(&args.data, &build, json),
        Command::Logs { build, follow: false, json } => logs(&args.data, build, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints events as they come, as text or as lines of JSON.
struct Printer {
    /// None: JSON.
    renderer: Option<TextRenderer>,
}

impl Printer {
    fn new(json: bool) -> Self {
        let color = std::io::stdout().is_terminal() && Environment::of_process().get("NO_COLOR").is_none();
        Self { renderer: (!json).then(|| TextRenderer::new(color)) }
    }

    /// Breaks off when nobody reads any more.
    fn print(&mut self, events: &[Recorded]) -> Result<ControlFlow<()>, Report> {
        let mut text = String::new();
        for recorded in events {
            match &mut self.renderer {
                Some(renderer) => {
                    for line in renderer.render(recorded) {
                        text.push_str(&line);
                        text.push('\n');
                    }
                }
                None => {
                    let json = serde_json::to_string(recorded);
                    text.push_str(&json.map_err(|e| Report::internal(format!("writing JSON: {e}")))?);
                    text.push('\n');
                }
            }
        }
        print_while_read(&text)
    }
}

/// The log as it stands, page by page.
fn logs(data: &DataArgs, build: String, json: bool) -> Result<(), Report> {
    let mut printer = Printer::new(json);
    let mut build = build;
    let mut from_seq = 0;
    block_on(async {
        loop {
            let request =
                Request::BuildEvents { build: build.clone(), from_seq, limit: crate::admin::EVENTS_LIMIT };
            let (found, events) = match data.execute(request).await? {
                Response::Events { build, events } => (build, events),
                other => return Err(unexpected(&other)),
            };
            let Some(last) = events.last() else { return Ok(()) };
            from_seq = last.seq.saturating_add(1);
            // the whole id: a later build may end in the same digits
            build = found.id.to_string();
            if printer.print(&events)?.is_break() {
                return Ok(());
            }
        }
    })
}

fn follow(data: &DataArgs, build: &str, json: bool) -> Result<ExitCode, Report> {
    let mut printer = Printer::new(json);
    let followed = block_on(data.follow(build, |events| printer.print(&events)))?;
    let Some(build) = followed else { return Ok(ExitCode::SUCCESS) };
    match build.state {
        BuildState::Succeeded => Ok(ExitCode::SUCCESS),
        BuildState::Failed | BuildState::Interrupted => Ok(ExitCode::from(1)),
        BuildState::Running => Err(Report::new(
            crate::error::Kind::Unavailable,
            format!("build {} has not ended, and no server runs that would end it", build.id.short()),
        )
        .hint("start the server: it takes up or closes what was interrupted")),
    }
}

fn list(builds: &[Build]) -> String {
    if builds.is_empty() {
        return "No builds. A push makes one: git push builder main\n".to_owned();
    }
    let mut table = Table::new(["BUILD", "APP", "REF", "COMMIT", "USER", "STATE", "STARTED", "TOOK"]);
    for build in builds {
        table.row([
            build.id.short().to_owned(),
            build.app.to_string(),
            build.reference.short().to_owned(),
            build.commit.short(12).to_owned(),
            build.user.to_string(),
            build.state.as_str().to_owned(),
            time_text(build.started_at_ms),
            took(build),
        ]);
    }
    table.to_string()
}

fn took(build: &Build) -> String {
    let ended = build.finished_at_ms.map(|at| duration_text(at.saturating_sub(build.started_at_ms)));
    ended.unwrap_or_else(|| "-".to_owned())
}

fn show(build: &Build) -> String {
    let mut table = Table::new(["build", build.id.as_str()]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("app", build.app.to_string());
    row("ref", build.reference.to_string());
    row("commit", build.commit.to_string());
    row("user", build.user.to_string());
    row("state", build.state.as_str().to_owned());
    row("started", time_text(build.started_at_ms));
    row("took", took(build));
    let image = build.image.as_ref().map(ToString::to_string);
    if let (Some(image), Some(digest)) = (&image, &build.digest) {
        row("image", format!("{image}@{digest}"));
    }
    if !build.tags.is_empty() {
        row("tags", build.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    }
    if let Some(reason) = &build.reason {
        row("reason", reason.clone());
    }
    table.to_string()
}
