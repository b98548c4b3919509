//! Blobs over the wire: opened as a stream, and sent as one.
//!
//! What a registry points to elsewhere is asked without a signature (`target`). Bodies are never held whole. A transfer may take
//! long, but not stand still.

use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response, Url};

use super::outgoing::{Fails, Outgoing, Promise, Reader, outgoing};
use super::target::{Target, ending, follow};
use super::{
    ANSWER_LIMIT_BYTES, Access, Authorization, Call, Exchange, Problem, Raw, RegistryError,
    connection_problem, host, refusal,
};
use crate::metrics;
use crate::model::{Digest, ImageName};

/// A registry points to its storage, which may point on once or twice.
const HOPS_LIMIT: usize = 5;

/// Where a blob's bytes come from.
pub enum Origin<'a> {
    Bytes(Bytes),
    File(&'a std::path::PathBuf),
    /// A blob of another image.
    Image(&'a ImageName),
}

/// A blob on its way from a registry.
pub struct Incoming {
    response: Response,
    fails: Fails,
    stall: std::time::Duration,
}

impl Incoming {
    /// The next piece; none at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Ok(piece) = tokio::time::timeout(self.stall, self.response.chunk()).await else {
            return Err(self.fails.with(Problem::Timeout { after: self.stall }));
        };
        piece.map_err(|error| self.fails.with(connection_problem(&error, self.stall)))
    }
}

impl Call {
    pub(super) fn blob(method: Method, image: &ImageName, digest: &Digest) -> Self {
        let verb = if method == Method::HEAD { "looking up" } else { "getting" };
        Self {
            doing: format!("{verb} {image}@{digest}"),
            method,
            host: image.host().to_owned(),
            path: host::api_path(image),
            place: format!("blobs/{digest}"),
            body: None,
            access: Access::Pull,
            also_pulls: None,
        }
    }

    /// Begins an upload that is over at once where the registry can take the blob of its other repository `from`.
    fn mount(image: &ImageName, from: &ImageName, digest: &Digest) -> Self {
        let other = host::api_path(from);
        Self {
            doing: format!("mounting {digest} of {from} into {image}"),
            place: format!("blobs/uploads/?mount={digest}&from={other}"),
            also_pulls: Some(other),
            ..Self::upload(image)
        }
    }

    fn sending(image: &ImageName, digest: &Digest) -> Self {
        Self { doing: format!("uploading {digest} to {image}"), method: Method::PUT, ..Self::upload(image) }
    }
}

impl Exchange {
    /// Whether the image's repository has the blob.
    pub async fn has_blob(&self, image: &ImageName, digest: &Digest) -> Result<bool, RegistryError> {
        let call = Call::blob(Method::HEAD, image, digest);
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.opened(&call).await {
                Ok(_) => return Ok(true),
                Err(error) if matches!(*error.problem, Problem::NotFound { .. }) => return Ok(false),
                Err(error) => error,
            };
            self.pause(&error, tried, begun).await?;
        }
    }

    /// A blob as a stream: one try.
    pub async fn open_blob(&self, image: &ImageName, digest: &Digest) -> Result<Incoming, RegistryError> {
        let call = Call::blob(Method::GET, image, digest);
        let raw = self.opened(&call).await?;
        let fails = Fails { host: call.host.clone(), doing: call.doing.clone() };
        let stall = self.config.blob_stall;
        let response =
            raw.rest.ok_or_else(|| fails.with(Problem::Nonsense { what: "it has no body".to_owned() }))?;
        Ok(Incoming { response, fails, stall })
    }

    async fn opened(&self, call: &Call) -> Result<Raw, RegistryError> {
        let send = |signature: Option<Authorization>| -> BoxFuture<'_, Result<Raw, RegistryError>> {
            Box::pin(self.open(call, signature))
        };
        self.signing(call, &send).await
    }

    /// Follows the registry to where the blob lies.
    async fn open(&self, call: &Call, signature: Option<Authorization>) -> Result<Raw, RegistryError> {
        let fails = |problem| call.fails(problem);
        let mut url = self.url(&call.host, &call.url_path()).map_err(fails)?;
        let mut signature = signature;
        let mut elsewhere = false;
        for _ in 0..HOPS_LIMIT {
            let request = self.client_for(&url).request(call.method.clone(), url.clone());
            let request = signed_by(request, signature.as_ref()).timeout(self.config.blob_timeout);
            let raw = self.head(request).await.map_err(fails)?;
            if !raw.status.is_redirection() {
                let here = url.host_str().unwrap_or_default().to_owned();
                let refused = elsewhere && !raw.status.is_success();
                let status = raw.status.as_u16();
                return if refused { Err(fails(Problem::Storage { host: here, status })) } else { Ok(raw) };
            }
            let Target { url: next, own } =
                follow(&url, &raw.location, &self.config.plain_http).map_err(fails)?;
            // once away, a way back is not trusted either
            elsewhere |= !own;
            if elsewhere {
                signature = None;
            }
            url = next;
        }
        Err(fails(Problem::Nonsense { what: format!("it points on more than {HOPS_LIMIT} times") }))
    }

    /// Status and headers; the body of a success stays to be read.
    async fn head(&self, request: RequestBuilder) -> Result<Raw, Problem> {
        let stall = self.config.blob_stall;
        let Ok(sent) = tokio::time::timeout(stall, request.send()).await else {
            metrics::registry_request(None);
            return Err(Problem::Timeout { after: stall });
        };
        metrics::registry_request(sent.as_ref().ok().map(|response| response.status().as_u16()));
        let response = sent.map_err(|error| connection_problem(&error, stall))?;
        if response.status().is_success() {
            return Ok(Raw::of_head(response));
        }
        self.read(response, ANSWER_LIMIT_BYTES).await
    }

    /// Puts the blob into the image's repository, from whichever place it comes.
    pub async fn put_blob(
        &self,
        image: &ImageName,
        digest: &Digest,
        size: u64,
        origin: &Origin<'_>,
    ) -> Result<(), RegistryError> {
        if self.has_blob(image, digest).await? {
            return Ok(());
        }
        let _turn = self.transfers.acquire().await;
        let mut place = match origin {
            Origin::Image(from) if from.host() == image.host() => {
                match self.mounted(image, from, digest).await? {
                    Mount::Done => return Ok(()),
                    Mount::Begun(place) => Some(place),
                    Mount::Declined => None,
                }
            }
            _ => None,
        };
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.upload(image, digest, size, origin, place.take()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let may_be_there = error.may_have_happened();
            self.pause(&error, tried, begun).await?;
            if may_be_there && self.has_blob(image, digest).await? {
                return Ok(());
            }
        }
    }

    async fn mounted(
        &self,
        image: &ImageName,
        from: &ImageName,
        digest: &Digest,
    ) -> Result<Mount, RegistryError> {
        match self.call(&Call::mount(image, from, digest)).await {
            Ok(reply) if reply.status == 201 => Ok(Mount::Done),
            Ok(reply) => Ok(Mount::Begun(reply.location)),
            // a registry that mounts nothing, or not for this user, may still take the bytes
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "not mounted; the blob is sent");
                Ok(Mount::Declined)
            }
        }
    }

    /// One try of an upload, beginning it unless it has begun.
    async fn upload(
        &self,
        image: &ImageName,
        digest: &Digest,
        size: u64,
        origin: &Origin<'_>,
        place: Option<String>,
    ) -> Result<(), RegistryError> {
        let call = Call::sending(image, digest);
        let place = match place {
            Some(place) => place,
            None => self.signed(&Call::upload(image)).await?.location,
        };
        let asked = self.url(&call.host, &call.url_path()).map_err(|problem| call.fails(problem))?;
        let target =
            follow(&asked, &place, &self.config.plain_http).map_err(|problem| call.fails(problem))?;
        let target = Target { url: ending(target.url, digest), ..target };
        let promise = Promise { digest: digest.clone(), size, stall: self.config.blob_stall };
        let raw = if target.own {
            let send = |signature: Option<Authorization>| -> BoxFuture<'_, Result<Raw, RegistryError>> {
                Box::pin(self.send_blob(&call, &target.url, &promise, origin, signature))
            };
            self.signing(&call, &send).await?
        } else {
            let raw = self.send_blob(&call, &target.url, &promise, origin, None).await?;
            if !raw.status.is_success() {
                return Err(call.fails(refusal(&raw, None)));
            }
            raw
        };
        match raw.reply.announced_digest(&call)? {
            Some(found) if found != *digest => {
                Err(call.fails(Problem::WrongDigest { expected: digest.clone(), found }))
            }
            _ => Ok(()),
        }
    }

    async fn send_blob(
        &self,
        call: &Call,
        url: &Url,
        promise: &Promise,
        origin: &Origin<'_>,
        signature: Option<Authorization>,
    ) -> Result<Raw, RegistryError> {
        let reader = match origin {
            Origin::Bytes(bytes) => Reader::Bytes(Some(bytes.clone())),
            Origin::File(path) => Reader::open(path).await.map_err(|problem| call.fails(problem))?,
            Origin::Image(from) => Reader::Blob(Box::new(self.open_blob(from, &promise.digest).await?)),
        };
        let fails = Fails { host: call.host.clone(), doing: call.doing.clone() };
        let Outgoing { body, mut failed } = outgoing(reader, promise.clone(), fails);
        let request = self
            .client_for(url)
            .put(url.clone())
            .timeout(self.config.blob_timeout)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, promise.size)
            .body(reqwest::Body::wrap(body));
        let sent = self.send(signed_by(request, signature.as_ref()), ANSWER_LIMIT_BYTES);
        tokio::pin!(sent);
        let answer = tokio::select! {
            answer = &mut sent => answer,
            Ok(error) = &mut failed => return Err(error),
        };
        // the connection ends because the source did: that is what is to be said
        match (answer, failed.try_recv()) {
            (Ok(raw), _) => Ok(raw),
            (Err(_), Ok(error)) => Err(error),
            (Err(problem), Err(_)) => Err(call.fails(problem)),
        }
    }
}

enum Mount {
    Done,
    /// An upload was begun in its place.
    Begun(String),
    Declined,
}

pub(super) fn signed_by(request: RequestBuilder, signature: Option<&Authorization>) -> RequestBuilder {
    match signature {
        Some(Authorization::Basic { username, secret }) => request.basic_auth(username, Some(secret)),
        Some(Authorization::Bearer { token, .. }) => request.bearer_auth(&token.text),
        None => request,
    }
}
