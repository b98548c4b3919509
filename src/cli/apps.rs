//! `lemnos apps`: what can be pushed, who may, and how it builds.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use super::block_on;
use super::control::{DataArgs, unexpected};
use super::terminal::{Table, print_json, print_text};
use crate::admin::{AppView, Ready, Request, Response, settings};
use crate::error::Report;
use crate::model::AppName;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an app and its repository.
    Create {
        /// The app's name.
        app: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the apps.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show an app: its image, who may push, its settings.
    Show {
        /// The app's name.
        app: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an app with its repository, settings, grants and builds; images stay in the registry.
    Destroy {
        /// The app's name.
        app: String,
        /// Do not ask.
        #[arg(long, visible_alias = "force")]
        yes: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a user push to and fetch from an app.
    Grant {
        /// The app's name.
        app: String,
        /// Who: `lemnos keys list` shows the users.
        user: String,
    },
    /// Take a user's grant back.
    Revoke {
        /// The app's name.
        app: String,
        /// Whose: `lemnos apps show APP` shows who has one.
        user: String,
    },
    /// Change settings: KEY=VALUE …; an empty value resets.
    #[command(after_help = settings_help())]
    Set {
        /// The app's name.
        app: String,
        /// A setting and its value, see below; again for each one.
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn settings_help() -> String {
    let mut table = Table::new(["Settings:", ""]);
    for (key, value) in settings::KEYS {
        table.row([format!("  {key}"), value.to_owned()]);
    }
    format!(
        "{table}\nTEMPLATE is text with {{branch}}, {{sha}}, {{sha12}} and {{version}}; PREFIX* is all branches that begin so."
    )
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let data = args.data;
    let execute = |request| block_on(data.execute(request));
    match args.command {
        Command::Create { app, json } => {
            let view = app_of(execute(Request::CreateApp { app: app.parse()? })?)?;
            if json { print_json(&view)? } else { print_text(&created(&data, &view)?)? }
        }
        Command::List { json } => match execute(Request::ListApps)? {
            Response::Apps(apps) if json => print_json(&apps)?,
            Response::Apps(apps) => print_text(&list(&apps))?,
            other => return Err(unexpected(&other)),
        },
        Command::Show { app, json } => {
            let view = app_of(execute(Request::ShowApp { app: app.parse()? })?)?;
            if json { print_json(&view)? } else { print_text(&show(&view))? }
        }
        Command::Destroy { app, yes, json } => {
            let app: AppName = app.parse()?;
            if !yes {
                confirm(&app)?;
            }
            match execute(Request::DestroyApp { app })? {
                Response::AppDestroyed(view) if json => print_json(&view)?,
                Response::AppDestroyed(view) => print_text(&destroyed(&view))?,
                other => return Err(unexpected(&other)),
            }
        }
        Command::Grant { app, user } => {
            match execute(Request::Grant { app: app.parse()?, user: user.parse()? })? {
                Response::Granted { changed: true } => print_text(&format!("{user} may push to {app}\n"))?,
                Response::Granted { changed: false } => {
                    print_text(&format!("{user} may push to {app} already\n"))?;
                }
                other => return Err(unexpected(&other)),
            }
        }
        Command::Revoke { app, user } => {
            match execute(Request::Revoke { app: app.parse()?, user: user.parse()? })? {
                Response::Revoked => print_text(&format!("{user} may no longer push to {app}\n"))?,
                other => return Err(unexpected(&other)),
            }
        }
        Command::Set { app, changes, json } => {
            let changes = changes.iter().map(|text| pair(text)).collect::<Result<_, _>>()?;
            let view = app_of(execute(Request::SetApp { app: app.parse()?, changes })?)?;
            if json { print_json(&view)? } else { print_text(&show(&view))? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn app_of(response: Response) -> Result<AppView, Report> {
    match response {
        Response::App(view) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

fn pair(text: &str) -> Result<(String, String), Report> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Report::user(format!("{text:?} is not KEY=VALUE"))
            .hint("`lemnos apps set --help` lists the keys; KEY= resets one")
    })?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Asks on a terminal for the app's name; without one, --yes is the only way.
fn confirm(app: &AppName) -> Result<(), Report> {
    let refuse = || Report::user(format!("app {app} is not destroyed"));
    if !std::io::stdin().is_terminal() {
        return Err(refuse().hint("nobody can be asked here: say --yes"));
    }
    let mut stderr = std::io::stderr();
    let asked = write!(
        stderr,
        "This removes {app} with its repository, settings, grants and builds. Type its name to go on: "
    );
    let mut answer = String::new();
    if asked.and_then(|()| stderr.flush()).is_err() || std::io::stdin().lock().read_line(&mut answer).is_err()
    {
        return Err(refuse());
    }
    if answer.trim() == app.as_str() { Ok(()) } else { Err(refuse().hint("the name was not typed")) }
}

fn image(view: &AppView) -> String {
    view.image.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn users(view: &AppView) -> String {
    let names: Vec<_> = view.users.iter().map(ToString::to_string).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

fn created(data: &DataArgs, view: &AppView) -> Result<String, Report> {
    let name = &view.name;
    // where a server runs, it says where; the host that others use is theirs to know
    let ready = Ready::read(&data.data_dir()?);
    let port = ready.and_then(|ready| ready.ssh.parse::<SocketAddr>().ok()).map_or(2222, |ssh| ssh.port());
    Ok(format!(
        "Created app {name}\n  lemnos apps grant {name} USER\n  git remote add builder ssh://git@localhost:{port}/{name}.git\n  git push builder {}\n",
        view.settings.main_branch
    ))
}

fn list(apps: &[AppView]) -> String {
    if apps.is_empty() {
        return "No apps. Make one: lemnos apps create NAME\n".to_owned();
    }
    let mut table = Table::new(["APP", "IMAGE", "USERS"]);
    for view in apps {
        table.row([view.name.to_string(), image(view), users(view)]);
    }
    table.to_string()
}

fn show(view: &AppView) -> String {
    let mut table = Table::new(["app", view.name.as_str()]);
    table.row(["image".to_owned(), image(view)]);
    table.row(["users".to_owned(), users(view)]);
    for (key, value) in settings::show(&view.settings) {
        table.row([key.to_owned(), if value.is_empty() { "-".to_owned() } else { value }]);
    }
    table.to_string()
}

fn destroyed(view: &AppView) -> String {
    let tags = match &view.image {
        Some(image) => format!("Tags that were pushed to {image} stay in the registry.\n"),
        None => "Tags that were pushed stay in the registry.\n".to_owned(),
    };
    format!("Destroyed app {} with its repository, settings, grants and builds.\n{tags}", view.name)
}
