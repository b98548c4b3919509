//! What an exec request asks for.
//!
//! Pure. The command line is never given to a shell: words are split by the quoting rules that git clients use, and
//! only a git service with exactly one app name comes out; everything else is help or a refusal.

use crate::model::AppName;
use crate::receive::request::GitService;

/// No command that git sends for a valid app name comes near this.
const MAX_BYTES: usize = 512;

/// A client's command, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Git { service: GitService, app: AppName },
    Help,
}

/// Why a command is refused; the text is a whole sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the command is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the command holds characters other than printable ASCII")]
    NotPrintable,
    #[error("the command's quotes are not closed")]
    Unclosed,
    #[error("there is no shell and no command {0:?} here")]
    Unknown(String),
    #[error("{0} takes one app name and nothing else, as in: {0} 'shop.git'")]
    Arguments(GitService),
    #[error("{0:?} is no app name: options are not taken")]
    Option(String),
    #[error("{0:?} is no app name: there are no home directories here, leave out the '~'")]
    Home(String),
    #[error("{given:?} is no app name: {allowed}")]
    Name { given: String, allowed: &'static str },
}

impl Refused {
    /// Whether the client asked for git at all, so that the answer is in git's own words.
    pub(super) fn is_git(&self) -> bool {
        matches!(self, Self::Arguments(_) | Self::Option(_) | Self::Home(_) | Self::Name { .. })
    }
}

/// Parses `git-receive-pack 'shop.git'`, `git receive-pack "/shop"` and their like.
pub(super) fn parse(line: &[u8]) -> Result<Command, Refused> {
    if line.len() > MAX_BYTES {
        return Err(Refused::TooLong);
    }
    if !line.iter().all(|b| (b' '..=b'~').contains(b)) {
        return Err(Refused::NotPrintable);
    }
    let words = words(&String::from_utf8_lossy(line))?;
    let mut words = words.iter().map(String::as_str);
    let service = match words.next() {
        None | Some("help" | "--help" | "-h") => return Ok(Command::Help),
        Some("git") => words.next().and_then(service_of),
        Some(verb) => verb.strip_prefix("git-").and_then(service_of),
    };
    let service = service.ok_or_else(|| Refused::Unknown(shortened(line)))?;
    match (words.next(), words.next()) {
        (Some(path), None) => Ok(Command::Git { service, app: app(path)? }),
        _ => Err(Refused::Arguments(service)),
    }
}

fn service_of(subcommand: &str) -> Option<GitService> {
    GitService::ALL.into_iter().find(|service| service.subcommand() == subcommand)
}

fn shortened(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(60).collect()
}

/// `shop`, `shop.git`, `/shop.git`, `/shop.git/` name the app `shop`.
fn app(path: &str) -> Result<AppName, Refused> {
    match path.bytes().next() {
        Some(b'-') => return Err(Refused::Option(path.to_owned())),
        Some(b'~') => return Err(Refused::Home(path.to_owned())),
        _ => {}
    }
    let name = path.strip_prefix('/').unwrap_or(path);
    if name.starts_with('~') {
        return Err(Refused::Home(path.to_owned()));
    }
    let name = name.strip_suffix('/').unwrap_or(name);
    let name = name.strip_suffix(".git").unwrap_or(name);
    name.parse().map_err(|invalid: crate::model::Invalid| Refused::Name {
        given: path.chars().take(120).collect(),
        allowed: invalid.allowed,
    })
}

/// Splits at spaces, with single quotes, double quotes and backslashes as a POSIX shell has them; nothing expands.
fn words(line: &str) -> Result<Vec<String>, Refused> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(Refused::Unclosed)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(Refused::Unclosed)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(Refused::Unclosed)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(Refused::Unclosed)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The value of `GIT_PROTOCOL` that may be handed to git: `version=0` to `version=2`, then `:key` or `:key=value` parts
/// of a plain charset. None for anything else.
pub(super) fn git_protocol(value: &str) -> Option<String> {
    const MAX: usize = 256;
    let mut parts = value.split(':');
    let version = matches!(parts.next(), Some("version=0" | "version=1" | "version=2"));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'.' | b'_' | b'-');
    let ok = version
        && value.len() <= MAX
        && parts.all(|part| !part.is_empty() && !part.starts_with(['-', '=']) && part.bytes().all(plain));
    ok.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn git(service: GitService, app: &str) -> Result<Command, Refused> {
        Ok(Command::Git { service, app: app.parse().unwrap() })
    }

    #[test]
    fn every_spelling_of_the_services_is_taken() {
        for service in GitService::ALL {
            let verb = service.subcommand();
            for line in [
                format!("git-{verb} 'shop.git'"),
                format!("git {verb} 'shop.git'"),
                format!("git-{verb} '/shop.git'"),
                format!("git-{verb} \"/shop\""),
                format!("git-{verb}  shop.git/ "),
                format!("git-{verb} 's'h\"o\"p\\.git"),
            ] {
                assert_eq!(parse(line.as_bytes()), git(service, "shop"), "{line}");
            }
        }
        assert_eq!(parse(b"git-upload-pack 'a-b.c_d9.git'"), git(GitService::UploadPack, "a-b.c_d9"));
    }

    #[test]
    fn what_names_no_app_is_refused() {
        let long = format!("'{}'", "x".repeat(300));
        for path in [
            "'--help'",
            "'-x'",
            "--http-backend-info-refs",
            "--upload-pack=x",
            "'../x'",
            "'a/../b'",
            "'..'",
            "'.'",
            "'/'",
            "''",
            "'//x'",
            "'/a/b'",
            "'a//b'",
            "'.git'",
            "'/.git'",
            "'x.git/hooks'",
            "'x.git.git'",
            "'Shop'",
            "'~/x'",
            "'/~x'",
            "'~root/x'",
            "'a b'",
            "'$(id)'",
            "'`id`'",
            "'x;id'",
            "'x'\\''y'",
            "'a\\b'",
            "'a--b'",
            "'x:y'",
            "'*'",
            "'x?'",
            "C:\\x",
            &long,
        ] {
            for verb in ["git-receive-pack", "git upload-pack"] {
                let line = format!("{verb} {path}");
                assert!(
                    parse(line.as_bytes()).is_err_and(|r| r.is_git()),
                    "{line}: {:?}",
                    parse(line.as_bytes())
                );
            }
        }
    }

    #[test]
    fn bytes_that_no_terminal_shows_are_refused() {
        for line in [
            &b"git-receive-pack 'a\0b'"[..],
            b"git-receive-pack 'a\n'",
            b"git-receive-pack '\xff'",
            "git-receive-pack 'ѕhop'".as_bytes(),
        ] {
            assert_eq!(parse(line), Err(Refused::NotPrintable));
        }
        assert_eq!(parse(&[b'x'; 513]), Err(Refused::TooLong));
        assert_eq!(parse(b"git-receive-pack 'x"), Err(Refused::Unclosed));
        assert_eq!(parse(b"git-receive-pack x\\"), Err(Refused::Unclosed));
    }

    #[test]
    fn what_is_no_git_service_is_help_or_unknown() {
        for line in [&b""[..], b"  ", b"help", b"--help"] {
            assert_eq!(parse(line), Ok(Command::Help));
        }
        for line in [
            "sh",
            "git",
            "git push",
            "git-shell",
            "git --exec-path=x receive-pack x",
            "git-receive-pack; id",
            "/bin/git-receive-pack x",
            "scp -t x",
        ] {
            assert!(
                matches!(parse(line.as_bytes()), Err(Refused::Unknown(_))),
                "{line}: {:?}",
                parse(line.as_bytes())
            );
        }
        assert_eq!(parse(b"git-receive-pack"), Err(Refused::Arguments(GitService::ReceivePack)));
        assert_eq!(parse(b"git-upload-pack a b"), Err(Refused::Arguments(GitService::UploadPack)));
        assert_eq!(parse(b"git-upload-pack --strict shop"), Err(Refused::Arguments(GitService::UploadPack)));
    }

    #[test]
    fn git_protocol_is_validated() {
        for good in
            ["version=0", "version=1", "version=2", "version=2:object-format=sha1", "version=2:a:b=c.d_e-f"]
        {
            assert_eq!(git_protocol(good).as_deref(), Some(good));
        }
        let long = format!("version=2:{}", "x".repeat(300));
        for bad in [
            "",
            "2",
            "version=3",
            "version=22",
            "version=2:",
            "version=2::a",
            "version=2;id",
            "version=2:$x",
            "version=2:\n",
            "version=2:--split-string",
            "VERSION=2",
            " version=2",
            &long,
        ] {
            assert_eq!(git_protocol(bad), None, "{bad:?}");
        }
    }

    proptest! {
        /// Whatever comes in, an accepted command carries a name that the model accepts, and quoting the name as git
        /// does leads back to the same command.
        #[test]
        fn only_valid_names_come_out(line in proptest::collection::vec(any::<u8>(), 0..64), verb in 0usize..3, quote in any::<bool>()) {
            let service = GitService::ALL[verb];
            let mut whole = service.to_string().into_bytes();
            whole.push(b' ');
            if quote {
                whole.push(b'\'');
            }
            whole.extend(&line);
            if quote {
                whole.push(b'\'');
            }
            if let Ok(Command::Git { service: got, app }) = parse(&whole) {
                prop_assert_eq!(got, service);
                prop_assert!(app.as_str().parse::<AppName>().is_ok());
                let again = format!("{service} '/{app}.git'");
                prop_assert_eq!(parse(again.as_bytes()), Ok(Command::Git { service, app }));
            }
        }

        #[test]
        fn printable_garbage_never_panics(line in "[ -~]{0,80}") {
            let _ = parse(line.as_bytes());
            let _ = git_protocol(&line);
        }

        #[test]
        fn valid_names_are_taken_in_every_dress(name in "[a-z0-9]{1,8}([-._][a-z0-9]{1,6}){0,2}", slash in any::<bool>(), suffix in any::<bool>()) {
            prop_assume!(!name.ends_with(".git"));
            let path = format!("{}{name}{}", if slash { "/" } else { "" }, if suffix { ".git" } else { "" });
            let line = format!("git-receive-pack '{path}'");
            prop_assert_eq!(parse(line.as_bytes()), git(GitService::ReceivePack, &name));
        }
    }
}
