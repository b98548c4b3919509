//! What a build is to attest: what the app's settings ask for, and whether it may be had.
//!
//! Must not ask a builder or a registry: planning stays pure.

use super::{KindError, PlanInput};
use crate::model::{Attestations, Provenance, Sbom};

/// BuildKit's attributes for them.
pub fn attest_attrs(attest: &Attestations) -> impl Iterator<Item = (String, String)> {
    let mode = attest.provenance.map(|mode| match mode {
        Provenance::Min => "mode=min",
        Provenance::Max => "mode=max",
    });
    let generator = attest.sbom.as_ref().map(|generator| format!("generator={generator}"));
    let named = |kind: &str, value: String| (format!("attest:{kind}"), value);
    let provenance = mode.map(|mode| named("provenance", mode.to_owned()));
    provenance.into_iter().chain(generator.map(|value| named("sbom", value)))
}

/// Which provenance the settings ask for; the larger one publishes every step, `published` among what is in them.
pub(super) fn provenance<'a>(
    input: &PlanInput<'_>,
    published: impl IntoIterator<Item = (String, &'a str)>,
) -> Result<Option<Provenance>, KindError> {
    let asked = input.settings.attest.provenance;
    if asked == Some(Provenance::Max)
        && let Some((what, _)) = published.into_iter().find(|(_, value)| has_password(value))
    {
        return Err(KindError::PasswordInProvenance { what });
    }
    Ok(asked)
}

/// What the settings ask for, with the generator that is to be used.
pub(super) fn attestations<'a>(
    input: &PlanInput<'_>,
    published: impl IntoIterator<Item = (String, &'a str)>,
) -> Result<Attestations, KindError> {
    let provenance = provenance(input, published)?;
    let sbom = match &input.settings.attest.sbom {
        None => None,
        Some(Sbom::By(generator)) => Some(generator.clone()),
        Some(Sbom::Configured) => Some(input.sbom_generator.cloned().ok_or(KindError::NoGenerator)?),
    };
    if let Some(generator) = &sbom
        && let Some(refusal) = input.sources.refuses(&format!("docker-image://{generator}"))
    {
        return Err(KindError::Generator { image: generator.to_string(), refusal: refusal.clone() });
    }
    Ok(Attestations { provenance, sbom })
}

/// Whether there is a URL with a password in the text.
fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}
