//! What the server says of itself: tracing on stderr. `LEMNOS_LOG` takes tracing-subscriber's filter directives.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Environment, LogFormat};
use crate::error::Report;

const DEFAULT_FILTER: &str = "info,russh=warn,h2=warn,hyper=warn,tower=warn,sqlx=warn";

/// Installs the subscriber; once a process. Whatever a client makes us log, a line is one line: both formats escape.
pub fn start(environment: &Environment, format: LogFormat) -> Result<(), Report> {
    let directives = environment.get("LEMNOS_LOG").unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(directives).map_err(|e| {
        Report::user(format!("LEMNOS_LOG={directives:?}: {e}"))
            .hint("write a level (info, debug) or target=level pairs, separated by commas")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().with_current_span(false).try_init(),
    };
    started.map_err(|e| Report::internal(format!("starting the log: {e}")))
}
