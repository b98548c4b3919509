//! The verbs at a shell: `lemnos keys`, `apps`, `builds` and whatever else `console` knows, each with `--data`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::ExitCode;

use async_trait::async_trait;

use super::block_on;
use super::control::DataArgs;
use super::terminal::print_while_read;
use crate::admin::{Ready, Request, Response};
use crate::config::Environment;
use crate::console::{Desk, Following, Screen, Source, Verb};
use crate::error::Report;
use crate::model::UserName;

/// A verb, and where its state is.
#[derive(Debug)]
pub struct Local {
    data: DataArgs,
    verb: Verb,
}

impl Local {
    pub fn run(self) -> Result<ExitCode, Report> {
        let mut desk = Shell { data: self.data };
        block_on(self.verb.run(&mut desk)).map(ExitCode::from)
    }
}

/// Gives each verb the arguments of `DataArgs`, which other doors have no use for.
fn with_data(command: clap::Command, augment: fn(clap::Command) -> clap::Command) -> clap::Command {
    let verbs = augment(clap::Command::new("verbs"));
    let names = verbs.get_subcommands().map(|verb| verb.get_name().to_owned()).collect::<Vec<_>>();
    names.into_iter().fold(augment(command), |command, name| {
        command.mut_subcommand(name, <DataArgs as clap::Args>::augment_args)
    })
}

impl clap::Subcommand for Local {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        with_data(command, <Verb as clap::Subcommand>::augment_subcommands)
    }
    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        with_data(command, <Verb as clap::Subcommand>::augment_subcommands_for_update)
    }
    fn has_subcommand(name: &str) -> bool {
        <Verb as clap::Subcommand>::has_subcommand(name)
    }
}

impl clap::FromArgMatches for Local {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let verb = Verb::from_arg_matches(matches)?;
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (_, own) = matches.subcommand().ok_or_else(missing)?;
        Ok(Self { data: DataArgs::from_arg_matches(own)?, verb })
    }
    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// This process's terminal, files and data directory.
struct Shell {
    data: DataArgs,
}

#[async_trait]
impl Desk for Shell {
    async fn execute(&mut self, request: Request) -> Result<Response, Report> {
        self.data.execute(request).await
    }

    async fn follow(&mut self, build: &str, from_seq: u64) -> Result<Box<dyn Following>, Report> {
        self.data.follow(build, from_seq).await
    }

    async fn read(&mut self, from: Source<'_>, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let input: Box<dyn io::Read> = match from {
            Source::Stdin => Box::new(io::stdin()),
            Source::File(path) => Box::new(std::fs::File::open(path)?),
        };
        let mut bytes = Vec::new();
        input.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn print(&mut self, text: &str) -> Result<ControlFlow<()>, Report> {
        print_while_read(text)
    }

    async fn ask(&mut self, question: &str) -> Result<Option<String>, Report> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let failed = |cause: io::Error| Report::internal(format!("asking on the terminal: {cause}"));
        let mut stderr = io::stderr();
        write!(stderr, "{question}").and_then(|()| stderr.flush()).map_err(failed)?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(failed)?;
        Ok(Some(answer))
    }

    fn user(&self) -> Option<UserName> {
        None
    }

    fn screen(&self) -> Screen {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Screen::default();
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        Screen {
            width: size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0),
            color: Environment::of_process().get("NO_COLOR").is_none(),
        }
    }

    /// Where a server runs, it says where; the host that others use is theirs to know.
    fn remote(&self) -> Result<String, Report> {
        let ready = Ready::read(&self.data.data_dir()?);
        let port =
            ready.and_then(|ready| ready.ssh.parse::<SocketAddr>().ok()).map_or(2222, |ssh| ssh.port());
        Ok(format!("ssh://git@localhost:{port}"))
    }
}
