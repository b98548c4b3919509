//! Manifests that are about another one (SBOMs, signatures), as OCI's distribution 1.1 has them found again.
//!
//! A registry that lists referrers says so when one is put. For one that does not, the list is kept by clients, in an index
//! tagged `sha256-<hex>` of the subject: two that write it at once may lose an entry, which the spec accepts.

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use super::exchange::Call;
use super::fault::{Problem, RegistryError};
use super::{INDEX, MANIFEST, Reference, Registry};
use crate::model::{Digest, ImageName, Tag};

/// More about one subject is not listed: what is listed is read whole.
const LISTED_LIMIT: usize = 1000;

/// Whose turn it is with the list of a subject: two that write one list at once would lose what the other wrote.
#[derive(Debug, Default)]
pub(super) struct Lists([tokio::sync::Mutex<()>; 32]);

impl Lists {
    fn of(&self, subject: &Digest) -> &tokio::sync::Mutex<()> {
        let [first, others @ ..] = &self.0;
        let sum = subject.as_str().bytes().fold(0, |sum: usize, byte| sum.wrapping_add(usize::from(byte)));
        others.get(sum % (others.len() + 1)).unwrap_or(first)
    }
}

impl Registry {
    /// Puts an image manifest that has `subject`, by digest, and sees to it that it is found there. Its blobs are there.
    pub async fn put_referrer(
        &self,
        image: &ImageName,
        subject: &Digest,
        manifest: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        let bytes = manifest.into();
        let digest = Digest::of(&bytes);
        let reference = Reference::Digest(digest.clone());
        let call = Call::manifest(Method::PUT, image, &reference).with_body(MANIFEST, bytes.clone());
        let reply = self.exchange.call(&call).await?;
        if let Some(found) = reply.announced_digest(&call)?
            && found != digest
        {
            return Err(call.fails(Problem::WrongDigest { expected: digest, found }));
        }
        if !reply.lists_subject {
            self.list_referrer(image, subject, &digest, &bytes).await?;
        }
        Ok(digest)
    }

    async fn list_referrer(
        &self,
        image: &ImageName,
        subject: &Digest,
        digest: &Digest,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let tag: Tag = subject.as_str().replace(':', "-").parse().expect("a digest with a dash is a tag");
        let reference = Reference::Tag(tag);
        // the list is read, and written whole
        let _alone = self.lists.of(subject).lock().await;
        let known = match self.get_manifest(image, &reference).await {
            Ok(manifest) => Some(manifest),
            Err(error) if matches!(*error.problem, Problem::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let refuse = |what: &str| {
            let call = Call::manifest(Method::PUT, image, &reference);
            call.fails(Problem::Nonsense { what: what.to_owned() })
        };
        let mut index = match known {
            None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
            Some(manifest) if manifest.media_type == INDEX => serde_json::from_slice(&manifest.bytes)
                .map_err(|_| refuse("what stands there is no index of referrers"))?,
            Some(_) => return Err(refuse("what stands there is no index of referrers")),
        };
        let Some(listed) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(refuse("what stands there is no index of referrers"));
        };
        if listed.iter().any(|one| one.get("digest").and_then(Value::as_str) == Some(digest.as_str())) {
            return Ok(());
        }
        let ours = descriptor(digest, bytes);
        if listed.len() >= LISTED_LIMIT {
            // the oldest of what says the same of it
            let same = |one: &Value| {
                ["artifactType", "annotations"].iter().all(|field| one.get(*field) == ours.get(*field))
            };
            let oldest = listed.iter().position(same);
            listed.remove(oldest.ok_or_else(|| refuse("too many referrers are listed there"))?);
        }
        listed.push(ours);
        self.put_manifest(image, &reference, INDEX, index.to_string()).await.map(drop)
    }
}

fn descriptor(digest: &Digest, bytes: &Bytes) -> Value {
    let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let mut one = json!({ "mediaType": MANIFEST, "digest": digest.as_str(), "size": bytes.len() });
    let config_type = || manifest.pointer("/config/mediaType");
    for (name, value) in [
        ("artifactType", manifest.get("artifactType").or_else(config_type)),
        ("annotations", manifest.get("annotations")),
    ] {
        if let (Some(value), Some(fields)) = (value, one.as_object_mut()) {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    one
}
