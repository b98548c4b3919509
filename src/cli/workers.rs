//! `lemnos buildkit workers` and `lemnos buildkit info`: what a BuildKit daemon says of itself.

use std::process::ExitCode;

use serde::Serialize;

use super::builder::{BuilderArgs, Chosen, FILTERS, about_filters};
use super::du::OfBuilder;
use super::terminal::{Format, print_json_line, print_text};
use crate::buildkit::{Info, Rule, Worker, size_text};
use crate::console::table::Table;
use crate::error::Report;
use crate::event::plain_line;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    builder: BuilderArgs,
    /// Only workers that match, as in `labels.pool==a` or `id==x`; conditions joined by commas must all hold; again for other workers.
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Labels, devices and collection rules, too.
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// How workers are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    #[command(flatten)]
    builder: BuilderArgs,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    super::block_on(args.builder.each(async |builder: &Chosen| {
        let asked = builder.client.workers_matching(&args.filters).await;
        let workers = asked.map_err(|e| about_filters(e, &args.filters, FILTERS))?;
        if args.format == Format::Json {
            for worker in &workers {
                if print_json_line(&OfBuilder { builder: &builder.name, what: worker })?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let mut text = builder.heading();
        if args.verbose {
            workers.iter().for_each(|worker| text.push_str(&verbose(worker)));
        } else {
            let mut table = Table::new(["ID", "PLATFORMS"]);
            workers.iter().for_each(|w| table.row([plain_line(&w.id), plain_line(&w.platforms.join(","))]));
            text.push_str(&table.to_string());
        }
        print_text(&text)
    }))
}

pub fn info(args: InfoArgs) -> Result<ExitCode, Report> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Told<'a> {
        address: String,
        buildkit_version: &'a Info,
        workers: Vec<Labels<'a>>,
    }
    #[derive(Serialize)]
    struct Labels<'a> {
        id: &'a str,
        labels: &'a std::collections::BTreeMap<String, String>,
    }
    super::block_on(args.builder.each(async |builder: &Chosen| {
        let (info, workers) = (builder.client.info().await?, builder.client.workers().await?);
        let address = builder.client.address().to_string();
        if args.format == Format::Json {
            let workers = workers.iter().map(|w| Labels { id: &w.id, labels: &w.labels }).collect();
            let told = Told { address, buildkit_version: &info, workers };
            return print_json_line(&OfBuilder { builder: &builder.name, what: told }).map(drop);
        }
        print_text(&format!("{}{}", builder.heading(), about(&address, &info, &workers)))
    }))
}

/// `name: value` lines, indented by `depth` steps.
fn line(text: &mut String, depth: usize, name: &str, value: &str) {
    let name = format!("{:indent$}{}:", "", plain_line(name), indent = depth * 2);
    text.push_str(format!("{name:<12} {}", plain_line(value)).trim_end());
    text.push('\n');
}

fn version(text: &mut String, info: &Info) {
    line(text, 0, "BuildKit", &info.version);
    line(text, 0, "Package", &info.package);
    line(text, 0, "Revision", &info.revision);
    if !info.dockerfile_version.is_empty() {
        line(text, 0, "Dockerfile", &info.dockerfile_version);
    }
}

fn labels(text: &mut String, worker: &Worker) {
    if !worker.labels.is_empty() {
        line(text, 0, "Labels", "");
        worker.labels.iter().for_each(|(name, value)| line(text, 1, name, value));
    }
}

fn about(address: &str, info: &Info, workers: &[Worker]) -> String {
    let mut text = String::new();
    line(&mut text, 0, "Address", address);
    version(&mut text, info);
    for worker in workers {
        line(&mut text, 0, "Worker", &worker.id);
        labels(&mut text, worker);
    }
    text
}

fn verbose(worker: &Worker) -> String {
    let mut text = String::new();
    line(&mut text, 0, "ID", &worker.id);
    line(&mut text, 0, "Platforms", &worker.platforms.join(","));
    version(&mut text, &worker.buildkit_version);
    labels(&mut text, worker);
    for device in &worker.devices {
        line(&mut text, 0, "Device", &device.name);
        line(&mut text, 1, "On demand", &device.on_demand.to_string());
        line(&mut text, 1, "Auto allow", &device.auto_allow.to_string());
        device.annotations.iter().for_each(|(name, value)| line(&mut text, 1, name, value));
    }
    for (number, rule) in worker.gc_policy.iter().enumerate() {
        line(&mut text, 0, &format!("GC policy rule {number}"), "");
        gc_rule(&mut text, rule);
    }
    text.push('\n');
    text
}

fn gc_rule(text: &mut String, rule: &Rule) {
    line(text, 1, "All", &rule.all.to_string());
    if !rule.filters.is_empty() {
        line(text, 1, "Filters", &rule.filters.join(" "));
    }
    if !rule.keep_duration.is_zero() {
        line(text, 1, "Keep duration", &format!("{}s", rule.keep_duration.as_secs()));
    }
    for (name, bytes) in [
        ("Reserved space", rule.reserved_space),
        ("Maximum used space", rule.max_used_space),
        ("Minimum free space", rule.min_free_space),
    ] {
        if bytes > 0 {
            line(text, 1, name, &size_text(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_whole_without_what_steers_a_terminal() {
        let rule = Rule {
            all: true,
            filters: vec!["type==source.local".to_owned()],
            keep_duration: std::time::Duration::from_secs(172_800),
            max_used_space: 2_000_000_000,
            ..Rule::default()
        };
        let version = |text: &str| Info {
            package: "github.com/moby/buildkit".to_owned(),
            version: text.to_owned(),
            revision: "abc".to_owned(),
            dockerfile_version: String::new(),
        };
        let worker = Worker {
            id: "w\u{1b}]0;x\u{7}1".to_owned(),
            labels: [("org.x\u{8}".to_owned(), "a\u{9b}2J".to_owned())].into(),
            platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
            gc_policy: vec![rule],
            buildkit_version: version("v0.32.2"),
            devices: Vec::new(),
        };
        insta::assert_snapshot!(verbose(&worker), @r"
        ID:          w1
        Platforms:   linux/amd64,linux/arm64
        BuildKit:    v0.32.2
        Package:     github.com/moby/buildkit
        Revision:    abc
        Labels:
          org.x:     a2J
        GC policy rule 0:
          All:       true
          Filters:   type==source.local
          Keep duration: 172800s
          Maximum used space: 2.00GB
        ");
        insta::assert_snapshot!(about("unix:///b", &version("v1\r\n"), &[worker]), @r"
        Address:     unix:///b
        BuildKit:    v1
        Package:     github.com/moby/buildkit
        Revision:    abc
        Worker:      w1
        Labels:
          org.x:     a2J
        ");
    }
}
