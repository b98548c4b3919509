//! Whose images and whose credentials a build gets: against registries that ask who comes, one that sells tokens and one
//! that takes a password (security rows D1, D4 and the credentials in transit).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::{rand, rsa, signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tempfile::TempDir;

use crate::house::{House, Said};
use crate::standing::Standing;
use crate::support::engines;

/// Passwords as nothing else spells them, so that one that leaked is found.
const SERVER_PASSWORD: &str = "canary-token-0815";
pub const TEAM_PASSWORD: &str = "canary-basic-4711";
/// bcrypt of `TEAM_PASSWORD`.
const TEAM_HASH: &str = "$2b$05$abcdefghijklmnopqrstuuoXazsBki6xUDi3qq8vn2T4v9fjrujrG";

/// A registry of the test's own.
pub struct Guarded {
    dir: TempDir,
    pub address: String,
    process: Child,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Guarded {
    fn start(dir: TempDir, auth: &str) -> Self {
        let port = crate::port::own().port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\", secret: x}}\nauth:\n{auth}",
            dir.path().join("images").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new(&engines().registry_program)
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(&address).is_err() {
            let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(60), "the registry does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { dir, address, process }
    }

    /// Takes `team` with its password, for everything.
    pub fn with_password() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("htpasswd");
        std::fs::write(&users, format!("team:{TEAM_HASH}\n")).unwrap();
        Self::start(dir, &format!("  htpasswd: {{realm: test, path: {}}}\n", users.display()))
    }

    /// Puts the shared base image at `image`.
    fn seed(&self, image: &str, user: &str, password: &str) {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let logins = self.dir.path().join("auth.json");
        let json = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.address);
        std::fs::write(&logins, json).unwrap();
        let output = Command::new("skopeo")
            .args(["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-authfile"])
            .arg(&logins)
            .arg(format!("docker://{}/library/busybox:stable", engines().base_registry))
            .arg(format!("docker://{}/{image}", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// One question to the token service: user agent, user, scopes asked.
#[derive(Debug, Clone)]
struct Asked {
    agent: String,
    user: String,
    scopes: Vec<String>,
}

/// A token service for `server`, who may do everything.
struct TokenService {
    realm: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    certificate: std::path::PathBuf,
    dir: TempDir,
}

impl TokenService {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lemnos test"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pem = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().filter(|line| !line.starts_with("-----")).collect::<String>()
        };
        let signer = Arc::new(rsa::KeyPair::from_pkcs8(&STANDARD.decode(pem(&key)).unwrap()).unwrap());
        let chain = pem(&certificate);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let seen = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (seen, signer, chain) = (seen.clone(), signer.clone(), chain.clone());
                // a connection that breaks is its client's to notice
                std::thread::spawn(move || answer(client, &seen, &signer, &chain));
            }
        });
        Self { realm, asked, certificate, dir }
    }

    fn registry(&self) -> Guarded {
        let auth = format!(
            "  token: {{realm: \"{}\", service: lemnos-test, issuer: lemnos-test, rootcertbundle: {}}}\n",
            self.realm,
            self.certificate.display()
        );
        Guarded::start(tempfile::tempdir_in(self.dir.path()).unwrap(), &auth)
    }
}

fn answer(
    client: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    signer: &rsa::KeyPair,
    chain: &str,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push(line.trim_end().to_owned());
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let mut client = client;
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line.split_once(':').unwrap().1.trim().to_owned()).unwrap_or_default()
    };
    if !head[0].starts_with("GET ") {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let url = reqwest_url(head[0].split(' ').nth(1).unwrap());
    let scopes: Vec<String> =
        url.into_iter().filter(|(key, _)| key == "scope").map(|(_, value)| value).collect();
    let basic = header("authorization");
    let basic = STANDARD.decode(basic.trim_start_matches("Basic ")).unwrap_or_default();
    let known = basic == format!("server:{SERVER_PASSWORD}").into_bytes();
    let user = if known { "server" } else { "" };
    seen.lock().unwrap().push(Asked {
        agent: header("user-agent"),
        user: user.into(),
        scopes: scopes.clone(),
    });
    let access: Vec<_> = scopes
        .iter()
        .filter(|_| known)
        .flat_map(|scope| scope.split(' '))
        .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'))
        .map(|(name, actions)| {
            serde_json::json!({"type": "repository", "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
        })
        .collect();
    let token = jwt(signer, chain, user, &access);
    let body = serde_json::json!({"token": token, "expires_in": 300}).to_string();
    client.write_all(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
}

/// The pairs of a query.
fn reqwest_url(path: &str) -> Vec<(String, String)> {
    let url: reqwest::Url = format!("http://localhost{path}").parse().unwrap();
    url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

fn jwt(signer: &rsa::KeyPair, chain: &str, user: &str, access: &[serde_json::Value]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
    let claims = serde_json::json!({
        "iss": "lemnos-test", "sub": user, "aud": "lemnos-test", "nbf": now - 60, "iat": now - 60, "exp": now + 300,
        "jti": format!("{now}-{}", access.len()), "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let mut mark = vec![0; signer.public_modulus_len()];
    signer
        .sign(&signature::RSA_PKCS1_SHA256, &rand::SystemRandom::new(), signed.as_bytes(), &mut mark)
        .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark))
}

/// An app for one platform with one commit of a Dockerfile.
fn app(house: &House, name: &str, dockerfile: &str) -> std::path::PathBuf {
    house.app(name);
    house.lemnos(&["apps", "set", name, "platforms=linux/amd64"]).succeeded();
    house.repository(name, &[("Dockerfile", dockerfile), ("greeting", "hello\n")])
}

fn login(house: &House, place: &str, app: Option<&str>, user: &str, password: &str) -> Said {
    let mut args = vec!["registry", "login", place, "-u", user, "--password-stdin"];
    args.extend(app.iter().flat_map(|app| ["--app", app]));
    house.lemnos_reading(&args, &format!("{password}\n"))
}

/// Looks at every process's arguments until told to stop, and says which one shows a password.
fn watch_arguments(stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut shown = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).into_owned();
                if words.contains("canary-") {
                    shown.push(words);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        shown
    })
}

/// Files below `dir` that hold a password.
fn files_with_password(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                if bytes.windows(7).any(|window| window == b"canary-") {
                    found.push(entry.path().display().to_string());
                }
            }
        }
    }
    found
}

#[test]
fn d4_an_app_gets_tokens_for_its_own_images_and_never_another_apps() {
    let tokens = TokenService::start();
    let registry = tokens.registry();
    registry.seed("base/python:1", "server", SERVER_PASSWORD);
    tokens.asked.lock().unwrap().clear();
    let house = House::start_on("tokens", &registry.address, &[], &[("LEMNOS_LOG", "debug")]);
    let stop = Arc::<AtomicBool>::default();
    let watching = watch_arguments(&stop);
    let shop = app(&house, "shop", &format!("FROM {}/base/python:1\nCOPY greeting /\n", registry.address));

    // nobody is logged in yet
    house.push(&shop, &["main"]).failed().shows("rejected");
    login(&house, &registry.address, None, "server", SERVER_PASSWORD).succeeded().shows("Logged in to");
    house.lemnos(&["registry", "list", "--json"]).succeeded().shows("\"server\"").hides("canary-");
    house.push(&shop, &["main"]).succeeded();

    let standing = Standing::of(&house);
    // another app: in the open, and behind a variable where only the daemon sees it
    let image = format!("{}:main", house.image("shop"));
    let blog = app(&house, "blog", &format!("FROM {image}\nCOPY greeting /\n"));
    house
        .push(&blog, &["main"])
        .failed()
        .shows(&format!(
            "Dockerfile:1: the base image \"{image}\" is refused: it lies among the images of apps"
        ))
        .shows("base_images");
    for dockerfile in [
        format!("ARG BASE={image}\nFROM $BASE\nCOPY greeting /\n"),
        format!("FROM busybox\nCOPY --from={image} /greeting /stolen\n"),
        format!("FROM busybox\nRUN --mount=from={image},target=/other cat /other/greeting\n"),
    ] {
        house.commit(&blog, &[("Dockerfile", &dockerfile)], "another way");
        house
            .push(&blog, &["main"])
            .failed()
            .shows(&format!("{image} is refused: it lies among the images of apps"))
            .shows("base_images")
            .hides("hello");
    }
    standing.refused(&house, &[("push_answered", "is refused: it lies among the images of apps"); 4]);
    // its own, and what lies beside the apps
    house.commit(
        &blog,
        &[("Dockerfile", &format!("FROM {}/base/python:1\nCOPY greeting /\n", registry.address))],
        "own",
    );
    house.push(&blog, &["main"]).succeeded();

    // the daemon was lent tokens and told no password: only lemnos ever asked as `server`
    let asked = tokens.asked.lock().unwrap().clone();
    let as_server: Vec<_> = asked.iter().filter(|asked| asked.user == "server").collect();
    assert!(
        as_server.iter().any(|asked| asked.scopes.iter().any(|scope| scope.contains("/shop:pull,push"))),
        "{asked:?}"
    );
    let others: Vec<_> = as_server.iter().filter(|asked| !asked.agent.starts_with("lemnos/")).collect();
    assert!(others.is_empty(), "{others:?}");

    for build in house.builds("blog").iter().chain(&house.builds("shop")) {
        house.lemnos(&["builds", "logs", build["id"].as_str().unwrap()]).succeeded().hides("canary-");
    }
    house.lemnos(&["registry", "logout", &registry.address]).succeeded();
    house.commit(&shop, &[("greeting", "bye\n")], "after logout");
    house.push(&shop, &["main"]).failed().shows("rejected");
    stop.store(true, Ordering::Relaxed);
    assert_eq!(watching.join().unwrap(), Vec::<String>::new(), "a password among a process's arguments");
    assert_eq!(files_with_password(house.home.path()), Vec::<String>::new());
}

#[test]
fn d4_a_private_base_image_opens_for_the_app_that_is_logged_in() {
    let registry = Guarded::with_password();
    registry.seed("private/base:1", "team", TEAM_PASSWORD);
    let house = House::start_with("basic", &[], &[("LEMNOS_LOG", "debug")]);
    let from = format!("FROM {}/private/base:1\nCOPY greeting /\n", registry.address);
    let (shop, blog) = (app(&house, "shop", &from), app(&house, "blog", &from));
    house.push(&shop, &["main"]).failed().shows("private/base:1");
    login(&house, &format!("{}/private", registry.address), Some("shop"), "team", TEAM_PASSWORD).succeeded();
    house.push(&blog, &["main"]).failed().shows("private/base:1");
    house.push(&shop, &["main"]).succeeded();
    // what one app's build has brought to the builder does not serve the other
    house.commit(&blog, &[("greeting", "again\n")], "again");
    house.push(&blog, &["main"]).failed().shows("private/base:1");
    assert_eq!(files_with_password(house.home.path()), Vec::<String>::new());

    // an image that is pushed with the app's own login, to a registry that the server itself cannot open
    let own = format!("{}/private/shop", registry.address);
    house.lemnos(&["apps", "set", "shop", &format!("image={own}")]).succeeded();
    house.commit(&shop, &[("greeting", "mine\n")], "own registry");
    house.push(&shop, &["main"]).succeeded().shows(&own);
    house.lemnos(&["apps", "set", "blog", &format!("image={}/private/blog", registry.address)]).succeeded();
    house.commit(&blog, &[("Dockerfile", "FROM busybox\nCOPY greeting /\n")], "no login");
    house.push(&blog, &["main"]).failed().shows("rejected");
}

#[test]
fn d4_policy_holds_for_whatever_a_dockerfile_says() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let inside = elsewhere.local_addr().unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let house =
        House::start_with("policy", &[], &[("LEMNOS_BASE_IMAGES", "docker.io/library/busybox:stable")]);
    let dir = app(&house, "shop", "FROM busybox:stable\nCOPY greeting /\n");
    house.push(&dir, &["main"]).succeeded();
    let standing = Standing::of(&house);
    let fetched = format!("http://{inside}/secret");
    for (dockerfile, shown) in [
        (
            "FROM busybox:latest\n",
            "Dockerfile:1: the base image \"busybox:latest\" is refused: base images here are docker.io/library/busybox:stable",
        ),
        (
            "ARG TAG=latest\nFROM busybox:$TAG\nCOPY greeting /\n",
            "docker.io/library/busybox:latest is refused: base images here are",
        ),
        (
            "FROM busybox:stable\nCOPY --from=busybox:latest /bin/sh /sh\n",
            "docker.io/library/busybox:latest is refused",
        ),
        (
            "FROM busybox:stable\nADD http://169.254.169.254/latest/meta-data /x\n",
            "refused: builds fetch nothing from addresses inside",
        ),
        (
            &format!("FROM busybox:stable\nADD {fetched} /x\n"),
            "refused: builds fetch nothing from addresses inside",
        ),
        (
            &format!("FROM busybox:stable\nADD http://{inside}/a.git#main /x\n"),
            "refused: builds fetch nothing from addresses inside",
        ),
    ] {
        house.commit(&dir, &[("Dockerfile", dockerfile)], "try");
        house.push(&dir, &["main"]).failed().shows(shown).shows("lemnos.toml");
    }
    assert!(elsewhere.accept().is_err(), "something was asked inside");
    standing.holds_beside_builds(&house, &[("push_answered", "refused"); 6]);
}
