//! Whether a push would be served now, for load balancers: a few checks, looked at together, at most once in a while.
//!
//! A flood of questions costs one round of checks: whoever asks meanwhile is told what was found. Must not know what a
//! check looks at.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long an answer serves further questions.
const FRESH: Duration = Duration::from_secs(2);
/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks at one thing; the error is a sentence.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Why pushes are not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `store`, `builders`, `registry`, `draining`.
    pub check: &'static str,
    pub problem: String,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub ready: bool,
    pub reasons: Vec<Reason>,
}

/// The checks, and what they said last.
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
    draining: CancellationToken,
    fresh: Duration,
    patience: Duration,
    last: Mutex<Option<(Instant, Vec<Reason>)>>,
}

impl Readiness {
    /// Once `draining` is cancelled, nothing is ready any more.
    pub fn new(checks: Vec<(&'static str, Check)>, draining: CancellationToken) -> Self {
        Self { checks, draining, fresh: FRESH, patience: PATIENCE, last: Mutex::default() }
    }

    pub async fn answer(&self) -> Answer {
        let reasons = if self.draining.is_cancelled() {
            let problem = "the server is stopping: running pushes finish, no new ones are taken".to_owned();
            vec![Reason { check: "draining", problem }]
        } else {
            self.reasons().await
        };
        Answer { ready: reasons.is_empty(), reasons }
    }

    async fn reasons(&self) -> Vec<Reason> {
        // whoever comes while a round is under way waits for it, and finds it fresh
        let mut last = self.last.lock().await;
        if let Some((at, reasons)) = &*last
            && at.elapsed() < self.fresh
        {
            return reasons.clone();
        }
        let looking = self.checks.iter().map(|(check, look)| async move {
            let found = match timeout(self.patience, look()).await {
                Ok(found) => found,
                Err(_) => Err(format!("no answer within {} s", self.patience.as_secs())),
            };
            found.err().map(|problem| Reason { check, problem })
        });
        let reasons: Vec<Reason> = join_all(looking).await.into_iter().flatten().collect();
        *last = Some((Instant::now(), reasons.clone()));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn check(of: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Check {
        let of = Arc::new(of);
        Arc::new(move || {
            let of = of.clone();
            Box::pin(async move { of() })
        })
    }

    #[tokio::test]
    async fn a_flood_of_questions_is_one_round_of_checks() {
        let looked = Arc::new(AtomicUsize::new(0));
        let count = looked.clone();
        let store = check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let mut readiness = Readiness::new(vec![("store", store)], CancellationToken::new());
        let answers = join_all((0..1_000).map(|_| readiness.answer())).await;
        assert!(answers.iter().all(|answer| answer.ready));
        assert_eq!(looked.load(Ordering::Relaxed), 1);
        readiness.fresh = Duration::ZERO;
        readiness.answer().await;
        assert_eq!(looked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn every_reason_is_said_and_a_check_that_hangs_is_one() {
        let hangs: Check = Arc::new(|| Box::pin(std::future::pending()));
        let checks = vec![
            ("store", check(|| Ok(()))),
            ("builders", hangs),
            ("registry", check(|| Err("refused".to_owned()))),
        ];
        let draining = CancellationToken::new();
        let readiness = Readiness { patience: Duration::ZERO, ..Readiness::new(checks, draining.clone()) };
        let json = serde_json::to_string(&readiness.answer().await).unwrap();
        insta::assert_snapshot!(json, @r#"{"ready":false,"reasons":[{"check":"builders","problem":"no answer within 0 s"},{"check":"registry","problem":"refused"}]}"#);
        draining.cancel();
        let answer = readiness.answer().await;
        assert_eq!(answer.reasons.iter().map(|r| r.check).collect::<Vec<_>>(), ["draining"]);
    }
}
