//! Any stage's error as the `Failure` that the pusher reads.

use crate::error::{Kind, Report};
use crate::event::{Failure, plain_line, plain_text};
use crate::solve::shorten;

/// Longest reason that git prints on one line and people still read.
const REASON_CHARS: usize = 160;

/// A report, which already has cause and remedy, as a failure with a one-line reason.
pub fn from_report(report: impl Into<Report>) -> Failure {
    let report = report.into();
    let first = plain_line(report.message.lines().next().unwrap_or_default());
    let reason = match report.kind {
        Kind::Internal | Kind::Unavailable => format!("server error: {first}"),
        _ => first,
    };
    let mut failure = Failure::new(shorten(&reason, REASON_CHARS), plain_text(&report.message));
    failure.remedy = report.hint.as_deref().map(plain_text);
    failure
}

/// A fault of the server's own.
pub fn internal(cause: impl std::fmt::Display) -> Failure {
    from_report(Report::internal(cause.to_string()).hint("push again; if it stays, tell the operator"))
}

/// A reason that fits on git's one line.
pub fn shorten_reason(reason: &str) -> String {
    shorten(&plain_line(&reason.replace('\n', "; ")), REASON_CHARS)
}
