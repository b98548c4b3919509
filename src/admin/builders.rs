//! What administering asks of the builders: only a running server has any.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Context, Response};
use crate::error::{Kind, Report};
use crate::model::BuilderStatus;

/// One operation on the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildersRequest {
    List,
    /// `spec` is `ADDR[,name=value]…`, as `lemnos serve --builder` takes it; paths in it are whole ones, of the server.
    Add {
        spec: String,
    },
    /// Whether it gets no new solves.
    Drain {
        name: String,
        drained: bool,
    },
    Remove {
        name: String,
    },
}

/// The builders of a running server.
#[async_trait]
pub trait Builders: Send + Sync + 'static {
    async fn list(&self) -> Vec<BuilderStatus>;

    /// Takes a builder in, at once and after restarts; `spec` as `--builder` takes it. It need not answer yet.
    async fn add(&self, spec: &str) -> Result<BuilderStatus, Report>;

    /// Whether it gets no new solves; also after restarts.
    async fn set_drained(&self, name: &str, drained: bool) -> Result<BuilderStatus, Report>;

    /// Forgets one that was added, and returns how it was. What runs on it finishes.
    async fn remove(&self, name: &str) -> Result<BuilderStatus, Report>;
}

fn of(context: &Context) -> Result<&dyn Builders, Report> {
    context.builders.as_deref().ok_or_else(|| {
        Report::new(Kind::Unavailable, "no server runs, and only a server has builders")
            .hint("start it: lemnos serve; its flags and lemnos.toml name builders too")
    })
}

pub(super) async fn execute(context: &Context, request: BuildersRequest) -> Result<Response, Report> {
    let builders = of(context)?;
    Ok(match request {
        BuildersRequest::List => Response::Builders(builders.list().await),
        BuildersRequest::Add { spec } => Response::Builder(builders.add(&spec).await?),
        BuildersRequest::Drain { name, drained } => {
            Response::Builder(builders.set_drained(&name, drained).await?)
        }
        BuildersRequest::Remove { name } => Response::Builder(builders.remove(&name).await?),
    })
}
