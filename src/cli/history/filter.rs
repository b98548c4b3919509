//! `--filter` of `history ls`, as buildx takes it, made what a daemon understands. `NAME==VALUE` and `NAME~=PATTERN`, which
//! daemons take themselves, are taken too.

const OPERATORS: [&str; 8] = ["==", "!=", "~=", "<=", ">=", "=", "<", ">"];

/// One condition as the daemon has it.
pub fn condition(given: &str) -> Result<String, String> {
    let name_end = given.find(['=', '!', '~', '<', '>']).unwrap_or(given.len());
    let (name, rest) = given.split_at(name_end);
    let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
    let operator = operator.ok_or("write NAME=VALUE, as in status=error or startedAt>=24h")?;
    let value = rest.get(operator.len()..).unwrap_or_default();
    let operator = match (name, operator) {
        ("status", "=" | "==") => "==",
        ("ref" | "repository", "=" | "~=") => "~=",
        ("ref" | "repository", "==") => "==",
        ("ref" | "repository" | "status", "!=") => "!=",
        ("ref" | "repository" | "status", _) => return Err(format!("{name} is compared with = or !=")),
        ("startedAt" | "completedAt" | "duration", "<" | "<=" | ">" | ">=") => operator,
        ("startedAt" | "completedAt" | "duration", _) => {
            return Err(format!("{name} is compared with <, <=, > or >="));
        }
        _ => return Err("there are ref, repository, status, startedAt, completedAt and duration".to_owned()),
    };
    match value.is_empty() {
        true => Err(format!("say with what {name} is compared")),
        false => Ok(format!("{name}{operator}{value}")),
    }
}

/// All of `conditions` in one filter: a record of comma-separated values.
pub fn all(conditions: &[String]) -> Vec<String> {
    let field = |text: &String| match text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.clone(),
    };
    match conditions {
        [] => Vec::new(),
        some => vec![some.iter().map(field).collect::<Vec<_>>().join(",")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildxs_filters_become_the_daemons() {
        for (given, made) in [
            ("status=error", "status==error"),
            ("status==error", "status==error"),
            ("status!=completed", "status!=completed"),
            ("ref=abc", "ref~=abc"),
            ("repository=https://git.example/a=b", "repository~=https://git.example/a=b"),
            ("repository~=shop", "repository~=shop"),
            ("startedAt>=24h", "startedAt>=24h"),
            ("duration<1m", "duration<1m"),
        ] {
            assert_eq!(condition(given).as_deref(), Ok(made));
        }
        for given in
            ["", "error", "status", "status=", "status>x", "startedAt=24h", "name=x", "=x", "status!x"]
        {
            assert!(condition(given).is_err(), "{given}");
        }
    }

    #[test]
    fn conditions_are_joined_so_that_all_must_hold() {
        let all = |some: &[&str]| all(&some.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(all(&[]), Vec::<String>::new());
        assert_eq!(all(&["status==error", "ref~=a"]), ["status==error,ref~=a"]);
        assert_eq!(all(&["ref~=a,\"b"]), ["\"ref~=a,\"\"b\""]);
    }
}
