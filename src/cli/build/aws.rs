//! Keys for `s3` caches out of AWS's own file of credentials, where neither the flag nor the environment gives any.
//!
//! Keys that stand in a profile are all that is read: no sign-on, no role, no program. A file or profile that is not there
//! is no mistake, because the daemon may have keys of its own.

use std::path::{Path, PathBuf};

use crate::buildkit::solve::CacheEntry;
use crate::config::Environment;
use crate::error::Report;

/// Largest file of credentials.
const LIMIT: u64 = 1 << 20;
/// What a profile says, and what a cache calls it.
const NAMES: [(&str, &str); 3] = [
    ("aws_access_key_id", "access_key_id"),
    ("aws_secret_access_key", "secret_access_key"),
    ("aws_session_token", "session_token"),
];

/// Gives the entries that need keys those of the profile.
pub fn fill<'a>(
    entries: impl Iterator<Item = &'a mut CacheEntry>,
    environment: &Environment,
) -> Result<(), Report> {
    for entry in entries {
        let has = |name: &str| entry.attrs.contains_key(name);
        if entry.kind != "s3" || has("access_key_id") || has("secret_access_key") {
            continue;
        }
        let own = environment.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let home = || environment.get("HOME").map(|home| Path::new(home).join(".aws/credentials"));
        let Some(path) = own.or_else(home) else { return Ok(()) };
        let profile = environment.get("AWS_PROFILE").unwrap_or("default");
        for (name, value) in keys(&read(&path)?, profile) {
            entry.attrs.entry(name.to_owned()).or_insert(value);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Report> {
    let bad = |problem: String| Report::user(format!("AWS's credentials {}: {problem}", path.display()));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Ok(found) if found.len() > LIMIT => return Err(bad("they are too large".to_owned())),
        _ => {}
    }
    std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))
}

/// A profile's keys: all of a pair, or none.
fn keys(text: &str, profile: &str) -> Vec<(&'static str, String)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name.0.trim();
        } else if section == profile
            && let Some((key, value)) = line.split_once('=')
            && let Some((_, name)) = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(key.trim()))
        {
            found.retain(|(earlier, _)| earlier != name);
            found.push((*name, value.trim().to_owned()));
        }
    }
    let whole = ["access_key_id", "secret_access_key"];
    if whole.iter().all(|name| found.iter().any(|(other, value)| other == name && !value.is_empty())) {
        found
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::flags;

    #[test]
    fn caches_get_the_keys_of_the_profile_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".aws/credentials");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\
                    [ci]\nAWS_ACCESS_KEY_ID=C\naws_secret_access_key = D\naws_session_token = E\nregion = x\n\
                    [half]\naws_access_key_id = F\n";
        std::fs::write(&file, text).unwrap();
        let home = dir.path().display().to_string();
        let filled = |given: &str, variables: &[(&'static str, &str)]| {
            let variables = variables.iter().copied().chain([("HOME", home.as_str())]);
            let mut entries = flags::cache("--cache-to", given).unwrap();
            fill(entries.iter_mut(), &Environment::of(variables)).unwrap();
            let attrs = &entries[0].attrs;
            ["access_key_id", "secret_access_key", "session_token"]
                .map(|name| attrs.get(name).cloned().unwrap_or_default())
                .join(" ")
        };
        let s3 = "type=s3,region=r,bucket=b";
        assert_eq!(filled(s3, &[]), "A B= ");
        assert_eq!(filled(s3, &[("AWS_PROFILE", "ci")]), "C D E");
        for profile in ["half", "none"] {
            assert_eq!(filled(s3, &[("AWS_PROFILE", profile)]), "  ");
        }
        assert_eq!(filled(&format!("{s3},access_key_id=a,secret_access_key=b"), &[]), "a b ");
        assert_eq!(filled("type=azblob,name=c,account_url=u", &[]), "  ");
        let nowhere = dir.path().join("nowhere").display().to_string();
        assert_eq!(filled(s3, &[("AWS_SHARED_CREDENTIALS_FILE", &nowhere)]), "  ");
    }
}
