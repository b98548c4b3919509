//! What a build leaves for other programs: the metadata file, the image's id.
//!
//! Keys and form are buildx's (v0.36, commands/build.go, build/provenance.go): what is base64 of JSON stands as JSON, all
//! else as text. Invariant: the file is replaced as a whole, after the build.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::options::yes;
use crate::buildkit::{BuildResult, Client, Descriptor, Error};
use crate::config::Environment;
use crate::error::{Kind, Report};

const DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE: &str = "in-toto.io/predicate-type";
const SLSA: &str = "https://slsa.dev/provenance/";
const SLSA_V1: &str = "https://slsa.dev/provenance/v1";
/// What builds of BuildKit are called in SLSA's older form.
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";

/// How much of a build's provenance is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    Nothing,
    Min,
    Max,
}

impl Noted {
    pub fn of(environment: &Environment) -> Self {
        match environment.get("BUILDX_METADATA_PROVENANCE") {
            Some("max") => Self::Max,
            Some("disabled" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Self::Nothing,
            _ => Self::Min,
        }
    }
}

/// Whether the metadata file tells of warnings.
pub fn with_warnings(environment: &Environment) -> bool {
    environment.get("BUILDX_METADATA_WARNINGS").is_some_and(yes)
}

/// What names the image: its config where that is known, else its manifest or index.
pub fn image_id(attrs: &BTreeMap<String, String>) -> &str {
    attrs.get(CONFIG_DIGEST).or_else(|| attrs.get(DIGEST)).map_or("", String::as_str)
}

/// Removes the id that an earlier build left: a failing one leaves none.
pub fn remove_id(path: &Path) -> Result<(), Report> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(not_written("--iidfile", path, &e)),
        _ => Ok(()),
    }
}

pub fn write_id(path: &Path, attrs: &BTreeMap<String, String>) -> Result<(), Report> {
    std::fs::write(path, image_id(attrs)).map_err(|e| not_written("--iidfile", path, &e))
}

/// Writes the metadata file, beside itself and then in its place.
pub fn write(path: &Path, attrs: &BTreeMap<String, String>, warnings: Option<Value>) -> Result<(), Report> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut all = decoded(attrs);
    all.extend(warnings.map(|warnings| ("buildx.build.warnings".to_owned(), warnings)));
    let text =
        serde_json::to_string_pretty(&all).map_err(|e| Report::internal(format!("--metadata-file: {e}")))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replace = || {
        let mode = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().prefix(".lemnos-").permissions(mode).tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|problem| problem.error)?;
        Ok(())
    };
    replace().map_err(|e: std::io::Error| not_written("--metadata-file", path, &e))
}

fn not_written(flag: &str, path: &Path, cause: &std::io::Error) -> Report {
    Report::new(Kind::User, format!("{flag} {}: {}", path.display(), cause.kind()))
}

fn decoded(attrs: &BTreeMap<String, String>) -> Map<String, Value> {
    let read = |key: &str, value: &String| {
        let bytes =
            if key == "result.json" { value.clone().into_bytes() } else { STANDARD.decode(value).ok()? };
        let json: Value = serde_json::from_slice(&bytes).ok()?;
        let structured = match &json {
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty() && list.iter().all(Value::is_object),
            _ => false,
        };
        structured.then_some(json)
    };
    let one = |(key, value): (&String, &String)| {
        (key.clone(), read(key, value).unwrap_or_else(|| Value::String(value.clone())))
    };
    attrs.iter().map(one).collect()
}

/// The provenance of a build that has ended, by the keys of the metadata file, as base64. A daemon without histories has
/// none.
pub async fn provenance(
    client: &Client,
    build: &str,
    noted: Noted,
) -> Result<BTreeMap<String, String>, Report> {
    let mut all = BTreeMap::new();
    if noted == Noted::Nothing {
        return Ok(all);
    }
    let record = match client.history_record(build).await {
        Ok(record) => record,
        Err(Error::Refused { code: tonic::Code::Unimplemented, .. }) => return Ok(all),
        Err(error) => return Err(error.into()),
    };
    let mut results: Vec<(String, &BuildResult)> = record
        .results
        .iter()
        .map(|(platform, result)| (format!("buildx.build.provenance/{platform}"), result))
        .collect();
    if results.is_empty() {
        results.extend(record.result.iter().map(|result| ("buildx.build.provenance".to_owned(), result)));
    }
    for (key, result) in results {
        let Some((descriptor, predicate)) = statement(result) else { continue };
        let Some(text) = client.history_blob(&descriptor.digest).await? else { continue };
        let unusable =
            |e: serde_json::Error| Report::new(Kind::Unavailable, format!("the build's provenance: {e}"));
        let read: Value = serde_json::from_slice(&text).map_err(unusable)?;
        let mut predicate = if predicate == SLSA_V1 { older(&read) } else { read };
        if noted == Noted::Min
            && let Some(map) = predicate.as_object_mut()
        {
            map.remove("buildConfig");
            map.remove("metadata");
        }
        all.insert(key, STANDARD.encode(predicate.to_string()));
    }
    Ok(all)
}

fn statement(result: &BuildResult) -> Option<(&Descriptor, &str)> {
    result.attestations.iter().find_map(|descriptor| {
        let predicate = descriptor.annotations.get(PREDICATE)?;
        (descriptor.media_type == STATEMENT && predicate.starts_with(SLSA))
            .then_some((descriptor, predicate.as_str()))
    })
}

/// A predicate of SLSA v1 in the form of v0.2, which is what the metadata file has.
fn older(new: &Value) -> Value {
    let at = |path: &str| new.pointer(path).cloned();
    let definition = |path: &str| at(&format!("/buildDefinition/{path}"));
    let run = |path: &str| at(&format!("/runDetails/{path}"));
    let materials = definition("resolvedDependencies").and_then(|list| {
        let one = |m: &Value| compact(json!({"uri": m.get("uri"), "digest": m.get("digest")}));
        list.as_array().map(|list| list.iter().map(one).collect::<Vec<Value>>())
    });
    let mut environment = compact(json!({
        "platform": definition("internalParameters/builderPlatform"),
        "dockerfileVersion": definition("internalParameters/dockerfileVersion"),
    }));
    // what a daemon's own configuration adds stands beside the known fields
    let known = ["builderPlatform", "dockerfileVersion", "buildConfig"];
    if let (Some(Value::Object(all)), Some(map)) =
        (definition("internalParameters"), environment.as_object_mut())
    {
        map.extend(all.into_iter().filter(|(name, _)| !known.contains(&name.as_str())));
    }
    let config_source = compact(json!({
        "uri": definition("externalParameters/configSource/uri"),
        "digest": definition("externalParameters/configSource/digest"),
        "entryPoint": definition("externalParameters/configSource/path"),
    }));
    let metadata = run("metadata").map(|meta| older_metadata(&meta));
    compact(json!({
        "builder": {"id": run("builder/id").unwrap_or_default()},
        "buildType": BUILD_TYPE,
        "materials": materials,
        "invocation": {
            "configSource": config_source,
            "parameters": definition("externalParameters/request").unwrap_or_else(|| json!({})),
            "environment": environment,
        },
        "buildConfig": definition("internalParameters/buildConfig"),
        "metadata": metadata,
    }))
}

fn older_metadata(new: &Value) -> Value {
    let flag = |path: &str| new.pointer(path).and_then(Value::as_bool).unwrap_or(false);
    let mut old = compact(json!({
        "buildInvocationID": new.get("invocationId").or_else(|| new.get("invocationID")),
        "buildStartedOn": new.get("startedOn"),
        "buildFinishedOn": new.get("finishedOn"),
        "completeness": {
            "parameters": flag("/buildkit_completeness/request"),
            "environment": true,
            "materials": flag("/buildkit_completeness/resolvedDependencies"),
        },
        "reproducible": flag("/buildkit_reproducible"),
    }));
    if let Some(map) = old.as_object_mut() {
        map.extend(
            new.get("buildkit_metadata")
                .map(|own| ("https://mobyproject.org/buildkit@v1#metadata".to_owned(), own.clone())),
        );
        if flag("/buildkit_hermetic") {
            map.insert("https://mobyproject.org/buildkit@v1#hermetic".to_owned(), Value::Bool(true));
        }
    }
    old
}

/// Without what is not there.
fn compact(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_in_base64_stands_as_json() {
        let json = |text: &str| STANDARD.encode(text);
        let attrs = BTreeMap::from([
            (DIGEST.to_owned(), "sha256:ab".to_owned()),
            ("containerimage.descriptor".to_owned(), json(r#"{"digest":"sha256:ab"}"#)),
            ("image.name".to_owned(), "abcd".to_owned()),
            ("empty".to_owned(), json("{}")),
            ("list".to_owned(), json(r#"[{"a":1}]"#)),
            ("numbers".to_owned(), json("[1]")),
            ("result.json".to_owned(), r#"{"warnings":[]}"#.to_owned()),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        write(&path, &attrs, Some(json!([{"level": 1}]))).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["containerimage.descriptor"]["digest"], "sha256:ab");
        assert_eq!(read["image.name"], "abcd");
        assert_eq!((&read["empty"], &read["numbers"]), (&json!("e30="), &json!("WzFd")));
        assert_eq!((&read["list"][0]["a"], &read["result.json"]["warnings"]), (&json!(1), &json!([])));
        assert_eq!(read["buildx.build.warnings"][0]["level"], 1);
        assert!(write(&dir.path().join("no/meta.json"), &attrs, None).is_err());
    }

    #[test]
    fn an_image_is_named_by_its_config_where_there_is_one() {
        let mut attrs = BTreeMap::from([(DIGEST.to_owned(), "sha256:index".to_owned())]);
        assert_eq!(image_id(&attrs), "sha256:index");
        attrs.insert(CONFIG_DIGEST.to_owned(), "sha256:config".to_owned());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        write_id(&path, &attrs).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "sha256:config");
        remove_id(&path).unwrap();
        remove_id(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(image_id(&BTreeMap::new()), "");
    }

    #[test]
    fn a_new_provenance_is_told_in_the_older_form() {
        let new = json!({
            "buildDefinition": {
                "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
                "externalParameters": {"configSource": {"path": "Dockerfile"}, "request": {"frontend": "dockerfile.v0"}},
                "internalParameters": {"buildConfig": {"llb": []}, "builderPlatform": "linux/amd64", "ci": "x"},
                "resolvedDependencies": [{"uri": "pkg:docker/busybox", "digest": {"sha256": "ab"}}]
            },
            "runDetails": {"builder": {"id": "b"}, "metadata": {
                "invocationId": "i", "startedOn": "t", "buildkit_completeness": {"request": true}, "buildkit_hermetic": true}}
        });
        let old = older(&new);
        assert_eq!(old["builder"]["id"], "b");
        assert_eq!(old["buildType"], BUILD_TYPE);
        assert_eq!(old["materials"][0]["uri"], "pkg:docker/busybox");
        assert_eq!(old["invocation"]["configSource"], json!({"entryPoint": "Dockerfile"}));
        assert_eq!(old["invocation"]["environment"], json!({"platform": "linux/amd64", "ci": "x"}));
        assert_eq!(old["invocation"]["parameters"]["frontend"], "dockerfile.v0");
        assert_eq!(old["metadata"]["buildInvocationID"], "i");
        assert_eq!(
            old["metadata"]["completeness"],
            json!({"parameters": true, "environment": true, "materials": false})
        );
        assert!(old["buildConfig"].is_object());
    }
}
