//! Exporters that the session chooses once the result is there: buildkitd's session exporter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lemnos::buildkit::session::exporter::{Built, ExportChooser};
use lemnos::buildkit::session::filesend::Export;
use lemnos::buildkit::{Exporter, Session, SolveErrorKind};

use super::buildkit::{BUILD, build, connect, request, unique};
use super::support::engines;

/// Exports into a directory what has been built, or refuses.
#[derive(Default)]
struct Chooser {
    refusal: Option<&'static str>,
    bad_end: Option<&'static str>,
    seen: Mutex<Option<Built>>,
    answered: Mutex<Option<BTreeMap<String, String>>>,
}

#[async_trait]
impl ExportChooser for Chooser {
    async fn choose(&self, built: Built) -> Result<Vec<Exporter>, String> {
        *self.seen.lock().unwrap() = Some(built);
        match self.refusal {
            Some(refusal) => Err(refusal.to_owned()),
            None => Ok(vec![Exporter::new("local")]),
        }
    }

    async fn finish(&self, attrs: BTreeMap<String, String>) -> Result<(), String> {
        *self.answered.lock().unwrap() = Some(attrs);
        self.bad_end.map_or(Ok(()), |words| Err(words.to_owned()))
    }
}

#[tokio::test]
async fn what_is_exported_can_be_chosen_when_the_result_is_there() {
    let word = unique();
    let (dir, mut asked) = request(
        &format!("FROM busybox AS b\nRUN echo {word} >/w\nFROM scratch\nCOPY --from=b /w /word\n"),
        "linux/amd64",
    );
    let image = format!("{}/live/chooser-{word}", engines().registry);
    let pushed = Exporter::new("image").with("name", &image).with("push", "true");
    asked.exporters = vec![pushed.with("registry.insecure", "true")];
    let chooser = Arc::new(Chooser::default());
    let out = dir.path().join("out");
    // number 0 is the request's own
    let session = |chooser: Arc<Chooser>| {
        let builder =
            Session::builder(&word).local_dir("context", dir.path()).local_dir("dockerfile", dir.path());
        builder.chooser(chooser).export(1, Export::dir(&out)).build().unwrap()
    };
    asked.session = session(chooser.clone());
    let (result, _) = build(&connect(&engines().buildkit).await, asked.clone()).await;
    assert_eq!(std::fs::read_to_string(out.join("word")).unwrap().trim(), word);
    let seen = chooser.seen.lock().unwrap().take().unwrap();
    assert_eq!(seen.references.len(), 1, "{seen:?}");
    assert!(seen.metadata.contains_key("containerimage.config"), "{:?}", seen.metadata.keys());
    let answered = chooser.answered.lock().unwrap().take().unwrap();
    assert_eq!(answered["containerimage.digest"], result.attrs["containerimage.digest"]);

    // either answer can fail the build
    for chooser in [
        Chooser { refusal: Some("not this one"), ..Chooser::default() },
        Chooser { bad_end: Some("too late"), ..Chooser::default() },
    ] {
        let words = chooser.refusal.or(chooser.bad_end).unwrap();
        asked.session = session(Arc::new(chooser));
        let client = connect(&engines().buildkit).await;
        let error =
            tokio::time::timeout(BUILD, client.solve(asked.clone(), |_| {})).await.unwrap().unwrap_err();
        assert!(error.message.contains(words), "{error:?}");
        assert_ne!(error.kind, SolveErrorKind::Canceled);
    }
}
