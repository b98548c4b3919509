//! `--secret`, `--ssh`, `--allow`: what a build is lent, and what it may do.

use super::{FlagError, fields, pair, wrong};

/// What a `--secret` lends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub id: String,
    pub from: SecretFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    File(String),
    /// A variable of the environment.
    Variable(String),
    /// Neither is said: the variable of the secret's id where there is one, otherwise the file of that name.
    Either,
}

/// `--secret id=ID[,src=FILE|,env=VARIABLE]`.
pub fn secret(given: &str) -> Result<Secret, FlagError> {
    const FLAG: &str = "--secret";
    let (mut id, mut file, mut variable, mut kind) = (String::new(), None, None, String::new());
    for field in fields(FLAG, given)? {
        let (name, value) = pair(FLAG, given, &field)?;
        let value = value.to_owned();
        match name.to_lowercase().as_str() {
            "type" if matches!(value.as_str(), "file" | "env") => kind = value,
            "type" => return Err(wrong(FLAG, given, format!("{value:?} is no type: it is file or env"))),
            "id" => id = value,
            "source" | "src" => file = Some(value).filter(|v| !v.is_empty()),
            "env" => variable = Some(value).filter(|v| !v.is_empty()),
            other => {
                let reason = format!("{other:?} is not known: there are id, src, env and type");
                return Err(wrong(FLAG, given, reason));
            }
        }
    }
    if kind == "env" && variable.is_none() {
        variable = file.take();
    }
    let from = match (file, variable) {
        (Some(_), Some(_)) => return Err(wrong(FLAG, given, "say src or env, not both")),
        (Some(file), None) => SecretFrom::File(file),
        (None, Some(variable)) => SecretFrom::Variable(variable),
        (None, None) => SecretFrom::Either,
    };
    if id.is_empty() {
        return Err(wrong(FLAG, given, "name it: id=ID"));
    }
    Ok(Secret { id, from })
}

/// What a `--ssh` lends: the agent of the environment, another agent's socket, or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub id: String,
    /// None: the agent that `SSH_AUTH_SOCK` names.
    pub paths: Vec<String>,
}

/// `--ssh default`, `--ssh ID=PATH[,PATH]`.
pub fn ssh(given: &str) -> Result<Ssh, FlagError> {
    let (id, paths) = match given.split_once('=') {
        Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
        None => (given, Vec::new()),
    };
    match id.is_empty() {
        true => Err(wrong("--ssh", given, "name it: default, or ID=PATH")),
        false => Ok(Ssh { id: id.to_owned(), paths }),
    }
}

/// What an `--allow` permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedFlag {
    /// For the daemon, as it is.
    Entitlement(String),
    /// Ours: a local output may delete what is not in the result.
    LocalDelete,
}

/// `--allow network.host`, `security.insecure`, `device[=NAME[,alias=ALIAS]]`.
pub fn allow(given: &str) -> Result<AllowedFlag, FlagError> {
    const FLAG: &str = "--allow";
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (given, None),
    };
    match (name, value) {
        ("buildx.local.delete", None) => return Ok(AllowedFlag::LocalDelete),
        ("buildx.local.delete", Some(_)) => return Err(wrong(FLAG, given, "it takes no value")),
        ("network.host" | "security.insecure" | "device", None) | ("device", Some("")) => {}
        ("device", Some(value)) => {
            for field in fields(FLAG, value).map_err(|e| wrong(FLAG, given, e.reason))?.iter().skip(1) {
                if pair(FLAG, given, field)?.0 != "alias" {
                    return Err(wrong(FLAG, given, "write device=NAME or device=NAME,alias=ALIAS"));
                }
            }
        }
        _ => {
            let known = "network.host, security.insecure and device";
            return Err(wrong(FLAG, given, format!("there are {known}")));
        }
    }
    Ok(AllowedFlag::Entitlement(given.to_owned()))
}
