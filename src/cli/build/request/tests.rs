//! What each flag changes in the request. Every line of the snapshot is one that the flag adds to a build without flags.

use std::collections::BTreeSet;

use clap::Parser;

use super::*;
use crate::buildkit::DockerConfig;
use crate::cli::build::args::Args;
use crate::cli::build::inputs::Place;
use crate::cli::build::outputs::Surroundings;

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A build of the directory `app` in a directory of its own.
struct Bench {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Bench {
    fn new(variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["app", "lib", "out"] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("app/Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(dir.path().join("app/other"), "FROM scratch\n").unwrap();
        std::fs::write(dir.path().join("token"), "s3cret").unwrap();
        Self { dir, environment: Environment::of(variables.iter().copied()) }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.dir.path().display().to_string())
    }

    async fn request(
        &self,
        line: &[&str],
        features: Option<Features>,
        in_docker: bool,
    ) -> Result<SolveRequest, Report> {
        let mut words: Vec<String> = line.iter().map(|word| self.fill(word)).collect();
        if !words.iter().any(|word| word.starts_with("CONTEXT=")) {
            words.push(self.fill("DIR/app"));
        }
        let words = words.iter().map(|word| word.strip_prefix("CONTEXT=").unwrap_or(word));
        let args = Line::try_parse_from(words).map_err(|e| Report::user(e.to_string()))?.args;
        let options = Options::read(&args, &self.environment)?;
        let mut inputs = Inputs::open(&Place::read(&args.context)?, args.file.as_deref(), None).await?;
        let docker = Docker::default();
        let around = Surroundings {
            in_docker,
            docker: &docker,
            features,
            plain_http: &args.plain_http,
            default_load: true,
        };
        let outputs = Outputs::plan(&options, &around)?;
        let builds = Builds {
            options: &options,
            inputs: &mut inputs,
            outputs,
            docker: &docker,
            environment: &self.environment,
            auth: Arc::new(DockerConfig::parse(b"{}").unwrap()),
            in_docker: features.filter(|_| in_docker),
            platforms: options.dockerfile.platforms.clone(),
            one_of_several: false,
            gateway: Some("10.0.0.1".parse().unwrap()),
        };
        Ok(builds.request()?.0)
    }

    fn lines(&self, request: &SolveRequest) -> BTreeSet<String> {
        let mut lines = BTreeSet::from([format!("frontend {}", request.frontend)]);
        lines.extend(request.frontend_attrs.iter().map(|(k, v)| format!("{k} = {v}")));
        for (at, exporter) in request.exporters.iter().enumerate() {
            let attrs: String = exporter.attrs.iter().map(|(k, v)| format!(" {k}={v}")).collect();
            lines.insert(format!("exporter {at} {}{attrs}", exporter.kind));
        }
        for (what, list) in [("cache from", &request.cache_imports), ("cache to", &request.cache_exports)] {
            lines.extend(list.iter().map(|entry| {
                let attrs: String = entry.attrs.iter().map(|(k, v)| format!(" {k}={v}")).collect();
                format!("{what} {}{attrs}", entry.kind)
            }));
        }
        lines.extend(request.entitlements.iter().map(|name| format!("entitlement {name}")));
        lines.extend(request.source_policy.rules.iter().map(|rule| format!("policy {}", rule.identifier)));
        if request.internal {
            lines.insert("internal".to_owned());
        }
        let session = &request.session;
        lines.extend(session.dirs.keys().map(|name| format!("session directory {name}")));
        lines.extend(session.agents.iter().map(|(id, agent)| format!("session agent {id} {agent:?}")));
        lines.extend(session.exports.iter().map(|(id, export)| format!("session export {id} {export:?}")));
        lines.extend(session.uploads.keys().map(|id| format!("session upload {id}")));
        lines.extend(session.stores.keys().map(|id| format!("session store {id}")));
        if session.secrets.is_some() {
            lines.insert("session secrets".to_owned());
        }
        let place = self.dir.path().display().to_string();
        let masked = |line: String| match line.split_once(" = lemnos-") {
            Some((name, _)) if name.starts_with("sharedkey:") => format!("{name} = lemnos-KEY"),
            _ => line.replace(&place, "DIR"),
        };
        lines.into_iter().map(masked).collect()
    }

    /// What the flags add, or why they are refused.
    async fn adds(&self, line: &[&str]) -> String {
        let plain = self.lines(&self.request(&[], None, false).await.unwrap());
        match self.request(line, None, false).await {
            Ok(request) => {
                let with = self.lines(&request);
                let gone = plain.difference(&with).map(|line| format!("    - {line}\n"));
                let new = with.difference(&plain).map(|line| format!("    + {line}\n"));
                gone.chain(new).collect()
            }
            Err(report) => format!("    {report}\n").replace(&self.dir.path().display().to_string(), "DIR"),
        }
    }
}

/// Each flag, as it is given.
const FLAGS: &[&[&str]] = &[
    &["--add-host", "db:10.0.0.7", "--add-host=a:1.1.1.1,b:2.2.2.2", "--add-host", "up=host-gateway"],
    &["--allow", "network.host", "--allow=device=gpu"],
    &["--annotation", "a=b", "--annotation", "index:c=d", "-o", "type=oci,dest=DIR/out.tar"],
    &["--attest", "type=sbom,generator=r.example/s", "--attest", "type=provenance,mode=max"],
    &[
        "--build-arg",
        "A=1",
        "--build-arg",
        "FROM_ENVIRONMENT",
        "--build-arg",
        "NOT_SET",
        "--build-arg",
        "EMPTY=",
    ],
    &["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"],
    &["--build-arg", "BUILDKIT_INLINE_CACHE=1"],
    &["--build-context", "lib=DIR/lib", "--build-context", "alpine:latest=docker-image://alpine:3"],
    &["--build-context", "dockerfile=DIR/lib", "--build-context", "g=https://g.example/r.git#main:sub"],
    &["--build-context", "a=target:b"],
    &["--cache-from", "r.example/c", "--cache-from", "type=gha"],
    &["--cache-from", "type=local,src=DIR/nowhere"],
    &["--cache-to", "type=registry,ref=r.example/c,mode=max", "--cache-to", "type=local,dest=DIR/cache"],
    &["--cache-to", "type=s3,region=eu,bucket=b"],
    &["--call", "outline"],
    &["--call=check,format=json"],
    &["--check"],
    &["--check", "--call=build"],
    &["--cgroup-parent", "/builds"],
    &["--compress"],
    &["--cpu-period", "1", "--cpu-quota", "2", "-c", "3", "--cpuset-cpus", "0-1", "--cpuset-mems", "0"],
    &["--file", "DIR/app/other"],
    &["--force-rm"],
    &["--iidfile", "DIR/id", "-o", "DIR/out"],
    &["--isolation", "default"],
    &["--label", "a=b", "--label", "c"],
    &["--memory", "1g", "--memory-swap", "-1", "--resource", "memory=2g"],
    &["--network", "host"],
    &["--network=none"],
    &["--network", "mine"],
    &["--no-cache"],
    &["--no-cache=false"],
    &["--no-cache-filter", "a", "--no-cache-filter", "b"],
    &["--no-cache", "--no-cache-filter", "a"],
    &["-o", "DIR/out"],
    &[
        "-o",
        "type=tar,dest=DIR/deep/out.tar",
        "-o",
        "type=local,dest=DIR/out",
        "-o",
        "type=oci,dest=DIR/o.tar",
        "-t",
        "shop",
    ],
    &["-o", "type=oci,tar=false,dest=DIR/layout", "-t", "shop"],
    &["-o", "type=docker,dest=DIR/d.tar", "--platform", "linux/amd64,linux/arm64"],
    &["-o", "type=image,name=r.example/a", "-t", "r.example/b"],
    &["-o", "type=registry,compression=zstd", "-t", "r.example/b:1"],
    &["-o", "type=local,dest=DIR/out,mode=delete"],
    &["-o", "type=local,dest=DIR/out,mode=delete", "--allow", "buildx.local.delete"],
    &["-o", "type=cacheonly"],
    &["--platform", "linux/amd64,arm64", "--platform", "linux/arm/v7"],
    &["--policy", "filename=x.rego"],
    &["--policy", "disabled=true"],
    &["--progress", "rawjson"],
    &["--progress", "loud"],
    &["--progress", "plain", "--quiet"],
    &["--provenance=false"],
    &["--provenance", "mode=max,version=v1"],
    &["--provenance=true", "--attest", "type=provenance"],
    &["--pull"],
    &["--push", "-t", "r.example/a:1", "-t", "r.example/a:2"],
    &["--push"],
    &[
        "--push",
        "-t",
        "r.example/a",
        "-o",
        "type=image,oci-mediatypes=false",
        "-o",
        "type=oci,dest=DIR/o.tar",
    ],
    &["--push", "-t", "r.example/a", "--plain-http", "r.example"],
    &["--rm", "--rm=false"],
    &["--sbom", "true"],
    &["--secret", "id=a,src=DIR/token", "--secret", "id=b,env=PATH"],
    &["--secret", "id=a,src=DIR/nowhere"],
    &["--security-opt", "x"],
    &["--shm-size", "64m"],
    &["--squash"],
    &["--ssh", "default=DIR/nowhere"],
    &["-t", "shop"],
    &["-t", "A:b c"],
    &["--target", "run"],
    &["--ulimit", "nofile=1024:2048"],
    &["CONTEXT=https://g.example/r.git?ref=main"],
    &["CONTEXT=git@g.example:r.git#main", "--ssh", "default=DIR/nowhere"],
    &["CONTEXT=http://g.example/context.tar.gz", "-f", "sub/Dockerfile"],
    &["CONTEXT=http://g.example/context.tar.gz", "-f", "DIR/app/other"],
    &["CONTEXT=DIR/nowhere"],
    &["--unheard-of"],
];

#[tokio::test]
async fn every_flag_changes_what_it_is_for() {
    let bench = Bench::new(&[("FROM_ENVIRONMENT", "from there"), ("AWS_ACCESS_KEY_ID", "id")]);
    let mut text = String::new();
    for line in FLAGS {
        text.push_str(&format!("{}\n{}", line.join(" "), bench.adds(line).await));
    }
    insta::assert_snapshot!("flags", text);
}

#[tokio::test]
async fn a_build_without_flags_asks_for_little() {
    let bench = Bench::new(&[]);
    let lines = bench.lines(&bench.request(&[], None, false).await.unwrap());
    insta::assert_snapshot!(lines.into_iter().collect::<Vec<_>>().join("\n"), @r"
    attest:provenance = mode=min,inline-only=true
    filename = Dockerfile
    frontend dockerfile.v0
    session directory context
    session directory dockerfile
    ");
}

#[tokio::test]
async fn the_environment_says_what_the_flags_do_not() {
    let bench = Bench::new(&[
        ("SOURCE_DATE_EPOCH", "7"),
        ("DOCKER_DEFAULT_PLATFORM", "linux/arm64"),
        ("BUILDX_NO_DEFAULT_ATTESTATIONS", "1"),
        ("ACTIONS_RUNTIME_TOKEN", "t"),
        ("ACTIONS_CACHE_URL", "https://cache.example/"),
    ]);
    let request = bench.request(&["--cache-to", "type=gha"], None, false).await.unwrap();
    let lines = bench.lines(&request).into_iter().collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(lines, @r"
    build-arg:SOURCE_DATE_EPOCH = 7
    cache to gha token=t url=https://cache.example/
    filename = Dockerfile
    frontend dockerfile.v0
    platform = linux/arm64
    session directory context
    session directory dockerfile
    ");
    let flag = bench
        .request(&["--build-arg", "SOURCE_DATE_EPOCH=8", "--platform", "linux/amd64"], None, false)
        .await
        .unwrap();
    assert_eq!(flag.frontend_attrs["build-arg:SOURCE_DATE_EPOCH"], "8");
    assert_eq!(flag.frontend_attrs["platform"], "linux/amd64");
}

#[tokio::test]
async fn docker_is_loaded_into_as_it_can_take_it() {
    let bench = Bench::new(&[]);
    let classic = Some(Features { containerd_store: false });
    let containerd = Some(Features { containerd_store: true });
    let exporters =
        async |line: &[&str], features, in_docker| match bench.request(line, features, in_docker).await {
            Ok(request) => {
                let lines = bench.lines(&request);
                lines
                    .into_iter()
                    .filter(|l| l.contains("export") || l.contains("resolve"))
                    .collect::<Vec<_>>()
                    .join("; ")
            }
            Err(report) => report.message,
        };
    let load: &[&str] = &["--load", "-t", "shop"];
    assert_eq!(exporters(load, classic, false).await, "exporter 0 docker name=shop; session export 0 Stream");
    assert_eq!(
        exporters(load, containerd, false).await,
        "exporter 0 oci name=shop prefer-image-digest=true; session export 0 Stream"
    );
    assert_eq!(exporters(load, classic, true).await, "exporter 0 moby name=shop; image-resolve-mode = local");
    assert_eq!(
        exporters(&["-t", "shop"], classic, true).await,
        "exporter 0 moby name=shop; image-resolve-mode = local"
    );
    let several: &[&str] = &["--load", "--platform", "linux/amd64,linux/arm64"];
    assert!(exporters(several, classic, false).await.contains("one platform"));
    assert!(exporters(several, containerd, false).await.starts_with("exporter 0 oci"));
    assert!(exporters(several, classic, true).await.contains("several platforms"));
    assert!(exporters(&["--push", "-t", "a/b"], classic, true).await.contains("does not push"));
    assert!(exporters(&["-o", "type=oci,dest=DIR/x"], classic, true).await.contains("makes no type=oci"));
    assert!(exporters(&["--sbom=true"], classic, true).await.contains("attestations"));
}

#[tokio::test]
async fn a_policy_of_the_environment_is_held_by_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.json");
    let text = r#"{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}"#;
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let variables = [("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", path.as_str())];
    let bench = Bench::new(&variables);
    let request = bench.request(&[], None, false).await.unwrap();
    assert_eq!(request.source_policy.rules[0].identifier, "docker-image://*");
    std::fs::write(&path, "{").unwrap();
    assert!(bench.request(&[], None, false).await.unwrap_err().message.contains("policy.json"));
}
