//! A line of words at a door without a command line of its own: parsed, or answered with help.
//!
//! Pure. Words were split by the door; here they only choose among verbs. Must not run anything.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::table::Table;
use super::{Desk, Screen, Verb, apps};
use crate::error::Report;
use crate::event::plain_text;
use crate::model::closest::closest;

/// Columns of help where no terminal says how many it has.
const HELP_COLUMNS: usize = 100;
/// Narrower than this nobody can read it.
const LEAST_COLUMNS: usize = 40;
/// Of a word that is repeated to the one who typed it.
const SHOWN_CHARS: usize = 60;

/// What members may ask for; anything else is for administrators. `admin` decides, this only says what help shows.
const FOR_MEMBERS: [&str; 12] = [
    "apps list",
    "apps show",
    "builds list",
    "cancel",
    "keys add",
    "keys list",
    "keys remove",
    "logs",
    "plan",
    "retry",
    "show",
    FOR_DEPLOY_KEYS,
];
const FOR_DEPLOY_KEYS: &str = "whoami";

#[derive(Debug, clap::Parser)]
#[command(name = "builder", no_binary_name = true, max_term_width = 110)]
struct Words {
    #[command(subcommand)]
    word: Word,
}

/// The verbs, and those whose names the command line has another use for.
#[derive(Debug, clap::Subcommand)]
pub enum Word {
    #[command(flatten)]
    Verb(Verb),
    /// Print what a push of a ref or commit would build: short for `apps plan`.
    Plan(apps::PlanArgs),
}

impl Word {
    /// Does it; the exit status.
    pub async fn run(self, desk: &mut dyn Desk) -> Result<u8, Report> {
        match self {
            Self::Verb(verb) => verb.run(desk).await,
            Self::Plan(args) => apps::plan(args, desk).await,
        }
    }
}

/// What a line comes to.
#[derive(Debug)]
pub enum Line {
    Word(Word),
    /// Help, as was asked for.
    Help(String),
    /// A mistake, said in full; exit status 2.
    Mistake(String),
}

/// Who asks, as far as help depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Admin,
    Member,
    DeployKey,
}

impl Audience {
    /// Whether the verb of this path is for them.
    fn may(self, path: &str) -> bool {
        match self {
            Self::Admin => true,
            Self::Member => FOR_MEMBERS.contains(&path),
            Self::DeployKey => path == FOR_DEPLOY_KEYS,
        }
    }
}

/// Parses words as the command line does. `name` is how the one who asks is known here.
pub fn parse(words: &[String], name: &str, audience: Audience, screen: Screen) -> Line {
    // what hints and guides say for the command line can be typed here as it stands
    let words = match words {
        [first, rest @ ..] if first == "lemnos" => rest,
        words => words,
    };
    match words {
        [] => return Line::Help(help(name, audience, screen)),
        [only] if ["help", "--help", "-h"].contains(&only.as_str()) => {
            return Line::Help(help(name, audience, screen));
        }
        _ => {}
    }
    let columns = screen.width.unwrap_or(HELP_COLUMNS).max(LEAST_COLUMNS);
    let parsed = Words::command().term_width(columns).try_get_matches_from(words);
    match parsed.and_then(|matches| <Words as clap::FromArgMatches>::from_arg_matches(&matches)) {
        Ok(Words { word }) => Line::Word(word),
        Err(error) => {
            let text = format!("{}\n", plain_text(error.render().to_string().trim_end()));
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    Line::Help(text)
                }
                ErrorKind::InvalidSubcommand if !is_verb(words) => Line::Mistake(unknown(words)),
                _ => Line::Mistake(text),
            }
        }
    }
}

fn is_verb(words: &[String]) -> bool {
    words.first().is_some_and(|word| Words::command().find_subcommand(word).is_some() || word == "help")
}

fn unknown(words: &[String]) -> String {
    let word: String = words.first().into_iter().flat_map(|word| word.chars()).take(SHOWN_CHARS).collect();
    let command = Words::command();
    let known = command.get_subcommands().map(clap::Command::get_name);
    let hint = match closest(&word, known) {
        Some(close) => format!("did you mean {close}? `help` lists what can be asked for here"),
        None => "`help` lists what can be asked for here".to_owned(),
    };
    format!("{}\n", Report::user(format!("there is no shell and no command {word:?} here")).hint(hint))
}

/// What the one who asks may ask for.
fn help(name: &str, audience: Audience, screen: Screen) -> String {
    let mut table =
        Table::new(["  help", "Say this; `help VERB` and `VERB --help` say more."]).within(screen.width);
    for [usage, about, path] in verbs(&Words::command()) {
        if audience.may(&path) {
            table.row([format!("  {usage}"), about]);
        }
    }
    format!(
        "Hello {name}. This is lemnos: what you push here is built, and its image put into a registry.\n\
         \n\
         \x20 git remote add builder ssh://THIS-HOST/APP.git\n\
         \x20 git push builder main\n\
         \n\
         git clone and git archive --remote work too. There is no shell; this can be asked for:\n\
         \n\
         {table}\n\
         --json prints JSON. Quotes and backslashes are as in a shell, and nothing expands.\n"
    )
}

/// Usage, explanation and path of every verb that has no subcommands, those of one place in their order.
fn verbs(command: &clap::Command) -> Vec<[String; 3]> {
    let mut found = Vec::new();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if !verb.has_subcommands() {
            found.push(described(verb.get_name().to_owned(), verb));
        }
        for inner in verb.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            let path = format!("{} {}", verb.get_name(), inner.get_name());
            if !has_short_form(command, &path) {
                found.push(described(path, inner));
            }
        }
    }
    found
}

/// Whether a verb of the top level says that it is this one.
fn has_short_form(command: &clap::Command, path: &str) -> bool {
    let says = format!("short for `{path}`");
    command
        .get_subcommands()
        .any(|verb| verb.get_about().is_some_and(|about| about.to_string().contains(&says)))
}

fn value_name(argument: &clap::Arg) -> String {
    let named = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    named.unwrap_or_else(|| argument.get_id().as_str().to_uppercase())
}

fn described(path: String, verb: &clap::Command) -> [String; 3] {
    let mut usage = path.clone();
    for argument in verb.get_positionals() {
        let name = value_name(argument);
        usage.push_str(&if argument.is_required_set() { format!(" {name}") } else { format!(" [{name}]") });
    }
    for argument in verb.get_arguments().filter(|argument| !argument.is_positional()) {
        let takes_value = argument.get_action().takes_values();
        match (argument.get_short(), argument.get_long()) {
            (_, Some(long)) if takes_value && argument.is_required_set() => {
                usage.push_str(&format!(" --{long} {}", value_name(argument)));
            }
            (_, Some(long)) if argument.is_required_set() => usage.push_str(&format!(" --{long}")),
            (Some(short), _) if !takes_value && short != 'h' => usage.push_str(&format!(" [-{short}]")),
            _ => {}
        }
    }
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    [usage, about, path]
}
