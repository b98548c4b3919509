//! `whoami`: how the one who asks is known here.

use super::table::Table;
use super::{Desk, print_json, print_text, unexpected};
use crate::admin::{Request, Response, You};
use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    match desk.execute(Request::WhoAmI).await? {
        Response::You(you) if args.json => print_json(desk, &you).await?,
        Response::You(you) => print_text(desk, &described(&you)).await?,
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

fn described(you: &You) -> String {
    let Some(user) = &you.user else {
        return "the operator of this server: nothing is forbidden here\n".to_owned();
    };
    let mut table = match &you.deploy {
        Some(deploy) => {
            let mut table = Table::new(["deploy key of", deploy.app.as_str()]);
            table.row(["access".to_owned(), deploy.access.to_string()]);
            table
        }
        None => Table::new(["user", user.as_str()]),
    };
    if let Some(role) = you.role {
        table.row(["role".to_owned(), role.to_string()]);
    }
    if let Some(key) = &you.key {
        let vouched = if you.certificate { ", by a certificate" } else { "" };
        table.row(["key".to_owned(), format!("{key}{vouched}")]);
    }
    table.to_string()
}
