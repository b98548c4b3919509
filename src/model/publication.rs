//! What the commit point of a push moves: a ref, and the tags of the images that were built for it.

use serde::{Deserialize, Deserializer, Serialize};

use super::{BuildId, Digest, ImageName, Platform, RefName, RefUpdate, Sha, Tag};

/// What a tag stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Images by platform; also what older records are of.
    #[default]
    Index,
    /// One image's manifest.
    Image,
    /// A manifest that runs on every platform.
    Artifact,
}

impl Form {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Image => "image",
            Self::Artifact => "artifact",
        }
    }
    /// `index of linux/amd64, linux/arm64`, `image for linux/amd64`, `artifact`
    pub fn described(self, platforms: &[Platform]) -> String {
        let word = match self {
            _ if platforms.is_empty() => return self.as_str().to_owned(),
            Self::Index => "of",
            Self::Image | Self::Artifact => "for",
        };
        let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        format!("{} {word} {}", self.as_str(), platforms.join(", "))
    }
}

/// An image that a build published, as its record tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedImage {
    pub name: ImageName,
    pub digest: Digest,
    /// None in records of the time when it was not written down, as `media_type` then.
    pub form: Option<Form>,
    pub media_type: Option<String>,
    /// None of an artifact.
    pub platforms: Vec<Platform>,
    pub tags: Vec<Tag>,
}

/// An index, or one manifest where there is nothing to choose from, that stands in the registry by its digest, and the tags
/// that are to stand at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub build: BuildId,
    pub image: ImageName,
    /// Of `bytes`.
    #[serde(rename = "index")]
    pub digest: Digest,
    pub media_type: String,
    #[serde(default)]
    pub form: Form,
    #[serde(default)]
    pub platforms: Vec<Platform>,
    #[serde(rename = "index_bytes", with = "text")]
    pub bytes: Vec<u8>,
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
    /// What the build's record keeps of it.
    pub fn published(&self) -> PublishedImage {
        PublishedImage {
            name: self.image.clone(),
            digest: self.digest.clone(),
            form: Some(self.form),
            media_type: Some(self.media_type.clone()),
            platforms: self.platforms.clone(),
            tags: self.tags.clone(),
        }
    }
}

/// One ref's part of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// None: a try, which moves no ref and no shared tag.
    pub update: Option<RefUpdate>,
    /// One an image; none: the ref alone moves (stored refs, deletions). The build's record names the first one
    /// as its image, and lists all.
    #[serde(default, alias = "publication", deserialize_with = "any_number")]
    pub publications: Vec<Publication>,
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
    pub fn of_ref(update: RefUpdate, publications: impl IntoIterator<Item = Publication>) -> Self {
        Self { update: Some(update), publications: publications.into_iter().collect(), generation: None }
    }
    /// Tags that no ref owns.
    pub fn of_try(publications: impl IntoIterator<Item = Publication>) -> Self {
        Self { update: None, publications: publications.into_iter().collect(), generation: None }
    }
    /// The tags of a ref that has moved already.
    pub fn following(generation: Generation, publications: impl IntoIterator<Item = Publication>) -> Self {
        let publications = publications.into_iter().collect();
        Self { update: None, publications, generation: Some(generation) }
    }
}

/// Rows of the time when a push had one image hold it alone, or nothing.
fn any_number<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Publication>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        All(Vec<Publication>),
        One(Option<Box<Publication>>),
    }
    Ok(match Written::deserialize(d)? {
        Written::All(all) => all,
        Written::One(one) => one.map(|one| *one).into_iter().collect(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_image_and_of_none_are_still_read() {
        let publication = serde_json::json!({
            "build": "01890000000070008000000000000001", "image": "localhost:5000/shop", "index": Digest::of(b"{}"),
            "media_type": "application/vnd.oci.image.index.v1+json", "index_bytes": "{}", "tags": ["git-1", "main"],
            "unshared": 1
        });
        let read = |row: serde_json::Value| serde_json::from_value::<Move>(row).unwrap();
        let one = read(serde_json::json!({"update": null, "publication": publication, "generation": null}));
        let [only] = one.publications.as_slice() else { panic!("{one:?}") };
        assert_eq!((only.bytes.as_slice(), only.shared_tags().len()), (b"{}".as_slice(), 1));
        assert_eq!(read(serde_json::json!({"update": null, "publication": null})).publications, []);
        assert_eq!(read(serde_json::json!({"update": null})).publications, []);
        let two = Move::of_try([only.clone(), only.clone()]);
        assert_eq!(read(serde_json::to_value(&two).unwrap()), two);
    }
}
