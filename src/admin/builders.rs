//! What administering asks of the builders: only a running server has any.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Context, Response};
use crate::error::{Kind, Report};
use crate::model::{BuilderStatus, Platform};

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

/// That no builder takes some of the platforms, if that is so; nothing where it cannot be known: without a server, or
/// with a builder that has not yet said what it can run.
pub(super) async fn without(context: &Context, platforms: &[Platform]) -> Option<String> {
    let builders = context.builders.as_deref()?.list().await;
    let takes = |platform: &Platform| {
        builders.iter().any(|b| b.platforms.is_empty() || b.platforms.contains(platform))
    };
    let missing: Vec<&Platform> = platforms.iter().filter(|platform| !takes(platform)).collect();
    let described =
        |builder: &BuilderStatus| format!("{} ({})", builder.name, words(&builder.platforms, " "));
    let there = match builders.as_slice() {
        [] => "none".to_owned(),
        _ => builders.iter().map(described).collect::<Vec<_>>().join(", "),
    };
    (!missing.is_empty()).then(|| {
        let missing = words(&missing, ", ");
        format!("no builder takes {missing}: pushes are refused until one does; there are: {there}")
    })
}

fn words(items: &[impl std::fmt::Display], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}
