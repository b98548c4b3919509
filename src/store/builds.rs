//! Build records: made before anything else happens for a build, closed once.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite};

use super::{Result, Store, StoreError, from_json, parsed, to_json};
use crate::model::{AppName, Build, BuildId, BuildState, Fingerprint, PublishedImage, Visible};

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
    /// Not a live one.
    pub state: BuildState,
    pub at_ms: i64,
    /// What was published; what the journal has said already stays where this is empty.
    pub images: Vec<PublishedImage>,
    pub reason: Option<String>,
    pub superseded_by: Option<BuildId>,
    pub cancelled_by: Option<String>,
}

impl Finished {
    /// An end without a publication.
    pub fn as_state(state: BuildState, at_ms: i64, reason: Option<String>) -> Self {
        Self { state, at_ms, images: Vec::new(), reason, superseded_by: None, cancelled_by: None }
    }
}

/// The columns of a `Build`, in every query below.
macro_rules! select_builds {
    ($rest:literal) => {
        concat!(
            "SELECT builds.id, apps.name AS app, builds.user, builds.reference, commit_sha, state, started_at_ms, \
             running_at_ms, finished_at_ms, images_json, reason, push, key, old_sha, detached, generation, options_json, retry_of, superseded_by, cancelled_by \
             FROM builds JOIN apps ON apps.id = builds.app_id ",
            $rest
        )
    };
}

impl Store {
    /// Records a build. Its app must exist.
    pub async fn create_build(&self, build: &Build) -> Result<()> {
        self.create_builds(std::slice::from_ref(build)).await
    }

    /// Records the builds of one push: all of them or none.
    pub async fn create_builds(&self, builds: &[Build]) -> Result<()> {
        let mut tx = self.write().await?;
        for build in builds {
            let inserted = sqlx::query(
                "INSERT INTO builds (id, app_id, user, reference, commit_sha, state, started_at_ms, running_at_ms,
                                     finished_at_ms, images_json, reason, push, key, old_sha, detached, generation,
                                     options_json, retry_of, superseded_by, cancelled_by)
                 SELECT ?, apps.id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM apps
                 WHERE apps.name = ?",
            )
            .bind(build.id.as_str())
            .bind(build.user.as_str())
            .bind(build.reference.as_str())
            .bind(build.commit.as_str())
            .bind(build.state.as_str())
            .bind(build.started_at_ms)
            .bind(build.running_at_ms)
            .bind(build.finished_at_ms)
            .bind(to_json("builds.images_json", &build.images)?)
            .bind(build.reason.as_deref())
            .bind(build.push.as_str())
            .bind(build.key.as_ref().map(Fingerprint::as_str))
            .bind(build.old.as_str())
            .bind(build.detached)
            .bind(build.generation)
            .bind(to_json("builds.options_json", &build.options)?)
            .bind(build.retry_of.as_ref().map(BuildId::as_str))
            .bind(build.superseded_by.as_ref().map(BuildId::as_str))
            .bind(build.cancelled_by.as_deref())
            .bind(build.app.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if inserted == 0 {
                return Err(StoreError::NoApp(build.app.clone()));
            }
        }
        tx.commit().await?;
        self.builds_changed();
        Ok(())
    }

    /// A queued build got its place; `BuildEnded` when it is not queued any more.
    pub async fn start_build(&self, id: &BuildId, at_ms: i64) -> Result<()> {
        let statement = sqlx::query(
            "UPDATE builds SET state = 'running', running_at_ms = ? WHERE id = ? AND state = 'queued'",
        );
        self.step(statement.bind(at_ms).bind(id.as_str()), id).await
    }

    /// A build that runs, or ran when the server died, waits again.
    pub async fn requeue_build(&self, id: &BuildId) -> Result<()> {
        let statement =
            sqlx::query("UPDATE builds SET state = 'queued' WHERE id = ? AND state IN ('queued', 'running')");
        self.step(statement.bind(id.as_str()), id).await
    }

    /// The ref has moved for this build, as its `generation`-th accepted move.
    pub async fn accept_build(&self, id: &BuildId, generation: i64) -> Result<()> {
        let statement =
            sqlx::query("UPDATE builds SET generation = ? WHERE id = ? AND state IN ('queued', 'running')");
        self.step(statement.bind(generation).bind(id.as_str()), id).await
    }

    /// Closes a live build. One that ended is left as it is: `BuildEnded`. So each has one end.
    pub async fn finish_build(&self, id: &BuildId, end: &Finished) -> Result<()> {
        let statement = sqlx::query(
            "UPDATE builds SET state = ?1, finished_at_ms = ?2,
                    images_json = CASE ?3 WHEN '[]' THEN images_json ELSE ?3 END,
                    reason = ?4, superseded_by = ?5, cancelled_by = ?6
             WHERE id = ?7 AND state IN ('queued', 'running')",
        );
        let statement = statement
            .bind(end.state.as_str())
            .bind(end.at_ms)
            .bind(to_json("builds.images_json", &end.images)?)
            .bind(end.reason.as_deref())
            .bind(end.superseded_by.as_ref().map(BuildId::as_str))
            .bind(end.cancelled_by.as_deref())
            .bind(id.as_str());
        self.step(statement, id).await
    }

    /// Runs a statement that takes build `id` from one state to the next.
    async fn step(&self, statement: Query<'_, Sqlite, SqliteArguments>, id: &BuildId) -> Result<()> {
        let mut tx = self.write().await?;
        if statement.execute(&mut *tx).await?.rows_affected() == 0 {
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

    /// Builds that are there for somebody, newest first.
    pub async fn builds(&self, filter: &BuildFilter, visible: &Visible) -> Result<Vec<Build>> {
        let limit = if filter.limit == 0 { 20 } else { filter.limit.min(1_000) };
        sqlx::query(select_builds!(
            "WHERE (?1 IS NULL OR apps.name = ?1) AND (?2 IS NULL OR builds.id < ?2) \
               AND (?4 IS NULL OR builds.app_id IN (SELECT app_id FROM grants WHERE grants.user = ?4)) \
             ORDER BY builds.id DESC LIMIT ?3"
        ))
        .bind(filter.app.as_ref().map(AppName::as_str))
        .bind(filter.before.as_ref().map(BuildId::as_str))
        .bind(limit)
        .bind(granted_to(visible))
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(build_of)
        .collect()
    }

    /// The builds that have not ended, of one app or of all, the oldest first: those under way, and at the start what
    /// the server before left.
    pub async fn live_builds(&self, app: Option<&AppName>) -> Result<Vec<Build>> {
        sqlx::query(select_builds!(
            "WHERE (?1 IS NULL OR apps.name = ?1) AND state IN ('queued', 'running') ORDER BY builds.id"
        ))
        .bind(app.map(AppName::as_str))
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(build_of)
        .collect()
    }

    /// The build that was recorded last.
    pub(super) async fn newest_build(&self) -> Result<Option<BuildId>> {
        let id: Option<String> =
            sqlx::query_scalar("SELECT max(id) FROM builds").fetch_one(self.pool()).await?;
        id.map(|id| parsed("builds.id", &id)).transpose()
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

    /// The one build whose id ends (or, failing that, begins) with `text`: at least 4 hexadecimal digits. Among those
    /// that are there for somebody: others neither answer nor make an id ambiguous.
    pub async fn find_build(&self, text: &str, visible: &Visible) -> Result<Build> {
        let digits = text.to_ascii_lowercase();
        let none = || StoreError::NoBuild(text.to_owned());
        if !(4..=32).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(none());
        }
        // checked above: hexadecimal digits mean nothing to GLOB
        for pattern in [format!("*{digits}"), format!("{digits}*")] {
            let rows = sqlx::query(select_builds!(
                "WHERE builds.id GLOB ?1 \
                   AND (?2 IS NULL OR builds.app_id IN (SELECT app_id FROM grants WHERE grants.user = ?2)) \
                 ORDER BY builds.id DESC LIMIT 6"
            ))
            .bind(pattern)
            .bind(granted_to(visible))
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

    /// Removes an app's ended builds beyond its newest `keep`, with their events; returns which went.
    pub async fn prune_builds(&self, app: &AppName, keep: u32) -> Result<Vec<BuildId>> {
        let mut tx = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM builds WHERE state NOT IN ('queued', 'running')
               AND app_id = (SELECT id FROM apps WHERE name = ?1)
               AND id NOT IN (SELECT b.id FROM builds b JOIN apps ON apps.id = b.app_id
                              WHERE apps.name = ?1 ORDER BY b.id DESC LIMIT ?2)
             RETURNING id",
        )
        .bind(app.as_str())
        .bind(keep)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let ids = gone.iter().map(|row| parsed("builds.id", row.try_get("id")?));
        ids.collect()
    }
}

/// The user whose grants say which builds are seen; none sees all.
fn granted_to(visible: &Visible) -> Option<&str> {
    match visible {
        Visible::All => None,
        Visible::GrantedTo(user) => Some(user.as_str()),
    }
}

fn build_of(row: &SqliteRow) -> Result<Build> {
    let optional = |column: &str| row.try_get::<Option<&str>, _>(column);
    let images: Vec<PublishedImage> = from_json("builds.images_json", row.try_get("images_json")?)?;
    let first = images.first();
    Ok(Build {
        id: parsed("builds.id", row.try_get("id")?)?,
        app: parsed("apps.name", row.try_get("app")?)?,
        user: parsed("builds.user", row.try_get("user")?)?,
        reference: parsed("builds.reference", row.try_get("reference")?)?,
        commit: parsed("builds.commit_sha", row.try_get("commit_sha")?)?,
        state: parsed("builds.state", row.try_get("state")?)?,
        started_at_ms: row.try_get("started_at_ms")?,
        finished_at_ms: row.try_get("finished_at_ms")?,
        image: first.map(|image| image.name.clone()),
        digest: first.map(|image| image.digest.clone()),
        tags: first.map(|image| image.tags.clone()).unwrap_or_default(),
        images,
        reason: row.try_get("reason")?,
        running_at_ms: row.try_get("running_at_ms")?,
        push: row.try_get("push")?,
        key: optional("key")?.map(|text| parsed("builds.key", text)).transpose()?,
        old: parsed("builds.old_sha", row.try_get("old_sha")?)?,
        detached: row.try_get("detached")?,
        generation: row.try_get("generation")?,
        options: from_json("builds.options_json", row.try_get("options_json")?)?,
        retry_of: optional("retry_of")?.map(|text| parsed("builds.retry_of", text)).transpose()?,
        superseded_by: optional("superseded_by")?
            .map(|text| parsed("builds.superseded_by", text))
            .transpose()?,
        cancelled_by: row.try_get("cancelled_by")?,
    })
}
