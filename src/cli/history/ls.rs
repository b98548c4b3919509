//! `lemnos buildkit history ls`: the builds that each builder remembers, those that run first.

use std::process::ExitCode;

use serde::Serialize;

use super::filter;
use super::name::{name, shortened};
use crate::buildkit::{HistoryQuery, Moment, Record, State};
use crate::cli::builder::{BuilderArgs, Chosen, about_filters};
use crate::cli::du::OfBuilder;
use crate::cli::figures::{ago, took};
use crate::cli::terminal::{Format, print_json_line, print_text};
use crate::console::table::Table;
use crate::error::Report;
use crate::event::plain_line;

/// What filters look like.
const FILTERS: &str =
    "for example status=error, startedAt>=24h or completedAt<2026-11-28T00:00:00Z, duration>1m30s";
/// What of a name stands in the table.
const NAME_WIDTH: usize = 36;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only builds that match, as in status=error, ref=abc, repository=URL, startedAt>=24h, completedAt, duration<1m; again
    /// for what must hold too.
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter::condition)]
    filters: Vec<String>,
    /// How builds are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Whole names.
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    r#ref: &'a str,
    name: String,
    status: &'static str,
    created_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Moment>,
    total_steps: i32,
    completed_steps: i32,
    cached_steps: i32,
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    builder.each(async |builder: &Chosen| show(args, builder).await).await
}

async fn show(args: &Args, builder: &Chosen) -> Result<(), Report> {
    let query = HistoryQuery { filters: filter::all(&args.filters), ..HistoryQuery::default() };
    let asked = builder.client.history(&query).await;
    let mut records = asked.map_err(|e| about_filters(e, &query.filters, FILTERS))?;
    records.sort_by_key(|record| record.completed_at.is_some());
    if args.format == Format::Json {
        for record in &records {
            if print_json_line(&OfBuilder { builder: &builder.name, what: line(record) })?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    let width = if args.no_trunc { usize::MAX } else { NAME_WIDTH };
    print_text(&format!("{}{}", builder.heading(), table(&records, width, Moment::now())))
}

fn line(record: &Record) -> Line<'_> {
    Line {
        r#ref: &record.reference,
        name: name(&record.frontend_attrs),
        status: status(record),
        created_at: record.created_at,
        completed_at: record.completed_at,
        total_steps: record.total_steps,
        completed_steps: record.completed_steps,
        cached_steps: record.cached_steps,
    }
}

fn table(records: &[Record], width: usize, now: Moment) -> String {
    let mut table = Table::new(["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"]);
    for record in records {
        table.row([
            plain_line(&record.reference),
            shortened(&plain_line(&name(&record.frontend_attrs)), width),
            status(record).to_owned(),
            record.created_at.map(|at| ago(at, now)).unwrap_or_default(),
            lasted(record, now),
        ]);
    }
    table.to_string()
}

fn status(record: &Record) -> &'static str {
    match record.state() {
        State::Running => "Running",
        State::Completed => "Completed",
        State::Failed => "Error",
        State::Canceled => "Canceled",
    }
}

/// How long it took; with a `+` where it still runs.
pub fn lasted(record: &Record, now: Moment) -> String {
    let Some(created) = record.created_at else { return String::new() };
    match record.completed_at {
        Some(completed) => took(completed.since(created)),
        None => format!("{}+", took(now.since(created))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::Failure;

    #[test]
    fn builds_stand_in_lines_with_how_they_ended() {
        let at = |ms| Some(Moment::from_ms(ms));
        let build = |reference: &str, completed_at, code: Option<i32>| Record {
            reference: reference.to_owned(),
            created_at: at(1_000),
            completed_at,
            failure: code.map(|code| Failure { code, ..Failure::default() }),
            frontend_attrs: [("context".to_owned(), format!("/a/long/place\u{1b}[2J/{reference}"))].into(),
            ..Record::default()
        };
        let records = [
            build("running", None, None),
            build("good", at(3_500), None),
            build("bad", at(71_000), Some(2)),
            build("stopped", at(2_000), Some(1)),
        ];
        insta::assert_snapshot!(table(&records, 12, Moment::from_ms(121_000)), @r"
        BUILD ID  NAME          STATUS     CREATED AT     DURATION
        running   ..ce/running  Running    2 minutes ago  2m 00s+
        good      ..place/good  Completed  2 minutes ago  2.5s
        bad       ../place/bad  Error      2 minutes ago  1m 10s
        stopped   ..ce/stopped  Canceled   2 minutes ago  1.0s
        ");
    }
}
