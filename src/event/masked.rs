//! Events and failures without secrets: every text of them that somebody else wrote.
//!
//! The last net under a build: its output was masked byte by byte before it became lines (`solve::Translator`), and here
//! what was put together from it, and everything else that is said, is masked once more. Values of types that cannot hold
//! any text (names, digests, platforms) stay as they are.

use super::{BuildEvent, EventSink, Failure, Masker};

impl EventSink {
    /// This sink, which then gets no event with one of the masker's secrets in it.
    #[must_use]
    pub fn masked(&self, masker: &Masker) -> Self {
        if masker.is_empty() {
            return self.clone();
        }
        let (sink, masker) = (self.clone(), masker.clone());
        Self::new(move |event| sink.emit(event.masked(&masker)))
    }
}

impl BuildEvent {
    #[must_use]
    pub fn masked(self, masker: &Masker) -> Self {
        let text = |text: String| masker.text(&text);
        match self {
            Self::Received { reference, commit, subject, user } => {
                Self::Received { reference, commit, subject: text(subject), user }
            }
            Self::Detected { kind, evidence } => Self::Detected { kind, evidence: text(evidence) },
            Self::Plan { json } => Self::Plan { json: masked_json(json, masker) },
            Self::Note { text: note } => Self::Note { text: text(note) },
            Self::SolveStarted { builder, platforms } => {
                Self::SolveStarted { builder: text(builder), platforms }
            }
            Self::StepStarted { step, name, platform } => {
                Self::StepStarted { step, name: text(name), platform }
            }
            Self::StepFailed { step, error, duration_ms } => {
                Self::StepFailed { step, error: text(error), duration_ms }
            }
            Self::StepLog { step, line } => Self::StepLog { step, line: text(line) },
            Self::StepProgress { step, what, current, total, done } => {
                Self::StepProgress { step, what: text(what), current, total, done }
            }
            Self::Warning { message, url, file, line } => {
                Self::Warning { message: text(message), url: url.map(text), file: file.map(text), line }
            }
            Self::Failed { failure, duration_ms } => {
                Self::Failed { failure: failure.masked(masker), duration_ms }
            }
            kept @ (Self::Planned { .. }
            | Self::Reused { .. }
            | Self::StepDone { .. }
            | Self::Assembled { .. }
            | Self::Tagged { .. }
            | Self::Succeeded { .. }) => kept,
        }
    }
}

impl Failure {
    #[must_use]
    pub fn masked(self, masker: &Masker) -> Self {
        let text = |text: String| masker.text(&text);
        let texts = |texts: Vec<String>| texts.into_iter().map(text).collect();
        Self {
            reason: text(self.reason),
            cause: text(self.cause),
            remedy: self.remedy.map(text),
            location: self.location.map(text),
            excerpt: texts(self.excerpt),
            log_tail: texts(self.log_tail),
        }
    }
}

/// JSON stays JSON: where a secret is in it, the values are masked one by one.
fn masked_json(json: String, masker: &Masker) -> String {
    let masked = masker.text(&json);
    if masked == json {
        return json;
    }
    let Ok(mut value) = serde_json::from_str(&json) else { return masked };
    mask_values(&mut value, masker);
    let Ok(again) = serde_json::to_string_pretty(&value) else { return masked };
    super::plain_json(&again)
}

fn mask_values(value: &mut serde_json::Value, masker: &Masker) {
    match value {
        serde_json::Value::String(text) => *text = masker.text(text),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| mask_values(item, masker)),
        serde_json::Value::Object(fields) => {
            let masked = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                mask_values(&mut value, masker);
                (masker.text(&name), value)
            });
            *fields = masked.collect();
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const SECRET: &str = "swordfish";

    /// One of each event, every text with the secret in it.
    fn events() -> Vec<BuildEvent> {
        let said = || format!("a {SECRET} b");
        let failure = Failure {
            reason: said(),
            cause: said(),
            remedy: Some(said()),
            location: Some(said()),
            excerpt: vec![said()],
            log_tail: vec![said()],
        };
        vec![
            BuildEvent::Received {
                reference: "refs/heads/main".parse().unwrap(),
                commit: "a".repeat(40).parse().unwrap(),
                subject: said(),
                user: "ada".to_owned(),
            },
            BuildEvent::Detected { kind: crate::model::KindName::Dockerfile, evidence: said() },
            BuildEvent::Plan { json: format!(r#"{{"args": ["{SECRET}"], "{SECRET}": 1}}"#) },
            BuildEvent::Note { text: said() },
            BuildEvent::SolveStarted { builder: said(), platforms: Vec::new() },
            BuildEvent::StepStarted { step: 1, name: said(), platform: None },
            BuildEvent::StepFailed { step: 1, error: said(), duration_ms: 1 },
            BuildEvent::StepLog { step: 1, line: said() },
            BuildEvent::StepProgress { step: 1, what: said(), current: 1, total: 1, done: true },
            BuildEvent::Warning { message: said(), url: Some(said()), file: Some(said()), line: None },
            BuildEvent::Failed { failure, duration_ms: 1 },
        ]
    }

    #[test]
    fn no_text_of_any_event_keeps_a_secret() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let sink = EventSink::new(move |event| sink.lock().unwrap().push(event));
        let masked = sink.masked(&Masker::new([SECRET.as_bytes()]));
        for event in events() {
            assert!(serde_json::to_string(&event).unwrap().contains(SECRET), "{event:?}");
            masked.emit(event);
        }
        let json = serde_json::to_string(&*seen.lock().unwrap()).unwrap();
        assert!(!json.contains(SECRET), "{json}");
        assert_eq!(json.matches("a *** b").count(), 17, "{json}");
    }

    #[test]
    fn a_masked_plan_is_json_whatever_the_secret_is() {
        let plan = r#"{"a": "b\": c", "n": 1}"#.to_owned();
        let masked = masked_json(plan, &Masker::new([b"\": \"".as_slice(), b"\": c"]));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&masked).unwrap()["a"], "b***");
        let untouched = "{ \"z\": 1, \"a\": 2 }".to_owned();
        assert_eq!(masked_json(untouched.clone(), &Masker::new([b"other".as_slice()])), untouched);
    }
}
