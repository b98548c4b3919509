//! An app's secrets over SSH, and what becomes of them in a backup.

use std::process::Stdio;
use std::time::Duration;

use lemnos::error::Report;
use lemnos::event::SECRETS_BYTES_MAX;
use lemnos::store::Store;

use super::{Place, Said};
use crate::house::APP;

const LINE: &str = "secrets add shop token";

impl Place {
    /// `ssh builder LINE <FILE`
    fn ssh_from(&self, user: &str, line: &str, content: &[u8]) -> Said {
        let file = self.house.home.path().join("value");
        std::fs::write(&file, content).unwrap();
        let mut command = self.house.ssh(user, &["-T"], &[line]);
        Said::of(command.stdin(std::fs::File::open(file).unwrap()).output().unwrap())
    }

    /// What builds of the app would get, by name.
    fn opened(&self) -> Result<Vec<(String, Vec<u8>)>, Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.house.data()).await.unwrap();
            let name = APP.parse().unwrap();
            let app = store.app(&name).await.unwrap().unwrap();
            let opened = store.open_secrets(&name, &app.id).await;
            store.close().await;
            let opened = opened?;
            Ok(opened.into_iter().map(|one| (one.name.to_string(), one.value.expose().to_vec())).collect())
        })
    }

    fn data_lost(&self) {
        self.house.stop();
        std::fs::rename(self.house.data(), self.house.home.path().join("lost")).unwrap();
    }

    /// What a push to main of a new commit comes to.
    fn pushes(&self, name: &str) -> crate::house::Said {
        let commit = self.house.commit(None, &[("Dockerfile", super::BUILT), ("name", name)], name);
        self.house.push(&[&format!("+{commit}:refs/heads/main")])
    }
}

fn token(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    vec![("token".to_owned(), value.to_vec())]
}

fn logins(place: &Place) -> usize {
    place.house.log().lines().filter(|line| line.contains("logged_in")).count()
}

#[test]
fn a_secret_comes_over_ssh_as_the_bytes_that_it_is() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).chain(*b"canary\r\n\n").collect();
    let said = place.ssh_from("ada", LINE, &bytes).well();
    assert_eq!(said, "Added token to shop\n  RUN --mount=type=secret,id=token …\n");
    assert_eq!(place.opened().unwrap(), token(&bytes));
    let longest = vec![0xfe; SECRETS_BYTES_MAX];
    let said = place.ssh_from("ada", LINE, &longest).well();
    assert!(said.starts_with("Added token to shop, in place of an earlier value\n"), "{said}");
    assert_eq!(place.opened().unwrap(), token(&longest));

    // refused, with what is there as it was
    let too_long = vec![b'x'; SECRETS_BYTES_MAX + 1];
    for (user, line, value, told) in [
        ("ada", LINE, too_long.as_slice(), "it is too long"),
        ("ada", LINE, b"", "fewer than 4 bytes"),
        ("ada", LINE, b"abc", "fewer than 4 bytes"),
        ("ada", "secrets add shop --ssh default", b"no key of anybody", "not in OpenSSH's format"),
        ("ada", "secrets add blog token", b"canary", "there is no app blog"),
        ("ada", "secrets add shop ../token", b"canary", "not a valid secret's name"),
        ("ada", "secrets add shop", b"canary", "NAME"),
        ("ada", "secrets add shop token canary", b"canary", "canary"),
        ("bob", LINE, b"canary", "only administrators may"),
        ("eve", LINE, b"canary", "only administrators may"),
    ] {
        let said = place.ssh_from(user, line, value);
        assert!(said.status != Some(0) && said.out.is_empty(), "{line}: {said:?}");
        assert!(said.err.contains(told) && said.err.starts_with("error: "), "{line}: {said:?}");
    }
    assert_eq!(place.opened().unwrap(), token(&longest));
    let listed = place.ssh("ada", "secrets list shop").well();
    assert!(listed.contains("token") && !listed.contains("canary"), "{listed}");

    // half a value, of a client that is gone, is none
    let before = logins(&place);
    for round in 1..=20 {
        let mut child = place.house.ssh("ada", &["-T"], &[LINE]).stdin(Stdio::piped()).spawn().unwrap();
        let half = format!("half of a canary {round}");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), half.as_bytes()).unwrap();
        place.eventually("it is on its way", || logins(&place) >= before + round);
        // what it has sent is there, and no end of it
        std::thread::sleep(Duration::from_millis(30));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.house.stop();
    assert_eq!(place.opened().unwrap(), token(&longest));
    let record = place.house.lemnos(&["audit", "--json", "--limit", "1000"]);
    for said in [record, place.house.log()] {
        assert!(!said.contains("canary") && !said.contains(&"x".repeat(100)), "{said}");
    }
}

#[test]
fn a_backup_with_the_key_has_the_secrets_too() {
    let place = Place::new();
    place.ssh_from("ada", LINE, b"canary").well();
    let backup = place.house.home.path().join("backup").display().to_string();
    place.house.lemnos(&["backup", &backup, "--with-secrets"]);
    place.data_lost();
    assert!(!place.house.lemnos(&["restore", &backup]).contains("no secrets"));
    place.house.serve();
    assert_eq!(place.opened().unwrap(), token(b"canary"));
    place.pushes("after").succeeded();
}

/// Without the key everything says what is missing, what mends it does, and nothing is lost that the key would still open.
#[test]
fn a_backup_without_the_key_says_so_until_the_key_or_new_secrets_come() {
    let place = Place::new();
    place.ssh_from("ada", LINE, b"canary").well();
    let backup = place.house.home.path().join("backup").display().to_string();
    place.house.lemnos(&["backup", &backup]);
    place.data_lost();
    let key = place.house.home.path().join("lost/secret.key");
    let (here, other) = (place.house.data().join("secret.key"), place.house.home.path().join("other.key"));
    let said = place.house.lemnos(&["restore", &backup]);
    for part in ["cannot be opened", "put secret.key back", "lemnos secrets remove", "lemnos secrets add"] {
        assert!(said.contains(part), "missing {part:?} in {said}");
    }
    place.house.serve();
    // what is there is shown, and a build that would go without is not begun
    assert!(place.ssh("ada", "secrets list shop").well().contains("token"));
    let begun = place.house.builder.seen().begun;
    place.pushes("no key").failed().shows("secret.key is missing").shows("put the file back");
    assert_eq!(place.house.builder.seen().begun, begun);
    let said = place.ssh_from("ada", LINE, b"another");
    assert!(said.err.contains("secret.key is missing") && said.err.contains("secrets remove"), "{said:?}");
    assert!(!here.exists(), "a new key would hide that the old one is lost");

    // the key of another server opens nothing
    std::fs::write(&other, [7; 32]).unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(&other, &here).unwrap();
    place.pushes("another's key").failed().shows("the secret token of app shop does not open with");
    // the right one does, at once
    std::fs::copy(&key, &here).unwrap();
    place.pushes("the right key").succeeded();
    assert_eq!(place.opened().unwrap(), token(b"canary"));

    // or it is given up
    std::fs::remove_file(&here).unwrap();
    place.ssh("ada", "secrets remove shop token").well();
    place.pushes("without").succeeded();
    place.ssh_from("ada", LINE, b"another").well();
    assert_eq!(place.opened().unwrap(), token(b"another"));
    place.pushes("with another").succeeded();
}
