//! git's hooks as a program of their own: what `lemnos hook NAME` does, without the rest of lemnos, which takes several times
//! longer to start. `lemnos serve` links to it in the place of each hook, so the name that it is called by says which one it is.

// not lemnos as a library: what its dependencies do before `main` alone takes longer than a hook
#[allow(dead_code, reason = "the server's end of the talk stands in it as well")]
#[path = "../src/receive/frame.rs"]
mod frame;
#[path = "../src/receive/relay.rs"]
mod relay;

use std::path::Path;
use std::process::ExitCode;

use relay::Call;

#[allow(clippy::disallowed_methods, reason = "its settings are what the server left in the environment")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    if arguments.next().is_some_and(|argument| argument == "--version") {
        println!("lemnos-hook {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(call) = Call::of(name, |name| std::env::var_os(name)) else {
        let (cause, hint) = relay::BY_HAND;
        eprintln!("error: {cause}\nhint: {hint}");
        return ExitCode::FAILURE;
    };
    call.carry().map_or_else(
        |cause| {
            eprintln!("error: the server does not answer its hook: {cause}\nhint: {}", relay::NO_ANSWER);
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}
