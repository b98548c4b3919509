//! The wire formats that lemnos speaks with BuildKit, as Rust types.
//!
//! `src/gen` is made from the `.proto` files beside `src` and never edited; `tests/generated.rs` compares the two, and
//! rewrites `src/gen` with `LEMNOS_REGENERATE=1 cargo test -p lemnos-proto`. No behaviour belongs here.

/// `google.rpc`: the status that carries typed error details.
pub mod rpc {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
    include!("gen/google.rpc.rs");
}

/// The packages under `google`, nested as the generated code refers to them.
pub mod google {
    pub use super::rpc;
}

/// `pb`: values of the low-level build graph.
pub mod pb {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
    include!("gen/pb.rs");
}

/// `fsutil.types`: packets of a file transfer.
pub mod fsutil {
    /// The package's own name, as the generated code refers to it.
    pub mod types {
        #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
        include!("gen/fsutil.types.rs");
    }
}

/// `containerd.services.content.v1`: a store of blobs.
pub mod content {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
    include!("gen/containerd.services.content.v1.rs");
}

/// The packages under `moby`, nested as the generated code refers to them.
pub mod moby {
    pub mod buildkit {
        pub mod secrets {
            /// `moby.buildkit.secrets.v1`: the secrets of a session.
            pub mod v1 {
                #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
                include!("gen/moby.buildkit.secrets.v1.rs");
            }
        }
        /// `moby.buildkit.v1`: the control service.
        pub mod v1 {
            #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
            include!("gen/moby.buildkit.v1.rs");
            /// `moby.buildkit.v1.apicaps`: what a service can do.
            pub mod apicaps {
                include!("gen/moby.buildkit.v1.apicaps.rs");
            }
            /// `moby.buildkit.v1.frontend`: the gateway.
            pub mod frontend {
                include!("gen/moby.buildkit.v1.frontend.rs");
            }
            /// `moby.buildkit.v1.sourcepolicy`: which sources a build may take.
            pub mod sourcepolicy {
                include!("gen/moby.buildkit.v1.sourcepolicy.rs");
                /// `moby.buildkit.v1.sourcepolicy.policysession`: the same, asked over a session.
                pub mod policysession {
                    include!("gen/moby.buildkit.v1.sourcepolicy.policysession.rs");
                }
            }
            /// `moby.buildkit.v1.types`: workers and versions.
            pub mod types {
                include!("gen/moby.buildkit.v1.types.rs");
            }
        }
    }
    pub mod exporter {
        /// `moby.exporter.v1`: exporters that a session chooses.
        pub mod v1 {
            #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
            include!("gen/moby.exporter.v1.rs");
        }
    }
    pub mod filesync {
        /// `moby.filesync.v1`: session services.
        pub mod v1 {
            #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
            include!("gen/moby.filesync.v1.rs");
        }
    }
    pub mod sshforward {
        /// `moby.sshforward.v1`: the SSH agents of a session.
        pub mod v1 {
            #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
            include!("gen/moby.sshforward.v1.rs");
        }
    }
    pub mod upload {
        /// `moby.upload.v1`: the streams of a session.
        pub mod v1 {
            #![allow(clippy::all, clippy::pedantic, clippy::restriction, rust_2018_idioms, rustdoc::all)]
            include!("gen/moby.upload.v1.rs");
        }
    }
}

pub use moby::buildkit::secrets::v1 as secrets;
pub use moby::buildkit::v1 as control;
pub use moby::buildkit::v1::apicaps;
pub use moby::buildkit::v1::frontend as gateway;
pub use moby::buildkit::v1::sourcepolicy;
pub use moby::buildkit::v1::sourcepolicy::policysession;
pub use moby::buildkit::v1::types as worker;
pub use moby::exporter::v1 as exporter;
pub use moby::filesync::v1 as session;
pub use moby::sshforward::v1 as sshforward;
pub use moby::upload::v1 as upload;
