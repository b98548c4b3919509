//! `lemnos keys`: who authenticates with which public key.

use super::table::{Table, time_text};
use super::{Desk, Source, print_json, print_text, unexpected};
use crate::admin::{KeySource, Request, Response};
use crate::error::{Kind, Report};
use crate::model::{Access, UserKey, UserName};

/// A file of public keys is small; what is larger is something else.
const LIMIT_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Register public keys of a user; the user appears with the first one.
    ///
    /// With --app the keys belong to an app in place of a user: deploy keys.
    Add {
        /// Whose keys they are; one user may have several. Over SSH nobody: yours. Not with --app.
        user: Option<String>,
        /// A .pub file or lines of authorized_keys; `-` or nothing for standard input. A key itself is taken too.
        file: Vec<String>,
        /// The keys are nobody's: they fetch this app, and do nothing else.
        #[arg(long)]
        app: Option<String>,
        /// They push to the app as well.
        #[arg(long, requires = "app")]
        write: bool,
        /// What the keys list calls them, in place of their comments.
        #[arg(long, value_name = "LABEL", requires = "app")]
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Register the keys that a user has published on a forge; again, and only new ones are added.
    Import {
        /// Whose keys they are.
        user: String,
        /// Their name on github.com.
        #[arg(long, value_name = "NAME", conflicts_with = "url", required_unless_present = "url")]
        github: Option<String>,
        /// A page of public keys, one a line, as GitLab and Gitea have at https://HOST/NAME.keys.
        #[arg(long)]
        url: Option<String>,
        /// Fetch from private addresses too; on the server itself only.
        #[arg(long)]
        allow_private: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the keys, of all users or one.
    List {
        /// Only this user's; `deploy:APP` are the deploy keys of an app.
        user: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a key: it opens nothing any more, connections that stand are not cut.
    Remove {
        /// SHA256:…, as `lemnos keys list` and `ssh-keygen -lf FILE` print it.
        fingerprint: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    let mut asked = None;
    let (request, json) = match args.command {
        Command::Add { user, file, app: Some(app), write, name, json } => {
            let words: Vec<String> = user.into_iter().chain(file).collect();
            let given = given(&words, "lemnos keys add --app APP [--write] [FILE]")?;
            let access = if write { Access::Write } else { Access::Read };
            let request =
                Request::AddDeployKey { app: app.parse()?, access, text: text(given, desk).await?, name };
            (request, json)
        }
        Command::Add { user, file, json, .. } => {
            let (user, given) = meant(user, file, desk.user())?;
            (Request::AddKeys { user, text: text(given, desk).await? }, json)
        }
        Command::Import { user, github, url, allow_private, json } => {
            let from = match github {
                Some(name) => KeySource::Github(name),
                None => KeySource::Url(url.unwrap_or_default()),
            };
            (Request::ImportKeys { user: user.parse()?, from, inside: allow_private }, json)
        }
        Command::List { user, json } => {
            asked.clone_from(&user);
            (Request::ListKeys { user: user.map(|user| user.parse()).transpose()? }, json)
        }
        Command::Remove { fingerprint, json } => {
            (Request::RemoveKey { fingerprint: fingerprint.parse()? }, json)
        }
    };
    match desk.execute(request).await? {
        Response::KeysAdded(keys) if json => {
            print_json(desk, &keys.iter().map(|(key, _)| key).collect::<Vec<_>>()).await?;
        }
        Response::KeysAdded(keys) => print_text(desk, &added(&keys)).await?,
        Response::Keys(keys) if json => print_json(desk, &keys).await?,
        Response::Keys(keys) => {
            let text = table(&keys, asked.as_deref(), desk.screen().width);
            print_text(desk, &text).await?;
        }
        Response::KeyRemoved { key, .. } if json => print_json(desk, &key).await?,
        Response::KeyRemoved { key, left } => print_text(desk, &removed(&key, left)).await?,
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}

/// Where a key stands.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    /// Here it is.
    Key(String),
    File(String),
    Stdin,
}

/// Understands `[USER] [FILE | - | KEY]`. A key that was not quoted comes as several words.
fn meant(
    user: Option<String>,
    rest: Vec<String>,
    own: Option<UserName>,
) -> Result<(UserName, Given), Report> {
    let mut words: Vec<String> = user.into_iter().chain(rest).collect();
    let named = match words.first() {
        Some(first) if first != "-" && !is_key(&words) => Some(words.remove(0)),
        _ => None,
    };
    let user = match (named, own) {
        (Some(named), _) => named.parse()?,
        (None, Some(own)) => own,
        (None, None) => {
            return Err(Report::user("nobody is named whose key it is").hint("lemnos keys add USER FILE"));
        }
    };
    Ok((user, given(&words, "lemnos keys add USER FILE")?))
}

/// Understands `[FILE | - | KEY]`.
fn given(words: &[String], usage: &str) -> Result<Given, Report> {
    Ok(match words {
        [] => Given::Stdin,
        [only] if only == "-" => Given::Stdin,
        words if is_key(words) => Given::Key(words.join(" ")),
        [only] => Given::File(only.clone()),
        [_, more, ..] => {
            return Err(Report::user(format!("{more:?} is one word too many")).hint(usage));
        }
    })
}

async fn text(given: Given, desk: &mut dyn Desk) -> Result<String, Report> {
    match given {
        Given::Key(text) => Ok(text),
        Given::File(path) => read(Some(&path), desk).await,
        Given::Stdin => read(None, desk).await,
    }
}

/// Whether these words are a public key: its type, then base64, in one word or several.
fn is_key(words: &[String]) -> bool {
    let mut parts = words.iter().flat_map(|word| word.split_whitespace());
    let (algorithm, data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    algorithm.contains('-') && data.starts_with("AAAA")
}

async fn read(file: Option<&str>, desk: &mut dyn Desk) -> Result<String, Report> {
    let (name, source) = match file {
        Some(path) if path != "-" => (path, Source::File(path)),
        _ => ("standard input", Source::Stdin),
    };
    let bytes = desk.read(source, LIMIT_BYTES).await.map_err(|cause| cannot_read(name, &cause))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(Report::user(format!(
            "{name} has more than {LIMIT_BYTES} bytes: it is no file of public keys"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Report::user(format!("{name} is not text: it is no file of public keys")))?;
    if text.trim().is_empty() {
        return Err(Report::user(format!("{name} is empty: there is no key"))
            .hint("give the content of a .pub file: ssh-ed25519 AAAA…"));
    }
    Ok(text)
}

fn cannot_read(name: &str, cause: &std::io::Error) -> Report {
    let kind = if cause.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::User };
    Report::new(kind, format!("reading {name}: {cause}"))
        .hint("give a .pub file, or the keys on standard input; `ssh-keygen -t ed25519` makes a key")
}

fn added(keys: &[(UserKey, bool)]) -> String {
    let line = |(key, new): &(UserKey, bool)| {
        let what = if *new { "Added" } else { "Known already:" };
        format!("{what} {} for {}{}\n", key.fingerprint, whose(key), comment(key))
    };
    keys.iter().map(line).collect()
}

/// The user, or the app and what the key may do with it.
fn whose(key: &UserKey) -> String {
    match &key.deploy {
        Some(deploy) => format!("{} ({})", key.user, deploy.access),
        None => key.user.to_string(),
    }
}

fn comment(key: &UserKey) -> String {
    if key.comment.is_empty() { String::new() } else { format!(" ({})", key.comment) }
}

fn table(keys: &[UserKey], asked: Option<&str>, width: Option<usize>) -> String {
    if keys.is_empty() {
        let whose = asked.map(|user| format!(" of {user}")).unwrap_or_default();
        return format!("No keys{whose}. Add one: lemnos keys add {} FILE\n", asked.unwrap_or("USER"));
    }
    let mut table = Table::new(["USER", "FINGERPRINT", "TYPE", "ADDED", "COMMENT"]).within(width);
    for key in keys {
        let algorithm = key.public_key.split(' ').next().unwrap_or_default().to_owned();
        let added = time_text(key.added_at_ms);
        table.row([whose(key), key.fingerprint.to_string(), algorithm, added, key.comment.clone()]);
    }
    table.to_string()
}

fn removed(key: &UserKey, left: usize) -> String {
    if key.deploy.is_some() {
        return format!("Removed {} of {}{}\n", key.fingerprint, key.user, comment(key));
    }
    let rest = match left {
        0 => format!("; {} has no key left, their grants stay", key.user),
        1 => format!("; {} has 1 key left", key.user),
        left => format!("; {} has {left} keys left", key.user),
    };
    format!("Removed {} of {}{}{rest}\n", key.fingerprint, key.user, comment(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant_by(line: &[&str], own: Option<&str>) -> Result<(String, Given), String> {
        let mut words = line.iter().map(|word| (*word).to_owned());
        let (user, rest) = (words.next(), words.collect());
        meant(user, rest, own.map(|own| own.parse().unwrap()))
            .map(|(user, given)| (user.to_string(), given))
            .map_err(|report| report.message)
    }

    #[test]
    fn whose_key_and_where_it_stands() {
        let of = |user: &str, given: Given| Ok((user.to_owned(), given));
        let key = || Given::Key("ssh-ed25519 AAAAC3 ann@host".to_owned());
        for own in [None, Some("ann")] {
            assert_eq!(meant_by(&["bob", "bob.pub"], own), of("bob", Given::File("bob.pub".to_owned())));
            assert_eq!(meant_by(&["bob", "-"], own), of("bob", Given::Stdin));
            assert_eq!(meant_by(&["bob"], own), of("bob", Given::Stdin));
            assert_eq!(meant_by(&["ssh-bob"], own), of("ssh-bob", Given::Stdin));
            assert_eq!(meant_by(&["bob", "ssh-ed25519", "AAAAC3", "ann@host"], own), of("bob", key()));
            assert_eq!(meant_by(&["bob", "ssh-ed25519 AAAAC3 ann@host"], own), of("bob", key()));
            assert_eq!(meant_by(&["bob", "a", "b"], own), Err("\"b\" is one word too many".to_owned()));
        }
        for line in [&["ssh-ed25519", "AAAAC3", "ann@host"][..], &["ssh-ed25519 AAAAC3 ann@host"]] {
            assert_eq!(meant_by(line, Some("ann")), of("ann", key()));
            assert_eq!(meant_by(line, None), Err("nobody is named whose key it is".to_owned()));
        }
        assert_eq!(meant_by(&[], Some("ann")), of("ann", Given::Stdin));
        assert_eq!(meant_by(&["-"], Some("ann")), of("ann", Given::Stdin));
        assert!(meant_by(&[""], Some("ann")).unwrap_err().contains("is not a valid user name"));
    }
}
