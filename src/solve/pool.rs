//! The builders, and one plan's solves over them.
//!
//! One connection and one session a build and builder; all the platforms that a builder takes go in one solve. What a
//! builder can run is asked once and kept, so that a push pays no round trip for it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{join_all, try_join_all};

use crate::buildkit::session::filesync::{Concern, DirSource, Missing, TransferStats};
use crate::buildkit::{
    AuthProvider, Client, Endpoint, Error, Exporter, Session, SolveError, SolveErrorKind, SolveRequest,
    SourceRule,
};
use crate::event::{BuildEvent, EventSink, Failure};
use crate::kinds::dockerfile_attrs;
use crate::model::{Digest, ImageName, Platform, SolveSpec, SourceRules};

use super::assign::{Capacity, Unserved, assign};
use super::failure::{FailedSolve, refused_source, shown_source};
use super::progress::Translator;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A builder as configured.
#[derive(Debug, Clone)]
pub struct BuilderConfig {
    /// What people see; the address where it has no other name.
    pub name: String,
    pub endpoint: Endpoint,
    /// Platforms that the operator bound to it; empty: any it can run.
    pub bound: Vec<Platform>,
}

/// All builders. Each build connects anew; nothing is shared but what the builders can do.
pub struct Pool {
    builders: Vec<Builder>,
}

struct Builder {
    config: BuilderConfig,
    /// None until it has answered once.
    reported: RwLock<Option<Vec<Platform>>>,
}

/// The build context as BuildKit asks for it.
#[derive(Clone)]
pub struct ContextDirs {
    /// Stable for an app and branch: BuildKit finds what it has already received by it.
    pub shared_key: String,
    /// `context` and `dockerfile`.
    pub dirs: BTreeMap<String, Arc<dyn DirSource>>,
    /// Counts what was sent of them, and names what was sent without its content.
    pub transfers: Arc<TransferStats>,
    pub auth: Option<Arc<dyn AuthProvider>>,
    /// Which sources the build may take.
    pub rules: Arc<SourceRules>,
    /// Lines of a failing step that are kept for its failure.
    pub log_tail_lines: usize,
}

/// What one solve pushed by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub digest: Digest,
    pub platforms: Vec<Platform>,
}

impl Pool {
    pub fn new(builders: Vec<BuilderConfig>) -> Self {
        let builder = |config| Builder { config, reported: RwLock::new(None) };
        Self { builders: builders.into_iter().map(builder).collect() }
    }

    /// Asks every builder what it can run; errors come with the builder's name.
    pub async fn probe(&self) -> Vec<(String, Result<Vec<Platform>, Error>)> {
        join_all(self.builders.iter().map(|b| async { (b.config.name.clone(), b.ask().await) })).await
    }

    /// What every builder is known to take, and why it is not known; asks those that have not answered yet.
    async fn capacities(&self) -> Vec<(Capacity, Option<String>)> {
        join_all(self.builders.iter().map(|b| async {
            let known = b.reported.read().unwrap_or_else(PoisonError::into_inner).clone();
            let (reported, silence) = match known {
                Some(reported) => (reported, None),
                None => match b.ask().await {
                    Ok(reported) => (reported, None),
                    Err(error) => {
                        tracing::warn!(builder = %b.config.name, %error, "the builder does not answer");
                        (Vec::new(), Some(format!("builder {} does not answer: {error}", b.config.name)))
                    }
                },
            };
            (Capacity { name: b.config.name.clone(), bound: b.config.bound.clone(), reported }, silence)
        }))
        .await
    }

    /// Runs the solves of `spec`, all builders at once; the first failure ends the others.
    pub async fn solve(
        &self,
        spec: &SolveSpec,
        image: &ImageName,
        insecure: bool,
        context: &ContextDirs,
        events: &EventSink,
    ) -> Result<Vec<Part>, Failure> {
        let (capacities, silences): (Vec<_>, Vec<_>) = self.capacities().await.into_iter().unzip();
        let split =
            assign(&capacities, &spec.platforms).map_err(|unserved| no_builder(&unserved, silences))?;
        let numbers = Arc::new(AtomicU32::new(0));
        let named = self.builders.len() > 1;
        let solves = split.into_iter().filter_map(|(at, platforms)| {
            let builder = self.builders.get(at)?;
            if named {
                events.emit(BuildEvent::SolveStarted {
                    builder: builder.config.name.clone(),
                    platforms: platforms.clone(),
                });
            }
            let only = sole(&platforms);
            let translator =
                Translator::new(events.clone(), numbers.clone(), spec.dockerfile_path.clone(), only)
                    .with_tail(context.log_tail_lines);
            let request = request(spec, &platforms, image, insecure, context);
            Some(builder.solve(request, platforms, translator, spec, &context.rules))
        });
        let solved = try_join_all(solves).await;
        match lacking(&context.transfers.concerns()) {
            // also where the solve failed: what was not there is the likelier cause
            Some(failure) => Err(failure),
            None => solved,
        }
    }
}

impl Builder {
    async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.config.endpoint, CONNECT_TIMEOUT).await
    }

    async fn ask(&self) -> Result<Vec<Platform>, Error> {
        let workers = self.connect().await?.workers().await?;
        let mut platforms: Vec<Platform> = Vec::new();
        for platform in workers.iter().flat_map(|w| &w.platforms).filter_map(|p| p.parse().ok()) {
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        *self.reported.write().unwrap_or_else(PoisonError::into_inner) = Some(platforms.clone());
        Ok(platforms)
    }

    async fn solve(
        &self,
        request: SolveRequest,
        platforms: Vec<Platform>,
        mut translator: Translator,
        spec: &SolveSpec,
        rules: &SourceRules,
    ) -> Result<Part, Failure> {
        let name = &self.config.name;
        let unreachable = |error: Error| {
            // what it could run may have changed by the time it is back
            *self.reported.write().unwrap_or_else(PoisonError::into_inner) = None;
            Failure::new(format!("builder {name} does not answer"), error.to_string())
                .with_remedy("push again; if it stays, the operator looks at the builder")
        };
        let transfers = request.session.transfers.clone();
        let client = self.connect().await.map_err(unreachable)?;
        let result = client.solve(request, |event| translator.take(event)).await;
        let solved = result.map_err(|error| {
            explain(error, &mut translator, spec, rules, transfers.failure(), sole(&platforms))
        })?;
        let digest = solved.attrs.get("containerimage.digest").and_then(|d| d.parse().ok());
        let digest = digest.ok_or_else(|| {
            let cause = format!("builder {name} ended the solve without telling the image's digest");
            Failure::new("builder failed: no digest", cause).with_remedy("push again")
        })?;
        Ok(Part { digest, platforms })
    }
}

/// Nobody takes the platform: for want of a builder, or because one that might is silent.
fn no_builder(unserved: &Unserved, silences: Vec<Option<String>>) -> Failure {
    let silences: Vec<String> = silences.into_iter().flatten().collect();
    let reason = format!("no builder for {}", unserved.platform);
    if silences.is_empty() {
        return Failure::new(reason, unserved.to_string()).with_remedy(
            "the operator adds a builder for the platform (lemnos serve --builder ADDR,platform=…) or registers \
             qemu's binfmt handlers on one (package qemu-user-static); or build fewer platforms \
             (lemnos apps set APP platforms=…)",
        );
    }
    Failure::new(format!("{reason}: a builder does not answer"), silences.join("; "))
        .with_remedy("push again; if it stays, the operator looks at the builder")
}

/// The builder asked for files whose content git does not hold: whatever was built of them is wrong.
fn lacking(concerns: &[Concern]) -> Option<Failure> {
    let paths = |missing: Missing| -> Vec<&str> {
        concerns.iter().filter(|c| c.missing == missing).map(|c| c.path.as_str()).take(10).collect()
    };
    let (submodules, pointers) = (paths(Missing::Submodule), paths(Missing::LfsPointer));
    let mut parts = Vec::new();
    if !submodules.is_empty() {
        parts.push(format!("submodules ({})", submodules.join(", ")));
    }
    if !pointers.is_empty() {
        parts.push(format!("Git LFS pointers ({})", pointers.join(", ")));
    }
    let what = parts.join(" and ");
    (!what.is_empty()).then(|| {
        Failure::new(
            format!("the build needs {what}, whose content was not pushed"),
            format!("the build asked for {what}: git holds a reference to their content, not the content"),
        )
        .with_remedy("commit the files themselves, or leave the paths out with .dockerignore")
    })
}

/// One frontend solve whose image is pushed by digest. Exporter attributes are this list and no other.
fn request(
    spec: &SolveSpec,
    platforms: &[Platform],
    image: &ImageName,
    insecure: bool,
    context: &ContextDirs,
) -> SolveRequest {
    let mut attrs = BTreeMap::from([
        ("name".to_owned(), image.to_string()),
        ("push".to_owned(), "true".to_owned()),
        ("push-by-digest".to_owned(), "true".to_owned()),
        ("oci-mediatypes".to_owned(), "true".to_owned()),
        ("compression".to_owned(), spec.compression.as_str().to_owned()),
    ]);
    if insecure {
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    SolveRequest {
        frontend: spec.frontend.clone(),
        frontend_attrs: dockerfile_attrs(spec, platforms),
        exporters: vec![Exporter { kind: "image".to_owned(), attrs }],
        // no record in the daemon's own history: it costs about 30 ms a build, and lemnos keeps one
        internal: true,
        source_rules: source_rules(&context.rules),
        session: Session {
            shared_key: context.shared_key.clone(),
            dirs: context.dirs.clone(),
            transfers: context.transfers.clone(),
            auth: context.auth.clone(),
        },
        ..SolveRequest::default()
    }
}

/// The app's rules as the daemon takes them.
fn source_rules(rules: &SourceRules) -> Vec<SourceRule> {
    let rule = |rule: &crate::model::policy::Rule| SourceRule {
        pattern: rule.pattern.clone(),
        attribute: rule.attribute.map(str::to_owned),
        allow: rule.refused.is_none(),
    };
    rules.rules().iter().map(rule).collect()
}

/// The platform of a solve for one.
fn sole(platforms: &[Platform]) -> Option<Platform> {
    match platforms {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// `transfer`: why sending the context failed, when it did; the daemon tells only that it did.
fn explain(
    error: SolveError,
    translator: &mut Translator,
    spec: &SolveSpec,
    rules: &SourceRules,
    transfer: Option<String>,
    only: Option<Platform>,
) -> Failure {
    let vertex = error.vertex.as_ref();
    let seen = vertex.and_then(|v| translator.failed(&v.digest));
    let (name, log_tail) = match seen {
        Some((name, tail)) => (Some(name), tail),
        None => (vertex.map(|v| v.name.clone()).filter(|n| !n.is_empty()), Vec::new()),
    };
    FailedSolve {
        vertex: name,
        exit_code: error.exit_code,
        only,
        file: spec.dockerfile_path.clone(),
        lines: error.source.as_ref().and_then(|s| s.lines()),
        source_text: error.source.as_ref().map(|s| s.text.clone()).unwrap_or_default(),
        log_tail,
        refused: refused_source(&error.message).and_then(|name| {
            let refusal = rules.refuses(name)?.clone();
            Some((shown_source(name), refusal))
        }),
        builds_fault: error.kind == SolveErrorKind::Build,
        message: match (error.exit_code, transfer) {
            (None, Some(cause)) => format!("sending the build context: {cause}"),
            _ => error.message,
        },
    }
    .into_failure()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_builder_that_is_away_is_named_and_not_taken_for_one_that_lacks_the_platform() {
        let address = "unix:///nonexistent/buildkitd.sock".parse().unwrap();
        let endpoint = Endpoint { address, tls: None };
        let pool = Pool::new(vec![BuilderConfig { name: "far".to_owned(), endpoint, bound: Vec::new() }]);
        let (capacities, silences): (Vec<_>, Vec<_>) = pool.capacities().await.into_iter().unzip();
        let unserved = assign(&capacities, &["linux/amd64".parse().unwrap()]).unwrap_err();
        let failure = no_builder(&unserved, silences);
        assert_eq!(failure.reason, "no builder for linux/amd64: a builder does not answer");
        assert!(failure.cause.starts_with("builder far does not answer: "), "{}", failure.cause);
        let failure = no_builder(&unserved, vec![None]);
        assert!(failure.remedy.unwrap().contains("adds a builder"));
    }
}
