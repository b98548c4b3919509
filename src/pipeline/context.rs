//! What a solve gets of the commit: its own files, with the times that the ledger keeps.
//!
//! The ledger that comes with it has to be kept as soon as a builder was asked, however that ends: what was sent stays there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Making, Pipeline, RefBuild, blocking, from_report, internal};
use crate::error::Report;
use crate::event::{Failure, plain_line};
use crate::model::{ImageName, Predicate};
use crate::solve::context::{GitContext, Ledger, shared_key};
use crate::solve::{ContextDirs, DirSource, FileSolve, RegistryAuth};
use crate::store::now_ms;

/// Directories by the names under which a builder asks for them.
pub(super) type Dirs = BTreeMap<String, Arc<dyn DirSource>>;

/// What a solve needs of its context, and what is to be kept of it.
pub(super) struct Opened {
    pub dirs: ContextDirs,
    /// The directory itself.
    pub context: GitContext,
    pub ledger: Ledger,
    pub key: String,
}

/// What `work` comes to, unless the build is stopped before.
pub(super) async fn unless_stopped<T>(
    job: &RefBuild,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = job.stop.cancelled() => Err(internal("the build was stopped")),
        done = work => done,
    }
}

impl Pipeline {
    /// Opens the directory `path` of the commit. `served`: what the builder may ask for, and under which names.
    pub(super) async fn open_context(
        &self,
        making: &Making<'_>,
        image: &ImageName,
        path: &str,
        served: impl FnOnce(&GitContext) -> Result<Dirs, Failure> + Send + 'static,
    ) -> Result<Opened, Failure> {
        let Making { job, plan, rules, secrets, began_s, .. } = *making;
        // the store forgets an app's ledgers by this prefix when the app goes
        let key = format!("{}/{}", job.push.app.id, job.update.name);
        let stored = self.store.ledger(&key).await.map_err(|e| from_report(Report::from(e)))?;
        let (repository, commit, wanted) = (job.repository.clone(), plan.commit.clone(), path.to_owned());
        let git = self.settings.git.clone();
        let (context, dirs, ledger) = blocking(move || {
            let mut ledger = Ledger::load(stored.as_deref());
            let context = GitContext::open(&repository, &commit, &wanted, &mut ledger, began_s)
                .map_err(|e| from_report(Report::from(e)))?
                .streaming_with(git);
            let dirs = served(&context)?;
            Ok((context, dirs, ledger))
        })
        .await?;
        let auth = RegistryAuth::new(
            self.registry.clone(),
            self.settings.plain_http.clone(),
            Some(job.push.app.id.clone()),
            image.clone(),
            rules.clone(),
        );
        let dirs = ContextDirs {
            shared_key: shared_key(&job.push.app.id, job.update.name.as_str(), path),
            dirs,
            auth: Some(Arc::new(auth)),
            rules: rules.clone(),
            secrets: secrets.clone(),
            log_tail_lines: self.settings.log_tail_lines,
        };
        Ok(Opened { dirs, context, ledger, key })
    }

    /// Has a builder make files of what is open, and returns what it attests of that. A stop ends that, and what was sent is remembered all the same.
    pub(super) async fn make_files(
        &self,
        making: &Making<'_>,
        files: &FileSolve<'_>,
        opened: Opened,
    ) -> Result<Vec<Predicate>, Failure> {
        let app = making.job.push.app.name.as_str();
        let making_them = self.builders.files(app, files, &opened.dirs, making.events);
        let made = unless_stopped(making.job, making_them).await;
        self.keep_ledger(opened.ledger, &opened.key).await;
        made?;
        let (statements, out) = (files.statements.clone(), files.out.to_owned());
        blocking(move || {
            statements.take(&out).map_err(|error| {
                let cause = plain_line(&error.to_string());
                Failure::new("builder failed: no attestations", cause).with_remedy(
                    "push again; if it stays, the operator looks at the builder, or sets attest=off",
                )
            })
        })
        .await
    }

    /// Keeps the times that the builders now know. Whether the build went well does not matter: they were sent.
    pub(super) async fn keep_ledger(&self, mut ledger: Ledger, key: &str) {
        let now = now_ms();
        ledger.finished(now.div_euclid(1000));
        if let Err(error) = self.store.put_ledger(key, &ledger.to_bytes(), now).await {
            // the next build sends more than it must, and never less
            tracing::warn!(%error, "the context's file times are not kept");
        }
    }
}
