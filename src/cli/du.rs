//! `lemnos buildkit du`: what a builder's cache holds, as `buildctl du` and `docker buildx du` tell it.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::builder::{BuilderArgs, Chosen, FILTERS, about_filters};
use super::figures::{ago, duration};
use super::terminal::{print_json_line, print_text};
use crate::buildkit::{Moment, Sum, Usage, size_text};
use crate::console::table::Table;
use crate::error::Report;
use crate::event::plain_line;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    builder: BuilderArgs,
    /// Only records that match, as in `type==exec.cachemount` or `inuse`; conditions joined by commas must all hold; again for other records.
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Only records that were not used within this time, as in 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    until: Option<Duration>,
    /// All that is known of each record.
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// How records are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line a record.
    Table,
    /// All that is known of each record.
    Pretty,
    /// One JSON object a line, sizes in bytes.
    Json,
}

/// What is printed of one builder, as JSON.
#[derive(Serialize)]
pub struct OfBuilder<'a, T> {
    pub builder: &'a str,
    #[serde(flatten)]
    pub what: T,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    super::block_on(args.builder.each(async |builder: &Chosen| show(&args, builder).await))
}

async fn show(args: &Args, builder: &Chosen) -> Result<(), Report> {
    let asked = builder.client.disk_usage(&args.filters, args.until.unwrap_or_default()).await;
    let records = asked.map_err(|e| about_filters(e, &args.filters, FILTERS))?;
    let format = if args.verbose { Format::Pretty } else { args.format };
    let now = Moment::now();
    let mut text = builder.heading();
    match format {
        Format::Json => {
            for record in &records {
                let line = OfBuilder { builder: &builder.name, what: record };
                if print_json_line(&line)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        Format::Pretty => records.iter().for_each(|record| text.push_str(&pretty(record, now))),
        Format::Table => {
            let mut table = Table::new(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
            records.iter().for_each(|record| table.row(cells(record, now)));
            text.push_str(&table.to_string());
        }
    }
    if args.filters.is_empty() && args.until.is_none() {
        text.push_str(&summary(Sum::of(&records)));
    }
    print_text(&text)
}

/// A record's line: `*` marks what is mutable, and bytes that are an image's too.
pub fn cells(record: &Usage, now: Moment) -> [String; 4] {
    let mark = |marked: bool| if marked { "*" } else { "" };
    [
        format!("{}{}", plain_line(&record.id), mark(record.mutable)),
        (!record.in_use).to_string(),
        format!("{}{}", size_text(record.size), mark(record.shared)),
        record.last_used_at.map(|at| ago(at, now)).unwrap_or_default(),
    ]
}

/// All of a record, and an empty line.
pub fn pretty(record: &Usage, now: Moment) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{:<13} {}\n", format!("{name}:"), plain_line(value)))
    };
    line("ID", &record.id);
    if !record.parents.is_empty() {
        line("Parents", &record.parents.join(", "));
    }
    if let Some(at) = record.created_at {
        line("Created at", &at.to_string());
    }
    line("Mutable", &record.mutable.to_string());
    line("Reclaimable", &(!record.in_use).to_string());
    line("Shared", &record.shared.to_string());
    line("Size", &size_text(record.size));
    if !record.description.is_empty() {
        line("Description", &record.description);
    }
    line("Usage count", &record.usage_count.to_string());
    if let Some(at) = record.last_used_at {
        line("Last used", &ago(at, now));
    }
    if !record.record_type.is_empty() {
        line("Type", &record.record_type);
    }
    text.push('\n');
    text
}

fn summary(sum: Sum) -> String {
    let mut text = String::new();
    let mut line = |name: &str, bytes: i64| text.push_str(&format!("{name:<12} {}\n", size_text(bytes)));
    if sum.shared > 0 {
        line("Shared:", sum.shared);
        line("Private:", sum.total.saturating_sub(sum.shared));
    }
    line("Reclaimable:", sum.reclaimable);
    line("Total:", sum.total);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Usage {
        Usage {
            id: "abc\u{1b}[2J".to_owned(),
            mutable: true,
            shared: true,
            size: 1_500_000,
            created_at: Some(Moment::from_ms(0)),
            last_used_at: Some(Moment::from_ms(1_000)),
            usage_count: 2,
            parents: vec!["p".to_owned(), "q".to_owned()],
            description: "[2/3] RUN \u{7}make".to_owned(),
            record_type: "regular".to_owned(),
            ..Usage::default()
        }
    }

    #[test]
    fn records_are_told_without_what_steers_a_terminal() {
        let now = Moment::from_ms(121_000);
        assert_eq!(cells(&record(), now), ["abc*", "true", "1.50MB*", "2 minutes ago"]);
        insta::assert_snapshot!(pretty(&record(), now), @r"
        ID:           abc
        Parents:      p, q
        Created at:   1970-01-01T00:00:00Z
        Mutable:      true
        Reclaimable:  true
        Shared:       true
        Size:         1.50MB
        Description:  [2/3] RUN make
        Usage count:  2
        Last used:    2 minutes ago
        Type:         regular
        ");
    }

    #[test]
    fn what_is_shared_is_told_where_there_is_any() {
        let sum = Sum { total: 3_000, reclaimable: 2_000, shared: 1_000 };
        insta::assert_snapshot!(summary(sum), @r"
        Shared:      1.00kB
        Private:     2.00kB
        Reclaimable: 2.00kB
        Total:       3.00kB
        ");
        assert!(!summary(Sum::default()).contains("Shared"));
    }
}
