//! Builders and registry: those in use where a server runs, those it would use where none does.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::programs::{find, judge_buildkitd, says_of_itself};
use super::server::State;
use super::{Finding, Subject};
use crate::buildkit::{Address, Client, Endpoint};
use crate::engine::{self, binfmt};
use crate::model::{ImageName, Platform};
use crate::registry::Registry;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn builders(subject: &Subject, state: &State) -> Vec<Finding> {
    let mut endpoints = subject.builders.clone();
    if endpoints.is_empty()
        && let Some(ready) = state.running()
    {
        let addresses = ready.builders.iter().filter_map(|text| text.parse::<Address>().ok());
        endpoints = addresses.map(|address| (address.to_string(), Endpoint { address, tls: None })).collect();
    }
    if endpoints.is_empty() {
        let mut found = own_buildkitd(subject);
        found.extend(judge_platforms(&[], &binfmt::missing(&subject.platforms)));
        return found;
    }
    let (mut found, mut platforms) = (Vec::new(), Vec::new());
    for (name, endpoint) in &endpoints {
        match ask(endpoint).await {
            Ok((version, runs)) => {
                let names: Vec<String> = runs.iter().map(ToString::to_string).collect();
                let about = format!("{name} is buildkitd {version}: {}", names.join(" "));
                found.push(
                    judge_buildkitd("builder", &version).unwrap_or_else(|| Finding::ok("builder", about)),
                );
                platforms.extend(runs);
            }
            Err(cause) => found.push(Finding::fail(
                "builder",
                format!("{name} does not answer: {cause}"),
                "start it, or check its address, its certificates and the firewall between",
            )),
        }
    }
    let missing: Vec<Platform> =
        subject.platforms.iter().filter(|p| !platforms.contains(p)).cloned().collect();
    found.extend(judge_platforms(&platforms, &missing));
    found
}

async fn ask(endpoint: &Endpoint) -> Result<(String, Vec<Platform>), String> {
    let client = Client::connect(endpoint, PATIENCE).await.map_err(|e| e.to_string())?;
    let version = client.info().await.map_err(|e| e.to_string())?.version;
    let workers = client.workers().await.map_err(|e| e.to_string())?;
    let platforms = workers.iter().flat_map(|w| &w.platforms).filter_map(|p| p.parse().ok());
    Ok((version, platforms.collect()))
}

fn judge_platforms(runs: &[Platform], missing: &[Platform]) -> Vec<Finding> {
    if missing.is_empty() {
        return vec![Finding::ok("platforms", "every platform that apps build by default can be run")];
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let who = if runs.is_empty() { "this machine" } else { "no builder" };
    let says = match runs.is_empty() {
        true => format!("{who} cannot run programs for {}", names.join(" ")),
        false => format!("{who} runs programs for {}", names.join(" ")),
    };
    vec![Finding::warn("platforms", says, binfmt::REMEDY)]
}

/// What a buildkitd of the server's own would need.
fn own_buildkitd(subject: &Subject) -> Vec<Finding> {
    let on_path = |names: &[&str]| find(&subject.path, names);
    let missing = |says: String, remedy: &str| Finding::fail("builder", says, remedy.to_owned());
    let mut found = Vec::new();
    let program = subject.buildkitd.clone().or_else(|| on_path(&["buildkitd"]));
    match program {
        None => found.push(missing(
            "no builder is configured, and there is no buildkitd on PATH".to_owned(),
            "`deploy/quickstart` builds one; or name a running one with `--builder ADDR`",
        )),
        Some(program) => match says_of_itself(&program) {
            Ok(said) => found.extend(judge_buildkitd("builder", &said)),
            Err(cause) => found.push(missing(cause, "check --buildkitd and that it may be executed")),
        },
    }
    if on_path(&["buildkit-runc", "runc"]).is_none() {
        found.push(missing("there is no runc on PATH".to_owned(), "install the package runc"));
    }
    if subject.isolated && on_path(&["iptables"]).is_none() {
        found.push(missing("there is no iptables on PATH".to_owned(), "install the package iptables"));
    }
    if subject.isolated && !engine::has_cni_plugins() {
        found.push(missing(
            "there are no CNI plugins".to_owned(),
            "install the package containernetworking-plugins",
        ));
    }
    if !rustix::process::geteuid().is_root() {
        found.push(missing(
            "a buildkitd of the server's own needs root, and this is another user".to_owned(),
            "run the server as root, or name a running builder with `--builder ADDR`",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok("builder", "everything that a buildkitd of the server's own needs is there"));
    }
    found
}

/// The findings, and the registry's time.
pub(super) async fn registry(subject: &Subject, state: &State) -> (Vec<Finding>, Option<i64>) {
    let running = state.running().and_then(|ready| ready.registry.parse().ok());
    let Some(prefix) = subject.registry.clone().or(running) else {
        return (
            own_registry(
                subject.registry_program.as_deref(),
                find(&subject.path, &["docker-registry", "registry"]).as_deref(),
            ),
            None,
        );
    };
    let client = match Registry::new(subject.registry_client.clone()) {
        Ok(client) => client,
        Err(error) => {
            return (vec![Finding::fail("registry", error.to_string(), "check the credentials file")], None);
        }
    };
    let name: Option<ImageName> = format!("{prefix}/lemnos-doctor").parse().ok();
    let time = client.time(prefix.host()).await;
    let pushes = match (&time, name) {
        (Ok(_), Some(name)) => client.try_upload(&name).await.map_err(|e| e.to_string()),
        (Err(error), _) => Err(error.to_string()),
        (Ok(_), None) => Ok(()),
    };
    let finding = match pushes {
        Ok(()) => Finding::ok("registry", format!("{prefix} answers and takes uploads")),
        Err(cause) => Finding::fail(
            "registry",
            format!("{prefix}: {cause}"),
            "check its address, that it runs, and that the server's credentials may push there",
        ),
    };
    let at_ms = time.ok().flatten().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    (vec![finding], at_ms.and_then(|at| i64::try_from(at.as_millis()).ok()))
}

fn own_registry(configured: Option<&Path>, found: Option<&Path>) -> Vec<Finding> {
    vec![match configured.or(found) {
        Some(program) => Finding::ok("registry", format!("the server would start {}", program.display())),
        None => Finding::fail(
            "registry",
            "no registry is configured, and there is no docker-registry or registry on PATH",
            "install the package docker-registry, or name a registry with `--registry HOST`",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn missing_platforms_and_programs_are_said() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(judge_platforms(&[], &[])[0].level, Level::Ok);
        let found = judge_platforms(&[], &[platform("linux/arm64")]);
        assert!(
            found[0].level == Level::Warn && found[0].says.contains("this machine cannot run"),
            "{found:?}"
        );
        let found = judge_platforms(&[platform("linux/amd64")], &[platform("linux/arm64")]);
        assert!(found[0].says.contains("no builder runs"), "{found:?}");
        assert_eq!(own_registry(None, None)[0].level, Level::Fail);
        assert_eq!(own_registry(None, Some(Path::new("/r")))[0].level, Level::Ok);
    }

    #[tokio::test]
    async fn a_builder_that_is_not_there_fails() {
        let endpoint = Endpoint { address: "unix:///nowhere.sock".parse().unwrap(), tls: None };
        assert!(ask(&endpoint).await.is_err());
    }
}
