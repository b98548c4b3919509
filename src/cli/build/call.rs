//! `--call`: what a frontend tells of a Dockerfile, printed as buildx prints it, and the exit code that it asks for.
//!
//! Invariant: of text that comes from a Dockerfile nothing steers the terminal; JSON is passed on as it came.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::excerpt;
use crate::buildkit::Source;
use crate::buildkit::flags::CallFlag;
use crate::buildkit::gateway::{
    Call, CallResult, LintResults, LintWarning, Outline, OutlineSecret, RequestDescription, Targets,
};
use crate::error::{Kind, Report};
use crate::event::{plain_line, plain_text};

/// Forms of answers that are known here; a newer one is shown as the frontend wrote it.
const VERSION: (u32, u32) = (1, 0);

/// What to print, and what to exit with.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub code: u8,
    /// Why the file cannot be built at all.
    pub error: Option<String>,
}

/// `dockerfile` is the file as the user named it.
pub fn answer(flag: &CallFlag, result: &CallResult, dockerfile: &str) -> Result<Answer, Report> {
    let json = flag.format == "json";
    let unusable = |e| Report::new(Kind::Unavailable, format!("{e}"));
    let mut error = None;
    let text = match &flag.call {
        _ if json => format!("{}\n", result.json().unwrap_or_default()),
        _ if is_newer(result) => result.text().unwrap_or_default(),
        Call::Outline => outline(&result.outline().map_err(unusable)?),
        Call::Targets => targets(&result.targets().map_err(unusable)?),
        Call::Describe => describe(&result.describe().map_err(unusable)?),
        Call::Check => checks(&result.lint().map_err(unusable)?, dockerfile),
        Call::Other(name) => match result.text() {
            Some(text) => plain_text(&text),
            None => format!("{name} {:?}\n", shown(&result.metadata)),
        },
    };
    if flag.call == Call::Check {
        let found = result.lint().map_err(unusable)?;
        error = found.error.as_ref().map(|failure| {
            let place = place(&found, &failure.location, dockerfile);
            format!("{}\n{place}", plain_line(&failure.message))
        });
    }
    let code = if flag.ignore_status { 0 } else { u8::try_from(result.status_code()).unwrap_or(1) };
    let code = if error.is_some() { 1 } else { code };
    Ok(Answer { text, code, error })
}

/// Whether the answer's form is one of the future, and there is text to show in its place.
fn is_newer(result: &CallResult) -> bool {
    let version = result.version().unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version > VERSION && result.text().is_some_and(|text| !text.is_empty())
}

fn shown(metadata: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&str, String> {
    metadata.iter().map(|(key, value)| (key.as_str(), String::from_utf8_lossy(value).into_owned())).collect()
}

/// Columns as wide as their widest cell, with `gap` spaces between them.
fn columns(rows: &[Vec<String>], gap: usize) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (at, cell) in row.iter().enumerate() {
            let width = widths.get(at).copied().unwrap_or(0) + gap;
            // what stands last needs no room behind it
            let width = if at == last { 0 } else { width };
            let _ = write!(text, "{cell:width$}");
        }
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| plain_line(cell)).collect()
}

fn outline(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![row(["TARGET:", name])];
        if !outline.description.is_empty() {
            rows.push(row(["DESCRIPTION:", &outline.description]));
        }
        let _ = writeln!(text, "{}", columns(&rows, 1));
    }
    if !outline.args.is_empty() {
        let args = outline.args.iter().map(|arg| row([&arg.name, &arg.value, &arg.description]));
        let rows: Vec<_> = std::iter::once(row(["BUILD ARG", "VALUE", "DESCRIPTION"])).chain(args).collect();
        let _ = writeln!(text, "{}", columns(&rows, 3));
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let one = |secret: &OutlineSecret| row([&secret.name, if secret.required { "true" } else { "" }]);
            let rows: Vec<_> =
                std::iter::once(row([title, "REQUIRED"])).chain(list.iter().map(one)).collect();
            let _ = writeln!(text, "{}", columns(&rows, 3));
        }
    }
    text
}

fn targets(targets: &Targets) -> String {
    let mut rows = vec![row(["TARGET", "DESCRIPTION"])];
    for target in &targets.targets {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(row([&name, &target.description]));
    }
    columns(&rows, 1)
}

fn describe(requests: &[RequestDescription]) -> String {
    let mut rows = vec![row(["NAME", "VERSION", "DESCRIPTION"])];
    for request in requests {
        let name = request.name.strip_prefix("frontend.").unwrap_or(&request.name);
        rows.push(row([name, &request.version, &request.description]));
    }
    columns(&rows, 1)
}

fn checks(found: &LintResults, dockerfile: &str) -> String {
    let mut text = match found.warnings.len() {
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let mut warnings: Vec<&LintWarning> = found.warnings.iter().collect();
    warnings.sort_by_key(|warning| {
        let location = warning.location.as_ref().filter(|location| location.source >= 0);
        let source = location.and_then(|l| found.place(l));
        (source.as_ref().map(|s| s.filename.clone()), source.and_then(|s| s.lines()), warning.rule.clone())
    });
    for warning in warnings {
        let url = if warning.url.is_empty() { String::new() } else { format!(" - {}", warning.url) };
        let (rule, detail) = (plain_line(&warning.rule), plain_text(&warning.detail));
        let _ = write!(text, "\nWARNING: {rule}{}\n{detail}\n", plain_line(&url));
        if let Some(location) = warning.location.as_ref().filter(|location| location.source >= 0) {
            text.push_str(&place(found, location, dockerfile));
        }
    }
    match (&found.error, found.warnings.is_empty()) {
        (None, true) => text.push_str("Check complete, no warnings found.\n"),
        (Some(_), false) => text.push('\n'),
        _ => {}
    }
    text
}

/// The lines that something is said about, under the name by which the user knows the file.
fn place(found: &LintResults, location: &crate::buildkit::gateway::Location, dockerfile: &str) -> String {
    let source = found.place(location);
    source
        .map(|source| excerpt::of(&Source { filename: dockerfile.to_owned(), ..source }))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(call: Call, json: &str, code: &str) -> Answer {
        let metadata = [
            ("result.json", json),
            ("result.statuscode", code),
            ("version", "1.0.0"),
            ("result.txt", "text\n"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into();
        let flag = CallFlag { call, format: String::new(), ignore_status: false };
        answer(&flag, &CallResult { metadata }, "./Dockerfile").unwrap()
    }

    const LINT: &str = r#"{"warnings":[
        {"ruleName":"B","description":"second","detail":"at two","url":"https://d/b","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}},
        {"ruleName":"A","description":"first","detail":"nowhere","location":{"sourceIndex":-1}}],
        "sources":[{"filename":"Dockerfile","data":"RlJPTSBhCkNNRCB4Cg=="}]}"#;

    #[test]
    fn checks_are_told_in_order_with_their_places() {
        let told = ask(Call::Check, LINT, "1");
        assert_eq!((told.code, &told.error), (1, &None));
        insta::assert_snapshot!(told.text, @r"
        Check complete, 2 warnings have been found!

        WARNING: A
        nowhere

        WARNING: B - https://d/b
        at two
        ./Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> CMD x
           3 |     
        --------------------
        ");
        let good = ask(Call::Check, r#"{"warnings":null,"sources":null}"#, "0");
        assert_eq!((good.text.as_str(), good.code), ("Check complete, no warnings found.\n", 0));
    }

    #[test]
    fn a_file_that_cannot_be_built_is_an_error() {
        let json = r#"{"warnings":[],"sources":[{"filename":"Dockerfile","data":"Rk9STQo="}],
            "buildError":{"message":"unknown instruction: FORM","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}}}"#;
        let told = ask(Call::Check, json, "1");
        assert_eq!(told.code, 1);
        let error = told.error.unwrap();
        assert!(
            error.starts_with("unknown instruction: FORM\n./Dockerfile:1\n") && error.contains(">>> FORM"),
            "{error}"
        );
    }

    #[test]
    fn status_codes_can_be_ignored_and_json_is_passed_on() {
        let metadata: BTreeMap<String, Vec<u8>> =
            [("result.json", LINT), ("result.statuscode", "1")].map(|(k, v)| (k.to_owned(), v.into())).into();
        let flag = CallFlag { call: Call::Check, format: "json".into(), ignore_status: true };
        let told = answer(&flag, &CallResult { metadata }, "Dockerfile").unwrap();
        assert_eq!((told.text, told.code), (format!("{LINT}\n"), 0));
    }

    #[test]
    fn outlines_and_targets_stand_in_columns() {
        let json = r#"{"name":"run","description":"the shop","args":[{"name":"VERSION","value":"1","description":"of it"},{"name":"A"}],
            "secrets":[{"name":"token","required":true}],"ssh":[{"name":"default"}]}"#;
        let told = ask(Call::Outline, json, "");
        let lines: Vec<String> = told.text.lines().map(|line| line.trim_end().to_owned()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        TARGET:      run
        DESCRIPTION: the shop

        BUILD ARG   VALUE   DESCRIPTION
        VERSION     1       of it
        A

        SECRET   REQUIRED
        token    true

        SSH       REQUIRED
        default
        ");
        let told = ask(
            Call::Targets,
            r#"{"targets":[{"name":"base"},{"name":"run","default":true,"description":"d"},{"default":true}]}"#,
            "",
        );
        let lines: Vec<String> = told.text.lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(
            lines,
            ["TARGET        DESCRIPTION", "base", "run (default) d", "(default)"].map(str::to_owned)
        );
    }

    #[test]
    fn a_newer_form_is_shown_as_the_frontend_wrote_it() {
        let metadata = [("result.json", "[]"), ("version", "2.0.0"), ("result.txt", "new\n")];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into();
        let flag = CallFlag { call: Call::Targets, format: String::new(), ignore_status: false };
        assert_eq!(answer(&flag, &CallResult { metadata }, "").unwrap().text, "new\n");
    }
}
