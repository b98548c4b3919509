//! Build information out of executables that are made here, by hand: what Go's linker makes is read by the live tests.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const TEXT: &str = "path\texample.com/shop/cmd/web\nmod\texample.com/shop\tv1.2.0\t\ndep\texample.com/a\tv1.0.0\th1:AAAA=\n\
dep\texample.com/b\tv0.1.0\n=>\t./b\t(devel)\t\nbuild\t-compiler=gc\nbuild\t-ldflags=\"-s -w \\\"x\\\"\"\nbuild\tvcs.modified=false\n";

/// Magic, flags, version and framed text, as the linker lays them down.
fn blob(version: &str, text: &str) -> Vec<u8> {
    let mut blob = [MAGIC.as_slice(), &[8, INLINE], &[0; 16]].concat();
    let framed = format!("0123456789abcdef{text}fedcba9876543210");
    for string in [version, framed.as_str()] {
        let mut length = string.len();
        while length >= 0x80 {
            blob.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        blob.push(length as u8);
        blob.extend_from_slice(string.as_bytes());
    }
    blob
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(value: u64, length: usize, big: bool) -> Vec<u8> {
    if big { value.to_be_bytes()[8 - length..].to_vec() } else { value.to_le_bytes()[..length].to_vec() }
}

/// An ELF file with one writable segment at 0x40000 that holds `blob` at 0x40; `section`: the linker's section is there.
fn elf_file(wide: bool, big: bool, section: bool, blob: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let w = if wide { 8 } else { 4 };
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, if big { 2 } else { 1 }, 1]);
    let (tables, counts) = if wide { ([32, 40], 54) } else { ([28, 32], 42) };
    put(&mut file, tables[0], &word(64, w, big));
    put(&mut file, tables[1], &word(0x200, w, big));
    let (program, sections) = if wide { (56, 64) } else { (32, 40) };
    for (at, value) in [program, 1, sections, if section { 3 } else { 0 }, 2].into_iter().enumerate() {
        put(&mut file, counts + 2 * at, &word(value, 2, big));
    }
    let (flags, fields) = if wide { (4, [8, 16, 32, 40]) } else { (24, [4, 8, 16, 20]) };
    put(&mut file, 64, &word(1, 4, big));
    put(&mut file, 64 + flags, &word(6, 4, big));
    let size = 0x40 + blob.len() as u64;
    for (at, value) in fields.into_iter().zip([0x400, 0x40000, size, size + 0x1000]) {
        put(&mut file, 64 + at, &word(value, w, big));
    }
    let fields = if wide { [16, 24, 32] } else { [12, 16, 20] };
    let mut entry = |number: usize, name: u64, values: [u64; 3]| {
        let start = 0x200 + number * sections as usize;
        put(&mut file, start, &word(name, 4, big));
        for (at, value) in fields.into_iter().zip(values) {
            put(&mut file, start + at, &word(value, w, big));
        }
    };
    entry(1, 1, [0x40040, 0x440, blob.len() as u64]);
    entry(2, 16, [0, 0x300, 32]);
    put(&mut file, 0x301, b".go.buildinfo\0\0.shstrtab\0");
    put(&mut file, 0x440, blob);
    file
}

fn pe_file(blob: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &word(0x80, 4, false));
    put(&mut file, 0x80, b"PE\0\0");
    put(&mut file, 0x86, &word(2, 2, false));
    put(&mut file, 0x94, &word(112, 2, false));
    put(&mut file, 0x98, &word(0x20b, 2, false));
    put(&mut file, 0x98 + 24, &word(0x1_4000_0000, 8, false));
    for (number, (address, offset, flags)) in
        [(0x1000, 0x400, 0x6000_0020_u64), (0x2000, 0x600, 0xc000_0040)].into_iter().enumerate()
    {
        let start = 0x98 + 112 + number * 40;
        for (at, value) in [(8, 0x1000), (12, address), (16, 0x1000), (20, offset), (36, flags)] {
            put(&mut file, start + at, &word(value, 4, false));
        }
    }
    put(&mut file, 0x620, blob);
    put(&mut file, 0x1600, b"end");
    file
}

fn mach_o_file(named: bool, blob: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, &[0xcf, 0xfa, 0xed, 0xfe]);
    put(&mut file, 16, &word(2, 4, false));
    put(&mut file, 20, &word(72 + 152, 4, false));
    for (start, name, length, address, size, sections) in
        [(32, "__PAGEZERO", 72, 0, 0x1_0000_0000, 0), (104, "__DATA", 152, 0x1_0000_0000, 0x2000, 1)]
    {
        put(&mut file, start, &word(0x19, 4, false));
        put(&mut file, start + 4, &word(length, 4, false));
        put(&mut file, start + 8, name.as_bytes());
        let file_size = if sections == 0 { 0 } else { size };
        for (at, value) in [(24, address), (32, size), (40, 0x400), (48, file_size)] {
            put(&mut file, start + at, &word(value, 8, false));
        }
        for (at, value) in [(56, 3), (60, 3), (64, sections)] {
            put(&mut file, start + at, &word(value, 4, false));
        }
    }
    put(&mut file, 176, if named { b"__go_buildinfo" } else { b"__other_things" });
    put(&mut file, 176 + 32, &word(0x1_0000_0020, 8, false));
    put(&mut file, 176 + 40, &word(blob.len() as u64, 8, false));
    put(&mut file, 0x420, blob);
    file.resize(0x2400, 0);
    file
}

fn read(file: Vec<u8>) -> Result<BuildInfo, KoError> {
    BuildInfo::read(&mut Cursor::new(file))
}

#[test]
fn executables_of_all_kinds_tell_of_their_build() {
    let blob = blob("go1.26.3", TEXT);
    let mut files = vec![pe_file(&blob), mach_o_file(true, &blob), mach_o_file(false, &blob)];
    for (wide, big) in [(true, false), (true, true), (false, false), (false, true)] {
        files.extend([true, false].map(|section| elf_file(wide, big, section, &blob)));
    }
    let mut fat = [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 1].to_vec();
    put(&mut fat, 16, &word(0x1000, 4, true));
    put(&mut fat, 0x1000, &mach_o_file(true, &blob));
    files.push(fat);
    for (number, file) in files.into_iter().enumerate() {
        let info = read(file).unwrap_or_else(|error| panic!("file {number}: {error}"));
        assert_eq!(info.go_version, "go1.26.3", "file {number}");
        assert_eq!(BuildInfo { go_version: String::new(), ..info }, BuildInfo::parse(TEXT).unwrap());
    }
}

#[test]
fn the_text_reads_as_go_reads_it() {
    let info = BuildInfo::parse(TEXT).unwrap();
    assert_eq!((info.path.as_str(), info.main.version.as_str()), ("example.com/shop/cmd/web", "v1.2.0"));
    assert_eq!(info.deps[0].sum, "h1:AAAA=");
    assert_eq!(info.deps[1].replace.as_ref().unwrap().path, "./b");
    assert_eq!(info.settings[1], ("-ldflags".to_owned(), "-s -w \"x\"".to_owned()));
    for bad in ["mod\tonly", "=>\ta\tb\tc", "build\tnothing", "build\t\"x", "dep\ta\tb\tc\td", "build\ta=\"x"]
    {
        assert!(BuildInfo::parse(bad).is_err(), "{bad}");
    }
    for (literal, value) in [
        (r#""a\tb\x41\101\u00e4""#, Some("a\tbAAä")),
        ("`raw\\n`", Some("raw\\n")),
        (r#""open"#, None),
        (r#""\q""#, None),
        (r#""\x4""#, None),
        (r#""a"b""#, None),
    ] {
        assert_eq!(unquoted(literal).as_deref(), value, "{literal}");
    }
}

#[test]
fn programs_without_it_are_named_as_such() {
    let whole = elf_file(true, false, true, &blob("go1.26.3", TEXT));
    let mut pointers = whole.clone();
    pointers[0x440 + 15] = 0;
    let mut cut = whole.clone();
    cut.truncate(0x440 + 60);
    for file in [Vec::new(), b"#!/bin/sh\n".to_vec(), pointers, cut, elf_file(true, false, true, b"none")] {
        let said = read(file).unwrap_err().to_string();
        assert!(said.contains("no Go program"), "{said}");
    }
}

proptest! {
    /// A damaged executable is read or refused; it never takes much memory or time, and nothing panics.
    #[test]
    fn damage_is_survived(
        kind in 0..4_usize,
        damage in prop::collection::vec((0..0x500_usize, any::<u8>()), 0..12),
        length in 0..0x800_usize,
    ) {
        let blob = blob("go1.26.3", TEXT);
        let mut file = match kind {
            0 => elf_file(true, false, true, &blob),
            1 => elf_file(false, true, false, &blob),
            2 => pe_file(&blob),
            _ => mach_o_file(true, &blob),
        };
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file.truncate(file.len().saturating_sub(length));
        let _ = read(file);
    }
}
