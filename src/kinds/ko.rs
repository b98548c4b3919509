//! ko: recognised; its build comes later.

use super::{Draft, Kind, KindError, PlanInput, Verdict, Wishes};
use crate::model::{EntryKind, KindName, Tree};

pub(super) struct Ko;

/// What ko reads in its working directory; `ko.yaml` without the dot is not read by it.
const CONFIGS: [&str; 2] = [".ko.yaml", ".ko.yml"];

impl Kind for Ko {
    fn name(&self) -> KindName {
        KindName::Ko
    }

    fn needs(&self) -> &'static str {
        "a .ko.yaml at the root"
    }

    fn detect(&self, tree: &dyn Tree, _wishes: &Wishes) -> Result<Verdict, KindError> {
        for name in CONFIGS {
            if tree.entry(name)?.is_some_and(|e| matches!(e.kind, EntryKind::File { .. })) {
                return Ok(Verdict::Yes { evidence: format!("{name} at the root") });
            }
        }
        let reason = match tree.entry("go.mod")? {
            Some(_) => "no .ko.yaml at the root (a go.mod alone does not choose ko yet)",
            None => "no .ko.yaml at the root",
        };
        Ok(Verdict::No { reason: reason.to_owned() })
    }

    fn plan(&self, input: &PlanInput<'_>, _wishes: &Wishes) -> Result<Draft, KindError> {
        Err(KindError::NotYet { kind: self.name(), evidence: input.detected.evidence.clone() })
    }
}
