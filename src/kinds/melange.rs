//! melange: recognised by a root YAML file with both `package` and `pipeline`; its build comes later.

use super::errors::shown;
use super::{Draft, Kind, KindError, PlanInput, Verdict, Wishes};
use crate::model::{EntryKind, KindName, Tree};

pub(super) struct Melange;

/// Bounds of the look around: root files only, so many, so large.
const LIMIT_FILES: usize = 100;
const LIMIT_BYTES: u64 = 512 * 1024;

impl Kind for Melange {
    fn name(&self) -> KindName {
        KindName::Melange
    }

    fn needs(&self) -> &'static str {
        "a YAML file at the root with `package:` and `pipeline:`"
    }

    fn detect(&self, tree: &dyn Tree, _wishes: &Wishes) -> Result<Verdict, KindError> {
        let yaml = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
        let entries = tree.list("")?;
        let files = entries
            .iter()
            .filter(|e| matches!(e.kind, EntryKind::File { .. }) && yaml(&e.name))
            .take(LIMIT_FILES);
        for entry in files {
            // a file too large or not readable by its name is no configuration: the look goes on
            let Ok(Some(bytes)) = tree.read(&entry.name, LIMIT_BYTES) else { continue };
            if has_top_level_key(&bytes, b"package:") && has_top_level_key(&bytes, b"pipeline:") {
                return Ok(Verdict::Yes {
                    evidence: format!("{} with package and pipeline", shown(&entry.name)),
                });
            }
        }
        Ok(Verdict::No { reason: "no YAML file at the root with package and pipeline".to_owned() })
    }

    fn plan(&self, input: &PlanInput<'_>, _wishes: &Wishes) -> Result<Draft, KindError> {
        Err(KindError::NotYet { kind: self.name(), evidence: input.detected.evidence.clone() })
    }
}

fn has_top_level_key(bytes: &[u8], key: &[u8]) -> bool {
    bytes.split(|b| *b == b'\n').any(|line| line.starts_with(key))
}
