//! What the daemon asks for: the metadata of one `DiffCopy` call, decoded.
//!
//! A value that cannot be decoded is an error: guessing would send the wrong files.

use tonic::Status;
use tonic::metadata::MetadataMap;

use super::filter::Filters;

/// More patterns than this, in all, are refused.
const MAX_PATTERNS: usize = 50_000;

/// One call's wishes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub dir: String,
    pub filters: Filters,
}

impl Asked {
    pub(super) fn parse(metadata: &MetadataMap) -> Result<Self, Status> {
        let dir = values(metadata, "dir-name")?.into_iter().next().unwrap_or_default();
        let dir = String::from_utf8(dir)
            .map_err(|_| Status::invalid_argument("the metadata dir-name is not UTF-8"))?;
        let filters = Filters {
            include: values(metadata, "include-patterns")?,
            exclude: values(metadata, "exclude-patterns")?,
            follow: values(metadata, "followpaths")?,
        };
        let count = filters.include.len() + filters.exclude.len() + filters.follow.len();
        if count > MAX_PATTERNS {
            return Err(Status::invalid_argument(format!(
                "{count} patterns; at most {MAX_PATTERNS} are taken"
            )));
        }
        Ok(Self { dir, filters })
    }
}

/// All values of `key`, in order, unescaped where `KEY-encoded` says that they are escaped.
fn values(metadata: &MetadataMap, key: &str) -> Result<Vec<Vec<u8>>, Status> {
    let encoded = metadata
        .get(format!("{key}-encoded"))
        .is_some_and(|flag| matches!(flag.as_bytes(), b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True"));
    metadata
        .get_all(key)
        .iter()
        .map(|value| {
            let raw = value.as_bytes();
            if !encoded {
                return Ok(raw.to_vec());
            }
            query_unescape(raw).ok_or_else(|| {
                let shown = raw.escape_ascii();
                Status::invalid_argument(format!("the metadata {key} has a bad escape in \"{shown}\""))
            })
        })
        .collect()
}

/// The inverse of Go's `url.QueryEscape`; none for a `%` without two hexadecimal digits behind it.
fn query_unescape(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&b) = rest.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b => b,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in pairs {
            map.append(*key, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn values_come_in_order_and_only_flagged_keys_are_unescaped() {
        let asked = Asked::parse(&metadata(&[
            ("dir-name", "context"),
            ("include-patterns", "a%20b"),
            ("include-patterns", "c+d"),
            ("exclude-patterns", "a+%2A%c3%A9"),
            ("exclude-patterns-encoded", "1"),
            ("followpaths", "x"),
            ("followpaths-encoded", "0"),
        ]))
        .unwrap();
        assert_eq!(asked.dir, "context");
        assert_eq!(asked.filters.include, [b"a%20b".to_vec(), b"c+d".to_vec()]);
        assert_eq!(asked.filters.exclude, ["a *é".as_bytes().to_vec()]);
        assert_eq!(asked.filters.follow, [b"x".to_vec()]);
    }

    #[test]
    fn a_bad_escape_is_refused() {
        for bad in ["%", "%2", "%zz", "ok%4"] {
            let mut map = metadata(&[("include-patterns-encoded", "true")]);
            map.append("include-patterns", bad.parse().unwrap());
            let status = Asked::parse(&map).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{bad}");
            assert!(status.message().contains("include-patterns"), "{status}");
        }
    }

    #[test]
    fn no_metadata_asks_for_the_unnamed_directory_unfiltered() {
        assert_eq!(Asked::parse(&MetadataMap::new()).unwrap(), Asked::default());
    }
}
