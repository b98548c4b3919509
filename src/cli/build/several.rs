//! One image from several builders: each pushes its platforms by digest, the index over them is tagged last.
//!
//! Invariant: no tag moves before every builder has pushed, and the index is the one that `assemble` makes. Only a push
//! can be joined so; every other output of several builders is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::options::Options;
use super::outputs::Outputs;
use super::screen::Screen;
use crate::assemble;
use crate::buildkit::flags;
use crate::buildkit::solve::{AnnotationLevel, Platform as Asked};
use crate::error::Report;
use crate::failpoint::Failpoints;
use crate::model::{Digest, ImageName, Platform, Tag};
use crate::registry::Registry;

/// An image's name in a registry, nothing left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub image: ImageName,
    pub tag: Tag,
}

impl Target {
    fn read(name: &str) -> Result<Self, Report> {
        let full = flags::full_name(name)?;
        let (image, tag) =
            full.rsplit_once(':').filter(|(image, _)| !image.contains('@')).ok_or_else(|| {
                Report::user(format!("{name:?} names a digest: several builders make a new one"))
                    .hint("give a tag")
            })?;
        Ok(Self { image: image.parse()?, tag: tag.parse()? })
    }
}

/// Makes each builder's outputs a push by digest, and says what is to be tagged in the end.
pub fn push_by_digest(outputs: &mut Outputs) -> Result<Vec<Target>, Report> {
    let [output] = outputs.list.as_mut_slice() else {
        return Err(Report::user("several builders can only push one image together")
            .hint("give --push or -o type=registry, and no other output"));
    };
    let pushed =
        output.kind == "image" && output.attrs.get("push").is_some_and(|push| super::options::yes(push));
    if !pushed {
        return Err(Report::user(format!(
            "type={} is not possible with several builders: each has a part of the image",
            output.kind
        ))
        .hint("give --push, or one --builder for all platforms"));
    }
    let names = output.attrs.get("name").cloned().unwrap_or_default();
    let targets: Vec<Target> = names.split(',').map(Target::read).collect::<Result<_, _>>()?;
    let repositories: BTreeSet<&str> = targets.iter().map(|target| target.image.as_str()).collect();
    let repositories = repositories.into_iter().collect::<Vec<_>>().join(",");
    output.attrs.insert("name".to_owned(), repositories);
    output.attrs.insert("push-by-digest".to_owned(), "true".to_owned());
    // these are for the index that is made here
    output.attrs.retain(|name, _| !name.starts_with("annotation-index"));
    Ok(targets)
}

/// The annotations of the index itself.
fn annotations(options: &Options) -> BTreeMap<String, String> {
    let of_index = options.annotations.iter().filter(|a| a.level == AnnotationLevel::Index);
    of_index.map(|a| (a.key.clone(), a.value.clone())).collect()
}

/// Joins what was pushed. Answers as the metadata file has it.
pub async fn join(
    registry: &Registry,
    targets: &[Target],
    pushed: &[(Digest, Vec<Asked>)],
    options: &Options,
    screen: &Screen,
) -> Result<BTreeMap<String, String>, Report> {
    let names: Vec<String> =
        targets.iter().map(|t| format!("{}:{}", t.image.as_str(), t.tag.as_str())).collect();
    let joining = async {
        let first = targets.first().ok_or_else(|| Report::internal("an image without a name"))?;
        let platform = |asked: &Asked| asked.to_string().parse::<Platform>();
        let mut platforms = Vec::new();
        for asked in &options.dockerfile.platforms {
            platforms.push(platform(asked)?);
        }
        let mut parts = Vec::new();
        for (digest, asked) in pushed {
            let only = match asked.as_slice() {
                [one] => Some(platform(one)?),
                _ => None,
            };
            parts.push((digest.clone(), only));
        }
        let children = assemble::fetch(registry, &first.image, &parts).await?;
        let index = assemble::index(&platforms, children, &annotations(options))?;
        let digest = assemble::push(registry, &first.image, &index, &Failpoints::default()).await?;
        for target in targets {
            let tag = target.tag.clone().into();
            registry.put_manifest(&target.image, &tag, &index.media_type, index.bytes.clone()).await?;
        }
        Ok::<_, Report>(digest)
    };
    let digest = screen.step(&format!("merging manifest list {}", names.join(",")), joining).await?;
    Ok(BTreeMap::from([
        ("containerimage.digest".to_owned(), digest.to_string()),
        ("image.name".to_owned(), names.join(",")),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::flags::output;

    fn plan(given: &[&str]) -> Outputs {
        let list: Vec<_> = given.iter().map(|given| output(given).unwrap()).collect();
        Outputs { kinds: vec![None; list.len()], list, ..Outputs::default() }
    }

    #[test]
    fn each_builder_pushes_to_the_repositories_and_tags_nothing() {
        let mut outputs = plan(&[
            r#"type=image,push=true,"name=localhost:5000/b:1,localhost:5000/a,localhost:5000/b:2",annotation-index.a=b"#,
        ]);
        let targets = push_by_digest(&mut outputs).unwrap();
        let shown: Vec<String> =
            targets.iter().map(|t| format!("{} {}", t.image.as_str(), t.tag.as_str())).collect();
        assert_eq!(shown, ["localhost:5000/b 1", "localhost:5000/a latest", "localhost:5000/b 2"]);
        let attrs = &outputs.list[0].attrs;
        assert_eq!(attrs["name"], "localhost:5000/a,localhost:5000/b");
        assert_eq!(attrs["push-by-digest"], "true");
        assert!(!attrs.contains_key("annotation-index.a"));
    }

    #[test]
    fn what_cannot_be_joined_is_refused() {
        for given in [
            &["out"][..],
            &["type=image,name=localhost/a"],
            &["type=image,push=true,name=localhost/a", "out"],
            &[],
        ] {
            assert!(push_by_digest(&mut plan(given)).is_err(), "{given:?}");
        }
        assert_eq!(Target::read("shop").unwrap().image.as_str(), "docker.io/library/shop");
    }
}
