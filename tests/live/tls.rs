//! A real buildkitd behind mutual TLS: the right certificate builds, and who has none, a stranger's or an old one gets no
//! connection and is told why.

use serde_json::Value;

use crate::attacks::small_app;
use crate::builder::OwnBuilder;
use crate::house::House;
use crate::pool::await_state;
use crate::standing::Standing;

fn status(house: &House, name: &str) -> Value {
    let list = house.lemnos(&["builders", "list", "--json"]).succeeded();
    let builders: Value = serde_json::from_str(&list.stdout).unwrap();
    builders.as_array().unwrap().iter().find(|b| b["name"] == name).unwrap().clone()
}

/// D5
#[test]
fn d5_a_builder_behind_tls_builds_for_the_right_certificate_alone() {
    let pki = tempfile::tempdir().unwrap();
    crate::pki::make(pki.path());
    let file = |name: &str| pki.path().join(name).display().to_string();
    let daemon = OwnBuilder::start_tls(pki.path(), "server");
    let spec = |name: &str, authority: &str, client: Option<&str>| {
        let client =
            client.map(|c| format!(",cert={},key={}", file(&format!("{c}.pem")), file(&format!("{c}.key"))));
        format!(
            "{},ca={}{}",
            daemon.spec(name),
            file(&format!("{authority}.pem")),
            client.unwrap_or_default()
        )
    };
    let house = House::start_changed("tls", &[], |house| {
        house.builder = Some(spec("right", "ca", Some("client")));
    });
    await_state(&house, "right", "up");
    small_app(&house, "shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo behind TLS > /done\n")]);
    house.push(&dir, &["main"]).succeeded();
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "done").as_deref(), Some("behind TLS\n"));
    let tag = house.digest("shop", "main");
    let standing = Standing::of(&house);

    house.lemnos(&["builders", "drain", "right"]).succeeded();
    let old = OwnBuilder::start_tls(pki.path(), "expired");
    let old_server = format!(
        "{},ca={},cert={},key={}",
        old.spec("old-server"),
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    );
    for (name, spec, why) in [
        ("none", spec("none", "ca", None), "none is set"),
        ("stranger", spec("stranger", "ca", Some("stranger")), "may not take the client certificate"),
        ("expired", spec("expired", "ca", Some("expired")), "may not take the client certificate"),
        ("distrusting", spec("distrusting", "other", Some("client")), "UnknownIssuer"),
        ("old-server", old_server, "expired"),
        ("plain", daemon.spec("plain"), "tcp://127.0.0.1:"),
    ] {
        house.lemnos(&["builders", "add", &spec]).succeeded().shows("does not answer yet");
        let status = status(&house, name);
        assert_eq!(status["state"], "down", "{status}");
        let cause = status["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains(why), "{name}: {cause}");
        house.commit(&dir, &[("Dockerfile", &format!("FROM busybox\nRUN echo {name}\n"))], name);
        house
            .push(&dir, &["main"])
            .failed()
            .shows(why)
            .shows("hint: ")
            .shows("! [remote rejected] main -> main (no builder for linux/amd64")
            .hides(&format!("RUN echo {name}"));
        house.lemnos(&["builders", "remove", name]).succeeded();
    }
    assert_eq!(house.digest("shop", "main"), tag);
    standing.holds_beside_builds(&house, &[("push_answered", "no builder for linux/amd64"); 6]);

    // the daemon was there all the time
    house.lemnos(&["builders", "resume", "right"]).succeeded();
    house.push(&dir, &["main"]).succeeded();
}
