//! Which platforms this machine cannot run: neither its own processor nor a registered emulator does.
//!
//! Handlers are recognised by the ELF header they match, not by their name: qemu, Rosetta and others differ in that.

use std::path::Path;

use crate::model::Platform;

/// Where the kernel shows them; empty where the file system is not mounted.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// The platforms among `wanted` that a RUN step of this machine could not run.
pub fn missing(wanted: &[Platform]) -> Vec<Platform> {
    missing_in(Path::new(BINFMT_MISC), std::env::consts::ARCH, wanted)
}

/// What to do about them, one sentence.
pub const REMEDY: &str = "install qemu-user-static (Debian and Ubuntu; it registers the handlers), or run `docker run --privileged --rm tonistiigi/binfmt --install all`, or add a builder of that platform (`--builder tcp://HOST:PORT,platform=…`)";

fn missing_in(handlers: &Path, host: &str, wanted: &[Platform]) -> Vec<Platform> {
    let emulated: Vec<Machine> = std::fs::read_dir(handlers)
        .map(|dir| dir.flatten().filter_map(|f| handler(&std::fs::read_to_string(f.path()).ok()?)).collect())
        .unwrap_or_default();
    let own = host_architectures(host);
    let runs = |platform: &Platform| {
        platform.os == "linux"
            && (own.contains(&platform.arch.as_str())
                || machine(&platform.arch).is_some_and(|m| emulated.contains(&m)))
    };
    wanted.iter().filter(|p| !runs(p)).cloned().collect()
}

/// GOARCH names that a processor of Rust's `host` name runs by itself.
fn host_architectures(host: &str) -> &'static [&'static str] {
    match host {
        "x86_64" => &["amd64", "386"],
        "aarch64" => &["arm64"],
        "x86" => &["386"],
        "arm" => &["arm"],
        "riscv64" => &["riscv64"],
        "powerpc64" => &["ppc64le"],
        "s390x" => &["s390x"],
        "loongarch64" => &["loong64"],
        _ => &[],
    }
}

/// What tells architectures apart in an ELF header: class, byte order, e_machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    bits64: bool,
    big_endian: bool,
    number: u16,
}

/// e_machine numbers of the ELF specification.
fn machine(goarch: &str) -> Option<Machine> {
    let (bits64, big_endian, number) = match goarch {
        "amd64" => (true, false, 62),
        "386" => (false, false, 3),
        "arm64" => (true, false, 183),
        "arm" => (false, false, 40),
        "riscv64" => (true, false, 243),
        "ppc64le" => (true, false, 21),
        "s390x" => (true, true, 22),
        "mips64le" => (true, false, 8),
        "mips64" => (true, true, 8),
        "loong64" => (true, false, 258),
        _ => return None,
    };
    Some(Machine { bits64, big_endian, number })
}

/// The machine that an enabled handler's `magic` matches.
fn handler(text: &str) -> Option<Machine> {
    let mut lines = text.lines();
    if lines.next()? != "enabled" {
        return None;
    }
    let magic = hex::decode(lines.find_map(|line| line.strip_prefix("magic "))?).ok()?;
    if !magic.starts_with(b"\x7fELF") {
        return None;
    }
    let big_endian = *magic.get(5)? == 2;
    let number = [*magic.get(18)?, *magic.get(19)?];
    Some(Machine {
        bits64: *magic.get(4)? == 2,
        big_endian,
        number: if big_endian { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel shows qemu's handler for aarch64.
    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn platforms(names: &[&str]) -> Vec<Platform> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn a_platform_runs_by_itself_or_by_an_enabled_handler() {
        let dir = tempfile::tempdir().unwrap();
        let all = platforms(&["linux/amd64", "linux/386", "linux/arm64", "linux/arm/v7", "windows/amd64"]);
        let check = |host| missing_in(dir.path(), host, &all);
        assert_eq!(check("x86_64"), platforms(&["linux/arm64", "linux/arm/v7", "windows/amd64"]));
        std::fs::write(dir.path().join("status"), "enabled\n").unwrap();
        std::fs::write(dir.path().join("any-name"), AARCH64).unwrap();
        assert_eq!(check("x86_64"), platforms(&["linux/arm/v7", "windows/amd64"]));
        std::fs::write(dir.path().join("any-name"), AARCH64.replace("enabled", "disabled")).unwrap();
        assert_eq!(check("x86_64"), platforms(&["linux/arm64", "linux/arm/v7", "windows/amd64"]));
        assert_eq!(
            check("aarch64"),
            platforms(&["linux/amd64", "linux/386", "linux/arm/v7", "windows/amd64"])
        );
    }

    #[test]
    fn an_unmounted_file_system_means_no_handlers() {
        let all = platforms(&["linux/amd64", "linux/arm64"]);
        assert_eq!(missing_in(Path::new("/nowhere"), "x86_64", &all), platforms(&["linux/arm64"]));
    }
}
