//! The secrets of one build: opened when it begins, gone with it.

use super::{Pipeline, RefBuild, blocking, from_report};
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure, Masker};
use crate::model::{ImagePlan, Provenance, SecretUse, SpinStep, Work};
use crate::solve::BuildSecrets;
use crate::store::StoredSecret;

impl Pipeline {
    /// What the app's builds may mount, and what takes it, and the passwords that go to registries for it, out of texts.
    pub(super) async fn secrets(&self, job: &RefBuild) -> Result<BuildSecrets, Failure> {
        let app = &job.push.app;
        let opened = self.store.open_secrets(&app.name, &app.id).await;
        let opened = opened.map_err(|e| from_report(Report::from(e)))?;
        let logins = match self.store.open_logins(Some(&app.id)).await {
            Ok(logins) => logins,
            Err(error) => {
                // what cannot be opened goes to no builder either
                tracing::warn!(%error, "registry logins are not looked for in the build's output");
                Vec::new()
            }
        };
        let name = app.name.clone();
        blocking(move || {
            let values = opened.iter().map(|secret| secret.value.expose());
            let passwords = logins.iter().map(|login| login.secret.expose().as_bytes());
            let masker = Masker::new(values.chain(passwords));
            let (keys, mounts): (Vec<_>, Vec<_>) =
                opened.into_iter().partition(|secret| secret.used_as == SecretUse::Ssh);
            let pair = |secret: StoredSecret| (secret.name, secret.value);
            let secrets = BuildSecrets::new(name.clone(), mounts.into_iter().map(pair), masker);
            secrets.with_keys(keys.into_iter().map(pair)).map_err(|problem| {
                let report = Report::user(format!("the app's SSH key {problem}"));
                from_report(
                    report.hint(format!("add another one: `lemnos secrets add {name} NAME --ssh <KEY`")),
                )
            })
        })
        .await
    }
}

/// Build arguments are no place for secrets: they stand in the image's history, which is noted, and in a provenance of
/// everything, which is refused.
pub(super) fn refuse_published(
    image: &ImagePlan,
    masker: &Masker,
    events: &EventSink,
) -> Result<(), Failure> {
    for spec in image.work.solves() {
        let held = spec.build_args.iter().find(|(_, value)| masker.text(value) != **value);
        let Some((name, _)) = held else { continue };
        let told = format!("the build argument {name} holds one of the app's secrets");
        if spec.attest.provenance == Some(Provenance::Max) {
            return Err(Failure::new(
                format!("{told}: provenance:max would publish it"),
                format!(
                    "{told}, and the provenance that the app's settings ask for holds all build arguments"
                ),
            )
            .with_remedy("mount the secret (`RUN --mount=type=secret,id=NAME`) and take the argument out"));
        }
        events.emit(BuildEvent::Note {
            text: format!("{told}: build arguments stand in the image's history; mount the secret instead"),
        });
    }
    let held = |text: &str| masker.text(text) != *text;
    let what = match &image.work {
        Work::Dockerfile(_) => None,
        Work::Ko(program) if program.attest.provenance == Some(Provenance::Max) => {
            let targets = || program.compile.targets.iter();
            let variable = targets().flat_map(|target| &target.env).find(|(_, value)| held(value));
            let flag = targets().flat_map(|target| &target.args).find(|arg| held(arg));
            let named = variable.map(|(name, _)| format!("the environment's {name}"));
            named.or_else(|| flag.map(|_| "a flag of the compiler".to_owned()))
        }
        Work::Spin(plan) if plan.terms.attest.provenance == Some(Provenance::Max) => {
            let commands = |step: &SpinStep| step.prepare.iter().chain(&step.commands).any(|text| held(text));
            let step = plan.steps.iter().find(|step| commands(step));
            step.map(|step| format!("a command of the component {}", step.component))
        }
        Work::Ko(_) | Work::Spin(_) => None,
    };
    let Some(what) = what else { return Ok(()) };
    let told = format!("{what} holds one of the app's secrets");
    Err(Failure::new(
        format!("{told}: provenance:max would publish it"),
        format!("{told}, and the provenance that the app's settings ask for holds all that steps are told"),
    )
    .with_remedy("take it out, or set attest=provenance:min"))
}
