//! spin: recognised; its build comes later.

use super::{Draft, Kind, KindError, PlanInput, Verdict, Wishes};
use crate::model::{EntryKind, KindName, Tree};

pub(super) struct Spin;

impl Kind for Spin {
    fn name(&self) -> KindName {
        KindName::Spin
    }

    fn needs(&self) -> &'static str {
        "a spin.toml at the root"
    }

    fn detect(&self, tree: &dyn Tree, _wishes: &Wishes) -> Result<Verdict, KindError> {
        Ok(match tree.entry("spin.toml")? {
            Some(entry) if matches!(entry.kind, EntryKind::File { .. }) => {
                Verdict::Yes { evidence: "spin.toml at the root".to_owned() }
            }
            Some(_) => Verdict::No { reason: "spin.toml at the root is not a regular file".to_owned() },
            None => Verdict::No { reason: "no spin.toml at the root".to_owned() },
        })
    }

    fn plan(&self, input: &PlanInput<'_>, _wishes: &Wishes) -> Result<Draft, KindError> {
        Err(KindError::NotYet { kind: self.name(), evidence: input.detected.evidence.clone() })
    }
}
