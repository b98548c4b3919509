//! Build records: made when a build starts, closed once.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, StoreError, from_json, parsed, to_json};
use crate::model::{AppName, Build, BuildId, BuildState, Digest, ImageName, Tag};

/// Which builds to list: newest first.
#[derive(Debug, Clone, Default)]
pub struct BuildFilter {
    pub app: Option<AppName>,
    /// At most this many; 0 stands for the default of 20, and 1,000 is the most.
    pub limit: u32,
    /// Only builds older than this one: the next page.
    pub before: Option<BuildId>,
}

/// How a build ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub state: BuildState,
    pub at_ms: i64,
    pub image: Option<ImageName>,
    pub digest: Option<Digest>,
    pub tags: Vec<Tag>,
    pub reason: Option<String>,
}

/// The columns of a `Build`, in every query below.
macro_rules! select_builds {
    ($rest:literal) => {
        concat!(
            "SELECT builds.id, apps.name AS app, builds.user, reference, commit_sha, state, started_at_ms, \
             finished_at_ms, image, digest, tags_json, reason \
             FROM builds JOIN apps ON apps.id = builds.app_id ",
            $rest
        )
    };
}

impl Store {
    /// Records a build. Its app must exist.
    pub async fn create_build(&self, build: &Build) -> Result<()> {
        let inserted = self.change(sqlx::query(
            "INSERT INTO builds (id, app_id, user, reference, commit_sha, state, started_at_ms, finished_at_ms,
                                 image, digest, tags_json, reason)
             SELECT ?, apps.id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM apps WHERE apps.name = ?",
        )
        .bind(build.id.as_str())
        .bind(build.user.as_str())
        .bind(build.reference.as_str())
        .bind(build.commit.as_str())
        .bind(build.state.as_str())
        .bind(build.started_at_ms)
        .bind(build.finished_at_ms)
        .bind(build.image.as_ref().map(ImageName::as_str))
        .bind(build.digest.as_ref().map(Digest::as_str))
        .bind(to_json("builds.tags_json", &build.tags)?)
        .bind(build.reason.as_deref())
        .bind(build.app.as_str())).await?;
        if inserted == 0 {
            return Err(StoreError::NoApp(build.app.clone()));
        }
        self.builds_changed();
        Ok(())
    }

    /// Closes a running or interrupted build (a recovered one may end well after all); one that ended is left as it is.
    pub async fn finish_build(&self, id: &BuildId, end: &Finished) -> Result<()> {
        let mut tx = self.write().await?;
        let changed = sqlx::query(
            "UPDATE builds SET state = ?, finished_at_ms = ?, image = ?, digest = ?, tags_json = ?, reason = ?
             WHERE id = ? AND state IN ('running', 'interrupted')",
        )
        .bind(end.state.as_str())
        .bind(end.at_ms)
        .bind(end.image.as_ref().map(ImageName::as_str))
        .bind(end.digest.as_ref().map(Digest::as_str))
        .bind(to_json("builds.tags_json", &end.tags)?)
        .bind(end.reason.as_deref())
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if changed == 0 {
            let known = sqlx::query("SELECT 1 FROM builds WHERE id = ?").bind(id.as_str());
            return Err(match known.fetch_optional(&mut *tx).await? {
                Some(_) => StoreError::BuildEnded(id.to_string()),
                None => StoreError::NoBuild(id.to_string()),
            });
        }
        tx.commit().await?;
        self.builds_changed();
        Ok(())
    }

    /// Builds, newest first.
    pub async fn builds(&self, filter: &BuildFilter) -> Result<Vec<Build>> {
        let limit = if filter.limit == 0 { 20 } else { filter.limit.min(1_000) };
        sqlx::query(select_builds!(
            "WHERE (?1 IS NULL OR apps.name = ?1) AND (?2 IS NULL OR builds.id < ?2) \
             ORDER BY builds.id DESC LIMIT ?3"
        ))
        .bind(filter.app.as_ref().map(AppName::as_str))
        .bind(filter.before.as_ref().map(BuildId::as_str))
        .bind(limit)
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(build_of)
        .collect()
    }

    /// The builds of an app that run now, or that no one has closed since the server was killed.
    pub async fn running_builds(&self, app: &AppName) -> Result<Vec<Build>> {
        sqlx::query(select_builds!("WHERE apps.name = ? AND state = 'running' ORDER BY builds.id"))
            .bind(app.as_str())
            .fetch_all(self.pool())
            .await?
            .iter()
            .map(build_of)
            .collect()
    }

    pub async fn build(&self, id: &BuildId) -> Result<Option<Build>> {
        sqlx::query(select_builds!("WHERE builds.id = ?"))
            .bind(id.as_str())
            .fetch_optional(self.pool())
            .await?
            .as_ref()
            .map(build_of)
            .transpose()
    }

    /// The one build whose id ends (or, failing that, begins) with `text`: at least 4 hexadecimal digits.
    pub async fn find_build(&self, text: &str) -> Result<Build> {
        let digits = text.to_ascii_lowercase();
        let none = || StoreError::NoBuild(text.to_owned());
        if !(4..=32).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(none());
        }
        // checked above: hexadecimal digits mean nothing to GLOB
        for pattern in [format!("*{digits}"), format!("{digits}*")] {
            let rows = sqlx::query(select_builds!("WHERE builds.id GLOB ? ORDER BY builds.id DESC LIMIT 6"))
                .bind(pattern)
                .fetch_all(self.pool())
                .await?;
            match rows.as_slice() {
                [] => {}
                [row] => return build_of(row),
                several => {
                    let ids = several.iter().map(|row| build_of(row).map(|build| build.id.to_string()));
                    let matches = ids.collect::<Result<_>>()?;
                    return Err(StoreError::AmbiguousBuild { given: text.to_owned(), matches });
                }
            }
        }
        Err(none())
    }

    /// Marks what was running when the server stopped, and returns those builds as they are now.
    pub async fn interrupt_running(&self, at_ms: i64) -> Result<Vec<Build>> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(select_builds!("WHERE state = 'running' ORDER BY builds.id"))
            .fetch_all(&mut *tx)
            .await?;
        let mut builds = rows.iter().map(build_of).collect::<Result<Vec<_>>>()?;
        let reason = "the server stopped while it ran";
        sqlx::query(
            "UPDATE builds SET state = 'interrupted', finished_at_ms = ?, reason = ? WHERE state = 'running'",
        )
        .bind(at_ms)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        for build in &mut builds {
            build.state = BuildState::Interrupted;
            build.finished_at_ms = Some(at_ms);
            build.reason = Some(reason.to_owned());
        }
        self.builds_changed();
        Ok(builds)
    }

    /// Removes an app's ended builds beyond its newest `keep`, with their events; returns how many went.
    pub async fn prune_builds(&self, app: &AppName, keep: u32) -> Result<u64> {
        let statement = sqlx::query(
            "DELETE FROM builds WHERE state != 'running'
               AND app_id = (SELECT id FROM apps WHERE name = ?1)
               AND id NOT IN (SELECT b.id FROM builds b JOIN apps ON apps.id = b.app_id
                              WHERE apps.name = ?1 ORDER BY b.id DESC LIMIT ?2)",
        );
        self.change(statement.bind(app.as_str()).bind(keep)).await
    }
}

fn build_of(row: &SqliteRow) -> Result<Build> {
    let optional = |column: &str| row.try_get::<Option<&str>, _>(column);
    Ok(Build {
        id: parsed("builds.id", row.try_get("id")?)?,
        app: parsed("apps.name", row.try_get("app")?)?,
        user: parsed("builds.user", row.try_get("user")?)?,
        reference: parsed("builds.reference", row.try_get("reference")?)?,
        commit: parsed("builds.commit_sha", row.try_get("commit_sha")?)?,
        state: parsed("builds.state", row.try_get("state")?)?,
        started_at_ms: row.try_get("started_at_ms")?,
        finished_at_ms: row.try_get("finished_at_ms")?,
        image: optional("image")?.map(|text| parsed("builds.image", text)).transpose()?,
        digest: optional("digest")?.map(|text| parsed("builds.digest", text)).transpose()?,
        tags: from_json("builds.tags_json", row.try_get("tags_json")?)?,
        reason: row.try_get("reason")?,
    })
}
