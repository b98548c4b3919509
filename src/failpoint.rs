//! Named fail points of a push's whole way, for crash tests.
//!
//! They exist in tests and under the cargo feature `failpoints` only; elsewhere `reach` is empty. What is armed is handed in
//! at start (the command line reads it from LEMNOS_FAILPOINT), so that tests side by side do not meet.

macro_rules! points {
    ($($name:ident $text:literal,)*) => {
        /// Where a push can be stopped, in the order that it passes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($name,)*
        }

        impl Point {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

points! {
    AfterQueue "after-queue",
    AfterAccept "after-accept",
    AfterPlan "after-plan",
    AfterContext "after-context",
    AfterSolve "after-solve",
    BeforeIndexPush "before-index-push",
    AfterIndexPush "after-index-push",
    BeforeCommit "before-commit",
    AfterJournal "after-journal",
    AfterPrepare "after-prepare",
    AfterUnsharedTag "after-unshared-tag",
    AfterFirstSharedTag "after-first-shared-tag",
    AfterSecondSharedTag "after-second-shared-tag",
    BeforeRefCommit "before-ref-commit",
    AfterRefCommit "after-ref-commit",
    BeforeJournalClose "before-journal-close",
    AfterJournalClose "after-journal-close",
    BeforeFinish "before-finish",
    AfterFinish "after-finish",
}

/// An armed fail point of action `error` was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fail point {0} was reached")]
pub struct Injected(pub &'static str);

/// A setting that names no fail point or no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no fail point setting: POINT[@HIT]:kill, …:error or …:pause-until-file=PATH, separated by commas"
)]
pub struct BadSetting(pub String);

#[cfg(any(test, feature = "failpoints"))]
mod armed {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::{BadSetting, Injected, Point};

    #[derive(Debug, Clone)]
    enum Action {
        Kill,
        Error,
        PauseUntilFile(PathBuf),
        /// Says so and stays for ever: in-process tests then drop what was running.
        #[cfg(test)]
        Hang(Arc<tokio::sync::Notify>),
    }

    #[derive(Debug)]
    struct Armed {
        point: Point,
        action: Action,
        /// Passes that are still to come before it acts; then it acts each time.
        spared: AtomicU32,
    }

    /// The armed points. Clones share what they count.
    #[derive(Debug, Clone, Default)]
    pub struct Failpoints(Arc<[Armed]>);

    impl Failpoints {
        /// Reads `POINT:ACTION` or `POINT@HIT:ACTION` (the first hit is 1), several separated by commas.
        pub fn parse(setting: &str) -> Result<Self, BadSetting> {
            let armed = setting.split(',').map(|one| armed(one).ok_or_else(|| BadSetting(one.to_owned())));
            Ok(Self(armed.collect::<Result<_, _>>()?))
        }

        /// Armed so that `point` never returns; the `Notify` tells when it is reached.
        #[cfg(test)]
        pub fn hang_at(point: Point) -> (Self, Arc<tokio::sync::Notify>) {
            let reached = Arc::new(tokio::sync::Notify::new());
            let action = Action::Hang(reached.clone());
            (Self([Armed { point, action, spared: AtomicU32::new(0) }].into()), reached)
        }

        /// To be called where the code passes `point`.
        pub async fn reach(&self, point: Point) -> Result<(), Injected> {
            for armed in self.0.iter().filter(|armed| armed.point == point) {
                let spare = |spared: u32| spared.checked_sub(1);
                if armed.spared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spare).is_err() {
                    act(point, &armed.action).await?;
                }
            }
            Ok(())
        }
    }

    fn armed(setting: &str) -> Option<Armed> {
        let (place, action) = setting.split_once(':')?;
        let (name, hit) = match place.split_once('@') {
            Some((name, hit)) => (name, hit.parse::<u32>().ok()?.checked_sub(1)?),
            None => (place, 0),
        };
        let point = *Point::ALL.iter().find(|point| point.name() == name)?;
        let action = match action.split_once('=') {
            None if action == "kill" => Action::Kill,
            None if action == "error" => Action::Error,
            Some(("pause-until-file", path)) => Action::PauseUntilFile(path.into()),
            _ => return None,
        };
        Some(Armed { point, action, spared: AtomicU32::new(hit) })
    }

    async fn act(point: Point, action: &Action) -> Result<(), Injected> {
        match action {
            Action::Error => return Err(Injected(point.name())),
            Action::Kill => {
                // a signal to oneself is delivered before the call returns; the error would be a missing SIGKILL
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            Action::PauseUntilFile(path) => {
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            #[cfg(test)]
            Action::Hang(reached) => {
                reached.notify_one();
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "failpoints"))]
pub use armed::Failpoints;

/// Without the feature nothing can be armed.
#[cfg(not(any(test, feature = "failpoints")))]
#[derive(Debug, Clone, Default)]
pub struct Failpoints(());

#[cfg(not(any(test, feature = "failpoints")))]
impl Failpoints {
    pub fn parse(setting: &str) -> Result<Self, BadSetting> {
        Err(BadSetting(setting.to_owned()))
    }

    #[expect(clippy::unused_async, reason = "the same shape as with the feature")]
    pub async fn reach(&self, _point: Point) -> Result<(), Injected> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_a_point_and_an_action() {
        for point in Point::ALL {
            assert!(Failpoints::parse(&format!("{}:kill", point.name())).is_ok());
        }
        assert!(Failpoints::parse("after-journal:pause-until-file=/x").is_ok());
        assert!(Failpoints::parse("after-journal@3:kill,after-plan:error").is_ok());
        for bad in [
            "",
            "after-journal",
            "after-journal:",
            "nowhere:kill",
            "after-journal:kil",
            "after-journal:error=1",
            "after-journal@0:kill",
            "after-journal@x:kill",
        ] {
            assert_eq!(Failpoints::parse(bad).err(), Some(BadSetting(bad.to_owned())));
        }
    }

    #[tokio::test]
    async fn only_the_armed_point_acts() {
        let failpoints = Failpoints::parse("after-prepare:error").unwrap();
        assert_eq!(failpoints.reach(Point::AfterJournal).await, Ok(()));
        assert_eq!(failpoints.reach(Point::AfterPrepare).await, Err(Injected("after-prepare")));
    }

    #[tokio::test]
    async fn the_first_passes_are_spared() {
        let failpoints = Failpoints::parse("after-prepare@3:error").unwrap();
        let clone = failpoints.clone();
        assert_eq!(failpoints.reach(Point::AfterPrepare).await, Ok(()));
        assert_eq!(clone.reach(Point::AfterPrepare).await, Ok(()));
        assert!(failpoints.reach(Point::AfterPrepare).await.is_err());
    }
}
