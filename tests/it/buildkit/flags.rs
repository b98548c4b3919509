//! Flag values, compared with what buildx makes of them: tests/oracle/buildx wrote the table.

use lemnos::buildkit::flags;
use lemnos::buildkit::flags::{AllowedFlag, FlagError, SecretFrom};
use lemnos::buildkit::gateway::Call;
use lemnos::buildkit::solve::{Attestation, CacheEntry, Resources};
use serde_json::{Value, json};

/// Where we are stricter than buildx, which fails later or takes what nobody means.
const STRICTER: [(&str, &str, &str); 5] = [
    ("cache", "", "names nothing"),
    ("secret", "", "names nothing"),
    ("size", "1e3", "no size is written so"),
    ("call", "format=json", "asks for nothing"),
    ("ssh", "=/a", "names nothing"),
];

/// A platform of an annotation is written as the daemon names it, which buildx does not see to.
const OTHERWISE: (&str, &str, &str) =
    ("annotation", "manifest[linux/arm64/v8]:org.x=y", r#"[["annotation-manifest[linux/arm64].org.x","y"]]"#);

fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    map.into_iter().map(|(k, v)| json!([k, v])).collect()
}

fn attested(read: Result<Attestation, FlagError>) -> Result<Value, FlagError> {
    Ok(read?.attr().iter().map(|(k, v)| json!([k, v])).collect())
}

fn ours(flag: &str, given: &str) -> Result<Value, FlagError> {
    Ok(match flag {
        "output" => {
            let output = flags::output(given)?;
            json!([output.kind, output.destination.unwrap_or_default(), pairs(&output.attrs)])
        }
        "cache" => {
            let entry = |e: &CacheEntry| json!([e.kind, pairs(&e.attrs)]);
            flags::cache("--cache-from", given)?.iter().map(entry).collect()
        }
        "attest" => attested(flags::attest(given))?,
        "provenance" => attested(flags::provenance(given))?,
        "sbom" => attested(flags::sbom(given))?,
        "annotation" => {
            let mut all: Vec<_> =
                flags::annotation(given)?.into_iter().map(|a| (a.attr(), a.value)).collect();
            all.sort();
            all.iter().map(|(k, v)| json!([k, v])).collect()
        }
        "context" => {
            let (name, _) = flags::build_context(given)?;
            json!([[name, given.split_once('=').unwrap().1]])
        }
        "platform" => flags::platforms(given)?.iter().map(|p| json!(p.with_version())).collect(),
        "ulimit" => json!(flags::ulimit(given)?.to_string()),
        "size" => json!(flags::shm_size(given)?),
        "secret" => {
            let secret = flags::secret(given)?;
            match secret.from {
                SecretFrom::File(file) => json!([secret.id, file, ""]),
                SecretFrom::Variable(name) => json!([secret.id, "", name]),
                SecretFrom::Either => json!([secret.id, "", ""]),
            }
        }
        "ssh" => {
            let ssh = flags::ssh(given)?;
            json!([ssh.id, ssh.paths])
        }
        "allow" => match flags::allow(given)? {
            AllowedFlag::Entitlement(name) => json!([[name], false]),
            AllowedFlag::LocalDelete => json!([[], true]),
        },
        "call" => match flags::call(given)? {
            None => Value::Null,
            Some(call) => {
                let name = match &call.call {
                    Call::Other(name) => name.clone(),
                    known => known.id().replacen("frontend.", "", 1),
                };
                json!([name, call.format, call.ignore_status])
            }
        },
        other => panic!("{other}"),
    })
}

#[test]
fn flags_mean_what_they_mean_to_buildx() {
    let rows: Vec<(String, String, Value, bool)> =
        serde_json::from_str(include_str!("../../oracle/buildx/flags.json")).unwrap();
    assert!(rows.len() > 200, "{}", rows.len());
    let mut wrong = Vec::new();
    for (flag, given, want, refused) in rows {
        if STRICTER.iter().any(|(f, g, _)| *f == flag && *g == given) {
            assert!(ours(&flag, &given).is_err(), "{flag} {given:?} is stricter no more");
            continue;
        }
        let want = match (flag.as_str(), given.as_str()) == (OTHERWISE.0, OTHERWISE.1) {
            true => serde_json::from_str(OTHERWISE.2).unwrap(),
            false => want,
        };
        match (ours(&flag, &given), refused) {
            (Err(_), true) => {}
            (Ok(have), false) if have == want => {}
            (have, _) => {
                wrong.push(format!("{flag} {given:?}: want {want} (refused: {refused}), have {have:?}"))
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_name_the_flag_the_value_and_the_remedy() {
    let shown: Vec<String> = [
        flags::output("type=image,push").map(drop),
        flags::output("dest=x,a=b").map(drop),
        flags::output("type=local").unwrap().check(),
        flags::cache("--cache-to", "ref=r.example/c").map(drop),
        flags::provenance("max").map(drop),
        flags::annotation("image:a=b").map(drop),
        flags::build_context("Base=.").map(drop),
        flags::platforms("linux/amd64,bogus").map(drop),
        flags::ulimit("files=1").map(drop),
        flags::shm_size("64x").map(drop),
        flags::resource("disk=1", &mut Resources::default()),
        flags::add_host("db:nowhere", None).map(drop),
        flags::add_host("db:host-gateway", None).map(drop),
        flags::secret("src=f").map(drop),
        flags::secret("id=a,src=f,env=E").map(drop),
        flags::allow("network.none").map(drop),
        flags::call("check,x=y").map(drop),
    ]
    .into_iter()
    .map(|read| read.unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

/// Source: buildx v0.36 build/utils.go, toBuildkitExtraHosts and ParseResourceLimits, which no other module can call.
#[test]
fn hosts_and_resources_are_read_as_buildx_reads_them() {
    for (given, want) in [
        ("db:10.0.0.7", "db=10.0.0.7"),
        ("db=10.0.0.7", "db=10.0.0.7"),
        ("db:10.0.0.7,10.0.0.8", "db=10.0.0.7,db=10.0.0.8"),
        ("db:[::1]", "db=::1"),
        ("db:::1", "db=::1"),
        ("gw:host-gateway", "gw=192.0.2.1"),
    ] {
        let hosts = flags::add_host(given, Some("192.0.2.1".parse().unwrap())).unwrap();
        let shown: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(","), want);
    }
    for bad in ["db", "db:", ":10.0.0.7", "db=10.0.0.7,x"] {
        assert!(flags::add_host(bad, None).is_err(), "{bad}");
    }
    let mut resources = Resources::default();
    for given in [
        "memory=1g",
        "memory-swap=-1",
        "cpu-shares=2",
        " cpu-period = 3",
        "cpu-quota=4",
        "cpuset-cpus=0-1",
        "cpuset-mems=0",
    ] {
        flags::resource(given, &mut resources).unwrap();
    }
    let want = Resources {
        memory: 1 << 30,
        memory_swap: -1,
        cpu_shares: 2,
        cpu_period: 3,
        cpu_quota: 4,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
    };
    assert_eq!(resources, want);
}

/// Source: buildx v0.36 build/opt.go, CreateExports and toSolveOpt.
#[test]
fn an_output_becomes_an_exporter() {
    use lemnos::buildkit::flags::Destination;
    for (given, kind, attrs, sends) in [
        (
            "type=registry,name=r.example/a",
            "image",
            "name=r.example/a push=true unpack=false",
            Destination::None,
        ),
        ("type=registry,unpack=true", "image", "push=true unpack=true", Destination::None),
        ("type=image,push=true", "image", "push=true", Destination::None),
        ("type=oci,dest=a.tar", "oci", "", Destination::Stream),
        ("type=oci,tar=false,dest=a", "oci", "tar=false", Destination::Directory),
        ("type=docker", "docker", "", Destination::Stream),
        ("out", "local", "", Destination::Directory),
        ("-", "tar", "", Destination::Stream),
    ] {
        let output = flags::output(given).unwrap();
        let exporter = output.exporter().unwrap();
        let shown: Vec<String> = exporter.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!((exporter.kind.as_str(), shown.join(" ").as_str()), (kind, attrs), "{given}");
        assert_eq!(output.sends(), sends, "{given}");
    }
    assert_eq!(flags::output("type=cacheonly").unwrap().exporter(), None);
}
