//! The committed Rust is what the committed `.proto` files say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;

const FILES: [&str; 16] = [
    "buildkit/auth.proto",
    "buildkit/caps.proto",
    "buildkit/control.proto",
    "buildkit/exporter.proto",
    "buildkit/filesync.proto",
    "buildkit/gateway.proto",
    "buildkit/ops.proto",
    "buildkit/policysession.proto",
    "buildkit/secrets.proto",
    "buildkit/sourcepolicy.proto",
    "buildkit/sshforward.proto",
    "buildkit/upload.proto",
    "buildkit/worker.proto",
    "containerd/content.proto",
    "fsutil/wire.proto",
    "google/rpc/status.proto",
];

fn read(dir: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

fn generate(root: &Path, out: &Path) {
    let descriptors = protox::compile(FILES, [root]).unwrap();
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.bytes([
        ".containerd.services.content.v1.ReadContentResponse.data",
        ".containerd.services.content.v1.WriteContentRequest.data",
        ".fsutil.types.Packet.data",
        ".moby.buildkit.v1.BytesMessage.data",
        ".moby.filesync.v1.BytesMessage.data",
        ".moby.sshforward.v1.BytesMessage.data",
        ".moby.upload.v1.BytesMessage.data",
    ]);
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds_with_config(descriptors, config)
        .unwrap();
}

#[test]
fn committed_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/gen");
    if std::env::var_os("LEMNOS_REGENERATE").is_some() {
        std::fs::remove_dir_all(&committed).ok();
        std::fs::create_dir_all(&committed).unwrap();
        generate(root, &committed);
        return;
    }
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    std::fs::remove_dir_all(&fresh).ok();
    std::fs::create_dir_all(&fresh).unwrap();
    generate(root, &fresh);
    let (want, have) = (read(&fresh), read(&committed));
    assert_eq!(want.keys().collect::<Vec<_>>(), have.keys().collect::<Vec<_>>(), "files under src/gen");
    for (name, text) in want {
        assert!(
            have[&name] == text,
            "src/gen/{name} is stale: run LEMNOS_REGENERATE=1 cargo test -p lemnos-proto"
        );
    }
}

#[test]
fn every_proto_file_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = protox::compile(FILES, [root]).unwrap();
    let names: Vec<&str> = compiled.file.iter().map(prost_types::FileDescriptorProto::name).collect();
    for dir in ["buildkit", "containerd", "fsutil", "google/rpc"] {
        for file in read(&root.join(dir)).keys() {
            let path = format!("{dir}/{file}");
            assert!(names.contains(&path.as_str()), "{path} is compiled by no one");
        }
    }
}
