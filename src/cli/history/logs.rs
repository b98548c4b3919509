//! `lemnos buildkit history logs`: what a build said, from its begin; of one that runs, until its end.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::record::{self, Kept, Word};
use crate::buildkit::{Display, Mode, Moment, Size};
use crate::cli::builder::BuilderArgs;
use crate::cli::terminal::print_while_read;
use crate::config::Environment;
use crate::error::Report;

/// Time between frames of a live display.
const FRAME: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The build: its reference or the beginning of it, or ^N for the Nth before the newest [default: the newest].
    #[arg(value_name = "REF")]
    build: Option<Word>,
    /// How it is shown: plain, rawjson or tty; auto is plain.
    #[arg(long, default_value = "plain", value_name = "MODE")]
    progress: Mode,
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    let mode = if args.progress == Mode::Auto { Mode::Plain } else { args.progress };
    record::one(builder, args.build.as_ref(), async |kept: &Kept<'_>| show(kept, mode).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn show(kept: &Kept<'_>, mode: Mode) -> Result<(), Report> {
    let color = std::io::stdout().is_terminal() && Environment::of_process().get("NO_COLOR").is_none();
    let display = Display::new(mode, std::io::stdout().is_terminal(), color)
        .map_err(|cause| Report::user(cause.to_string()).hint("--progress plain shows every line"))?;
    let display = Mutex::new(display);
    let redrawn = held(&display).is_redrawn();
    let (stop, unwritten) = (Notify::new(), Mutex::new(None));
    let print = |text: &str| match print_while_read(text) {
        Ok(flow) if flow.is_continue() => {}
        // nobody reads it any more
        Ok(_) => stop.notify_one(),
        Err(report) => {
            held(&unwritten).get_or_insert(report);
            stop.notify_one();
        }
    };
    let told = kept.builder.client.build_logs(&kept.record.reference, |events| {
        print(&held(&display).update(&events, Moment::now()));
    });
    let frames = async {
        loop {
            tokio::time::sleep(FRAME).await;
            print(&held(&display).tick(Moment::now(), size()));
        }
    };
    let told = tokio::select! {
        told = told => told,
        () = frames, if redrawn => Ok(()),
        () = stop.notified() => return held(&unwritten).take().map_or(Ok(()), Err),
    };
    print(&held(&display).finish(Moment::now(), size()));
    held(&unwritten).take().map_or(Ok(told?), Err)
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.map(|size| Size { columns: size.ws_col, rows: size.ws_row });
    size.filter(|size| size.columns > 0 && size.rows > 0).unwrap_or_default()
}
