//! `lemnos engine-child`: one engine, bound to the life of the server that started it. See `engine::keep`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::engine;
use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process without which the engine ends.
    #[arg(long)]
    parent: u32,
    /// Become the engine instead of keeping it.
    #[arg(long)]
    exec: bool,
    /// Held while the engine runs.
    #[arg(long, required_unless_present = "exec")]
    lock: Option<PathBuf>,
    /// Seconds between SIGTERM and SIGKILL.
    #[arg(long, default_value_t = 10)]
    grace: u64,
    /// Number of the user and group that the engine becomes.
    #[arg(long)]
    user: Option<u32>,
    /// The engine and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let named = |error: std::io::Error| {
        let program = args.command.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        Report::internal(format!("running {program}: {error}"))
    };
    let Some(lock) = args.lock.filter(|_| !args.exec) else {
        return Err(named(engine::exec_bound_to(args.parent, &args.command)));
    };
    let lemnos = std::env::current_exe().map_err(named)?;
    let keep = engine::Keep {
        parent: args.parent,
        lock,
        grace: Duration::from_secs(args.grace),
        lemnos,
        user: args.user,
        command: args.command.clone(),
    };
    // one thread: the engine's parent-death signal hangs on the thread that starts it
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Report::internal(format!("starting the async runtime: {e}")))?;
    runtime.block_on(engine::keep(keep)).map(ExitCode::from).map_err(named)
}
