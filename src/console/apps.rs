//! `lemnos apps`: what can be pushed, who may, and how it builds.

use super::table::Table;
use super::{Desk, misplaced, print_json, print_text, unexpected};
use crate::admin::{AppView, Request, Response, settings};
use crate::error::Report;
use crate::event::plain_text;
use crate::model::{Access, AppName};
use crate::plan::describe;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
    /// Let a user push to and fetch from an app, or with --read fetch from it and see its builds only.
    Grant {
        /// The app's name.
        app: String,
        /// Who: `lemnos users list` shows the users.
        user: String,
        /// No pushes.
        #[arg(long)]
        read: bool,
    },
    /// Take a user's access back.
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
    /// Print what a push of a ref or commit that is there already would build.
    Plan(PlanArgs),
}

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// The app's name.
    app: String,
    /// A branch, a tag, or a commit's id.
    #[arg(value_name = "REF")]
    what: String,
    /// Print JSON, as `git push -o plan` does.
    #[arg(long)]
    json: bool,
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

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let command = match args {
        Args { command: None, json } => Command::List { json },
        Args { json: true, .. } => return Err(misplaced("--json")),
        Args { command: Some(command), .. } => command,
    };
    match command {
        Command::Create { app, json } => {
            let view = app_of(desk.execute(Request::CreateApp { app: app.parse()? }).await?)?;
            let remote = desk.remote()?;
            print_app(desk, json, &view, |view| created(view, &remote)).await?;
        }
        Command::List { json } => match desk.execute(Request::ListApps).await? {
            Response::Apps(apps) if json => print_json(desk, &apps).await?,
            Response::Apps(apps) => {
                let text = list(&apps, desk.screen().width);
                print_text(desk, &text).await?;
            }
            other => return Err(unexpected(&other)),
        },
        Command::Show { app, json } => {
            let view = app_of(desk.execute(Request::ShowApp { app: app.parse()? }).await?)?;
            print_app(desk, json, &view, show).await?;
        }
        Command::Destroy { app, yes, json } => {
            let app: AppName = app.parse()?;
            if !yes {
                confirm(&app, desk).await?;
            }
            match desk.execute(Request::DestroyApp { app }).await? {
                Response::AppDestroyed(view) => print_app(desk, json, &view, destroyed).await?,
                other => return Err(unexpected(&other)),
            }
        }
        Command::Grant { app, user, read } => {
            let access = if read { Access::Read } else { Access::Write };
            let request = Request::Grant { app: app.parse()?, user: user.parse()?, access };
            let already = match desk.execute(request).await? {
                Response::Granted { changed: true } => "",
                Response::Granted { changed: false } => " already",
                other => return Err(unexpected(&other)),
            };
            let may = if read { "only read" } else { "push to" };
            print_text(desk, &format!("{user} may {may} {app}{already}\n")).await?;
        }
        Command::Revoke { app, user } => {
            match desk.execute(Request::Revoke { app: app.parse()?, user: user.parse()? }).await? {
                Response::Revoked => {
                    print_text(desk, &format!("{user} has no access to {app} any more\n")).await?;
                }
                other => return Err(unexpected(&other)),
            }
        }
        Command::Set { app, changes, json } => {
            let changes = changes.iter().map(|text| pair(text)).collect::<Result<_, _>>()?;
            let view = app_of(desk.execute(Request::SetApp { app: app.parse()?, changes }).await?)?;
            print_app(desk, json, &view, show).await?;
        }
        Command::Plan(args) => return plan(args, desk).await,
    }
    Ok(0)
}

/// What a commit of the app's would build.
pub async fn plan(args: PlanArgs, desk: &mut dyn Desk) -> Result<u8, Report> {
    match desk.execute(Request::PlanApp { app: args.app.parse()?, what: args.what }).await? {
        Response::Plan(plan) if args.json => print_json(desk, &plan).await?,
        Response::Plan(plan) => {
            print_text(desk, &format!("{}\n", plain_text(&describe::plan(&plan)))).await?
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

async fn print_app(
    desk: &mut dyn Desk,
    json: bool,
    view: &AppView,
    text: impl FnOnce(&AppView) -> String + Send,
) -> Result<(), Report> {
    if json { print_json(desk, view).await } else { print_text(desk, &text(view)).await }
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
async fn confirm(app: &AppName, desk: &mut dyn Desk) -> Result<(), Report> {
    let refuse = || Report::user(format!("app {app} is not destroyed"));
    let question = format!(
        "This removes {app} with its repository, settings, grants and builds. Type its name to go on: "
    );
    match desk.ask(&question).await? {
        None => Err(refuse().hint("nobody can be asked here: say --yes")),
        Some(answer) if answer.trim() == app.as_str() => Ok(()),
        Some(_) => Err(refuse().hint("the name was not typed")),
    }
}

fn image(view: &AppView) -> String {
    view.image.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn users(view: &AppView) -> String {
    let names: Vec<_> = view
        .users
        .iter()
        .map(|grant| match grant.access {
            Access::Write => grant.user.to_string(),
            Access::Read => format!("{} (read)", grant.user),
        })
        .collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

fn created(view: &AppView, remote: &str) -> String {
    let name = &view.name;
    format!(
        "Created app {name}\n  lemnos apps grant {name} USER\n  git remote add builder {remote}/{name}.git\n  git push builder {}\n",
        view.settings.main_branch
    )
}

fn list(apps: &[AppView], width: Option<usize>) -> String {
    if apps.is_empty() {
        return "No apps. Make one: lemnos apps create NAME\n".to_owned();
    }
    let mut table = Table::new(["APP", "IMAGE", "USERS"]).within(width);
    for view in apps {
        table.row([view.name.to_string(), image(view), users(view)]);
    }
    table.to_string()
}

fn show(view: &AppView) -> String {
    let mut table = Table::new(["app", view.name.as_str()]);
    table.row(["image".to_owned(), image(view)]);
    table.row(["users".to_owned(), users(view)]);
    for behind in &view.behind {
        table.row(["ref".to_owned(), behind.to_string()]);
    }
    for (key, value) in settings::show(&view.settings) {
        table.row([key.to_owned(), if value.is_empty() { "-".to_owned() } else { value }]);
    }
    let notes: String = view.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!("{table}{notes}")
}

fn destroyed(view: &AppView) -> String {
    let tags = match &view.image {
        Some(image) => format!("Tags that were pushed to {image} stay in the registry.\n"),
        None => "Tags that were pushed stay in the registry.\n".to_owned(),
    };
    format!("Destroyed app {} with its repository, settings, grants and builds.\n{tags}", view.name)
}
