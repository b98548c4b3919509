//! Sources: images and single blobs; the other kinds have files of their own.
//!
//! Each builder holds its options and becomes a [`State`] at the end. Source:
//! client/llb/source.go.

use std::collections::BTreeMap;

use super::graph::{Kind, Node, Output};
use super::reference::Reference;
use super::{Constraints, LlbError, Platform, State, cap};

pub(super) type Attrs = BTreeMap<String, String>;

pub(super) fn state(
    identifier: String,
    attrs: Attrs,
    constraints: Constraints,
    mistake: Option<LlbError>,
) -> State {
    let platform = constraints.platform.clone();
    let node = Node { inputs: Vec::new(), kind: Kind::Source { identifier, attrs }, constraints, mistake };
    State::fresh(Some(Output { platform, ..Output::first(node) }))
}

impl State {
    /// An image, `docker.io` and `latest` being understood. See [`Image`] for options.
    pub fn image(reference: &str) -> Self {
        Image::new(reference).state()
    }

    /// A source by its identifier (`scheme://…`) and attributes, as the daemon takes them.
    pub fn source(identifier: impl Into<String>, attrs: Attrs, constraints: Constraints) -> Self {
        state(identifier.into(), attrs, constraints, None)
    }
}

/// Where an image that is on the daemon already is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    #[default]
    Default,
    ForcePull,
    PreferLocal,
}

/// An image in a registry.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Image {
    reference: String,
    resolve_mode: ResolveMode,
    record_type: String,
    layer_limit: Option<i64>,
    checksum: String,
    constraints: Constraints,
}

impl Image {
    pub fn new(reference: impl Into<String>) -> Self {
        Self { reference: reference.into(), ..Self::default() }
    }

    pub fn resolve_mode(mut self, mode: ResolveMode) -> Self {
        self.resolve_mode = mode;
        self
    }

    /// Kept out of what the daemon shows as the user's own.
    pub fn internal(self) -> Self {
        self.record_type("internal")
    }

    pub fn record_type(mut self, kind: impl Into<String>) -> Self {
        self.record_type = kind.into();
        self
    }

    /// Only the first layers.
    pub fn layer_limit(mut self, layers: i64) -> Self {
        self.layer_limit = Some(layers);
        self
    }

    /// The digest that the reference must resolve to.
    pub fn checksum(mut self, digest: impl Into<String>) -> Self {
        self.checksum = digest.into();
        self
    }

    pub fn platform(mut self, platform: Platform) -> Self {
        self.constraints.platform = Some(platform);
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(self) -> State {
        let (reference, mistake) = match Reference::parse(&self.reference) {
            Ok(reference) => (reference.or_latest().to_string(), None),
            Err(reason) => {
                (self.reference.clone(), Some(LlbError::Reference { reference: self.reference, reason }))
            }
        };
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        constraints.needs(cap::SOURCE_IMAGE);
        match self.resolve_mode {
            ResolveMode::Default => {}
            ResolveMode::ForcePull => {
                attrs.insert("image.resolvemode".into(), "pull".into());
                constraints.needs(cap::SOURCE_IMAGE_RESOLVE_MODE);
            }
            ResolveMode::PreferLocal => {
                attrs.insert("image.resolvemode".into(), "local".into());
            }
        }
        insert(&mut attrs, "image.recordtype", self.record_type);
        if let Some(layers) = self.layer_limit {
            attrs.insert("image.layerlimit".into(), layers.to_string());
            constraints.needs(cap::SOURCE_IMAGE_LAYER_LIMIT);
        }
        if insert(&mut attrs, "image.checksum", self.checksum) {
            constraints.needs(cap::SOURCE_IMAGE_CHECKSUM);
        }
        state(format!("docker-image://{reference}"), attrs, constraints, mistake)
    }
}

/// Set where there is something to set; says whether there was.
pub(super) fn insert(attrs: &mut Attrs, key: &str, value: String) -> bool {
    let there = !value.is_empty();
    if there {
        attrs.insert(key.into(), value);
    }
    there
}

/// One blob of a registry or of an OCI layout, as a file.
#[derive(Debug, Clone)]
#[must_use]
pub struct Blob {
    scheme: &'static str,
    reference: String,
    file: FileInfo,
    session_id: String,
    store_id: String,
    constraints: Constraints,
}

/// What a downloaded file is given.
#[derive(Debug, Clone, Default)]
pub(super) struct FileInfo {
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
}

impl FileInfo {
    pub(super) fn mode(&self) -> String {
        if self.mode == 0 { String::new() } else { format!("0{:o}", self.mode) }
    }
}

pub(super) fn id(id: i64) -> String {
    if id == 0 { String::new() } else { id.to_string() }
}

impl Blob {
    /// `name@digest`, without a tag, in a registry.
    pub fn image(reference: impl Into<String>) -> Self {
        Self::new("docker-image+blob", reference.into())
    }

    /// `name@digest`, without a tag, in an OCI layout.
    pub fn oci_layout(reference: impl Into<String>) -> Self {
        Self::new("oci-layout+blob", reference.into())
    }

    fn new(scheme: &'static str, reference: String) -> Self {
        let (file, constraints) = (FileInfo::default(), Constraints::new());
        Self { scheme, reference, file, session_id: String::new(), store_id: String::new(), constraints }
    }

    pub fn filename(mut self, name: impl Into<String>) -> Self {
        self.file.name = name.into();
        self
    }

    pub fn chmod(mut self, mode: u32) -> Self {
        self.file.mode = mode & 0o777;
        self
    }

    pub fn chown(mut self, uid: i64, gid: i64) -> Self {
        (self.file.uid, self.file.gid) = (uid, gid);
        self
    }

    /// The session that serves the layout, and the store in it. Only of an OCI layout.
    pub fn store(mut self, session_id: impl Into<String>, store_id: impl Into<String>) -> Self {
        (self.session_id, self.store_id) = (session_id.into(), store_id.into());
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(self) -> State {
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        let mode = self.file.mode();
        insert(&mut attrs, "http.filename", self.file.name);
        insert(&mut attrs, "http.perm", mode);
        insert(&mut attrs, "http.uid", id(self.file.uid));
        insert(&mut attrs, "http.gid", id(self.file.gid));
        if self.scheme == "oci-layout+blob" {
            insert(&mut attrs, "oci.session", self.session_id);
            insert(&mut attrs, "oci.store", self.store_id);
        }
        constraints.needs(cap::SOURCE_IMAGE_BLOB);
        let parsed = Reference::parse(&self.reference).and_then(|reference| match &reference {
            Reference { tag: Some(_), .. } => Err("a blob has no tag".into()),
            Reference { digest: None, .. } => Err("a blob is named by its digest: name@sha256:…".into()),
            _ => Ok(reference),
        });
        let (name, mistake) = match parsed {
            Ok(reference) => (reference.to_string(), None),
            Err(reason) => {
                ("invalid".into(), Some(LlbError::Reference { reference: self.reference, reason }))
            }
        };
        state(format!("{}://{name}", self.scheme), attrs, constraints, mistake)
    }
}
