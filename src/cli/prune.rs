//! `lemnos buildkit prune`: throws away what a builder's cache does not need. Asks first, or is told `--force`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::builder::{BuilderArgs, Chosen, FILTERS, about_filters};
use super::du::{OfBuilder, cells, pretty};
use super::figures::{duration, space};
use super::terminal::{Format, print_json_line, print_text, print_while_read};
use crate::buildkit::{Moment, Rule, Usage, size_text};
use crate::error::Report;
use crate::solve::BuilderConfig;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    builder: BuilderArgs,
    /// Internal and frontend records, too.
    #[arg(short, long)]
    all: bool,
    /// Only records that match, as in `type==exec.cachemount`; conditions joined by commas must all hold; again for other records.
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Not what was used within this time, as in 24h.
    #[arg(long, visible_alias = "until", value_name = "DURATION", value_parser = duration)]
    keep_duration: Option<Duration>,
    /// What the cache may have always, as in 2g.
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = space)]
    reserved_space: Option<i64>,
    /// What the cache may have at most.
    #[arg(long, value_name = "SIZE", value_parser = space)]
    max_used_space: Option<i64>,
    /// How much of the disk is to be free, for which the cache shrinks down to its reserved space.
    #[arg(long, value_name = "SIZE", value_parser = space)]
    min_free_space: Option<i64>,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// All that is known of each record that goes.
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// How records that go are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Args {
    fn rule(&self) -> Rule {
        Rule {
            all: self.all,
            filters: self.filters.clone(),
            keep_duration: self.keep_duration.unwrap_or_default(),
            reserved_space: self.reserved_space.unwrap_or_default(),
            max_used_space: self.max_used_space.unwrap_or_default(),
            min_free_space: self.min_free_space.unwrap_or_default(),
        }
    }
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    if !args.force && !confirmed(&args)? {
        return Ok(ExitCode::SUCCESS);
    }
    super::block_on(args.builder.each(async |builder: &Chosen| prune(&args, builder).await))
}

/// Whether somebody at a terminal wants it.
fn confirmed(args: &Args) -> Result<bool, Report> {
    let builders = args.builder.builders()?;
    if !std::io::stdin().is_terminal() {
        let message = "prune asks before it throws anything away, and there is no terminal to ask on";
        return Err(Report::user(message).hint("give --force"));
    }
    let failed = |cause: std::io::Error| Report::internal(format!("asking on the terminal: {cause}"));
    let mut stderr = std::io::stderr();
    write!(stderr, "{}", question(args, &builders)).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn question(args: &Args, builders: &[BuilderConfig]) -> String {
    let names: Vec<_> = builders.iter().map(|builder| crate::event::plain_line(&builder.name)).collect();
    let what = match (args.all, args.rule() == Rule { all: args.all, ..Rule::default() }) {
        (true, true) => "all of the build cache that is not in use",
        (false, true) => "the build cache that is not in use",
        (_, false) => "the build cache that these options name",
    };
    format!("throw away {what}, of {}? [y/N] ", names.join(" and "))
}

async fn prune(args: &Args, builder: &Chosen) -> Result<(), Report> {
    let mut first = true;
    let tell = |record: Usage| {
        // what goes, goes: a reader that went away does not keep it
        let _ = match (args.format, args.verbose) {
            (Format::Json, _) => print_json_line(&OfBuilder { builder: &builder.name, what: &record }),
            (Format::Table, true) => print_while_read(&pretty(&record, Moment::now())),
            (Format::Table, false) => {
                let head = if first {
                    line(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned))
                } else {
                    String::new()
                };
                first = false;
                print_while_read(&format!("{head}{}", line(cells(&record, Moment::now()))))
            }
        };
    };
    if args.format == Format::Table {
        print_text(&builder.heading())?;
    }
    let sum = builder
        .client
        .prune(&args.rule(), tell)
        .await
        .map_err(|e| about_filters(e, &args.filters, FILTERS))?;
    match args.format {
        Format::Json => Ok(()),
        Format::Table => print_text(&format!("Total: {}\n", size_text(sum.total))),
    }
}

/// Columns of fixed widths: what comes later is not known yet.
fn line([id, reclaimable, size, used]: [String; 4]) -> String {
    format!("{}\n", format!("{id:<28}  {reclaimable:<11}  {size:<10}  {used}").trim_end())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Command::try_parse_from(std::iter::once("prune").chain(words.split_whitespace())).unwrap().args
    }

    #[test]
    fn options_become_a_rule() {
        assert_eq!(args("").rule(), Rule::default());
        let rule = args(
            "--all --filter type==regular --filter inuse --until 2h --keep-storage 1g --max-used-space 2g --min-free-space 512",
        )
        .rule();
        let wanted = Rule {
            all: true,
            filters: vec!["type==regular".to_owned(), "inuse".to_owned()],
            keep_duration: Duration::from_secs(7200),
            reserved_space: 1 << 30,
            max_used_space: 2 << 30,
            min_free_space: 512,
        };
        assert_eq!(rule, wanted);
        assert_eq!(args("--keep-duration 2h").rule(), args("--until 2h").rule());
        assert_eq!(args("--reserved-space 1g").rule(), args("--keep-storage 1g").rule());
        for words in
            ["--until soon", "--reserved-space -1", "--format yaml", "--verbose --format json", "--al"]
        {
            let words = std::iter::once("prune").chain(words.split_whitespace());
            assert!(Command::try_parse_from(words).is_err());
        }
    }

    #[test]
    fn the_question_says_what_goes() {
        let own = super::super::serve::wiring::own_builder("unix:///b", 1).unwrap();
        let ask = |words: &str| question(&args(words), std::slice::from_ref(&own));
        assert_eq!(ask(""), "throw away the build cache that is not in use, of embedded? [y/N] ");
        assert!(ask("-a").contains("all of the build cache"));
        assert!(ask("-a --until 1h").contains("that these options name"));
    }

    #[test]
    fn lines_have_no_trailing_space() {
        assert_eq!(
            line(["a", "true", "1B", ""].map(str::to_owned)),
            "a                             true         1B\n"
        );
    }
}
