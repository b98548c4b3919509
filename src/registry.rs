//! The registry: manifests and blobs read, written and verified over the OCI distribution API.
//!
//! Every digest that leaves this module was computed here from bytes, or compared with one that was. Nothing is sent in
//! the clear except to loopback and to hosts that the configuration names; credentials go to their own host, and to the
//! token service that this host may name (`token`), never elsewhere: redirects are not followed, except to where blobs lie, and
//! there without credentials.
//!
//! The names, error envelope and media types are oci-client's. Its client is not used for manifests: it asks `/v2/` again
//! before each anonymous read, hides Retry-After and the token service's own errors, reads bodies without a bound, sends
//! credentials to any realm, and panics on a PUT by digest that is answered without Location.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::Method;

use crate::model::{Digest, ImageName, Tag};

mod blobs;
mod challenge;
pub mod credentials;
mod exchange;
mod fault;
pub mod host;
mod referrers;
mod retry;
mod token;

pub use blobs::BlobSource;
pub use credentials::{Credential, CredentialError, Credentials, Login, Logins, LoginsUnreadable};
pub use fault::{Problem, RegistryError};

use exchange::{Call, Exchange, Reply};

/// An OCI image index.
pub const INDEX: &str = OCI_IMAGE_INDEX_MEDIA_TYPE;
/// An OCI image manifest.
pub const MANIFEST: &str = OCI_IMAGE_MEDIA_TYPE;
/// Docker's manifest list, an index under its older name.
pub const DOCKER_LIST: &str = IMAGE_MANIFEST_LIST_MEDIA_TYPE;
/// Docker's schema 2 manifest.
pub const DOCKER_MANIFEST: &str = IMAGE_MANIFEST_MEDIA_TYPE;

/// How the registry client behaves. `Default` is what fits one registry nearby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `host[:port]` that are spoken to in plain http besides loopback.
    pub plain_http: Vec<String>,
    /// Hosts of token services that may be sent credentials though they are not in the registry's own domain.
    pub token_hosts: Vec<String>,
    /// Registry host -> what is asked before it for images that builds stand on, each `HOST[:PORT][/PREFIX]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The docker config file with credentials; it may appear, change and vanish while the server runs.
    pub docker_config: Option<PathBuf>,
    /// How long a credential helper may take.
    pub helper_timeout: Duration,
    pub connect_timeout: Duration,
    /// For one request, connecting and body included.
    pub request_timeout: Duration,
    /// Tries of one call, the first included; only transient failures are tried again.
    pub attempts: u32,
    /// All tries of one call and the pauses between them; a Retry-After beyond it is not waited for.
    pub retry_total: Duration,
    /// The first pause; each further one is twice as long.
    pub retry_pause: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Blobs under way at once.
    pub blob_transfers: usize,
    /// How long a blob's transfer may stand still, and a registry think about one that it has.
    pub blob_stall: Duration,
    /// For one blob, however large.
    pub blob_timeout: Duration,
    /// The largest manifest that is read or written.
    pub manifest_bytes_limit: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            token_hosts: Vec::new(),
            mirrors: BTreeMap::new(),
            docker_config: None,
            helper_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            attempts: 4,
            retry_total: Duration::from_secs(30),
            retry_pause: Duration::from_millis(200),
            concurrency: 32,
            blob_transfers: 6,
            blob_stall: Duration::from_secs(60),
            blob_timeout: Duration::from_secs(3600),
            manifest_bytes_limit: 4 << 20,
        }
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Digest(Digest),
    Tag(Tag),
}

impl Reference {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Digest(digest) => digest.as_str(),
            Self::Tag(tag) => tag.as_str(),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

/// A manifest or index as it stands in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of `bytes`, computed here.
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

/// A client of every registry that images are named in. Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Registry {
    exchange: std::sync::Arc<Exchange>,
    /// Of referrers, where a registry keeps none.
    lists: std::sync::Arc<referrers::Lists>,
}

impl Registry {
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        Self::with_logins(config, None)
    }

    /// With logins of lemnos's own, which come before the docker config file.
    pub fn with_logins(
        config: RegistryConfig,
        logins: Option<std::sync::Arc<dyn Logins>>,
    ) -> Result<Self, RegistryError> {
        let exchange = std::sync::Arc::new(Exchange::new(config, logins)?);
        Ok(Self { exchange, lists: std::sync::Arc::default() })
    }

    /// Whether the registry at `host` sells tokens, so that nobody needs to be handed a password for it.
    pub async fn sells_tokens(&self, host: &str) -> Result<bool, RegistryError> {
        self.exchange.sells_tokens(host).await
    }

    /// Whether a token service may be sent the credentials of a registry.
    pub fn trusts_realm(&self, host: &str, realm_host: &str) -> bool {
        self.exchange.trusts_realm(host, realm_host)
    }

    /// The credentials this client uses, for whoever else speaks to the same registries.
    pub fn credentials(&self) -> &Credentials {
        self.exchange.credentials()
    }

    /// The manifest or index under `reference`; its digest is checked against the one asked for and the one announced.
    pub async fn get_manifest(
        &self,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let call = Call::manifest(Method::GET, image, reference);
        let reply = self.exchange.call(&call).await?;
        let digest = Digest::of(&reply.body);
        let announced = reply.announced_digest(&call)?;
        if let Reference::Digest(asked) = reference {
            same(&call, asked, &digest)?;
        }
        if let Some(announced) = announced {
            same(&call, &announced, &digest)?;
        }
        let media_type = media_type(&reply);
        Ok(Manifest { digest, media_type, bytes: reply.body })
    }

    /// The manifest or index of an image that somebody else published, from a mirror of its registry where one has it, and the
    /// name under which it was found: its blobs are read from there. Never for what lemnos itself publishes: a mirror may be
    /// behind.
    pub async fn find_manifest(
        &self,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<(ImageName, Manifest), RegistryError> {
        let mut places = self.exchange.places(image);
        let own = places.pop().unwrap_or_else(|| image.clone());
        for place in places {
            match self.get_manifest(&place, reference).await {
                Ok(manifest) => return Ok((place, manifest)),
                Err(error) if matches!(*error.problem, Problem::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(registry.host = %place.host(), "a mirror of {} fails: {error}", own.host())
                }
            }
        }
        let manifest = self.get_manifest(&own, reference).await?;
        Ok((own, manifest))
    }

    /// The digest that `reference` stands at, as the registry announces it; none where nothing stands.
    pub async fn head_manifest(
        &self,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Option<Digest>, RegistryError> {
        let call = Call::manifest(Method::HEAD, image, reference);
        let announced = match self.exchange.call(&call).await {
            Ok(reply) => reply.announced_digest(&call)?,
            Err(error) if matches!(*error.problem, Problem::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // a registry may leave the header out: the bytes say it as well
        match announced {
            Some(digest) => Ok(Some(digest)),
            None => match self.get_manifest(image, reference).await {
                Ok(manifest) => Ok(Some(manifest.digest)),
                Err(error) if matches!(*error.problem, Problem::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Puts `bytes` under `reference`. Returns their digest, which the registry's own announcement must equal.
    pub async fn put_manifest(
        &self,
        image: &ImageName,
        reference: &Reference,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let call = Call::manifest(Method::PUT, image, reference).with_body(media_type, bytes);
        if let Reference::Digest(named) = reference {
            same(&call, named, &digest)?;
        }
        let reply = self.exchange.call(&call).await?;
        if let Some(announced) = reply.announced_digest(&call)? {
            same(&call, &digest, &announced)?;
        }
        Ok(digest)
    }

    /// Takes a tag away; what other tags stand at stays. One that is not there is away.
    pub async fn remove_tag(&self, image: &ImageName, tag: &Tag) -> Result<(), RegistryError> {
        let remove = |reference: Reference| Call::manifest(Method::DELETE, image, &reference);
        match self.exchange.call(&remove(tag.clone().into())).await {
            Ok(_) => return Ok(()),
            Err(error) if matches!(*error.problem, Problem::NotFound { .. } | Problem::Rejected { .. }) => {}
            Err(error) => return Err(error),
        }
        if self.head_manifest(image, &tag.clone().into()).await?.is_none() {
            return Ok(());
        }
        // this registry removes by digest only, and with a digest every tag that stands at it: the tag goes with a manifest
        // that no other stands at. Whether the registry removes at all is tried before the tag is moved.
        let stand_in = stand_in(image, tag);
        let digest = self.put_manifest(image, &Digest::of(&stand_in).into(), INDEX, stand_in.clone()).await?;
        self.exchange.call(&remove(digest.clone().into())).await?;
        self.put_manifest(image, &tag.clone().into(), INDEX, stand_in).await?;
        self.exchange.call(&remove(digest.into())).await.map(drop)
    }

    /// The registry's own time, as its API's root tells it.
    pub async fn time(&self, host: &str) -> Result<Option<std::time::SystemTime>, RegistryError> {
        self.exchange.ping(host).await
    }

    /// Whether a blob may be pushed to the image: an upload is begun and called off, so that nothing stays.
    pub async fn try_upload(&self, image: &ImageName) -> Result<(), RegistryError> {
        let begun = self.exchange.call(&Call::upload(image)).await?;
        // one that cannot be called off is forgotten by the registry itself after a while
        if let Some(call) = Call::cancel_upload(image, &begun.location)
            && let Err(error) = self.exchange.call(&call).await
        {
            tracing::debug!(%error, "an upload that was begun for a look is not called off");
        }
        Ok(())
    }

    /// Whether the registry at `host` answers its API's root, signed in or not: one request, no retries.
    pub async fn ping(&self, host: &str) -> Result<(), RegistryError> {
        self.exchange.ping(host).await.map(drop)
    }
}

/// An index of nothing, of this tag alone.
fn stand_in(image: &ImageName, tag: &Tag) -> Bytes {
    let annotations = serde_json::json!({ "org.opencontainers.image.ref.name": format!("{image}:{tag}") });
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations,
    });
    index.to_string().into()
}

fn same(call: &Call, expected: &Digest, found: &Digest) -> Result<(), RegistryError> {
    if expected == found {
        return Ok(());
    }
    Err(call.fails(Problem::WrongDigest { expected: expected.clone(), found: found.clone() }))
}

/// The media type as the reply says it, else as the manifest says of itself.
fn media_type(reply: &Reply) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Says {
        media_type: Option<String>,
    }
    let header = reply.content_type.as_deref().and_then(|h| h.split(';').next()).map(str::trim);
    match header {
        Some(header) if header.contains("manifest") || header.contains("index") => header.to_owned(),
        _ => serde_json::from_slice::<Says>(&reply.body)
            .ok()
            .and_then(|says| says.media_type)
            .unwrap_or_else(|| header.unwrap_or_default().to_owned()),
    }
}
