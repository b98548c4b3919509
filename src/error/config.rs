//! `config` errors as people see them.

use super::{Kind, Report};
use crate::config::ConfigError;

impl From<ConfigError> for Report {
    fn from(error: ConfigError) -> Self {
        let message = error.to_string();
        let meant = |suggestion: Option<String>, otherwise: &str| {
            suggestion.map_or_else(|| otherwise.to_owned(), |near| format!("did you mean {near}?"))
        };
        let (kind, hint) = match error {
            ConfigError::UnknownKey { suggestion, .. } => {
                (Kind::User, meant(suggestion, "`lemnos config` shows the keys"))
            }
            ConfigError::UnknownVariable { suggestion, .. } => (
                Kind::User,
                meant(
                    suggestion,
                    "names that begin with LEMNOS_ are settings; `lemnos config` shows the keys, LEMNOS_KEY is a key's name",
                ),
            ),
            ConfigError::NotText { .. } | ConfigError::BadValue { .. } | ConfigError::Syntax { .. } => {
                return Self::user(message);
            }
            ConfigError::ReadFile { .. } | ConfigError::FileTooLarge { .. } => {
                (Kind::User, "name a readable TOML file with --config or LEMNOS_CONFIG".to_owned())
            }
            ConfigError::DataDir { .. } => {
                (Kind::User, "give another directory with --data or LEMNOS_DATA".to_owned())
            }
            ConfigError::NoDataDir => (Kind::User, "give a directory with --data or LEMNOS_DATA".to_owned()),
            ConfigError::Unread(_) => return Self::internal(message),
        };
        Self::new(kind, message).hint(hint)
    }
}
