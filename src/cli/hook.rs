//! `lemnos hook`: what the shims in hooks/ run where there is no `lemnos-hook` beside this program.

use std::process::ExitCode;

use crate::error::{Kind, Report};
use crate::receive::relay::{self, Call};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// pre-receive or proc-receive.
    name: String,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a command may read the environment, and this one's settings stand there"
)]
pub fn run(args: Args) -> Result<ExitCode, Report> {
    let Some(call) = Call::of(args.name, |name| std::env::var_os(name)) else {
        let (cause, hint) = relay::BY_HAND;
        return Err(Report::new(Kind::Forbidden, cause).hint(hint));
    };
    call.carry().map(ExitCode::from).map_err(|e| {
        Report::new(Kind::Unavailable, format!("the server does not answer its hook: {e}"))
            .hint(relay::NO_ANSWER)
    })
}
