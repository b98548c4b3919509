//! `--annotation [LEVEL[PLATFORM],…:]KEY=VALUE`.

use super::{FlagError, wrong};
use crate::buildkit::solve::{Annotation, AnnotationLevel};

/// One annotation for each level that is named; without one it is the daemon's choice, the manifest.
pub fn annotation(given: &str) -> Result<Vec<Annotation>, FlagError> {
    const FLAG: &str = "--annotation";
    let (left, value) =
        given.split_once('=').ok_or_else(|| wrong(FLAG, given, "write KEY=VALUE, or LEVEL:KEY=VALUE"))?;
    let new = |level, platform, key: &str| Annotation {
        level,
        platform,
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let Some((levels, key)) = left.split_once(':') else {
        return Ok(vec![new(AnnotationLevel::Unsaid, None, left)]);
    };
    let one = |text: &str| {
        let (name, platform) = match text.split_once('[') {
            None => (text, None),
            Some((name, rest)) => {
                let inside = rest.strip_suffix(']').filter(|p| !p.is_empty());
                (name, Some(inside.ok_or_else(|| wrong(FLAG, given, "a platform stands in [ and ]"))?))
            }
        };
        let level =
            AnnotationLevel::NAMED.into_iter().find(|level| level.as_str() == name).ok_or_else(|| {
                let reason = "the levels are manifest, manifest-descriptor, index and index-descriptor";
                wrong(FLAG, given, format!("{name:?} is no level: {reason}"))
            })?;
        let platform = platform.map(str::parse).transpose();
        Ok(new(level, platform.map_err(|e| wrong(FLAG, given, format!("{e}")))?, key))
    };
    levels.split(',').map(one).collect()
}
