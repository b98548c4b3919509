//! A build's Kubernetes YAML: of one that succeeded, whose images are there and tagged, and of no other.

use super::Response;
use crate::error::{Kind, Report};
use crate::model::{Build, BuildState};
use crate::store::Store;

pub(super) async fn show(store: &Store, build: &Build) -> Result<Response, Report> {
    let short = build.id.short();
    match build.state {
        BuildState::Succeeded => {}
        BuildState::Queued | BuildState::Running => {
            return Err(Report::new(Kind::Conflict, format!("build {short} has not ended"))
                .hint(format!("`lemnos builds logs {short} -f` follows it to its end")));
        }
        state => {
            let ended = state.as_str();
            return Err(Report::new(
                Kind::NotFound,
                format!("build {short} is {ended}: there is no YAML of it"),
            )
            .hint("take a build that succeeded; `lemnos builds` lists them"));
        }
    }
    match store.resolved(&build.id).await? {
        Some(yaml) => Ok(Response::Resolved { build: build.id.clone(), yaml }),
        None => Err(Report::new(Kind::NotFound, format!("build {short} resolved no YAML"))
            .hint("name files with `resolve` in ko_config of build-config.yaml, and push")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BuildId, Sha};
    use crate::store::Finished;

    #[tokio::test]
    async fn only_what_succeeded_has_any() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        for state in BuildState::ALL {
            let (app, user) = ("shop".parse().unwrap(), "ann".parse().unwrap());
            let reference = "refs/heads/main".parse().unwrap();
            let queued = Build::queued(BuildId::generate(), app, user, reference, Sha::zero());
            store.create_build(&queued).await.unwrap();
            // as a build does before its tags move
            store.put_resolved(&queued.id, "a: 1\n").await.unwrap();
            if !state.is_live() {
                store.finish_build(&queued.id, &Finished::as_state(state, 1, None)).await.unwrap();
            }
            let build = Build { state, ..queued };
            let said = show(&store, &build).await;
            let kind = said.as_ref().err().map(|report| report.kind);
            match state {
                BuildState::Succeeded => {
                    assert_eq!(
                        said.unwrap(),
                        Response::Resolved { build: build.id, yaml: "a: 1\n".to_owned() }
                    );
                }
                state if state.is_live() => assert_eq!(kind, Some(Kind::Conflict)),
                _ => assert_eq!(kind, Some(Kind::NotFound)),
            }
        }
    }
}
