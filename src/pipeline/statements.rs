//! What builders attest of builds whose results are made here, as referrers: they stand beside no image in an index, which no
//! runtime of Spin takes and ko makes none of.
//!
//! A statement names what it is about by digest, so that each result has its own; what a builder said once is said again of
//! whatever the same build serves for.

use super::{Pipeline, from_report};
use crate::assemble::ko::IN_TOTO;
use crate::assemble::publish::{self, Statement};
use crate::error::{Kind, Report};
use crate::event::Failure;
use crate::model::{Digest, ImageName, Material, Predicate};

/// More is not read again: it is built anew instead.
const LIMIT_BYTES: u64 = 64 << 20;

/// Something that stands in the registry: media type, size, digest.
pub(super) type Made<'a> = (&'a str, u64, &'a Digest);

/// What was said, with what the builder could not know of.
pub(super) fn completed(said: Vec<Predicate>, materials: &[Material]) -> Result<Vec<Predicate>, Failure> {
    said.into_iter().map(|one| one.with_materials(materials)).collect::<Result<_, _>>().map_err(|unknown| {
        let report = Report::new(Kind::Unavailable, unknown.to_string());
        from_report(
            report.hint(
                "build without provenance (apps set APP attest=off), or with another version of BuildKit",
            ),
        )
    })
}

impl Pipeline {
    /// Attaches what was said of a build to each of `made`; `all` came of it. Returns where it is found later.
    pub(super) async fn attest(
        &self,
        image: &ImageName,
        said: &[Predicate],
        all: &[Digest],
        made: &[Made<'_>],
    ) -> Result<Vec<Digest>, Failure> {
        let about = |one: &Made<'_>| {
            said.iter().map(|predicate| Statement::in_toto(predicate, image, all, *one)).collect::<Vec<_>>()
        };
        let statements: Vec<Statement> = made.iter().flat_map(about).collect();
        let failed = |error| from_report(Report::from(error));
        publish::content(&self.registry, image, &statements).await.map_err(failed)?;
        publish::attach(&self.registry, image, &statements).await.map_err(failed)?;
        let mut digests: Vec<Digest> = Vec::new();
        for blob in statements.iter().flat_map(|statement| &statement.attachment.blobs) {
            if blob.media_type == IN_TOTO && !digests.contains(&blob.digest) {
                digests.push(blob.digest.clone());
            }
        }
        Ok(digests)
    }

    /// What was said of an earlier build; none where not all of it stands there any more.
    pub(super) async fn attested(&self, image: &ImageName, statements: &[Digest]) -> Option<Vec<Predicate>> {
        let mut found = Vec::new();
        for digest in statements {
            let bytes = self.registry.get_blob(image, digest, LIMIT_BYTES).await.ok()?;
            found.push(serde_json::from_slice(&bytes).ok()?);
        }
        Some(found)
    }
}
