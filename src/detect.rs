//! Detect: which kind of build a tree is, and why not the others.
//!
//! Kinds are asked in a fixed order (Dockerfile, spin, melange, ko) and the first that says yes wins; `build_backend` in
//! `build-config.yaml` overrules the order. Pure; must not plan anything.

use crate::kinds::{self, BuildConfig, By, KindError, Verdict, Wishes};
use crate::model::{AppSettings, Detected, KindName, Tree};

#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error(transparent)]
    Kind(#[from] KindError),
    /// Each kind with why it is not that.
    #[error("nothing to build was found: {}", reasons(.0))]
    Nothing(Vec<(KindName, String)>),
    #[error("{by} chooses {kind}, but there is {reason}")]
    Forced { kind: KindName, by: By, reason: String },
}

fn reasons(kinds: &[(KindName, String)]) -> String {
    kinds.iter().map(|(kind, why)| format!("{kind}: {why}")).collect::<Vec<_>>().join("; ")
}

/// The kind of a tree, by its files, the app's settings and its `build-config.yaml`.
pub fn detect(
    tree: &dyn Tree,
    settings: &AppSettings,
    config: Option<&BuildConfig>,
) -> Result<Detected, DetectError> {
    let wishes = Wishes::of(settings, config)?;
    if let Some(said) = &wishes.kind {
        return forced(tree, &wishes, said.value, said.by);
    }
    let mut won: Option<(KindName, String)> = None;
    let mut others = Vec::new();
    for kind in kinds::all() {
        let verdict = match won {
            None => kind.detect(tree, &wishes)?,
            Some(_) => kind.glance(tree, &wishes)?,
        };
        match (verdict, &won) {
            (Verdict::Yes { evidence }, None) => won = Some((kind.name(), evidence)),
            (Verdict::Yes { evidence }, Some((winner, _))) => {
                others.push((kind.name(), also(&evidence, kind.name(), *winner)));
            }
            (Verdict::No { reason }, _) => others.push((kind.name(), reason)),
        }
    }
    match won {
        Some((kind, evidence)) => Ok(Detected { kind, evidence, others }),
        None => Err(DetectError::Nothing(others)),
    }
}

fn also(evidence: &str, kind: KindName, winner: KindName) -> String {
    format!(
        "{evidence}, but {winner} is asked first; `build_backend: {kind}` in build-config.yaml chooses it"
    )
}

fn forced(tree: &dyn Tree, wishes: &Wishes, name: KindName, by: By) -> Result<Detected, DetectError> {
    let why = format!("build_backend in {by}");
    let mut evidence = why.clone();
    let mut others = Vec::new();
    for kind in kinds::all() {
        if kind.name() != name {
            others.push((kind.name(), format!("{why} chooses {name}")));
            continue;
        }
        match kind.detect(tree, wishes)? {
            Verdict::Yes { evidence: found } => evidence = format!("{found}; {why}"),
            Verdict::No { reason } => return Err(DetectError::Forced { kind: name, by, reason }),
        }
    }
    Ok(Detected { kind: name, evidence, others })
}
