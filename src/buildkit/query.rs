//! What a daemon says of itself, and one connection for all such questions.
//!
//! Builds have a connection each; questions share one, which is made anew when it broke or has been unused for so long
//! that something between here and there may have forgotten it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lemnos_proto::control::{InfoRequest, ListWorkersRequest};
use lemnos_proto::{pb, worker as wire};
use serde::Serialize;
use tokio::sync::Mutex;

use super::connect::Programs;
use super::disk::Rule;
use super::{Client, Endpoint, Error};

/// Silence after which the shared connection is not trusted any more: shorter than what load balancers and address
/// translation allow, and than the five minutes within which a second ping would be held against us.
const IDLE_LIMIT: Duration = Duration::from_secs(240);

/// What a daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Go package of the build, which names a fork.
    pub package: String,
    /// As in `v0.32.2`.
    pub version: String,
    /// Commit of the build.
    pub revision: String,
    /// The version of the Dockerfile frontend inside it; empty where it is not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dockerfile_version: String,
}

/// One worker of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// As in `linux/arm64` or `linux/arm/v7`, in the worker's order: its own platform first.
    pub platforms: Vec<String>,
    /// When and what it throws away by itself; the first rule that has something to do, does it.
    pub gc_policy: Vec<Rule>,
    pub buildkit_version: Info,
    #[serde(rename = "cdiDevices")]
    pub devices: Vec<Device>,
}

/// A device that builds may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub name: String,
    pub auto_allow: bool,
    pub annotations: BTreeMap<String, String>,
    pub on_demand: bool,
}

impl Client {
    /// The daemon's version.
    pub async fn info(&self) -> Result<Info, Error> {
        let mut control = self.control();
        let answer = self.answer(async { Ok(control.info(InfoRequest {}).await?.into_inner()) }).await?;
        Ok(answer.buildkit_version.map(Info::from).unwrap_or_default())
    }

    /// The daemon's workers, with the platforms each of them can run.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        self.workers_matching(&[]).await
    }

    /// The workers that match any of `filters`, which are containerd's: `id==x`, `labels.pool==a`.
    pub async fn workers_matching(&self, filters: &[String]) -> Result<Vec<Worker>, Error> {
        let mut control = self.control();
        let request = ListWorkersRequest { filter: filters.to_vec() };
        let answer = self.answer(async { Ok(control.list_workers(request).await?.into_inner()) }).await?;
        Ok(answer.record.into_iter().map(Worker::from).collect())
    }
}

/// One connection for questions, shared by all who ask.
#[derive(Debug)]
pub struct Queries {
    endpoint: Endpoint,
    timeout: Duration,
    programs: Programs,
    shared: Mutex<Option<Arc<Client>>>,
}

impl Queries {
    /// Connects at the first question, within `timeout`.
    pub fn new(endpoint: Endpoint, timeout: Duration, programs: Programs) -> Self {
        Self { endpoint, timeout, programs, shared: Mutex::new(None) }
    }

    /// The shared connection, which is open as far as is known without asking.
    pub async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut shared = self.shared.lock().await;
        // one that others still use is in no need of trust
        let good = |client: &&Arc<Client>| {
            client.is_open() && (client.silence() < IDLE_LIMIT || Arc::strong_count(client) > 1)
        };
        if let Some(client) = shared.as_ref().filter(good) {
            return Ok(client.clone());
        }
        *shared = None;
        let client = Client::connect_with(&self.endpoint, self.timeout, &self.programs).await?;
        Ok(shared.insert(Arc::new(client)).clone())
    }

    /// Asks, and asks once more over a new connection if the first turns out to be broken: for questions only, not for
    /// what would be harmful to do twice.
    pub async fn ask<T, F>(&self, question: impl Fn(Arc<Client>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = self.client().await?;
        match question(client.clone()).await {
            Err(Error::Gone { .. }) => {
                let mut shared = self.shared.lock().await;
                if shared.as_ref().is_some_and(|held| Arc::ptr_eq(held, &client)) {
                    *shared = None;
                }
                drop(shared);
                question(self.client().await?).await
            }
            answer => answer,
        }
    }
}

impl From<wire::BuildkitVersion> for Info {
    fn from(v: wire::BuildkitVersion) -> Self {
        Self {
            package: v.package,
            version: v.version,
            revision: v.revision,
            dockerfile_version: v.dockerfile_version,
        }
    }
}

impl From<wire::WorkerRecord> for Worker {
    fn from(record: wire::WorkerRecord) -> Self {
        let device = |d: wire::CdiDevice| Device {
            name: d.name,
            auto_allow: d.auto_allow,
            annotations: d.annotations,
            on_demand: d.on_demand,
        };
        Self {
            id: record.id,
            labels: record.labels,
            platforms: record.platforms.iter().map(platform_name).collect(),
            gc_policy: record.gc_policy.into_iter().map(Rule::from).collect(),
            buildkit_version: record.buildkit_version.map(Info::from).unwrap_or_default(),
            devices: record.cdi_devices.into_iter().map(device).collect(),
        }
    }
}

fn platform_name(platform: &pb::Platform) -> String {
    let mut name = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        name.push('/');
        name.push_str(&platform.variant);
    }
    name
}
