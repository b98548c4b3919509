//! Sources that the client's session serves: directories and OCI layouts. Source: client/llb/source.go.

use super::source::{Attrs, insert, state};
use super::{Constraints, State, cap, quote};

/// How the daemon finds out which files of a directory changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferKind {
    /// Everything is sent again.
    None,
    /// By size, time, mode, owner, device and link name.
    Metadata,
}

/// A directory that the client's session serves under a name.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Local {
    name: String,
    session_id: String,
    include: Vec<String>,
    exclude: Vec<String>,
    follow: Vec<String>,
    shared_key_hint: String,
    differ: Option<(DifferKind, bool)>,
    metadata_only: Option<Vec<String>>,
    constraints: Constraints,
}

impl Local {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn session_id(mut self, id: impl Into<String>) -> Self {
        self.session_id = id.into();
        self
    }

    pub fn include_patterns<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.include = patterns.into_iter().map(Into::into).collect();
        self
    }

    pub fn exclude_patterns<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.exclude = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Paths that are sent with all that their symbolic links lead to.
    pub fn follow_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.follow = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Which copy of the directory the daemon may start from.
    pub fn shared_key_hint(mut self, hint: impl Into<String>) -> Self {
        self.shared_key_hint = hint.into();
        self
    }

    /// A `required` differ fails on a daemon that does not know it.
    pub fn differ(mut self, kind: DifferKind, required: bool) -> Self {
        self.differ = Some((kind, required));
        self
    }

    /// Only names, sizes and modes are sent, and the contents of the paths that are excepted.
    pub fn metadata_only<P: Into<String>>(mut self, except: impl IntoIterator<Item = P>) -> Self {
        self.metadata_only = Some(except.into_iter().map(Into::into).collect());
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(self) -> State {
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        let list = |texts: &[String]| if texts.is_empty() { String::new() } else { quote::json_list(texts) };
        for (key, value, needed) in [
            ("local.session", self.session_id, cap::SOURCE_LOCAL_SESSION_ID),
            ("local.includepattern", list(&self.include), cap::SOURCE_LOCAL_INCLUDE_PATTERNS),
            ("local.followpaths", list(&self.follow), cap::SOURCE_LOCAL_FOLLOW_PATHS),
            ("local.excludepatterns", list(&self.exclude), cap::SOURCE_LOCAL_EXCLUDE_PATTERNS),
            ("local.sharedkeyhint", self.shared_key_hint, cap::SOURCE_LOCAL_SHARED_KEY_HINT),
        ] {
            if insert(&mut attrs, key, value) {
                constraints.needs(needed);
            }
        }
        if let Some((kind, required)) = self.differ {
            let kind = if kind == DifferKind::None { "none" } else { "metadata" };
            attrs.insert("local.differ".into(), kind.into());
            if required {
                constraints.needs(cap::SOURCE_LOCAL_DIFFER);
            }
        }
        if let Some(except) = self.metadata_only {
            attrs.insert("local.metadatatransfer".into(), "true".into());
            insert(&mut attrs, "local.metadatatransferexclude", list(&except));
            constraints.needs(cap::SOURCE_METADATA_TRANSFER);
        }
        constraints.needs(cap::SOURCE_LOCAL);
        state(format!("local://{}", self.name), attrs, constraints, None)
    }
}

/// An image in an OCI layout that the client's session serves.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct OciLayout {
    reference: String,
    session_id: String,
    store_id: String,
    layer_limit: Option<i64>,
    constraints: Constraints,
}

impl OciLayout {
    pub fn new(reference: impl Into<String>) -> Self {
        Self { reference: reference.into(), ..Self::default() }
    }

    /// The session that serves the layout, and the store in it.
    pub fn store(mut self, session_id: impl Into<String>, store_id: impl Into<String>) -> Self {
        (self.session_id, self.store_id) = (session_id.into(), store_id.into());
        self
    }

    /// Only the first layers.
    pub fn layer_limit(mut self, layers: i64) -> Self {
        self.layer_limit = Some(layers);
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(self) -> State {
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        insert(&mut attrs, "oci.session", self.session_id);
        insert(&mut attrs, "oci.store", self.store_id);
        insert(&mut attrs, "oci.layerlimit", self.layer_limit.map(|n| n.to_string()).unwrap_or_default());
        constraints.needs(cap::SOURCE_OCI_LAYOUT);
        state(format!("oci-layout://{}", self.reference), attrs, constraints, None)
    }
}
