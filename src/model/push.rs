//! A push: who moved which refs of which app, and the options it came with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{App, Fingerprint, Invalid, Platform, RefUpdate, UserName};

/// One push as `receive` hands it over: checked objects are in the repository, no ref has moved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Follows the push through logs; 32 hexadecimal digits.
    pub id: String,
    pub app: App,
    pub user: UserName,
    pub key: Fingerprint,
    pub updates: Vec<RefUpdate>,
    pub atomic: bool,
    pub options: PushOptions,
}

/// What `git push -o …` may say. Every field has a default, so that a record of any age can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PushOptions {
    /// `no-cache`: every step runs again.
    pub no_cache: bool,
    /// `rebuild`: base images are looked up again and nothing of an earlier build is reused.
    pub rebuild: bool,
    /// `plan`: print the plan, then refuse without building.
    pub plan: bool,
    /// `try`: build, tag only `try-…`, move nothing.
    pub dry_try: bool,
    /// `detach`: the ref moves at once, the build goes on by itself, and the tags follow when it has succeeded.
    pub detach: bool,
    /// `cancel-on-disconnect`: a pusher who goes away takes the build along.
    pub cancel_on_disconnect: bool,
    /// `color`: ANSI colours in what the pusher sees.
    pub color: bool,
    /// `platform=…` (comma list or repeated), with `try` only.
    pub platforms: Vec<Platform>,
    /// `build-arg=K=V`, with `try` only.
    pub build_args: BTreeMap<String, String>,
}

/// Why push options are refused; its text is a whole sentence for the pusher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushOptionError {
    #[error("unknown push option {0:?}; known ones: {known}", known = PushOptions::KNOWN.join(", "))]
    Unknown(String),
    #[error("push option {0:?} goes with -o try only: only a try may be narrowed")]
    OnlyWithTry(&'static str),
    #[error("push option {option}: {problem}")]
    Bad { option: &'static str, problem: Invalid },
    #[error("push option build-arg: {0:?} is not NAME=VALUE")]
    BadArg(String),
    #[error("push options {0} and {1} exclude each other")]
    Exclusive(&'static str, &'static str),
}

/// As much of an option as a sentence repeats: git carries tens of thousands of bytes in one.
fn shown(option: &str) -> String {
    const CHARS: usize = 60;
    match option.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", option.get(..end).unwrap_or_default()),
        None => option.to_owned(),
    }
}

impl PushOptions {
    pub const KNOWN: [&'static str; 9] = [
        "no-cache",
        "rebuild",
        "plan",
        "try",
        "detach",
        "cancel-on-disconnect",
        "color",
        "platform=OS/ARCH",
        "build-arg=NAME=VALUE",
    ];

    /// Parses the options of one push, in the order given.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self, PushOptionError> {
        let mut parsed = Self::default();
        for option in options {
            match option.split_once('=') {
                None => match option {
                    "no-cache" => parsed.no_cache = true,
                    "rebuild" => parsed.rebuild = true,
                    "plan" => parsed.plan = true,
                    "try" => parsed.dry_try = true,
                    "detach" => parsed.detach = true,
                    "cancel-on-disconnect" => parsed.cancel_on_disconnect = true,
                    "color" => parsed.color = true,
                    _ => return Err(PushOptionError::Unknown(shown(option))),
                },
                Some(("platform", list)) => {
                    for text in list.split(',') {
                        let platform = text
                            .parse()
                            .map_err(|problem| PushOptionError::Bad { option: "platform", problem })?;
                        if !parsed.platforms.contains(&platform) {
                            parsed.platforms.push(platform);
                        }
                    }
                }
                Some(("build-arg", pair)) => {
                    let (name, value) = pair
                        .split_once('=')
                        .filter(|(name, _)| !name.is_empty())
                        .ok_or_else(|| PushOptionError::BadArg(shown(pair)))?;
                    parsed.build_args.insert(name.to_owned(), value.to_owned());
                }
                Some(_) => return Err(PushOptionError::Unknown(shown(option))),
            }
        }
        let exclusive = |one, other| Err(PushOptionError::Exclusive(one, other));
        match () {
            () if parsed.plan && parsed.dry_try => exclusive("plan", "try"),
            // their answer is what the pusher waits for
            () if parsed.detach && parsed.plan => exclusive("detach", "plan"),
            () if parsed.detach && parsed.dry_try => exclusive("detach", "try"),
            () if parsed.detach && parsed.cancel_on_disconnect => exclusive("detach", "cancel-on-disconnect"),
            () if !parsed.dry_try && !parsed.platforms.is_empty() => {
                Err(PushOptionError::OnlyWithTry("platform"))
            }
            () if !parsed.dry_try && !parsed.build_args.is_empty() => {
                Err(PushOptionError::OnlyWithTry("build-arg"))
            }
            () => Ok(parsed),
        }
    }
}
