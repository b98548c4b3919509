//! `lemnos registry`: the credentials that lemnos uses at registries, for one app or all. Secrets come over standard input and
//! are shown by nothing.

use super::table::{Table, time_text};
use super::{Desk, Source, print_json, print_text, unexpected};
use crate::admin::{Request, Response};
use crate::error::Report;
use crate::model::login::SECRET_LIMIT_BYTES;
use crate::model::{AppName, RegistryLogin, RegistryPlace, Secret};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keep a registry's credential, for pushes and private base images; it takes the place of an earlier one.
    Login {
        /// The registry, or a path of it: HOST[:PORT][/PATH], docker.io for Docker Hub.
        place: String,
        /// For this app only; it comes before one for all apps.
        #[arg(long)]
        app: Option<String>,
        /// The registry's user name; '<token>' where the secret is an identity token.
        #[arg(short, long, value_name = "USER")]
        username: String,
        /// Read the password or token from standard input: the only way in.
        #[arg(long, required = true)]
        password_stdin: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget a registry's credential.
    Logout {
        /// As it was given to `login`.
        place: String,
        /// This app's, not the one for all apps.
        #[arg(long)]
        app: Option<String>,
    },
    /// List the logins, without their secrets.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let (request, json, words) = match args.command {
        Command::Login { place, app, username, json, .. } => {
            let (place, app) = named(&place, app.as_deref())?;
            let words = format!("Logged in to {}\n", whose(&place, app.as_ref()));
            let secret = read(desk).await?;
            (Request::RegistryLogin { place, app, username, secret }, json, words)
        }
        Command::Logout { place, app } => {
            let (place, app) = named(&place, app.as_deref())?;
            let words = format!("Logged out of {}\n", whose(&place, app.as_ref()));
            (Request::RegistryLogout { place, app }, false, words)
        }
        Command::List { json } => (Request::RegistryLogins, json, String::new()),
    };
    match desk.execute(request).await? {
        Response::RegistryLoggedIn { login, .. } if json => print_json(desk, &login).await?,
        Response::RegistryLoggedIn { replaced: true, .. } => {
            print_text(desk, &words.replace("\n", ", in place of an earlier login\n")).await?;
        }
        Response::RegistryLoggedIn { .. } | Response::RegistryLoggedOut => print_text(desk, &words).await?,
        Response::RegistryLogins(logins) if json => print_json(desk, &logins).await?,
        Response::RegistryLogins(logins) => {
            let text = table(&logins, desk.screen().width);
            print_text(desk, &text).await?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

fn named(place: &str, app: Option<&str>) -> Result<(RegistryPlace, Option<AppName>), Report> {
    Ok((place.parse()?, app.map(str::parse).transpose()?))
}

fn whose(place: &RegistryPlace, app: Option<&AppName>) -> String {
    app.map_or_else(|| format!("{place} for all apps"), |app| format!("{place} for app {app}"))
}

/// The secret: one line, its end not part of it.
async fn read(desk: &mut dyn Desk) -> Result<Secret, Report> {
    let refuse = |problem: &str| {
        Report::user(format!("the password on standard input cannot be used: {problem}"))
            .hint("pass it as one line: `… login HOST -u USER --password-stdin <FILE`")
    };
    let limit = SECRET_LIMIT_BYTES as u64 + 2;
    let bytes = desk.read(Source::Stdin, limit).await.map_err(|cause| refuse(&cause.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not text"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Secret::parse(line.strip_suffix('\r').unwrap_or(line)).map_err(refuse)
}

fn table(logins: &[RegistryLogin], width: Option<usize>) -> String {
    if logins.is_empty() {
        return "No logins. Add one: lemnos registry login HOST -u USER --password-stdin\n".to_owned();
    }
    let mut table = Table::new(["REGISTRY", "APP", "USER", "ADDED"]).within(width);
    for login in logins {
        let app = login.app.as_ref().map_or_else(|| "(all)".to_owned(), ToString::to_string);
        let place = login.place.to_string();
        table.row([place, app, login.username.clone(), time_text(login.added_at_ms)]);
    }
    table.to_string()
}
