//! The Go program of `tests/oracle/llb`: built once, and asked for a definition.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The definition that Go makes of a description, as bytes for buildctl; none where there is no Go.
#[allow(dead_code, reason = "the live tests ask for it")]
pub fn definition(line: &str) -> Option<Vec<u8>> {
    let mut child = Command::new(program()?)
        .arg("definition")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "the oracle makes no definition");
    Some(out.stdout)
}

/// Built in the tests' own directory; none where there is no Go.
pub fn program() -> Option<PathBuf> {
    // tests/run names the one that it provides, which need not be on PATH
    let named = std::env::var_os("LEMNOS_TEST_GO");
    let go = named.clone().unwrap_or_else(|| "go".into());
    let found = Command::new(&go).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() && named.is_none() {
        return None;
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("llb-oracle-", env!("CARGO_CRATE_NAME")));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
        let mut build = Command::new(&go);
        build.args(["build", "-trimpath", "-o"]).arg(&program).arg("./llb").current_dir(source);
        assert!(build.status().unwrap().success(), "tests/oracle/llb does not compile");
        program
    });
    Some(program.clone())
}
