//! The disk under the server fails: full or read-only, below the repositories or below the database. The push is refused before
//! success is reported, the server lives, and when the disk is well again, all works.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults::{next, on_record, push, standing, stands_at};
use crate::house::{House, Said};

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let said = Said::of(Command::new(program).args(args).output().unwrap());
    assert!(said.ok, "{program} {args:?} (mounting needs root, as tests/run has it): {}", said.text);
}

/// A small file system of its own, with what was in its place; gone with its value.
struct Disk {
    at: PathBuf,
    /// The file that it is in, where it is one that can break.
    image: Option<PathBuf>,
}

impl Disk {
    /// In memory, 6 MB of it.
    fn small(at: &Path) -> Self {
        let disk = Self { at: at.to_owned(), image: None };
        disk.over(&["-t", "tmpfs", "-o", "size=6m,mode=0755", "tmpfs"]);
        disk
    }

    /// ext4 in a file, which turns read-only at the first error as most machines have it.
    fn breakable(at: &Path) -> Self {
        let image = at.with_extension("ext4");
        std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let name = image.to_str().unwrap().to_owned();
        run("mkfs.ext4", &["-q", "-F", &name]);
        let disk = Self { at: at.to_owned(), image: Some(image) };
        disk.over(&["-o", "loop,errors=remount-ro", &name]);
        disk
    }

    fn over(&self, mount: &[&str]) {
        let at = self.at.to_str().unwrap();
        let aside = format!("{at}.aside");
        run("cp", &["-a", at, &aside]);
        run("mount", &[mount, &[at]].concat());
        run("cp", &["-a", &format!("{aside}/."), at]);
        std::fs::remove_dir_all(aside).unwrap();
        run("sync", &["-f", at]);
    }

    /// Leaves no room; the file that takes it.
    fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        // ends with the disk
        let _ = std::io::copy(&mut std::io::repeat(b'x'), &mut file);
        path
    }

    /// As after an error of the device.
    fn break_down(&self) {
        run("mount", &["-o", "remount,abort", self.at.to_str().unwrap()]);
        assert!(std::fs::write(self.at.join("x"), "x").is_err(), "the disk still takes writes");
    }

    /// What an operator does: nobody uses it meanwhile.
    fn repair(&self) {
        let (at, image) = (self.at.to_str().unwrap(), self.image.as_ref().unwrap().to_str().unwrap());
        run("umount", &[at]);
        // 1: errors were corrected
        let checked = Command::new("e2fsck").args(["-fp", image]).output().unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        run("mount", &["-o", "loop,errors=remount-ro", image, at]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

#[test]
fn a_full_disk_under_the_repositories_refuses_the_push_and_keeps_nothing() {
    let house = House::new();
    let repositories = house.data().join("repositories");
    let disk = Disk::small(&repositories);
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n")], "first");
    push(&house, &first).succeeded();
    let filler = disk.fill();
    let second = next(&house, &first, "second");
    push(&house, &second).failed().shows("No space left on device");
    assert!(house.is_up());
    stands_at(&house, &first);
    on_record(&house, &[("push_refused", "git refused it")]);
    std::fs::remove_file(filler).unwrap();
    push(&house, &second).succeeded();
    stands_at(&house, &second);
    house.stop();
}

/// A house whose database has a disk of its own: what is below the repositories has room.
fn standing_on(disk: impl FnOnce(&Path) -> Disk) -> (House, Disk, Disk, String) {
    let (house, first) = standing();
    house.stop();
    let data = house.data();
    let (below, repositories) = (disk(&data), Disk::small(&data.join("repositories")));
    house.serve();
    (house, below, repositories, first)
}

/// E4
#[test]
fn a_full_disk_under_the_database_refuses_the_push_until_there_is_room() {
    let (house, disk, _repositories, first) = standing_on(Disk::small);
    let filler = disk.fill();
    let second = next(&house, &first, "second");
    // where not even keys can be looked up, the door says no more than that
    push(&house, &second).failed();
    assert!(house.log().contains("no space is left for the database"), "{}", house.log());
    assert!(house.is_up());
    stands_at(&house, &first);
    assert_eq!(house.tag(&format!("git-{}", &second[..12])), None);
    std::fs::remove_file(filler).unwrap();
    assert_eq!(house.leftovers(), [] as [String; 0]);
    push(&house, &second).succeeded();
    stands_at(&house, &second);
    house.stop();
}

/// E4: a build is done, and there is no room to note that its tags move.
#[test]
fn a_disk_that_is_full_at_the_commit_point_moves_nothing() {
    let (house, disk, _repositories, first) = standing_on(Disk::small);
    house.stop();
    let gate = house.home.path().join("gate");
    house.set_env(&[("LEMNOS_FAILPOINT", &format!("before-commit:pause-until-file={}", gate.display()))]);
    house.serve();
    let begun = house.builder.seen().succeeded;
    let second = next(&house, &first, "second");
    let (said, filler) = std::thread::scope(|scope| {
        let pushing = scope.spawn(|| push(&house, &second));
        house.builder.until("the solve has ended", |seen| seen.succeeded > begun);
        // what the build writes about itself is written
        std::thread::sleep(std::time::Duration::from_millis(300));
        let filler = disk.fill();
        std::fs::write(&gate, "").unwrap();
        (pushing.join().unwrap(), filler)
    });
    said.failed().shows("no space is left for the database");
    stands_at(&house, &first);
    std::fs::remove_file(filler).unwrap();
    push(&house, &second).succeeded();
    stands_at(&house, &second);
    house.settles("the end of the first push is written when there is room", |house| {
        let records = house.records();
        records.of(&second).iter().filter(|row| row.state.is_live()).map(|row| format!("{row:?}")).collect()
    });
    assert_eq!(house.records().of(&second).len(), 2);
    house.stop();
}

/// E4
#[test]
fn a_database_on_a_disk_that_turned_read_only_refuses_the_push() {
    let (house, disk, repositories, first) = standing_on(Disk::breakable);
    disk.break_down();
    let second = next(&house, &first, "second");
    // SQLite says the one or the other, and the pusher is told so or sent to the operator, who finds it in the log
    push(&house, &second).failed();
    let causes = ["the database cannot be written", "the disk under the database answers with an error"];
    assert!(causes.iter().any(|cause| house.log().contains(cause)), "{}", house.log());
    assert!(house.is_up());
    stands_at(&house, &first);
    house.kill();
    // they lie below
    run("umount", &[repositories.at.to_str().unwrap()]);
    disk.repair();
    house.serve();
    push(&house, &second).succeeded();
    stands_at(&house, &second);
    house.stop();
}
