//! The build context of one solve: the commit's own files, with the times that the ledger keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Making, Pipeline, RefBuild, blocking, from_report};
use crate::error::Report;
use crate::event::Failure;
use crate::model::{ImageName, Sha, SolveSpec, SourceRules};
use crate::solve::context::{GitContext, Ledger, shared_key};
use crate::solve::{BuildSecrets, ContextDirs, DirSource, RegistryAuth};
use crate::store::now_ms;

/// What a solve needs of its context, and what is to be kept of it.
pub(super) struct Opened {
    pub dirs: ContextDirs,
    pub ledger: Ledger,
    pub key: String,
}

impl Pipeline {
    /// Opens the context and the Dockerfile's directory over the commit's objects.
    pub(super) async fn open_context(
        &self,
        job: &RefBuild,
        commit: &Sha,
        spec: &SolveSpec,
        image: &ImageName,
        rules: &Arc<SourceRules>,
        secrets: &BuildSecrets,
    ) -> Result<Opened, Failure> {
        // the store forgets an app's ledgers by this prefix when the app goes
        let key = format!("{}/{}", job.push.app.id, job.update.name);
        let stored = self.store.ledger(&key).await.map_err(|e| from_report(Report::from(e)))?;
        let (repository, commit, wanted) = (job.repository.clone(), commit.clone(), spec.clone());
        let git = self.settings.git.clone();
        let now_s = now_ms().div_euclid(1000);
        let (dirs, ledger) = blocking(move || {
            let mut ledger = Ledger::load(stored.as_deref());
            let context = GitContext::open(&repository, &commit, &wanted.context_path, &mut ledger, now_s)
                .map_err(|e| from_report(Report::from(e)))?
                .streaming_with(git);
            let beside = wanted.dockerfile_path.rsplit_once('/').map_or("", |(dir, _)| dir);
            let dockerfile = context.at(beside).map_err(|e| from_report(Report::from(e)))?;
            let dirs = BTreeMap::from([
                ("context".to_owned(), Arc::new(context) as Arc<dyn DirSource>),
                ("dockerfile".to_owned(), Arc::new(dockerfile)),
            ]);
            Ok((dirs, ledger))
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
            shared_key: shared_key(&job.push.app.id, job.update.name.as_str(), &spec.context_path),
            dirs,
            auth: Some(Arc::new(auth)),
            rules: rules.clone(),
            secrets: secrets.clone(),
            log_tail_lines: self.settings.log_tail_lines,
        };
        Ok(Opened { dirs, ledger, key })
    }

    /// Opens one directory of the commit, for a graph that calls it `name`.
    pub(super) async fn open_directory(
        &self,
        making: &Making<'_>,
        image: &ImageName,
        path: &str,
        name: &str,
    ) -> Result<Opened, Failure> {
        let Making { job, plan, rules, secrets, .. } = *making;
        let key = format!("{}/{}", job.push.app.id, job.update.name);
        let stored = self.store.ledger(&key).await.map_err(|e| from_report(Report::from(e)))?;
        let (repository, commit, wanted) = (job.repository.clone(), plan.commit.clone(), path.to_owned());
        let git = self.settings.git.clone();
        let now_s = now_ms().div_euclid(1000);
        let (context, ledger) = blocking(move || {
            let mut ledger = Ledger::load(stored.as_deref());
            let context = GitContext::open(&repository, &commit, &wanted, &mut ledger, now_s)
                .map_err(|e| from_report(Report::from(e)))?;
            Ok((context.streaming_with(git), ledger))
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
            dirs: BTreeMap::from([(name.to_owned(), Arc::new(context) as Arc<dyn DirSource>)]),
            auth: Some(Arc::new(auth)),
            rules: rules.clone(),
            secrets: secrets.clone(),
            log_tail_lines: self.settings.log_tail_lines,
        };
        Ok(Opened { dirs, ledger, key })
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
