//! `lemnos builds`: what was built, how it went, and the log of it.

use std::ops::ControlFlow;

use super::table::{Table, duration_text, time_text};
use super::{Desk, misplaced, print_json, print_text, unexpected};
use crate::admin::{EVENTS_LIMIT, Request, Response, Step};
use crate::error::{Kind, Report};
use crate::event::{Recorded, plain_json};
use crate::model::{AppName, Build, BuildState};
use crate::notify::text::TextRenderer;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only of this app.
    app: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List builds, newest first.
    List {
        /// Only of this app.
        #[arg(long)]
        app: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = LIST_LIMIT, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        /// Only builds older than this one: the next page.
        #[arg(long, value_name = "BUILD")]
        before: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one build.
    Show(ShowArgs),
    /// Print a build's log as its pusher saw it.
    Logs(LogsArgs),
    /// End a build that is queued or running.
    Cancel(CancelArgs),
    /// Build an ended build's commit again.
    Retry(RetryArgs),
}

/// Builds that a list shows when nobody says how many.
const LIST_LIMIT: u32 = 20;

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Its id, or the last digits of it.
    build: String,
    /// Print the Kubernetes YAML of ko_config.resolve with the build's images, and nothing else.
    #[arg(long)]
    resolved: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Its id, or the last digits of it.
    build: String,
    /// Go on until the build has ended; exit 1 if it failed.
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one object an event and line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// Its id, or the last digits of it.
    build: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// Its id, or the last digits of it.
    build: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let Args { command, app, json } = args;
    match command {
        None => {
            list(desk, Request::ListBuilds { app: parsed(app)?, limit: LIST_LIMIT, before: None }, json).await
        }
        Some(_) if app.is_some() => Err(misplaced("an app")),
        Some(_) if json => Err(misplaced("--json")),
        Some(Command::List { app, limit, before, json }) => {
            list(desk, Request::ListBuilds { app: parsed(app)?, limit, before }, json).await
        }
        Some(Command::Show(args)) => show(args, desk).await,
        Some(Command::Logs(args)) => logs(args, desk).await,
        Some(Command::Cancel(args)) => cancel(args, desk).await,
        Some(Command::Retry(args)) => retry(args, desk).await,
    }
}

fn parsed(app: Option<String>) -> Result<Option<AppName>, Report> {
    Ok(app.map(|app| app.parse()).transpose()?)
}

async fn list(desk: &mut dyn Desk, request: Request, json: bool) -> Result<u8, Report> {
    match desk.execute(request).await? {
        Response::Builds(builds) if json => print_json(desk, &builds).await?,
        Response::Builds(builds) => {
            let text = table(&builds, desk.screen().width);
            print_text(desk, &text).await?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

/// One build as it stands.
pub async fn show(args: ShowArgs, desk: &mut dyn Desk) -> Result<u8, Report> {
    if args.resolved {
        return resolved(desk, Request::ShowResolved { build: args.build }, args.json).await;
    }
    print_build(desk, Request::ShowBuild { build: args.build }, args.json, described).await
}

async fn resolved(desk: &mut dyn Desk, request: Request, json: bool) -> Result<u8, Report> {
    match desk.execute(request).await? {
        Response::Resolved { build, yaml } if json => {
            print_json(desk, &serde_json::json!({ "build": build, "resolved": yaml })).await?;
        }
        Response::Resolved { yaml, .. } => print_text(desk, &yaml).await?,
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

/// One build's log, as far as there is one or to its end.
pub async fn logs(args: LogsArgs, desk: &mut dyn Desk) -> Result<u8, Report> {
    if args.follow {
        return follow(desk, &args.build, args.json).await;
    }
    so_far(desk, args.build, args.json).await?;
    Ok(0)
}

/// Ends a build.
pub async fn cancel(args: CancelArgs, desk: &mut dyn Desk) -> Result<u8, Report> {
    let said = |build: &Build| format!("Cancelled {}\n", named(build));
    print_build(desk, Request::CancelBuild { build: args.build }, args.json, said).await
}

/// Builds a commit again.
pub async fn retry(args: RetryArgs, desk: &mut dyn Desk) -> Result<u8, Report> {
    let said = |build: &Build| format!("Queued {}\n  lemnos logs {} -f\n", named(build), build.id.short());
    print_build(desk, Request::RetryBuild { build: args.build }, args.json, said).await
}

fn named(build: &Build) -> String {
    format!(
        "build {} of {} {} at {}",
        build.id.short(),
        build.app,
        build.reference.short(),
        build.commit.short(12)
    )
}

async fn print_build(
    desk: &mut dyn Desk,
    request: Request,
    json: bool,
    said: impl FnOnce(&Build) -> String + Send,
) -> Result<u8, Report> {
    match desk.execute(request).await? {
        Response::Build(build) if json => print_json(desk, &build).await?,
        Response::Build(build) => print_text(desk, &said(&build)).await?,
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

/// Prints events as they come, as text or as lines of JSON.
struct Printer {
    /// None: JSON.
    renderer: Option<TextRenderer>,
}

impl Printer {
    fn new(json: bool, desk: &dyn Desk) -> Self {
        Self { renderer: (!json).then(|| TextRenderer::new(desk.screen().color)) }
    }

    /// Breaks off when nobody reads any more.
    async fn print(&mut self, desk: &mut dyn Desk, events: &[Recorded]) -> Result<ControlFlow<()>, Report> {
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
                    let json = json.map_err(|e| Report::internal(format!("writing JSON: {e}")))?;
                    text.push_str(&plain_json(&json));
                    text.push('\n');
                }
            }
        }
        desk.print(&text).await
    }
}

/// The log as it stands, page by page.
async fn so_far(desk: &mut dyn Desk, build: String, json: bool) -> Result<(), Report> {
    let mut printer = Printer::new(json, desk);
    let mut build = build;
    let mut from_seq = 0;
    loop {
        let request = Request::BuildEvents { build: build.clone(), from_seq, limit: EVENTS_LIMIT };
        let (found, events) = match desk.execute(request).await? {
            Response::Events { build, events } => (build, events),
            other => return Err(unexpected(&other)),
        };
        let Some(last) = events.last() else { return Ok(()) };
        from_seq = last.seq.saturating_add(1);
        // the whole id: a later build may end in the same digits
        build = found.id.to_string();
        if printer.print(desk, &events).await?.is_break() {
            return Ok(());
        }
    }
}

async fn follow(desk: &mut dyn Desk, build: &str, json: bool) -> Result<u8, Report> {
    let mut printer = Printer::new(json, desk);
    let mut following = desk.follow(build, 0).await?;
    let build = loop {
        match following.next().await? {
            Step::Events(events) => {
                if printer.print(desk, &events).await?.is_break() {
                    return Ok(0);
                }
            }
            Step::Ended(build) => break build,
        }
    };
    match build.state {
        BuildState::Succeeded => Ok(0),
        state if !state.is_live() => Ok(1),
        _ => Err(Report::new(
            Kind::Unavailable,
            format!("build {} has not ended, and no server runs that would end it", build.id.short()),
        )
        .hint("start the server: it takes up or closes what was interrupted")),
    }
}

fn table(builds: &[Build], width: Option<usize>) -> String {
    if builds.is_empty() {
        return "No builds. A push makes one: git push builder main\n".to_owned();
    }
    let mut table =
        Table::new(["BUILD", "APP", "REF", "COMMIT", "USER", "STATE", "STARTED", "TOOK"]).within(width);
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

fn described(build: &Build) -> String {
    let mut table = Table::new(["build", build.id.as_str()]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("app", build.app.to_string());
    row("ref", build.reference.to_string());
    row("commit", build.commit.to_string());
    row("user", build.user.to_string());
    row("state", build.state.as_str().to_owned());
    row("started", time_text(build.started_at_ms));
    row("took", took(build));
    for image in &build.images {
        row("image", format!("{}@{}", image.name, image.digest));
        // records of old say no more
        if let Some(form) = image.form {
            row("form", form.described(&image.platforms));
        }
        if !image.tags.is_empty() {
            row("tags", image.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
    }
    if let Some(reason) = &build.reason {
        row("reason", reason.clone());
    }
    if let Some(by) = &build.cancelled_by {
        row("cancelled by", by.clone());
    }
    if let Some(by) = &build.superseded_by {
        row("superseded by", by.to_string());
    }
    if let Some(first) = &build.retry_of {
        row("retry of", first.to_string());
    }
    if build.detached && build.retry_of.is_none() {
        row("detached", "yes: the ref moved before it was built".to_owned());
    }
    table.to_string()
}
