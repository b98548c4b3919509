//! The arithmetic of an index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn image(n: u64, on: &str) -> Child {
    Child {
        media_type: MANIFEST.to_owned(),
        digest: digest(n),
        size: 500 + n,
        platform: Some(platform(on)),
        platform_extra: BTreeMap::new(),
        annotations: BTreeMap::new(),
        artifact_type: None,
        attestation_of: None,
    }
}

fn attestation(n: u64, of: u64) -> Child {
    let annotations = BTreeMap::from([
        (REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned()),
        (REFERENCE_DIGEST.to_owned(), digest(of).to_string()),
    ]);
    Child { platform: None, annotations, attestation_of: Some(digest(of)), ..image(n, "linux/amd64") }
}

fn both() -> Vec<Platform> {
    vec![platform("linux/amd64"), platform("linux/arm64")]
}

fn digests(index: &Index) -> Vec<Digest> {
    children(&index.bytes, &index.media_type, None).unwrap().into_iter().map(|child| child.digest).collect()
}

#[test]
fn an_index_reads_like_this() {
    let annotations = BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "abc".to_owned())]);
    let made = index(
        &both(),
        vec![vec![image(2, "linux/arm64")], vec![image(1, "linux/amd64"), attestation(3, 1)]],
        &annotations,
    )
    .unwrap();
    assert_eq!(made.media_type, "application/vnd.oci.image.index.v1+json");
    assert_eq!(made.digest, Digest::of(&made.bytes));
    let value: serde_json::Value = serde_json::from_slice(&made.bytes).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap(), @r#"
    {
      "annotations": {
        "org.opencontainers.image.revision": "abc"
      },
      "manifests": [
        {
          "digest": "sha256:7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8",
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "platform": {
            "architecture": "amd64",
            "os": "linux"
          },
          "size": 501
        },
        {
          "digest": "sha256:d86e8112f3c4c4442126f8e9f44f16867da487f29052bf91b810457db34209a4",
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "platform": {
            "architecture": "arm64",
            "os": "linux"
          },
          "size": 502
        },
        {
          "annotations": {
            "vnd.docker.reference.digest": "sha256:7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8",
            "vnd.docker.reference.type": "attestation-manifest"
          },
          "digest": "sha256:35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b",
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "platform": {
            "architecture": "unknown",
            "os": "unknown"
          },
          "size": 503
        }
      ],
      "mediaType": "application/vnd.oci.image.index.v1+json",
      "schemaVersion": 2
    }
    "#);
}

#[test]
fn what_does_not_add_up_is_refused() {
    let none = BTreeMap::new();
    let refuse = |lists: Vec<Vec<Child>>| index(&both(), lists, &none).unwrap_err().to_string();
    let two = || vec![image(1, "linux/amd64"), image(2, "linux/arm64")];
    assert_eq!(refuse(vec![vec![image(1, "linux/amd64")]]), "the builders made no image for linux/arm64");
    assert_eq!(refuse(vec![]), "the builders made no image for linux/amd64, linux/arm64");
    assert!(
        refuse(vec![two(), vec![image(3, "linux/arm64")]]).starts_with("the builders made linux/arm64 twice")
    );
    assert!(
        refuse(vec![two(), vec![image(3, "linux/arm/v7")]])
            .contains("linux/arm/v7, which the plan does not hold")
    );
    assert!(refuse(vec![two(), vec![attestation(4, 9)]]).contains("is not among the images"));
    let nowhere = Child { platform: None, ..image(5, "linux/amd64") };
    assert!(refuse(vec![two(), vec![nowhere]]).contains("belongs to no platform"));
}

#[test]
fn a_lone_manifest_is_its_solves_platform() {
    let bytes =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;
    let [child] = children(bytes, MANIFEST, Some(&platform("linux/arm64"))).unwrap().try_into().unwrap();
    assert_eq!(child.digest, Digest::of(bytes));
    assert_eq!(child.size, bytes.len() as u64);
    assert_eq!(child.platform, Some(platform("linux/arm64")));
    assert!(children(bytes, MANIFEST, None).unwrap_err().to_string().contains("belongs to no platform"));
    assert!(
        children(bytes, DOCKER_MANIFEST, Some(&platform("linux/arm64")))
            .unwrap_err()
            .to_string()
            .contains("does not call itself")
    );
}

#[test]
fn entries_of_an_index_are_judged() {
    let entry = |fields: &str| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":7,{fields}}}]}}"#,
            digest(1)
        )
    };
    let read = |fields: &str| children(entry(fields).as_bytes(), INDEX, None);
    let windows =
        read(r#""platform":{"os":"windows","architecture":"amd64","os.version":"10.0.1"}"#).unwrap();
    assert_eq!(windows[0].platform, Some(platform("windows/amd64")));
    let made = index(&[platform("windows/amd64")], vec![windows], &BTreeMap::new()).unwrap();
    assert!(String::from_utf8(made.bytes).unwrap().contains(r#""os.version":"10.0.1""#));
    // containerd's normal form, so that the plan's linux/arm64 is met
    let v8 = read(r#""platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap();
    assert_eq!(v8[0].platform, Some(platform("linux/arm64")));
    for bad in [
        r#""platform":{"os":"unknown","architecture":"unknown"}"#,
        r#""platform":{"os":"linux"}"#,
        r#""annotations":{}"#,
        r#""annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let nested = entry(r#""x":0"#).replace(MANIFEST, INDEX);
    assert!(matches!(children(nested.as_bytes(), INDEX, None), Err(AssembleError::Nested { .. })));
    assert!(matches!(children(b"{}", INDEX, None), Err(AssembleError::Unreadable { .. })));
    assert!(matches!(
        children(br#"{"schemaVersion":1}"#, INDEX, None),
        Err(AssembleError::Unreadable { .. })
    ));
    assert!(matches!(
        children(br#"{"schemaVersion":2}"#, "text/html", None),
        Err(AssembleError::MediaType { .. })
    ));
}

proptest! {
    /// However the solves are split and ordered, the same children make the same bytes, images first in the plan's order.
    #[test]
    fn order_of_arrival_does_not_matter(
        arches in Just(vec!["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"]).prop_shuffle(),
        arrival in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 0..=8_usize,
    ) {
        let platforms: Vec<Platform> = arches.iter().map(|text| platform(text)).collect();
        let all: Vec<Child> = (0..4).map(|n| image(n, arches[n as usize])).chain((0..4).map(|n| attestation(10 + n, n))).collect();
        let arrived: Vec<Child> = arrival.iter().map(|&at| all[at].clone()).collect();
        let (first, second) = arrived.split_at(cut);
        let made = index(&platforms, vec![first.to_vec(), second.to_vec()], &BTreeMap::new()).unwrap();
        prop_assert_eq!(digests(&made), all.iter().map(|child| child.digest.clone()).collect::<Vec<_>>());
        let again = index(&platforms, vec![children(&made.bytes, INDEX, None).unwrap()], &BTreeMap::new()).unwrap();
        prop_assert_eq!(again.bytes, made.bytes);
    }
}
