//! Content stores that flags name: caches of type `local`, OCI layouts to read, and layouts to export into.
//!
//! Source: moby/buildkit v0.32.2, client/solve.go; docker/buildx v0.36, build/opt.go.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::JoinError;
use crate::buildkit::flags::{FlagError, truth};
use crate::buildkit::session::SessionBuilder;
use crate::buildkit::session::content::{ContentStore, Descriptor, Digest, StoreError};
use crate::buildkit::solve::{CacheEntry, SolveResult};

/// What a cache and a layout are called where nothing is said.
const TAG: &str = "latest";

/// What is left to do of a build's flags while it runs, and after it.
#[derive(Debug, Default)]
pub struct Joined {
    /// Caches that are not there, in words for whoever asked for them.
    pub warnings: Vec<String>,
    caches: BTreeMap<String, Written>,
    layouts: Vec<(String, Arc<ContentStore>)>,
}

/// A cache that is being written.
#[derive(Debug)]
struct Written {
    store: Arc<ContentStore>,
    tag: String,
    /// Whether what the index does not name is deleted afterwards.
    reset: bool,
}

/// A layout, and the digest of what was asked for in it.
pub(super) struct Named {
    pub store: ContentStore,
    pub digest: String,
}

fn at(dir: &str) -> impl Fn(StoreError) -> JoinError {
    move |problem| JoinError::Store { dir: dir.to_owned(), problem }
}

fn refused(flag: &'static str, entry: &CacheEntry, reason: &str) -> JoinError {
    let attrs: String = entry.attrs.iter().map(|(name, value)| format!(",{name}={value}")).collect();
    FlagError { flag, given: format!("type={}{attrs}", entry.kind), reason: reason.to_owned() }.into()
}

impl Joined {
    /// Offers the store that a cache of type `local` is written to.
    pub(super) fn export_cache(
        &mut self,
        entry: &CacheEntry,
        session: SessionBuilder,
    ) -> Result<SessionBuilder, JoinError> {
        if entry.kind != "local" {
            return Ok(session);
        }
        let wrong = |reason| refused("--cache-to", entry, reason);
        let dir = entry.attrs.get("dest").filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| wrong("it needs dest=DIRECTORY"))?;
        let reset = match entry.attrs.get("reset") {
            None => false,
            Some(reset) => truth(reset).ok_or_else(|| wrong("reset is true or false"))?,
        };
        let tag = entry.attrs.get("tag").map_or(TAG, String::as_str).to_owned();
        let store = Arc::new(ContentStore::read_write(Path::new(dir)).map_err(at(dir))?);
        self.caches.insert(dir.clone(), Written { store: store.clone(), tag, reset });
        Ok(session.store(&format!("local:{dir}"), store))
    }

    /// Offers the store of a cache that is read, with the digest that its tag stands for; no entry where it is not there.
    pub(super) fn import_cache(
        &mut self,
        mut entry: CacheEntry,
        session: SessionBuilder,
    ) -> Result<(SessionBuilder, Option<CacheEntry>), JoinError> {
        if entry.kind != "local" {
            return Ok((session, Some(entry)));
        }
        let wrong = |reason| refused("--cache-from", &entry, reason);
        let dir = entry.attrs.get("src").filter(|dir| !dir.is_empty()).cloned();
        let dir = dir.ok_or_else(|| wrong("it needs src=DIRECTORY"))?;
        let tag = entry.attrs.get("tag").map_or(TAG, String::as_str);
        let digest = entry.attrs.get("digest").filter(|digest| !digest.is_empty()).cloned();
        if digest.is_none() && tag.is_empty() {
            return Err(wrong("say which: tag=NAME or digest=DIGEST"));
        }
        match found(&dir, tag, digest) {
            Err(reason) => {
                self.warnings.push(format!("the local cache {dir} is not used: {reason}"));
                Ok((session, None))
            }
            Ok(Named { store, digest }) => {
                entry.attrs.insert("digest".to_owned(), digest);
                // what is written to the same place is offered already, or it was imported before
                let name = format!("local:{dir}");
                let known = self.caches.contains_key(&dir) || session.has_store(&name);
                let session = if known { session } else { session.store(&name, Arc::new(store)) };
                Ok((session, Some(entry)))
            }
        }
    }

    /// The store that an image is exported into as a layout.
    pub(super) fn export_layout(&mut self, dir: &str) -> Result<Arc<ContentStore>, JoinError> {
        let store = Arc::new(ContentStore::read_write(Path::new(dir)).map_err(at(dir))?);
        self.layouts.push((dir.to_owned(), store.clone()));
        Ok(store)
    }

    /// After the build: names what it wrote in the `index.json` of its caches and layouts.
    pub fn record(&self, result: &SolveResult) -> Result<(), JoinError> {
        if let Some(text) = result.attrs.get("cache.manifest").filter(|text| !text.is_empty()) {
            let descriptor: Descriptor =
                serde_json::from_str(text).map_err(|_| JoinError::Answer("cache.manifest"))?;
            for (dir, Written { store, tag, .. }) in &self.caches {
                store.tag(descriptor.clone(), tag).map_err(at(dir))?;
            }
        }
        if let Some(text) = result.attrs.get("containerimage.descriptor").filter(|text| !text.is_empty()) {
            let answer = || JoinError::Answer("containerimage.descriptor");
            let json = STANDARD.decode(text).map_err(|_| answer())?;
            let descriptor: Descriptor = serde_json::from_slice(&json).map_err(|_| answer())?;
            for (dir, store) in &self.layouts {
                match result.attrs.get("image.name") {
                    None => store.tag(descriptor.clone(), TAG).map_err(at(dir))?,
                    Some(names) => names
                        .split(',')
                        .try_for_each(|name| store.name(descriptor.clone(), name))
                        .map_err(at(dir))?,
                }
            }
        }
        for (dir, Written { store, .. }) in self.caches.iter().filter(|(_, written)| written.reset) {
            store.keep_named().map_err(at(dir))?;
        }
        Ok(())
    }
}

/// The store at `dir` and the digest in it; the reason where it is of no use.
fn found(dir: &str, tag: &str, digest: Option<String>) -> Result<Named, String> {
    let store = ContentStore::read_only(Path::new(dir)).map_err(|problem| problem.to_string())?;
    let digest = match digest {
        Some(digest) => digest,
        None => match store.resolve(tag).map_err(|problem| problem.to_string())? {
            Some(descriptor) => descriptor.digest,
            None => return Err(format!("nothing in its index.json is called {tag:?}")),
        },
    };
    let present = digest.parse::<Digest>().and_then(|digest| store.info(&digest));
    present.map_err(|problem| problem.to_string())?;
    Ok(Named { store, digest })
}

/// The layout at `path`, and the digest of what is called `tag` there, or of the only image in it.
pub(super) fn layout(path: &str, tag: Option<&str>, digest: Option<String>) -> Result<Named, JoinError> {
    let store = ContentStore::read_only(Path::new(path)).map_err(at(path))?;
    let digest = match digest {
        Some(digest) => digest,
        None => {
            let named = store.resolve(tag.unwrap_or(TAG)).map_err(at(path))?;
            let named = match named {
                Some(named) => Some(named),
                None => store.only().map_err(at(path))?,
            };
            let missing = || FlagError {
                flag: "--build-context",
                given: format!("oci-layout://{path}:{}", tag.unwrap_or(TAG)),
                reason: "its index.json names no such image: write oci-layout://PATH:TAG or PATH@DIGEST"
                    .into(),
            };
            named.ok_or_else(missing)?.digest
        }
    };
    digest.parse::<Digest>().map_err(at(path))?;
    Ok(Named { store, digest })
}

/// A context's name as a store's: a reference must be made of it.
pub(super) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect()
}
