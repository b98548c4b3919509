//! ko's images as lemnos assembles them, against what ko v0.19.1 made of the same cases (golden.json, which the live test of
//! the same name compares with ko itself, and writes).

use lemnos::assemble::ko::{self, BaseImage, BaseIndex, ImageOptions, Layer, Layers, MemorySource, Product};
use lemnos::model::Digest;
use serde_json::Value;

use crate::ko_program::{Case, OCI_INDEX, OCI_MANIFEST, cases, kept, stand_in};

const REGISTRY: &str = "127.0.0.1:5000";

fn golden() -> Value {
    serde_json::from_str(include_str!("ko_assembly/golden.json")).unwrap()
}

#[test]
fn images_are_kos_images() {
    let golden = golden();
    for case in cases() {
        let base = case.base();
        let reference = format!("{REGISTRY}/ko/base:stable");
        let seen = case.assembled(&base, &reference, &format!("{REGISTRY}/ko/out"), &stand_in);
        let ours = serde_json::to_string_pretty(&kept(seen.comparable(REGISTRY))).unwrap();
        let kos = serde_json::to_string_pretty(&golden[case.name]).unwrap();
        assert_eq!(ours.lines().collect::<Vec<_>>(), kos.lines().collect::<Vec<_>>(), "{}", case.name);
        for image in &seen.images {
            let diff_ids: Vec<Digest> =
                serde_json::from_value(image.config["rootfs"]["diff_ids"].clone()).unwrap();
            let tars: Vec<Digest> = image.tars.iter().map(|tar| Digest::of(tar)).collect();
            assert_eq!(diff_ids[image.own..], tars);
        }
        if !seen.index.is_null() {
            let digest = seen.index["annotations"][ko::BASE_DIGEST].as_str();
            assert_eq!(
                digest,
                Some(Digest::of(&base.top().0).as_str()),
                "the base index as it stands in the registry"
            );
        }
    }
}

fn layer(n: u8) -> Layer {
    Layer { digest: Digest::of(&[n]), size: u64::from(n), diff_id: Digest::of(&[n, n]) }
}

fn amd64() -> (Case, BaseImage) {
    let case = Case { base: &["linux/amd64"], ..Case::default() };
    let base = case.base();
    let (bytes, media_type) = base.top();
    let read = BaseImage::read(bytes, media_type, base.blob(&ko::config_digest(bytes).unwrap())).unwrap();
    (case, read)
}

fn config_of(options: &ImageOptions, debugger: Option<Layer>) -> Value {
    let layers = Layers { kodata: layer(1), binary: layer(2), debugger };
    let image = ko::image(&amd64().1, &"base.test/ko".parse().unwrap(), None, &layers, options).unwrap();
    assert_eq!(image.config.digest, Digest::of(&image.config.bytes));
    serde_json::from_slice(&image.config.bytes).unwrap()
}

#[test]
fn what_ko_has_no_words_for_is_put_on_top() {
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let options = ImageOptions {
        import_path: "example.com/web".to_owned(),
        expose: words(&["8080", "53/udp"]),
        working_dir: Some("/data".to_owned()),
        args: words(&["serve"]),
        cmd: words(&["--port", "8080"]),
        env: vec![("MODE".to_owned(), "a=b".to_owned()), ("A".to_owned(), "2".to_owned())],
        ..ImageOptions::default()
    };
    let run = config_of(&options, None)["config"].clone();
    insta::assert_snapshot!(serde_json::to_string_pretty(&run).unwrap(), @r#"
    {
      "ArgsEscaped": true,
      "Cmd": [
        "--port",
        "8080"
      ],
      "Entrypoint": [
        "/ko-app/web",
        "serve"
      ],
      "Env": [
        "A=2",
        "PATH=/usr/local/bin:/usr/bin:/ko-app",
        "PATHS=no",
        "KO_DATA_PATH=/var/run/ko",
        "MODE=a=b"
      ],
      "ExposedPorts": {
        "53/udp": {},
        "80/tcp": {},
        "8080/tcp": {}
      },
      "Healthcheck": {
        "Interval": 30000000000,
        "Test": [
          "CMD",
          "true"
        ]
      },
      "Labels": {
        "from": "base",
        "kept": "yes"
      },
      "StopSignal": "SIGQUIT",
      "User": "65532",
      "WorkingDir": "/data"
    }
    "#);
    for bad in [
        ImageOptions { expose: words(&["0"]), ..options.clone() },
        ImageOptions { expose: words(&["80/http"]), ..options.clone() },
        ImageOptions { working_dir: Some("data".to_owned()), ..options.clone() },
        ImageOptions { env: vec![("A=B".to_owned(), String::new())], ..options },
    ] {
        let layers = Layers { kodata: layer(1), binary: layer(2), debugger: None };
        ko::image(&amd64().1, &"base.test/ko".parse().unwrap(), None, &layers, &bad).unwrap_err();
    }
}

#[test]
fn a_program_is_started_under_its_debugger() {
    let options = ImageOptions { import_path: "example.com/web".to_owned(), ..ImageOptions::default() };
    let config = config_of(&options, Some(layer(3)));
    insta::assert_snapshot!(config["config"]["Entrypoint"], @r#"["/ko-app/dlv","exec","--listen=:40000","--headless","--log","--accept-multiclient","--api-version=2","--","/ko-app/web"]"#);
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 4);
    assert_eq!(config["history"][4]["comment"], "Delve debugger, at /ko-app/dlv");
}

#[test]
fn what_was_asked_for_is_there_or_nothing_is() {
    let case = Case { base: &["linux/amd64", "linux/arm64", "unknown/unknown"], ..Case::default() };
    let base = case.base();
    let index = BaseIndex::read(&base.top().0, OCI_INDEX).unwrap();
    let choose = |wanted: &str| {
        let platforms: ko::Platforms = wanted.parse().unwrap();
        platforms.choose(&index).map(|entries| entries.len()).map_err(|error| error.to_string())
    };
    assert_eq!(choose("all"), Ok(2));
    assert_eq!(choose("linux"), Ok(2));
    assert_eq!(choose("linux/arm64,linux/amd64"), Ok(2));
    assert_eq!(
        choose("linux/amd64,linux/s390x,linux/arm/v7").unwrap_err(),
        "the base image has no linux/s390x, linux/arm/v7; it has linux/amd64, linux/arm64"
    );
    assert!(choose("unknown/unknown").is_err());
    let single = amd64().1;
    let of_image = |wanted: &str| wanted.parse::<ko::Platforms>().unwrap().of_image(&single);
    assert_eq!(of_image("linux/amd64").unwrap().to_string(), "linux/amd64");
    assert!(of_image("all").is_ok());
    assert!(of_image("linux/amd64,linux/arm64").is_err());
    let windows = Case { base: &["windows/amd64", "linux/amd64"], ..Case::default() }.base();
    let windows = BaseIndex::read(&windows.top().0, OCI_INDEX).unwrap();
    let said = "all".parse::<ko::Platforms>().unwrap().choose(&windows).unwrap_err().to_string();
    assert_eq!(said, "the base image is for windows/amd64: images for Windows are not made here");
    assert_eq!("linux".parse::<ko::Platforms>().unwrap().choose(&windows).unwrap().len(), 1);
}

#[test]
fn bases_that_do_not_add_up_are_refused() {
    let (case, _) = amd64();
    let base = case.base();
    let (bytes, _) = base.top();
    let config = base.blob(&ko::config_digest(bytes).unwrap());
    let read = |bytes: &[u8], media_type: &str, config: &[u8]| {
        BaseImage::read(bytes, media_type, config).unwrap_err().to_string()
    };
    assert!(read(bytes, OCI_MANIFEST, b"{}").contains("was fetched"));
    assert!(read(bytes, OCI_INDEX, config).contains("is no image manifest"));
    assert!(read(b"[]", OCI_MANIFEST, config).contains("cannot be built on"));
    let text = String::from_utf8(bytes.clone()).unwrap();
    let artifact =
        text.replace("application/vnd.oci.image.config.v1+json", "application/vnd.oci.empty.v1+json");
    assert!(read(artifact.as_bytes(), OCI_MANIFEST, config).contains("no container image"));
    let mut layers: Value = serde_json::from_slice(bytes).unwrap();
    layers["layers"] = Value::Array(Vec::new());
    assert!(read(layers.to_string().as_bytes(), OCI_MANIFEST, config).contains("0 layers, but 1 diff IDs"));
    let nested = Case { base: &["linux/amd64", "linux/arm64"], ..Case::default() }.base();
    let nested = String::from_utf8(nested.top().0.clone()).unwrap().replacen(OCI_MANIFEST, OCI_INDEX, 1);
    assert!(BaseIndex::read(nested.as_bytes(), OCI_INDEX).unwrap_err().to_string().contains("is no image"));
}

#[test]
fn an_index_holds_images_of_its_base_in_its_order() {
    let case = Case { base: &["linux/amd64", "linux/arm64"], ..Case::default() };
    let base = case.base();
    let index = BaseIndex::read(&base.top().0, OCI_INDEX).unwrap();
    let reference = "base.test/ko".parse().unwrap();
    let options = ImageOptions { import_path: "a/b".to_owned(), ..ImageOptions::default() };
    let layers = Layers { kodata: layer(1), binary: layer(2), debugger: None };
    let image = |n: usize| {
        let entry = &index.manifests()[n];
        let (bytes, media_type) = base.manifest(&entry.digest);
        let read = BaseImage::read(bytes, media_type, base.blob(&ko::config_digest(bytes).unwrap())).unwrap();
        (entry, ko::image(&read, &reference, Some(entry), &layers, &options).unwrap())
    };
    let product = |images| ko::product(&index, &reference, images, &options);
    let Product::Index(made) = product(vec![image(1), image(0)]).unwrap() else { panic!("no index") };
    let platforms: Vec<String> =
        made.manifests.iter().map(|entry| entry.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(product(vec![image(1)]).unwrap(), Product::Image(image(1).1));
    assert!(product(Vec::new()).is_err());
    let mut stranger = image(0).0.clone();
    stranger.size += 1;
    assert!(product(vec![(&stranger, image(0).1)]).is_err());
}

#[test]
fn an_empty_kodata_is_a_layer_too() {
    let source = MemorySource::default();
    let mut tar = Vec::new();
    ko::kodata_tar(&source, &ko::kodata(&source, "kodata", "").unwrap(), None, &mut tar).unwrap();
    assert_eq!(tar.len(), 5 * 512);
    // what ko gives every program without kodata
    assert_eq!(
        Digest::of(&tar).as_str(),
        "sha256:ffe56a1c5f3878e9b5f803842adb9e2ce81584b6bd027e8599582aefe14a975b"
    );
}
