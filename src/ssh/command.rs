//! What an exec request asks for.
//!
//! Pure. The command line is never given to a shell: words are split by the quoting rules that shells and git clients
//! use, nothing expands, and what comes out is a git service with exactly one app name, or the words of a verb.

use crate::model::AppName;
use crate::receive::request::GitService;

/// No command that git sends for a valid app name comes near this.
const MAX_GIT_BYTES: usize = 512;
/// Room for the longest public key that is accepted, and for a handful of settings.
const MAX_VERB_BYTES: usize = 8 << 10;

/// A client's command, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Git {
        service: GitService,
        app: AppName,
    },
    /// Anything else, as words without control characters; whether there is such a verb is the host's to say. None at
    /// all when the client asked for a shell.
    Verb(Vec<String>),
}

/// Why a command is refused; the text is a whole sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the command is longer than {0} bytes")]
    TooLong(usize),
    #[error("the command holds characters other than printable ASCII")]
    NotAscii,
    #[error("the command is not UTF-8 text, or holds control characters")]
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
    #[error("the certificate that you logged in with allows one other command only")]
    Forced { git: bool },
    #[error("{given:?} is no app name: {allowed}")]
    Name { given: String, allowed: &'static str },
}

impl Refused {
    /// Whether the client asked for git at all, so that the answer is in git's own words.
    pub(super) fn is_git(&self) -> bool {
        matches!(
            self,
            Self::Arguments(_)
                | Self::Option(_)
                | Self::Home(_)
                | Self::Name { .. }
                | Self::Forced { git: true }
        )
    }
}

/// Parses `git-receive-pack 'shop.git'`, `git receive-pack "/shop"`, `builds shop --json` and their like.
pub(super) fn parse(line: &[u8]) -> Result<Command, Refused> {
    if line.len() > MAX_VERB_BYTES {
        return Err(Refused::TooLong(MAX_VERB_BYTES));
    }
    let text = std::str::from_utf8(line).map_err(|_| Refused::NotPrintable)?;
    if text.chars().any(char::is_control) {
        return Err(Refused::NotPrintable);
    }
    let words = words(text)?;
    match words.first() {
        Some(first) if first == "git" || first.starts_with("git-") => git(line, &words),
        _ => Ok(Command::Verb(words)),
    }
}

/// What git clients send is plain: whatever is not is no client's, and refused before anything is made of it.
fn git(line: &[u8], words: &[String]) -> Result<Command, Refused> {
    if line.len() > MAX_GIT_BYTES {
        return Err(Refused::TooLong(MAX_GIT_BYTES));
    }
    if !line.is_ascii() {
        return Err(Refused::NotAscii);
    }
    let mut words = words.iter().map(String::as_str);
    let service = match words.next() {
        Some("git") => words.next().and_then(service_of),
        Some(verb) => verb.strip_prefix("git-").and_then(service_of),
        None => None,
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
            b"builds\tshop",
            b"keys add '\x1b[2J'",
            "apps set shop label.x='\u{9b}2J'".as_bytes(),
            b"apps \x7f",
        ] {
            assert_eq!(parse(line), Err(Refused::NotPrintable));
        }
        assert_eq!(parse("git-receive-pack 'ѕhop'".as_bytes()), Err(Refused::NotAscii));
        let long = [&b"git-receive-pack "[..], &[b'x'; 512]].concat();
        assert_eq!(parse(&long), Err(Refused::TooLong(MAX_GIT_BYTES)));
        assert_eq!(parse(&[b'x'; MAX_VERB_BYTES + 1]), Err(Refused::TooLong(MAX_VERB_BYTES)));
        assert_eq!(parse(b"git-receive-pack 'x"), Err(Refused::Unclosed));
        assert_eq!(parse(b"git-receive-pack x\\"), Err(Refused::Unclosed));
    }

    #[test]
    fn verbs_are_words_as_a_shell_splits_them() {
        let long = format!("keys add 'ssh-rsa {}'", "A".repeat(8_000));
        let of_long = ["keys", "add", &long[10..long.len() - 1]];
        for (line, words) in [
            ("", &[] as &[&str]),
            ("  ", &[]),
            ("help", &["help"]),
            ("builds  shop --json", &["builds", "shop", "--json"]),
            (
                "apps set shop 'label.x=two words' build-arg.V=",
                &["apps", "set", "shop", "label.x=two words", "build-arg.V="],
            ),
            (
                "apps set shop label.x=\"a \\\"quoted\\\" \\$x\"",
                &["apps", "set", "shop", "label.x=a \"quoted\" $x"],
            ),
            ("apps set shop label.größe=\\'", &["apps", "set", "shop", "label.größe='"]),
            ("keys add ''", &["keys", "add", ""]),
            ("builds; id", &["builds;", "id"]),
            ("$(id) `id` | cat > x", &["$(id)", "`id`", "|", "cat", ">", "x"]),
            ("sh", &["sh"]),
            ("scp -t x", &["scp", "-t", "x"]),
            ("/bin/git-receive-pack x", &["/bin/git-receive-pack", "x"]),
            (&long, &of_long),
        ] {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(parse(line.as_bytes()), Ok(Command::Verb(words)), "{line}");
        }
    }

    #[test]
    fn what_is_no_service_of_git_s_is_unknown() {
        for line in [
            "git",
            "git push",
            "git-shell",
            "git-",
            "git --exec-path=x receive-pack x",
            "git-receive-pack; id",
            "'git'",
            "git-lfs-authenticate shop.git download",
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

    #[test]
    fn fuzzed_lines_are_git_on_a_valid_app_or_plain_words() {
        let corpus: [&[u8]; 9] = [
            b"git-receive-pack 'shop.git'",
            b"git upload-pack \"/a-b.c_d9\"",
            b"git-upload-archive shop",
            b"keys add 'ssh-ed25519 AAAAC3Nza ann@host'",
            b"apps set shop 'label.x=two words' build-arg.V=",
            b"logs 0123abcd -f --json",
            b"",
            b"'a'\\''b' \"c\\\"d\" \\e",
            "plan shop größe".as_bytes(),
        ];
        let dictionary: [&[u8]; 18] = [
            b"'",
            b"\"",
            b"\\",
            b" ",
            b"git",
            b"git-",
            b"--",
            b"../",
            b"~",
            b"\0",
            b"\n",
            b"\x1b[2J",
            b"\xff",
            b"\xc2\x9b",
            "\u{202e}".as_bytes(),
            b"$(id)",
            b".git",
            b";",
        ];
        crate::fuzz::run("exec-string", 200_000, &corpus, &dictionary, |line| {
            let parsed = parse(line);
            match &parsed {
                Ok(Command::Git { app, .. }) => {
                    assert!(app.as_str().parse::<AppName>().is_ok());
                    assert!(line.iter().all(|b| (b' '..=b'~').contains(b)));
                }
                Ok(Command::Verb(words)) => {
                    assert!(!words.iter().any(|word| word.chars().any(char::is_control)));
                    assert!(!words.first().is_some_and(|word| word == "git" || word.starts_with("git-")));
                    assert!(words.iter().map(String::len).sum::<usize>() <= line.len(), "nothing expands");
                }
                // the reason is shown to the client and logged
                Err(refused) => assert!(!refused.to_string().contains(char::is_control), "{refused}"),
            }
            parsed.is_ok()
        });
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
        fn garbage_never_panics(line in "[ -~]{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(line.as_bytes());
            let _ = parse(&bytes);
            let _ = git_protocol(&line);
        }

        /// Words that are quoted as shells quote them come back as they were.
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[^\\p{Cc}]{0,20}", 1..6)) {
            prop_assume!(words[0] != "git" && !words[0].starts_with("git-"));
            let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
            prop_assert_eq!(parse(quoted.join(" ").as_bytes()), Ok(Command::Verb(words)));
        }

        /// No verb's words hold what a terminal obeys, and a line that begins as git's is never a verb.
        #[test]
        fn verbs_are_text(line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\''), Just(b' '), Just(b'\\')], 0..60), git in any::<bool>()) {
            let line = if git { [&b"git-"[..], &line].concat() } else { line };
            if let Ok(Command::Verb(words)) = parse(&line) {
                prop_assert!(!words.iter().any(|word| word.chars().any(char::is_control)));
                prop_assert!(!words.first().is_some_and(|word| word == "git" || word.starts_with("git-")));
            }
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
