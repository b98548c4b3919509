//! What is said about an operation besides what it does: where it runs, what it is called, whether its cache counts.
//!
//! Given with one operation, or to [`State::marshal`](super::State::marshal) as the ground that all of them stand on. Only
//! platform and worker filters are part of a digest; the rest is metadata beside it.

use std::sync::Arc;

use lemnos_proto::pb;

use super::source_map::SourceMap;
use super::{Caps, LinuxResources, Platform};

#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Constraints {
    pub(super) platform: Option<Platform>,
    pub(super) filters: Vec<String>,
    pub(super) metadata: pb::OpMetadata,
    pub(super) unique_id: Option<String>,
    pub(super) caps: Option<Arc<Caps>>,
    pub(super) locations: Vec<Location>,
}

/// Lines of a file that an operation comes from.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) map: SourceMap,
    pub(super) ranges: Vec<pb::Range>,
}

impl Constraints {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// A filter that the worker's labels must pass, such as `label.pool==fast`. Filters add up.
    pub fn require(mut self, filter: impl Into<String>) -> Self {
        self.filters.push(filter.into());
        self
    }

    /// The operation is done again even where its result is in the cache.
    pub fn ignore_cache(mut self) -> Self {
        self.metadata.ignore_cache = true;
        self
    }

    /// Text that the builder does not read. Descriptions add up.
    pub fn description(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.metadata.description.insert(key.into(), text.into());
        self
    }

    /// The name that progress shows.
    pub fn custom_name(self, name: impl Into<String>) -> Self {
        self.description("llb.customname", name)
    }

    /// Whether the result goes into an exported cache, whatever the export's mode says.
    pub fn export_cache(mut self, export: bool) -> Self {
        self.metadata.export_cache = Some(pb::ExportCache { value: export });
        self
    }

    /// As the cache export's mode says: takes [`Self::export_cache`] back.
    pub fn default_export_cache(mut self) -> Self {
        self.metadata.export_cache = None;
        self
    }

    /// Progress shows operations of one group as one; a `weak` group gives way to another.
    pub fn progress_group(mut self, id: impl Into<String>, name: impl Into<String>, weak: bool) -> Self {
        self.metadata.progress_group = Some(pb::ProgressGroup { id: id.into(), name: name.into(), weak });
        self
    }

    /// Limits on memory and CPU; no part of the cache key.
    pub fn linux_resources(mut self, resources: LinuxResources) -> Self {
        self.metadata.linux_resources = Some(resources);
        self
    }

    /// What keeps local sources without a session apart from those of other clients; random unless given.
    pub fn local_unique_id(mut self, id: impl Into<String>) -> Self {
        self.unique_id = Some(id.into());
        self
    }

    /// What the daemon can do; counts only when given to `marshal`. Without it everything is taken to be there.
    pub fn caps(mut self, caps: Caps) -> Self {
        self.caps = Some(Arc::new(caps));
        self
    }

    /// Lines that the operation comes from, for messages. Locations add up.
    pub fn location(mut self, map: &SourceMap, ranges: impl IntoIterator<Item = pb::Range>) -> Self {
        self.locations.push(Location { map: map.clone(), ranges: ranges.into_iter().collect() });
        self
    }

    pub(super) fn needs(&mut self, cap: &str) {
        self.metadata.caps.insert(cap.into(), true);
    }

    pub(super) fn supports(&self, cap: &str) -> bool {
        self.caps.as_ref().is_none_or(|caps| caps.supports(cap))
    }
}

/// `from` on top of `into`: flags and capabilities add up, descriptions too, the rest is replaced where it is said.
pub(super) fn merge_metadata(into: &mut pb::OpMetadata, from: &pb::OpMetadata) {
    into.ignore_cache |= from.ignore_cache;
    into.description.extend(from.description.iter().map(|(k, v)| (k.clone(), v.clone())));
    into.caps.extend(from.caps.keys().map(|k| (k.clone(), true)));
    if from.export_cache.is_some() {
        into.export_cache = from.export_cache;
    }
    if from.progress_group.is_some() {
        into.progress_group.clone_from(&from.progress_group);
    }
    if from.linux_resources.is_some() {
        into.linux_resources.clone_from(&from.linux_resources);
    }
}
