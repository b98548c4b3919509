//! `lemnos secrets`: what an app's builds may mount. Values come over standard input and are shown by nothing.

use super::table::{Table, time_text};
use super::{Desk, Source, print_json, print_text, unexpected};
use crate::admin::{Request, Response};
use crate::error::Report;
use crate::event::SECRETS_BYTES_MAX;
use crate::model::{AppName, AppSecret, SecretName, SecretUse, SecretValue};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keep a secret of an app, read from standard input as it is; it takes the place of an earlier one.
    Add {
        /// The app.
        app: String,
        /// The secret's name: the id that `RUN --mount=type=secret,id=NAME` asks for.
        name: String,
        /// A private key in OpenSSH's format, without passphrase, for `RUN --mount=type=ssh,id=NAME`; a mount without id
        /// means the name default.
        #[arg(long)]
        ssh: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List an app's secrets, without their values.
    List {
        /// The app.
        app: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget a secret of an app.
    Remove {
        /// The app.
        app: String,
        /// The secret's name.
        name: String,
    },
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let (request, app, json, words) = match args.command {
        Command::Add { app, name, ssh, json } => {
            let (app, name): (AppName, SecretName) = (app.parse()?, name.parse()?);
            let used_as = if ssh { SecretUse::Ssh } else { SecretUse::Secret };
            let words = format!("Added {name} to {app}");
            let value = read(desk, &app, &name).await?;
            (Request::AddSecret { app: app.clone(), name, used_as, value }, app, json, words)
        }
        Command::List { app, json } => {
            let app: AppName = app.parse()?;
            (Request::ListSecrets { app: app.clone() }, app, json, String::new())
        }
        Command::Remove { app, name } => {
            let (app, name): (AppName, SecretName) = (app.parse()?, name.parse()?);
            let words = format!("Removed {name} from {app}\n");
            (Request::RemoveSecret { app: app.clone(), name }, app, false, words)
        }
    };
    match desk.execute(request).await? {
        Response::SecretAdded { secret, .. } if json => print_json(desk, &secret).await?,
        Response::SecretAdded { secret, replaced } => {
            let earlier = if replaced { ", in place of an earlier value" } else { "" };
            let text = format!("{words}{earlier}\n  {}\n", mount(&secret));
            print_text(desk, &text).await?;
        }
        Response::SecretRemoved => print_text(desk, &words).await?,
        Response::Secrets(secrets) if json => print_json(desk, &secrets).await?,
        Response::Secrets(secrets) => {
            let text = table(&app, &secrets, desk.screen().width);
            print_text(desk, &text).await?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

/// All of standard input: a secret may be any bytes, its line ends included.
async fn read(desk: &mut dyn Desk, app: &AppName, name: &SecretName) -> Result<SecretValue, Report> {
    let refuse = |problem: String| {
        Report::user(format!("the secret on standard input cannot be used: {problem}")).hint(format!(
            "pass its value, at most {SECRETS_BYTES_MAX} bytes: lemnos secrets add {app} {name} <FILE"
        ))
    };
    let limit = SECRETS_BYTES_MAX as u64;
    let bytes = desk.read(Source::Stdin, limit).await.map_err(|cause| refuse(cause.to_string()))?;
    if bytes.len() > SECRETS_BYTES_MAX {
        return Err(refuse("it is too long".to_owned()));
    }
    Ok(SecretValue::new(bytes))
}

/// How a Dockerfile asks for it.
fn mount(secret: &AppSecret) -> String {
    match (secret.used_as, secret.name.as_str()) {
        (SecretUse::Ssh, "default") => "RUN --mount=type=ssh …".to_owned(),
        (SecretUse::Ssh, name) => format!("RUN --mount=type=ssh,id={name} …"),
        (SecretUse::Secret, name) => format!("RUN --mount=type=secret,id={name} …"),
    }
}

fn table(app: &AppName, secrets: &[AppSecret], width: Option<usize>) -> String {
    if secrets.is_empty() {
        return format!("No secrets. Add one: lemnos secrets add {app} NAME <FILE\n");
    }
    let mut table = Table::new(["NAME", "ADDED", "USED BY"]).within(width);
    for secret in secrets {
        table.row([secret.name.to_string(), time_text(secret.added_at_ms), mount(secret)]);
    }
    table.to_string()
}
