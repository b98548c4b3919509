//! Source policies: which sources a build may take, and what it takes in their place.
//!
//! The daemon judges, for whatever a frontend asks for. `SourcePolicy` also reads the JSON files that BuildKit's own
//! clients read, and refuses what it does not know: a rule that is passed over would allow what it was to deny.

use std::collections::BTreeMap;

use lemnos_proto::sourcepolicy as policy;
use serde::Deserialize;

/// One rule over sources, by BuildKit's name of them (`docker-image://…`, `https://…`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceRule {
    /// Regular expression, not anchored.
    pub pattern: String,
    /// Where set, `pattern` is matched against this attribute of the sources whose name begins with `git://`.
    pub attribute: Option<String>,
    pub allow: bool,
}

/// Rules in the daemon's own terms. Of those that match a source, the last decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePolicy {
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
    /// 1, or absent.
    #[serde(default)]
    version: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RuleJson")]
pub struct PolicyRule {
    pub action: PolicyAction,
    /// The source's name: with `*` and `?` for `Wildcard`.
    pub identifier: String,
    pub matching: PolicyMatch,
    /// All of them must hold.
    pub constraints: Vec<Constraint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAction {
    Allow,
    Deny,
    /// Another source is taken: `identifier` may name the groups of a regular expression, `${1}`.
    Convert {
        identifier: String,
        attrs: BTreeMap<String, String>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyMatch {
    #[default]
    Wildcard,
    Exact,
    Regex,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub condition: Condition,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Condition {
    #[default]
    Equal,
    NotEqual,
    /// `value` is a regular expression.
    Matches,
}

/// Why a policy file is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("a source policy cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a source policy of version {0}: only version 1 is known")]
    Version(i64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleJson {
    #[serde(default)]
    action: ActionJson,
    selector: SelectorJson,
    #[serde(default)]
    updates: UpdateJson,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "UPPERCASE")]
enum ActionJson {
    #[default]
    Allow,
    Deny,
    Convert,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorJson {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "match_type", rename = "matchType")]
    matching: PolicyMatch,
    #[serde(default)]
    constraints: Vec<Constraint>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct UpdateJson {
    identifier: String,
    attrs: BTreeMap<String, String>,
}

impl From<RuleJson> for PolicyRule {
    fn from(json: RuleJson) -> Self {
        let action = match json.action {
            ActionJson::Allow => PolicyAction::Allow,
            ActionJson::Deny => PolicyAction::Deny,
            ActionJson::Convert => {
                PolicyAction::Convert { identifier: json.updates.identifier, attrs: json.updates.attrs }
            }
        };
        let SelectorJson { identifier, matching, constraints } = json.selector;
        Self { action, identifier, matching, constraints }
    }
}

impl SourcePolicy {
    pub fn new(rules: Vec<PolicyRule>) -> Self {
        Self { rules, version: None }
    }

    /// On the wire; none where there is no rule.
    pub(in crate::buildkit) fn message(self) -> Option<policy::Policy> {
        message(Vec::new(), self)
    }

    /// Reads what BuildKit's own clients read: `{"rules": [{"action": "DENY", "selector": {"identifier": "…"}}]}`.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = serde_json::from_str(text)?;
        match policy.version {
            None | Some(0 | 1) => Ok(policy),
            Some(other) => Err(PolicyError::Version(other)),
        }
    }
}

/// The policy on the wire; none where there is no rule.
pub(super) fn message(rules: Vec<SourceRule>, policy: SourcePolicy) -> Option<policy::Policy> {
    let rules: Vec<policy::Rule> =
        rules.into_iter().map(simple).chain(policy.rules.into_iter().map(full)).collect();
    (!rules.is_empty()).then_some(policy::Policy { version: 1, rules })
}

fn simple(rule: SourceRule) -> policy::Rule {
    let (identifier, constraints) = match rule.attribute {
        None => (rule.pattern, Vec::new()),
        Some(key) => {
            let condition = policy::AttrMatch::Matches.into();
            ("^git://".to_owned(), vec![policy::AttrConstraint { key, value: rule.pattern, condition }])
        }
    };
    let action = if rule.allow { policy::PolicyAction::Allow } else { policy::PolicyAction::Deny };
    let match_type = policy::MatchType::Regex.into();
    let selector = policy::Selector { identifier, match_type, constraints };
    policy::Rule { action: action.into(), selector: Some(selector), updates: None }
}

fn full(rule: PolicyRule) -> policy::Rule {
    let (action, updates) = match rule.action {
        PolicyAction::Allow => (policy::PolicyAction::Allow, None),
        PolicyAction::Deny => (policy::PolicyAction::Deny, None),
        PolicyAction::Convert { identifier, attrs } => {
            (policy::PolicyAction::Convert, Some(policy::Update { identifier, attrs }))
        }
    };
    let match_type = match rule.matching {
        PolicyMatch::Wildcard => policy::MatchType::Wildcard,
        PolicyMatch::Exact => policy::MatchType::Exact,
        PolicyMatch::Regex => policy::MatchType::Regex,
    };
    let constraint = |c: Constraint| {
        let condition = match c.condition {
            Condition::Equal => policy::AttrMatch::Equal,
            Condition::NotEqual => policy::AttrMatch::Notequal,
            Condition::Matches => policy::AttrMatch::Matches,
        };
        policy::AttrConstraint { key: c.key, value: c.value, condition: condition.into() }
    };
    let selector = policy::Selector {
        identifier: rule.identifier,
        match_type: match_type.into(),
        constraints: rule.constraints.into_iter().map(constraint).collect(),
    };
    policy::Rule { action: action.into(), selector: Some(selector), updates }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_file_becomes_the_daemons_rules() {
        let policy = SourcePolicy::from_json(
            r#"{"rules": [
                {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
                {"action": "CONVERT", "selector": {"identifier": "https://a/(.*)", "matchType": "REGEX",
                  "constraints": [{"key": "http.checksum", "value": "x", "condition": "NOTEQUAL"}]},
                 "updates": {"identifier": "https://b/${1}", "attrs": {"http.checksum": "sha256:0"}}},
                {"selector": {"identifier": "docker-image://busybox", "match_type": "EXACT"}}]}"#,
        )
        .unwrap();
        let rule = SourceRule { pattern: "^git://".into(), attribute: None, allow: false };
        let wire = message(vec![rule], policy).unwrap();
        assert_eq!(wire.version, 1);
        let seen: Vec<(i32, i32)> =
            wire.rules.iter().map(|r| (r.action, r.selector.as_ref().unwrap().match_type)).collect();
        assert_eq!(seen, [(1, 2), (1, 0), (2, 2), (0, 1)]);
        let converted = &wire.rules[2];
        assert_eq!(converted.updates.as_ref().unwrap().identifier, "https://b/${1}");
        assert_eq!(converted.selector.as_ref().unwrap().constraints[0].condition, 1);
    }

    #[test]
    fn a_rule_that_is_not_understood_is_no_rule_that_is_passed_over() {
        for text in [
            "",
            "{\"rules\": [{\"action\": \"FORBID\", \"selector\": {}}]}",
            "{\"rules\": [{\"action\": \"DENY\", \"selektor\": {}}]}",
            "{\"rules\": [{\"action\": \"DENY\"}]}",
            "{\"rules\": [], \"version\": 2}",
        ] {
            assert!(SourcePolicy::from_json(text).is_err(), "{text}");
        }
        assert!(message(Vec::new(), SourcePolicy::default()).is_none());
    }
}
