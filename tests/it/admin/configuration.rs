//! `lemnos config`: what holds, where it came from, and what is wrong with it.

use super::Home;

#[test]
fn the_configuration_and_where_it_came_from() {
    let home = Home::new();
    std::fs::create_dir(home.data()).unwrap();
    std::fs::write(
        home.data().join("lemnos.toml"),
        "\nhttp = \"127.0.0.1:9000\"\n[limits]\ntree_depth = 9\n",
    )
    .unwrap();
    let mut command = home.command("config --ssh 127.0.0.1:0 --builder unix:///b.sock,platform=linux/arm64");
    let output = command.env("LEMNOS_REGISTRY", "registry.example.com/team").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace(home.dir.path().to_str().unwrap(), "HOME");
    let set: Vec<_> = text
        .lines()
        .filter(|line| !line.ends_with("default"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    insta::assert_snapshot!(set.join("\n"), @r"
    SETTING VALUE FROM
    data HOME/data LEMNOS_DATA
    ssh 127.0.0.1:0 --ssh
    http 127.0.0.1:9000 HOME/data/lemnos.toml:2
    builders unix:///b.sock,platform=linux/arm64 --builder
    registry registry.example.com/team LEMNOS_REGISTRY
    docker_config HOME/.docker/config.json HOME
    limits.tree_depth 9 HOME/data/lemnos.toml:4
    ");
    let json = home.json("config --json");
    assert_eq!(json["settings"]["http"]["value"], "127.0.0.1:9000");
    let file = home.data().join("lemnos.toml");
    assert_eq!(json["settings"]["http"]["from"], format!("{}:2", file.display()));
    assert_eq!(json["file"], file.to_str().unwrap());
    assert_eq!(json["settings"]["ssh"]["from"], "default");
    assert_eq!(json["data"]["from"], "LEMNOS_DATA");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let home = Home::new();
    std::fs::create_dir(home.data()).unwrap();
    std::fs::write(home.data().join("lemnos.toml"), "htpp = \"127.0.0.1:9000\"\n").unwrap();
    insta::assert_snapshot!(home.run("config"), @r#"
    error: HOME/data/lemnos.toml:1: unknown key "htpp"
    hint: did you mean http?
    exit 2
    "#);
    insta::assert_snapshot!(home.run("config --config absent.toml"), @r"
    error: reading HOME/absent.toml: No such file or directory (os error 2)
    hint: name a readable TOML file with --config or LEMNOS_CONFIG
    exit 2
    ");
    std::fs::remove_file(home.data().join("lemnos.toml")).unwrap();
    let output = home.command("config").env("LEMNOS_HTPP", "x").output().unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: unknown environment variable LEMNOS_HTPP
    hint: did you mean LEMNOS_HTTP?
    ");
    assert_eq!(output.status.code(), Some(2));
}
