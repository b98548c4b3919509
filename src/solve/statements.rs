//! What a builder says of a build whose files are taken: it writes in-toto statements among the files.
//!
//! Their names begin with something that was drawn for this build, so that no command of the build can leave a file that
//! would be taken for one. Their subjects are files; what is made of the files is what they are to be about, so that only
//! the predicates go on.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _};
use std::path::Path;

use crate::kinds::attest_attrs;
use crate::model::{Attestations, Predicate};

/// All predicates of a build together: what BuildKit reads of one.
const LIMIT_BYTES: usize = 40 << 20;
/// A statement among files names each of them beside its predicate.
const FILE_LIMIT_BYTES: u64 = 512 << 20;
/// A provenance, and what a generator of SBOMs may make.
const LIMIT: usize = 32;

/// What is asked for, and how it will be found.
#[derive(Debug, Clone)]
pub struct Statements {
    attest: Attestations,
    prefix: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StatementsError {
    #[error("reading what the builder attests: {0}")]
    Read(#[from] std::io::Error),
    #[error("the builder attests {what}")]
    Nonsense { what: String },
}

impl Statements {
    pub fn of(attest: &Attestations) -> Self {
        let prefix = format!(".lemnos-statement-{}-", uuid::Uuid::new_v4().simple());
        Self { attest: attest.clone(), prefix }
    }

    pub(super) fn build_attrs(&self) -> BTreeMap<String, String> {
        attest_attrs(&self.attest).collect()
    }

    pub(super) fn export_attrs(&self) -> BTreeMap<String, String> {
        let wanted = !self.attest.is_none();
        wanted.then(|| ("attestation-prefix".to_owned(), self.prefix.clone())).into_iter().collect()
    }

    /// Takes the statements out of the files: those that were asked for, in the order of their names.
    pub fn take(&self, out: &Path) -> Result<Vec<Predicate>, StatementsError> {
        if self.attest.is_none() {
            return Ok(Vec::new());
        }
        let nonsense = |what: &str| StatementsError::Nonsense { what: what.to_owned() };
        let mut found: BTreeMap<String, Predicate> = BTreeMap::new();
        let mut left = LIMIT_BYTES;
        for entry in std::fs::read_dir(out)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(&self.prefix) {
                continue;
            }
            if found.len() == LIMIT {
                return Err(nonsense("more than 32 things"));
            }
            let file = std::fs::File::open(entry.path())?;
            if file.metadata()?.len() > FILE_LIMIT_BYTES {
                return Err(nonsense("something of more than 512 MiB"));
            }
            let predicate: Predicate =
                serde_json::from_reader(BufReader::new(file.take(FILE_LIMIT_BYTES)))
                    .map_err(|error| nonsense(&format!("something that is no statement: {error}")))?;
            let size = predicate.content.get().len();
            left = left.checked_sub(size).ok_or_else(|| nonsense("more than 40 MiB"))?;
            std::fs::remove_file(entry.path())?;
            found.insert(name, predicate);
        }
        let has = |provenance: bool| found.values().any(|one| one.is_provenance() == provenance);
        if self.attest.provenance.is_some() && !has(true) {
            return Err(nonsense("no provenance: is it older than BuildKit 0.11?"));
        }
        if let Some(generator) = &self.attest.sbom
            && !has(false)
        {
            return Err(nonsense(&format!("no SBOM: {generator} made none")));
        }
        Ok(found.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Provenance;

    fn asked() -> Statements {
        Statements::of(&Attestations { provenance: Some(Provenance::Min), sbom: None })
    }

    #[test]
    fn a_statement_is_taken_and_a_file_that_looks_like_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let statements = asked();
        let own = format!("{}provenance.json", statements.export_attrs()["attestation-prefix"]);
        let kind = "https://slsa.dev/provenance/v1";
        let text =
            format!(r#"{{"_type": "x", "subject": [], "predicateType": "{kind}", "predicate": {{"a": 1}}}}"#);
        std::fs::write(dir.path().join(&own), &text).unwrap();
        let other = dir.path().join(".lemnos-statement-0-provenance.json");
        std::fs::write(&other, text.replace("/v1", "/v1 of a command")).unwrap();
        let found = statements.take(dir.path()).unwrap();
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.kind.as_str(), one.content.get()), (kind, r#"{"a": 1}"#));
        assert!(other.exists() && !dir.path().join(own).exists());
    }

    #[test]
    fn what_is_missing_or_no_statement_is_an_error_and_nothing_asked_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let error = asked().take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no provenance"), "{error}");
        let generator = format!("r.example.com/scan@sha256:{}", "a".repeat(64)).parse().unwrap();
        let sbom = Statements::of(&Attestations { provenance: None, sbom: Some(generator) });
        let error = sbom.take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("r.example.com/scan") && error.ends_with("made none"), "{error}");
        let statements = asked();
        std::fs::write(dir.path().join(format!("{}p", statements.prefix)), "{}").unwrap();
        let error = statements.take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("predicateType"), "{error}");
        let none = Statements::of(&Attestations::default());
        assert!(none.build_attrs().is_empty() && none.export_attrs().is_empty());
        assert!(none.take(dir.path()).unwrap().is_empty());
    }
}
