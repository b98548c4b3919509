//! Build functions against a real buildkitd: files, containers, subrequests, and what becomes of the result.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lemnos::buildkit::gateway::{
    Call, ContainerSpec, FileKind, Gateway, GatewayError, GatewayResult, GatewaySolve, Mount, Output,
    ProcessSpec, References, ResolveOptions,
};
use lemnos::buildkit::solve::Dockerfile;
use lemnos::buildkit::{Exporter, SolveErrorKind, SolveRequest};

use super::buildkit::{BUILD, connect, request, unique};
use super::support::engines;

/// A request for `Client::build`, and what its function solves.
fn parts(dockerfile: &str) -> (tempfile::TempDir, SolveRequest, GatewaySolve) {
    let (dir, mut request) = request(dockerfile, "linux/amd64");
    let solve = GatewaySolve {
        frontend: std::mem::take(&mut request.frontend),
        options: std::mem::take(&mut request.frontend_attrs),
        evaluate: true,
        ..Default::default()
    };
    (dir, request, solve)
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin:/usr/bin".into()],
        ..Default::default()
    }
}

async fn busybox(gateway: &Gateway, solve: GatewaySolve) -> Result<GatewayResult, GatewayError> {
    gateway.ping().await?;
    gateway.solve(solve).await
}

#[tokio::test]
async fn a_function_reads_files_and_its_result_is_pushed() {
    let client = connect(&engines().buildkit).await;
    let word = unique();
    let text = format!(
        "FROM busybox\nRUN mkdir /d && echo {word} >/d/word && ln -s word /d/link && chmod 4750 /d/word\n"
    );
    let (_dir, mut request, solve) = parts(&text);
    let image = format!("{}/live/gateway-{word}", engines().registry);
    request.exporters = vec![
        Exporter::new("image").with("name", &image).with("push", "true").with("registry.insecure", "true"),
    ];
    let expected = word.clone();
    let function = |gateway: Gateway| async move {
        assert!(gateway.graph_supports("source.image") && gateway.supports("gateway.exec"));
        assert!(gateway.inputs().await?.is_empty());
        let result = busybox(&gateway, solve).await?;
        let reference = result.sole()?;
        reference.evaluate().await?;
        let file = reference.read_file("/d/word").await?;
        assert_eq!(file, format!("{expected}\n"));
        assert_eq!(reference.read_range("/d/word", 1, 3).await?, expected[1..4]);
        let entries = reference.read_dir("/d", None).await?;
        let seen: Vec<(&str, FileKind)> = entries.iter().map(|e| (e.path.as_str(), e.kind)).collect();
        assert_eq!(seen, [("link", FileKind::Symlink), ("word", FileKind::File)]);
        assert_eq!(entries[0].link, "word");
        let only = reference.read_dir("/d", Some("w*")).await?;
        assert_eq!(only.len(), 1);
        let stat = reference.stat_file("/d/word").await?;
        assert_eq!((stat.mode, stat.size), (0o4750, i64::try_from(expected.len()).unwrap() + 1));
        let missing = reference.read_file("/d/none").await.unwrap_err();
        assert!(missing.to_string().contains("no such file"), "{missing}");
        assert!(!reference.definition()?.def.is_empty());
        let config = gateway.image_config("busybox", &ResolveOptions::default()).await?;
        assert!(config.digest.starts_with("sha256:") && config.reference.contains("busybox"), "{config:?}");
        let config: serde_json::Value = serde_json::from_slice(&config.config).unwrap();
        assert_eq!(config["os"], "linux");
        Ok(result)
    };
    let built = tokio::time::timeout(BUILD, client.build(request, function, |_| {})).await.unwrap().unwrap();
    let digest = &built.attrs["containerimage.digest"];
    let crane = std::process::Command::new(&engines().crane)
        .args(["manifest", "--insecure", &format!("{image}@{digest}")])
        .output()
        .unwrap();
    assert!(crane.status.success(), "{}", String::from_utf8_lossy(&crane.stderr));
}

#[tokio::test]
async fn a_definition_of_one_result_is_the_input_of_the_next() {
    let client = connect(&engines().buildkit).await;
    let word = unique();
    let (_dir, request, solve) = parts(&format!("FROM busybox\nRUN echo {word} >/word\n"));
    let (dir, _, mut next) = parts("FROM base\nRUN cat /word /word >/twice\n");
    // the session offers the first file only: the second comes as an input too
    std::fs::write(_dir.path().join("second"), std::fs::read(dir.path().join("Dockerfile")).unwrap())
        .unwrap();
    next.options.insert("filename".into(), "second".into());
    next.options.insert("context:base".into(), "input:base".into());
    let function = |gateway: Gateway| async move {
        let first = gateway.solve(solve).await?;
        let definition = first.sole()?.definition()?.clone();
        next.inputs.insert("base".into(), definition);
        let second = gateway.solve(next).await?;
        let twice = second.sole()?.read_file("/twice").await?;
        assert_eq!(twice, format!("{word}\n{word}\n"));
        // a platform without a file, and one that is there: the daemon takes what it is given
        let many =
            BTreeMap::from([("empty".to_owned(), None), ("full".to_owned(), Some(second.sole()?.clone()))]);
        let platform =
            |id: &str| serde_json::json!({"ID": id, "Platform": {"os": "linux", "architecture": "amd64"}});
        let platforms = serde_json::json!({"Platforms": [platform("empty"), platform("full")]});
        let metadata = BTreeMap::from([("refs.platforms".to_owned(), platforms.to_string().into_bytes())]);
        Ok(GatewayResult { references: References::Many(many), metadata, ..Default::default() })
    };
    tokio::time::timeout(BUILD, client.build(request, function, |_| {})).await.unwrap().unwrap();
}

#[tokio::test]
async fn processes_have_input_outputs_exit_codes_signals_and_terminals() {
    let client = connect(&engines().buildkit).await;
    let (_dir, request, solve) = parts("FROM busybox\n");
    let function = |gateway: Gateway| async move {
        let result = busybox(&gateway, solve).await?;
        let mounts = vec![Mount::bind("/", result.sole()?)];
        let container =
            async || gateway.container(ContainerSpec { mounts: mounts.clone(), ..Default::default() }).await;

        // an end other than 0 is the end of the whole container, so each of these has its own
        let failing = container().await?;
        let process = failing.start(shell("echo out; echo err >&2; exit 7")).await?.collect(1000).await?;
        assert_eq!((&process.stdout[..], &process.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(process.exit.code, 7);
        failing.release().await?;

        let trapping = container().await?;
        let mut trapped = trapping
            .start(shell("trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.1; done"))
            .await?;
        assert_eq!(trapped.next().await?, Some(Output::Stdout("up\n".into())));
        assert!(trapped.input().signal("SIGNONE").await.is_err());
        trapped.input().signal("SIGTERM").await?;
        let ended = trapped.collect(1000).await?;
        assert_eq!((ended.exit.code, &ended.stdout[..]), (3, &b"caught\n"[..]));

        let absent = ProcessSpec { args: vec!["/none".into()], ..Default::default() };
        let absent = container().await?.start(absent).await?.collect(10_000).await?;
        assert!(
            absent.exit.code != 0 && String::from_utf8_lossy(&absent.stderr).contains("/none"),
            "{absent:?}"
        );

        let container = container().await?;
        // the first process keeps the container up for the others
        let keeper = container.start(shell("sleep 1000")).await?;
        let count = ProcessSpec { stdin: true, ..shell("wc -c") };
        let mut sink = Vec::new();
        let data = vec![b'x'; 3 << 20];
        let exit =
            container.start(count).await?.attach(Some(&data[..]), &mut sink, tokio::io::sink()).await?;
        assert_eq!((exit.code, String::from_utf8_lossy(&sink).trim()), (0, "3145728"), "{exit:?}");

        let terminal = ProcessSpec {
            tty: true,
            stdin: true,
            ..shell("read line; until stty size | grep 111; do sleep 0.1; done; test -t 1 && echo tty $line")
        };
        let mut terminal = container.start(terminal).await?;
        let input = terminal.input();
        input.resize(33, 111).await?;
        input.write(b"hello\n").await?;
        let mut shown = String::new();
        while let Some(Output::Stdout(data) | Output::Stderr(data)) = terminal.next().await? {
            shown.push_str(&String::from_utf8_lossy(&data));
        }
        assert!(shown.contains("33 111") && shown.contains("tty hello"), "{shown:?}");

        let etc = container.read_dir(0, "/").await?;
        assert!(etc.iter().any(|entry| entry.path == "bin"), "{etc:?}");
        container.release().await?;
        // ended by the release
        assert!(!matches!(keeper.wait().await, Ok(exit) if exit.code == 0));
        Ok(result)
    };
    tokio::time::timeout(BUILD, client.build(request, function, |_| {})).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failing_step_in_a_function_keeps_its_exit_code_and_place() {
    let client = connect(&engines().buildkit).await;
    let (_dir, request, solve) = parts(&format!("FROM busybox\nRUN echo {} && exit 9\n", unique()));
    let function = |gateway: Gateway| async move { gateway.solve(solve).await };
    let error =
        tokio::time::timeout(BUILD, client.build(request, function, |_| {})).await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.exit_code), (SolveErrorKind::Build, Some(9)), "{error:?}");
    assert_eq!(error.source.as_ref().and_then(|s| s.lines()), Some((2, 2)), "{error:?}");
    assert!(error.vertex.is_some_and(|v| v.name.contains("exit 9")));
}

/// The process in the container is gone within a second of the drop, and the connection goes on.
#[tokio::test]
async fn a_dropped_function_frees_the_daemon_within_a_second() {
    let client = connect(&engines().buildkit).await;
    let seconds = format!("31{}", &unique()[14..]);
    let (_dir, request, solve) = parts("FROM busybox\n");
    let (started, began) = tokio::sync::oneshot::channel();
    let script = format!("echo up; sleep {seconds}");
    let function = |gateway: Gateway| async move {
        let result = gateway.solve(solve).await?;
        let mounts = vec![Mount::bind("/", result.sole()?)];
        let container = gateway.container(ContainerSpec { mounts, ..Default::default() }).await?;
        let mut process = container.start(shell(&script)).await?;
        process.next().await?;
        started.send(()).unwrap();
        process.wait().await?;
        Ok(result)
    };
    tokio::select! {
        result = client.build(request, function, |_| {}) => panic!("ended: {result:?}"),
        began = began => began.unwrap(),
    }
    let runs = || {
        let listed = std::process::Command::new("pgrep").args(["-f", &format!("sleep {seconds}")]).output();
        !listed.unwrap().stdout.is_empty()
    };
    let dropped = Instant::now();
    while runs() {
        assert!(dropped.elapsed() < Duration::from_secs(1), "it still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.info().await.is_ok());
}

#[tokio::test]
async fn a_frontend_tells_its_checks_outline_and_targets() {
    let client = connect(&engines().buildkit).await;
    let text = "ARG BASE=busybox\nFROM ${BASE} AS tools\n# a word for people\nARG WORD=hi\nRUN --mount=type=secret,id=token,required=true echo $WORD\nfrom tools\n";
    let (_dir, mut request) = request(text, "linux/amd64");
    Dockerfile { target: Some("tools".into()), ..Default::default() }.apply(&mut request).unwrap();
    let check = client.call(request.clone(), &Call::Check, |_| {}).await.unwrap();
    let lint = check.lint().unwrap();
    assert_eq!(check.status_code(), 1);
    let casing = lint.warnings.iter().find(|w| w.rule == "ConsistentInstructionCasing").expect("a warning");
    let place = lint.place(casing.location.as_ref().unwrap()).unwrap();
    assert_eq!((place.filename.as_str(), place.lines()), ("Dockerfile", Some((6, 6))));
    assert_eq!(place.text, text);
    let outline = client.call(request.clone(), &Call::Outline, |_| {}).await.unwrap();
    let typed = outline.outline().unwrap();
    assert_eq!(typed.name, "tools");
    assert!(typed.args.iter().any(|a| a.name == "WORD" && a.value == "hi"), "{typed:?}");
    assert!(typed.secrets.iter().any(|s| s.name == "token" && s.required), "{typed:?}");
    assert!(outline.text().unwrap().contains("WORD"));
    let targets = client.call(request.clone(), &Call::Targets, |_| {}).await.unwrap().targets().unwrap();
    let names: BTreeMap<&str, bool> = targets.targets.iter().map(|t| (t.name.as_str(), t.default)).collect();
    assert_eq!(names, BTreeMap::from([("", true), ("tools", false)]));
    let known = client.call(request.clone(), &Call::Describe, |_| {}).await.unwrap().describe().unwrap();
    assert!(known.iter().any(|r| r.name == "frontend.outline"), "{known:?}");
    let error = client.call(request, &Call::Other("nonsense".into()), |_| {}).await.unwrap_err();
    assert!(error.message.contains("frontend.nonsense"), "{error}");
}
