//! Further names of a Go program's image, in a registry of another one's: where the operator lets them be, with the app's own
//! login, and never where another app has its images.

use crate::credentials::{Guarded, TEAM_PASSWORD};
use crate::house::House;
use crate::ko_push::{MODULE, SMALL, house_with};

/// What stands at `reference` of the other registry.
fn digest_at(house: &House, other: &Guarded, repository: &str, tag: &str) -> Option<String> {
    let mut curl = house.command("curl");
    curl.args(["-s", "-I", "-u", &format!("team:{TEAM_PASSWORD}")]);
    curl.args(["-H", "Accept: application/vnd.oci.image.manifest.v1+json"]);
    curl.args(["-H", "Accept: application/vnd.docker.distribution.manifest.v2+json"]);
    let output =
        curl.arg(format!("http://{}/v2/{repository}/manifests/{tag}", other.address)).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let digest = said.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
    digest.map(|digest| digest.trim().to_owned())
}

#[test]
fn an_image_goes_to_another_registry_where_the_operator_lists_it_and_with_the_app_s_login() {
    let other = Guarded::with_password();
    let mirror = format!("{}/mirror", other.address);
    let house = house_with("ko-dest", &[("LEMNOS_PUSH_DESTINATIONS", &mirror)]);
    let config = |destination: &str| format!("ko_config:\n  destinations: [{destination}]\n");
    for app in ["hello", "second"] {
        house.app(app);
        house.lemnos(&["apps", "set", app, "platforms=linux/amd64"]).succeeded();
    }
    let elsewhere = format!("{}/else/hello", other.address);
    let text = config(&elsewhere);
    let files = [("go.mod", MODULE), ("main.go", SMALL), ("build-config.yaml", text.as_str())];
    let work = house.repository("hello", &files);
    house
        .push(&work, &["main"])
        .failed()
        .shows(&format!("{elsewhere} is neither"))
        .shows("not in push_destinations of this server")
        .shows(&format!("ask the operator to add {elsewhere} to push_destinations (lemnos.toml)"));

    // listed, but nobody has logged in
    let listed = format!("{mirror}/hello");
    house.commit(&work, &[("build-config.yaml", &config(&listed))], "listed");
    house.push(&work, &["main"]).failed().shows(&listed).shows("there are no credentials for it (401)");
    assert_eq!(
        (house.manifest("hello", "main"), digest_at(&house, &other, "mirror/hello", "main")),
        (None, None)
    );

    // another app's login is no help
    let login = |app: &str| {
        let args = ["registry", "login", &other.address, "--app", app, "-u", "team", "--password-stdin"];
        house.lemnos_reading(&args, TEAM_PASSWORD).succeeded();
    };
    login("second");
    house.push(&work, &["main"]).failed().shows("there are no credentials for it (401)");
    login("hello");
    house
        .push(&work, &["main"])
        .succeeded()
        .shows(&format!("Pushed the image for linux/amd64 to {listed}"))
        .shows(&format!("tagged {listed}:main"))
        .hides(TEAM_PASSWORD);
    let ours = house.digest("hello", "main").unwrap();
    assert_eq!(digest_at(&house, &other, "mirror/hello", "main"), Some(ours.clone()));
    assert_eq!(digest_at(&house, &other, "mirror/hello", "latest"), Some(ours.clone()));
    let build = house.builds("hello").remove(0);
    assert_eq!(build["images"][1]["name"], listed.as_str(), "{build}");
    assert_eq!(build["images"][1]["digest"], ours.as_str());

    // what one app pushes to is no other app's, neither to push to nor to build on
    let second = house.repository("second", &files);
    house.commit(&second, &[("build-config.yaml", &config(&listed))], "the same name");
    house.push(&second, &["main"]).failed().shows(&format!("{listed} is another app's"));
    let base = format!("ko_config:\n  base_image: {listed}:main\n");
    house.commit(&second, &[("build-config.yaml", &base)], "on the other's image");
    house.push(&second, &["main"]).failed().shows("it lies among the images of apps");
    // an app without the name is free to have one beside it
    house.commit(&second, &[("build-config.yaml", &config(&format!("{mirror}/second")))], "its own");
    house.push(&second, &["main"]).succeeded();
    assert_eq!(digest_at(&house, &other, "mirror/hello", "main"), Some(ours));
}
