//! Components that are not built but fetched: each to a file, at once where there are several.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use sha2::{Digest as _, Sha256};

use crate::fetch::{FetchError, Fetcher};
use crate::model::{Digest, SourceRules, SpinFetch, SpinSource};
use crate::registry::Registry;

/// On their way at once.
const AT_ONCE: usize = 4;

/// Where sources come from and go to.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub fetcher: &'a Fetcher,
    pub registry: &'a Registry,
    pub rules: &'a SourceRules,
    /// The files go here.
    pub into: &'a Path,
    /// Files with known digests are looked for here first, and kept.
    pub cache: Option<&'a Path>,
}

/// The files of all `fetches`, by component.
pub async fn fetched(
    fetches: &[SpinFetch],
    sources: Sources<'_>,
) -> Result<BTreeMap<String, PathBuf>, FetchError> {
    let mut files = BTreeMap::new();
    let numbered: Vec<(usize, &SpinFetch)> = fetches.iter().enumerate().collect();
    for some in numbered.chunks(AT_ONCE) {
        files.extend(try_join_all(some.iter().map(|(at, fetch)| one(*at, fetch, sources))).await?);
    }
    Ok(files)
}

async fn one(at: usize, fetch: &SpinFetch, sources: Sources<'_>) -> Result<(String, PathBuf), FetchError> {
    let path = sources.into.join(format!("fetched-{at}.wasm"));
    match &fetch.source {
        SpinSource::Url { url, digest } => {
            let Some(cache) = sources.cache else {
                sources.fetcher.file(url, digest, sources.rules, &path).await?;
                return Ok((fetch.component.clone(), path));
            };
            let kept = cache.join(format!("{}.wasm", digest.as_str().replace(':', "-")));
            if digest_of(&kept).await.as_ref() != Some(digest) {
                let write = |cause| FetchError::Write { url: url.clone(), cause };
                tokio::fs::create_dir_all(cache).await.map_err(write)?;
                sources.fetcher.file(url, digest, sources.rules, &kept).await?;
            }
            Ok((fetch.component.clone(), kept))
        }
        SpinSource::Package { registry, package, version } => {
            let source = (registry.as_deref(), package.as_str(), version.as_str());
            sources.fetcher.package(sources.registry, source, sources.rules, &path).await?;
            Ok((fetch.component.clone(), path))
        }
        // a plan fetches none of these
        SpinSource::Path(path) => Ok((fetch.component.clone(), path.into())),
    }
}

/// Of a file that may be there.
async fn digest_of(path: &Path) -> Option<Digest> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path).ok()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match std::io::Read::read(&mut file, &mut buffer).ok()? {
                0 => return Some(Digest::of_hash(&hash.finalize().into())),
                count => hash.update(buffer.get(..count)?),
            }
        }
    });
    read.await.ok().flatten()
}
