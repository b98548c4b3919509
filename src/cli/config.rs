//! `lemnos config`: every setting as it is in effect, and where it came from.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::serve;
use super::terminal::{print_json, print_text};
use crate::config::{Config, Environment};
use crate::console::table::Table;
use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: serve::Args,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let config = args.serve.resolve(&Environment::of_process())?;
    if args.json {
        print_json(&as_json(&config))?
    } else {
        print_text(&as_text(&config))?
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(config: &Config) -> Value {
    let settings = config.shown.iter().map(|shown| {
        (shown.key.to_owned(), json!({ "value": shown.value, "from": shown.origin.to_string() }))
    });
    json!({
        "data": { "value": config.data_dir, "from": config.data_dir_origin },
        "file": config.file,
        "settings": settings.collect::<serde_json::Map<_, _>>(),
    })
}

fn as_text(config: &Config) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    let data_dir = config.data_dir.display().to_string();
    table.row(["data".to_owned(), data_dir, config.data_dir_origin.to_string()]);
    for shown in &config.shown {
        let value = match &shown.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "-".to_owned(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        };
        table.row([shown.key.to_owned(), value, shown.origin.to_string()]);
    }
    table.to_string()
}
