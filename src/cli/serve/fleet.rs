//! The pool as administered: what `lemnos builders` changes is in the store before it takes effect.

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::wiring;
use crate::admin::Builders;
use crate::config;
use crate::engine;
use crate::error::{Kind, Report};
use crate::model::{BuilderStatus, ImagePrefix};
use crate::solve::{BuilderConfig, CHECK_EVERY, Pool};
use crate::store::Store;

/// Longest name and spec: both are shown in lists.
const NAME_BYTES: usize = 200;
const SPEC_BYTES: usize = 4_096;

pub struct Fleet {
    pool: Pool,
    store: Store,
    prefix: ImagePrefix,
    /// Names of those that flags and file name, or that are our own.
    configured: Vec<String>,
    solves_per_builder: u32,
    /// One change at a time: store and pool agree.
    turn: Mutex<()>,
    /// Asks the builders how they are.
    _checking: Option<AbortOnDropHandle<()>>,
}

impl Fleet {
    /// The configured builders and those of the store, drained as they were.
    pub async fn gather(
        configured: &[BuilderConfig],
        store: &Store,
        prefix: &ImagePrefix,
        solves_per_builder: u32,
    ) -> Result<Self, Report> {
        let names: Vec<String> = configured.iter().map(|builder| builder.name.clone()).collect();
        let mut builders = configured.to_vec();
        let stored = store.builders().await?;
        for builder in &stored {
            let Some(spec) = &builder.spec else { continue };
            let name = &builder.name;
            match read(spec, prefix, solves_per_builder) {
                _ if names.contains(name) => {
                    tracing::warn!(builder = %name, "the configuration names a builder of this name: the one that was added is left out");
                }
                Ok(config) => builders.push(config),
                // one that does not fit any more keeps nobody from serving
                Err(report) => tracing::warn!(builder = %name, %report, "the builder is left out"),
            }
        }
        let pool = Pool::new(builders);
        for builder in stored.iter().filter(|builder| builder.drained) {
            pool.set_drained(&builder.name, true);
        }
        let (store, prefix) = (store.clone(), prefix.clone());
        Ok(Self {
            pool,
            store,
            prefix,
            configured: names,
            solves_per_builder,
            turn: Mutex::default(),
            _checking: None,
        })
    }

    /// From now on, and as long as it is there, builders are asked how they are.
    pub fn checking(self) -> Self {
        let pool = self.pool.clone();
        let checking = tokio::spawn(async move { pool.keep_checking(CHECK_EVERY).await });
        Self { _checking: Some(AbortOnDropHandle::new(checking)), ..self }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn shown(&self, status: BuilderStatus) -> BuilderStatus {
        BuilderStatus { configured: self.configured.contains(&status.name), ..status }
    }

    fn known(&self, name: &str) -> Result<BuilderStatus, Report> {
        self.pool.status(name).ok_or_else(|| no_builder(name))
    }
}

#[async_trait]
impl Builders for Fleet {
    async fn list(&self) -> Vec<BuilderStatus> {
        self.pool.list().into_iter().map(|status| self.shown(status)).collect()
    }

    async fn add(&self, spec: &str) -> Result<BuilderStatus, Report> {
        let config = read(spec, &self.prefix, self.solves_per_builder)?;
        let _turn = self.turn.lock().await;
        let exists = || {
            Report::new(Kind::Conflict, format!("there is a builder {} already", config.name))
                .hint("give it another name with ,name=NAME, or remove that one first")
        };
        if self.pool.status(&config.name).is_some() {
            return Err(exists());
        }
        self.store.add_builder(&config.name, spec).await?;
        let status = self.pool.add(config.clone()).await.ok_or_else(exists)?;
        Ok(self.shown(status))
    }

    async fn set_drained(&self, name: &str, drained: bool) -> Result<BuilderStatus, Report> {
        let _turn = self.turn.lock().await;
        self.known(name)?;
        self.store.set_builder_drained(name, drained).await?;
        let status = self.pool.set_drained(name, drained).ok_or_else(|| no_builder(name))?;
        Ok(self.shown(status))
    }

    async fn remove(&self, name: &str) -> Result<BuilderStatus, Report> {
        let _turn = self.turn.lock().await;
        self.known(name)?;
        if self.configured.iter().any(|configured| configured == name) {
            let message = format!(
                "builder {name} is named by a flag or the configuration file, or is the server's own"
            );
            return Err(Report::new(Kind::Conflict, message)
                .hint("take it out there and restart; lemnos builders drain takes it out of work now"));
        }
        self.store.remove_builder(name).await?;
        let status = self.pool.remove(name).ok_or_else(|| no_builder(name))?;
        Ok(self.shown(status))
    }
}

fn no_builder(name: &str) -> Report {
    Report::new(Kind::NotFound, format!("there is no builder {name:?}"))
        .hint("lemnos builders list shows them")
}

/// A spec as typed: it must stand for itself after a restart, and the builder must reach the registry.
fn read(spec: &str, prefix: &ImagePrefix, solves_per_builder: u32) -> Result<BuilderConfig, Report> {
    if spec.len() > SPEC_BYTES || spec.chars().any(char::is_control) {
        return Err(Report::user("a builder is one line: ADDR[,name=value]…"));
    }
    for part in spec.split(',').map(str::trim) {
        if let Some((name @ ("ca" | "cert" | "key"), path)) = part.split_once('=')
            && !path.starts_with('/')
        {
            return Err(Report::user(format!("{name}={path} is not a whole path"))
                .hint("give the file's whole path on the server"));
        }
    }
    let builder: config::BuilderConfig = spec.parse().map_err(|expected: String| {
        Report::user(expected)
            .hint("for example tcp://builder.example.com:1234,name=arm,platform=linux/arm64")
    })?;
    if builder.name.len() > NAME_BYTES {
        return Err(Report::user(format!("the builder's name has more than {NAME_BYTES} bytes"))
            .hint("give it a shorter one with ,name=NAME"));
    }
    wiring::check_for_server(&builder.address)?;
    engine::check_reachability([builder.address.to_string().as_str()], prefix.as_str())?;
    Ok(wiring::builder(&builder, solves_per_builder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BuilderState;

    async fn fleet(dir: &std::path::Path, registry: &str) -> Fleet {
        let store = Store::open(dir).await.unwrap();
        let own = wiring::own_builder("unix:///nonexistent/own.sock", 4).unwrap();
        Fleet::gather(&[own], &store, &registry.parse().unwrap(), 4).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_added_and_drained_stays_so_over_a_restart_and_what_is_configured_cannot_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let before = fleet(dir.path(), "r.example.com").await;
        let spec = "unix:///nonexistent/b.sock,name=b,platform=linux/arm64,max=2";
        let added = before.add(spec).await.unwrap();
        assert_eq!((added.state, added.max, added.configured), (BuilderState::Down, 2, false));
        assert!(added.cause.unwrap().contains("/nonexistent/b.sock"));
        assert_eq!(before.add(spec).await.unwrap_err().kind, Kind::Conflict);
        assert_eq!(before.set_drained("b", true).await.unwrap().state, BuilderState::Drained);
        assert_eq!(before.set_drained("embedded", true).await.unwrap().state, BuilderState::Drained);
        assert_eq!(before.remove("embedded").await.unwrap_err().kind, Kind::Conflict);
        assert_eq!(before.set_drained("c", true).await.unwrap_err().kind, Kind::NotFound);
        drop(before);
        let after = fleet(dir.path(), "r.example.com").await;
        let states: Vec<_> =
            after.list().await.into_iter().map(|b| (b.name, b.state, b.configured)).collect();
        let drained = BuilderState::Drained;
        assert_eq!(states, [("embedded".into(), drained, true), ("b".into(), drained, false)]);
        assert_eq!(after.set_drained("b", false).await.unwrap().state, BuilderState::Unknown);
        after.remove("b").await.unwrap();
        drop(after);
        assert_eq!(fleet(dir.path(), "r.example.com").await.list().await.len(), 1);
    }

    #[tokio::test]
    async fn what_could_not_work_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = fleet(dir.path(), "localhost:5000").await;
        for (spec, says) in [
            ("tcp://far.example.com:1234", "cannot push to localhost:5000"),
            ("docker://", "docker:///var/run/docker.sock is the BuildKit inside dockerd"),
            ("unix:///run/docker.sock", "the BuildKit inside dockerd"),
            ("docker-container://b", "cannot push to localhost:5000"),
            ("ssh://far/run/$(id)", "ssh://[USER@]HOST"),
            ("far.example.com:1234", "unix:///PATH, tcp://HOST:PORT"),
            ("tcp://127.0.0.1:1,ca=ca.pem", "not a whole path"),
            ("tcp://127.0.0.1:1,max=0", "from 1 to 1000"),
            ("unix:///x\nunix:///y", "one line"),
            (&format!("unix:///x,name={}", "n".repeat(300)), "more than 200 bytes"),
        ] {
            let report = fleet.add(spec).await.unwrap_err();
            assert!(report.message.contains(says), "{spec}: {report}");
        }
        assert_eq!(fleet.list().await.len(), 1);
    }
}
