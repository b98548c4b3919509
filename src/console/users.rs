//! `lemnos users`: who is known, and what they may do.

use super::table::{Table, time_text};
use super::{Desk, print_json, print_text, unexpected};
use crate::admin::{Request, Response, UserView};
use crate::error::Report;
use crate::model::{Role, User, UserName};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a user without keys, for one who logs in with certificates or gets keys later.
    Add {
        /// The user's name.
        user: String,
        /// May administer users, keys and apps, and push to every app.
        #[arg(long)]
        admin: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the users.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a user with their keys and grants; builds keep the name.
    Remove {
        /// The user's name.
        user: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change what a user may do.
    Role {
        /// The user's name.
        user: String,
        /// `admin` or `member`.
        role: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let (request, json) = match args.command {
        Command::Add { user, admin, json } => {
            let role = if admin { Role::Admin } else { Role::Member };
            (Request::AddUser { user: user.parse()?, role }, json)
        }
        Command::List { json } => (Request::ListUsers, json),
        Command::Remove { user, json } => (Request::RemoveUser { user: user.parse()? }, json),
        Command::Role { user, role, json } => {
            (Request::SetRole { user: user.parse()?, role: role.parse()? }, json)
        }
    };
    match desk.execute(request).await? {
        Response::UserAdded(user) => print_user(desk, json, &user, &added(&user)).await?,
        Response::Users(users) if json => print_json(desk, &users).await?,
        Response::Users(users) => {
            let text = table(&users, desk.screen().width);
            print_text(desk, &text).await?;
        }
        Response::UserRemoved { user, keys, grants } => {
            print_user(desk, json, &user, &removed(&user.name, keys, grants)).await?;
        }
        Response::RoleSet { user, changed } => {
            let already = if changed { "" } else { " already" };
            let text = format!("{} is {} {}{already}\n", user.name, article(user.role), user.role);
            print_user(desk, json, &user, &text).await?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

async fn print_user(desk: &mut dyn Desk, json: bool, user: &User, text: &str) -> Result<(), Report> {
    if json { print_json(desk, user).await } else { print_text(desk, text).await }
}

fn article(role: Role) -> &'static str {
    match role {
        Role::Admin => "an",
        Role::Member => "a",
    }
}

fn added(user: &User) -> String {
    format!(
        "Added {}, {} {}\n  lemnos keys add {} FILE\n",
        user.name,
        article(user.role),
        user.role,
        user.name
    )
}

fn removed(user: &UserName, keys: u64, grants: u64) -> String {
    let count = |n: u64, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    format!("Removed {user} with {} and {}\n", count(keys, "key"), count(grants, "grant"))
}

fn table(users: &[UserView], width: Option<usize>) -> String {
    if users.is_empty() {
        return "No users. One appears with the first key: lemnos keys add USER FILE\n".to_owned();
    }
    let mut table = Table::new(["USER", "ROLE", "KEYS", "SINCE", "APPS"]).within(width);
    for user in users {
        let apps: Vec<_> = user.apps.iter().map(ToString::to_string).collect();
        let apps = match (user.role, apps.is_empty()) {
            (Role::Admin, _) => "all".to_owned(),
            (Role::Member, true) => "-".to_owned(),
            (Role::Member, false) => apps.join(" "),
        };
        table.row([
            user.name.to_string(),
            user.role.to_string(),
            user.keys.to_string(),
            time_text(user.created_at_ms),
            apps,
        ]);
    }
    table.to_string()
}
