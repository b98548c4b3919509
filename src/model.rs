//! The values that pass between the stages.
//!
//! Plain data, parsed at the door and valid from then on. Must not do I/O, read a clock, or know a stage.

pub mod access;
pub mod app;
pub mod attest;
pub mod audit;
pub mod build;
pub mod builder;
pub mod closest;
pub mod destination;
pub mod git;
pub mod go;
pub mod image;
pub mod key;
pub mod login;
pub mod manifests;
pub mod plan;
pub mod policy;
pub mod publication;
pub mod push;
pub mod secret;
pub mod spin;
pub mod tree;

pub use access::{Access, Deploy, Grant, KeyOwner, Role, User, Visible};
pub use app::{App, AppName, AppSettings, Compression, LayerCache, UserName};
pub use attest::{Attest, Attestations, Generator, Material, Predicate, Provenance, Sbom, UnknownProvenance};
pub use build::{Actor, Behind, Build, BuildId, BuildState};
pub use builder::{BuilderState, BuilderStatus};
pub use destination::Destinations;
pub use git::{RefName, RefUpdate, Sha};
pub use go::{DEBUGGER, GoCompile, GoTarget, KoData, KoExtras, KoImage};
pub use image::{Digest, ImageName, ImagePrefix, Platform, Tag};
pub use key::{Fingerprint, UserKey};
pub use login::{RegistryLogin, RegistryPlace, Secret};
pub use manifests::Manifests;
pub use plan::{BuildPlan, CacheTags, Detected, ImagePlan, KindName, SolveSpec, Work};
pub use policy::{Refusal, SourcePolicy, SourceRules, Tenant};
pub use publication::{Form, Generation, Move, Publication, PublishedImage};
pub use push::{Push, PushOptions};
pub use secret::{AppSecret, SecretName, SecretUse, SecretValue};
pub use spin::{
    SpinApp, SpinBuild, SpinCommand, SpinComponent, SpinFetch, SpinMount, SpinPlan, SpinSource, SpinStep,
    SpinTerms, SpinTrigger, SpinVariable, SpinWanted,
};
pub use tree::{EntryKind, Tree, TreeEntry, TreeError};

/// Why a text is not a value of the type it should be: what was given, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a valid {what}: {allowed}")]
pub struct Invalid {
    /// The noun: "app name", "platform".
    pub what: &'static str,
    /// The text as it came, shortened to 120 characters.
    pub given: String,
    /// The rule, as a sentence a user can act on.
    pub allowed: &'static str,
}

impl Invalid {
    pub fn new(what: &'static str, given: &str, allowed: &'static str) -> Self {
        Self { what, given: given.chars().take(120).collect(), allowed }
    }
}

/// Implements `Display`, `FromStr`-based serde and `AsRef<str>` for a newtype over a valid `String`.
macro_rules! text_newtype {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_newtype;
