//! What the commit point of a push moves: a ref, and the tags of the image that was built for it.

use serde::{Deserialize, Serialize};

use super::{BuildId, Digest, ImageName, RefName, RefUpdate, Sha, Tag};

/// An index that stands in the registry by its digest, and the tags that are to stand at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub build: BuildId,
    pub image: ImageName,
    /// Of `index_bytes`.
    pub index: Digest,
    pub media_type: String,
    #[serde(with = "text")]
    pub index_bytes: Vec<u8>,
    /// In the order they move: the unshared ones first.
    pub tags: Vec<Tag>,
    /// How many of `tags`, from the front, no ref owns (`git-…`, `try-…`): moving them changes nothing for anyone else.
    pub unshared: usize,
}

impl Publication {
    pub fn unshared_tags(&self) -> &[Tag] {
        self.tags.get(..self.unshared).unwrap_or(&self.tags)
    }
    pub fn shared_tags(&self) -> &[Tag] {
        self.tags.get(self.unshared..).unwrap_or_default()
    }
}

/// One ref's part of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// None: a try, which moves no ref and no shared tag.
    pub update: Option<RefUpdate>,
    /// None: the ref alone moves (stored refs, deletions).
    pub publication: Option<Publication>,
    /// Given where the ref has moved before and only its tags follow; else counted when the ref moves.
    #[serde(default)]
    pub generation: Option<Generation>,
}

/// One accepted move of a ref among all of them. Shared tags go to a greater number only: the tag rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub reference: RefName,
    /// From 1.
    pub number: i64,
    /// Where the ref went.
    pub commit: Sha,
}

impl Move {
    /// A ref and what was built for it, or the ref alone.
    pub fn of_ref(update: RefUpdate, publication: Option<Publication>) -> Self {
        Self { update: Some(update), publication, generation: None }
    }
    /// Tags that no ref owns.
    pub fn of_try(publication: Publication) -> Self {
        Self { update: None, publication: Some(publication), generation: None }
    }
    /// The tags of a ref that has moved already.
    pub fn following(generation: Generation, publication: Publication) -> Self {
        Self { update: None, publication: Some(publication), generation: Some(generation) }
    }
}

/// Manifests are JSON, so their bytes are stored as the text they are.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(std::str::from_utf8(bytes).map_err(serde::ser::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        Ok(String::deserialize(d)?.into_bytes())
    }
}
