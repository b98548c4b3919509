//! A build's trace without the secrets that command lines in it may hold.
//!
//! A trace is a row of JSON objects, one a span. What a span's text attributes say is looked through; all else stays.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

static SETTING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("((?i-u:ghtoken|token|access_key_id|secret_access_key|session_token))=[^ ,]+")
        .expect("a constant that the tests use")
});
static GITHUB_TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("(?:gh[oprsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})")
        .expect("a constant that the tests use")
});

/// `trace` made fit to be given away; none where it is no trace.
pub(super) fn without_secrets(trace: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(trace.len());
    for span in serde_json::Deserializer::from_slice(trace).into_iter::<Value>() {
        let mut span = span.ok()?;
        let attributes = span.get_mut("Attributes").and_then(Value::as_array_mut);
        for attribute in attributes.into_iter().flatten() {
            if let Some(Value::String(text)) = attribute.pointer_mut("/Value/Value") {
                let hidden = SETTING.replace_all(text, "${1}=xxxxx");
                *text = GITHUB_TOKEN.replace_all(&hidden, "xxxxx").into_owned();
            }
        }
        serde_json::to_writer_pretty(&mut clean, &span).ok()?;
        clean.push(b'\n');
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_text_are_hidden_and_nothing_else() {
        let span = |text: &str| {
            serde_json::json!({"Name": "token=kept", "Attributes": [
                {"Key": "cmd", "Value": {"Type": "STRING", "Value": text}},
                {"Key": "n", "Value": {"Type": "INT64", "Value": 3}},
            ]})
        };
        let github = format!("x ghs_{} github_pat_{}", "a".repeat(36), "b".repeat(82));
        let trace = format!("{}\n{}", span("a Token=s3cret,ghtoken=u b=c"), span(&github));
        let clean = without_secrets(trace.as_bytes()).unwrap();
        let clean: Vec<Value> =
            serde_json::Deserializer::from_slice(&clean).into_iter().map(Result::unwrap).collect();
        assert_eq!(clean, [span("a Token=xxxxx,ghtoken=xxxxx b=c"), span("x xxxxx xxxxx")]);
        assert_eq!(without_secrets(b"{} nonsense"), None);
    }
}
