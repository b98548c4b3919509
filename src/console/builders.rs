//! `lemnos builders`: the pool of BuildKit daemons, how each one is, and which ones get solves.

use super::table::{Table, time_text};
use super::{Desk, print_json, print_text, unexpected};
use crate::admin::{BuildersRequest as Pool, Request, Response};
use crate::error::Report;
use crate::model::{BuilderState, BuilderStatus};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the builders: how they are, what they take, what runs on them.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a builder in, at once and for good; it need not answer yet.
    Add {
        /// unix:///PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME, kube-pod://NAME or
        /// ssh://[USER@]HOST, with `,name=NAME`, `,platform=OS/ARCH` for each platform it shall take, `,max=N`
        /// for its solves at once and, for TLS, `,ca=FILE,cert=FILE,key=FILE,servername=NAME`, whole paths on the server.
        #[arg(value_name = "ADDR[,platform=P]…")]
        builder: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a builder no new solves; those that run on it finish.
    Drain {
        /// The builder's name, as `lemnos builders list` shows it.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a drain.
    #[command(visible_alias = "undrain")]
    Resume {
        /// The builder's name, as `lemnos builders list` shows it.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget a builder that was added; solves that run on it finish.
    Remove {
        /// The builder's name, as `lemnos builders list` shows it.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let (what, json, done): (_, _, fn(&BuilderStatus) -> String) = match args.command {
        Command::List { json } => (Pool::List, json, |_| String::new()),
        Command::Add { builder, json } => (Pool::Add { spec: builder }, json, added),
        Command::Drain { name, json } => (Pool::Drain { name, drained: true }, json, drained),
        Command::Resume { name, json } => (Pool::Drain { name, drained: false }, json, resumed),
        Command::Remove { name, json } => (Pool::Remove { name }, json, removed),
    };
    match desk.execute(Request::Builders { what }).await? {
        Response::Builders(builders) if json => print_json(desk, &builders).await?,
        Response::Builders(builders) => {
            let text = list(&builders, desk.screen().width);
            print_text(desk, &text).await?;
        }
        Response::Builder(builder) if json => print_json(desk, &builder).await?,
        Response::Builder(builder) => print_text(desk, &done(&builder)).await?,
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

fn list(builders: &[BuilderStatus], width: Option<usize>) -> String {
    let mut table =
        Table::new(["NAME", "STATE", "SINCE", "RUNNING", "PLATFORMS", "VERSION", "ADDRESS"]).within(width);
    for builder in builders {
        let platforms: Vec<String> = builder.platforms.iter().map(ToString::to_string).collect();
        table.row([
            builder.name.clone(),
            builder.state.as_str().to_owned(),
            builder.since_ms.map(time_text).unwrap_or_default(),
            format!("{}/{}", builder.running, builder.max),
            platforms.join(","),
            builder.version.clone().unwrap_or_default(),
            builder.address.clone(),
        ]);
    }
    // causes are sentences, and would widen every line
    let why = |builder: &BuilderStatus| Some(format!("{}: {}\n", builder.name, builder.cause.as_ref()?));
    format!("{table}{}", builders.iter().filter_map(why).collect::<String>())
}

fn added(builder: &BuilderStatus) -> String {
    match (&builder.state, &builder.cause) {
        (BuilderState::Up, _) => {
            let platforms: Vec<String> = builder.platforms.iter().map(ToString::to_string).collect();
            format!("Added {}: up, takes {}\n", builder.name, platforms.join(", "))
        }
        (_, Some(cause)) => {
            format!(
                "Added {}, which does not answer yet and is asked every few seconds: {cause}\n",
                builder.name
            )
        }
        (state, None) => format!("Added {}: {}\n", builder.name, state.as_str()),
    }
}

fn drained(builder: &BuilderStatus) -> String {
    match builder.running {
        0 => format!("{} is drained\n", builder.name),
        running => format!("{} gets no new solves; {running} still at work on it\n", builder.name),
    }
}

fn resumed(builder: &BuilderStatus) -> String {
    format!("{} gets solves again ({})\n", builder.name, builder.state.as_str())
}

fn removed(builder: &BuilderStatus) -> String {
    match builder.running {
        0 => format!("Removed {}\n", builder.name),
        running => format!("Removed {}; {running} still at work on it will finish\n", builder.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(name: &str, state: BuilderState, running: usize, cause: Option<&str>) -> BuilderStatus {
        BuilderStatus {
            name: name.to_owned(),
            address: format!("tcp://{name}.example.com:1234"),
            configured: false,
            state,
            since_ms: Some(0),
            cause: cause.map(str::to_owned),
            platforms: vec!["linux/arm64".parse().unwrap()],
            running,
            max: 4,
            version: Some("v0.32.2".to_owned()),
        }
    }

    #[test]
    fn a_list_says_how_each_is_and_why() {
        let builders = [
            builder("arm", BuilderState::Up, 2, None),
            builder("old", BuilderState::Down, 0, Some("no route")),
        ];
        insta::assert_snapshot!(list(&builders, None), @r"
        NAME  STATE  SINCE                RUNNING  PLATFORMS    VERSION  ADDRESS
        arm   up     1970-01-01 00:00:00  2/4      linux/arm64  v0.32.2  tcp://arm.example.com:1234
        old   down   1970-01-01 00:00:00  0/4      linux/arm64  v0.32.2  tcp://old.example.com:1234
        old: no route
        ");
    }

    #[test]
    fn each_change_says_what_it_means() {
        let down = builder("arm", BuilderState::Down, 0, Some("no route"));
        assert!(added(&down).ends_with("every few seconds: no route\n"));
        assert_eq!(added(&builder("arm", BuilderState::Up, 0, None)), "Added arm: up, takes linux/arm64\n");
        let busy = builder("arm", BuilderState::Draining, 2, None);
        assert_eq!(drained(&busy), "arm gets no new solves; 2 still at work on it\n");
        assert_eq!(drained(&down), "arm is drained\n");
        assert_eq!(resumed(&builder("arm", BuilderState::Up, 0, None)), "arm gets solves again (up)\n");
        assert_eq!(removed(&busy), "Removed arm; 2 still at work on it will finish\n");
    }
}
