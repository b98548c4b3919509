//! Named fail points of the commit point of a push, for crash tests.
//!
//! They exist in tests and under the cargo feature `failpoints` only; elsewhere `reach` is empty. What is armed is handed in
//! at start (the command line reads it from LEMNOS_FAILPOINT), so that tests side by side do not meet.

/// Where a push can be stopped, in the order that it passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    AfterIndexPush,
    AfterJournal,
    AfterPrepare,
    AfterUnsharedTag,
    AfterFirstSharedTag,
    AfterSecondSharedTag,
    AfterRefCommit,
    BeforeJournalClose,
}

impl Point {
    pub const ALL: [Self; 8] = [
        Self::AfterIndexPush,
        Self::AfterJournal,
        Self::AfterPrepare,
        Self::AfterUnsharedTag,
        Self::AfterFirstSharedTag,
        Self::AfterSecondSharedTag,
        Self::AfterRefCommit,
        Self::BeforeJournalClose,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::AfterIndexPush => "after-index-push",
            Self::AfterJournal => "after-journal",
            Self::AfterPrepare => "after-prepare",
            Self::AfterUnsharedTag => "after-unshared-tag",
            Self::AfterFirstSharedTag => "after-first-shared-tag",
            Self::AfterSecondSharedTag => "after-second-shared-tag",
            Self::AfterRefCommit => "after-ref-commit",
            Self::BeforeJournalClose => "before-journal-close",
        }
    }
}

/// An armed fail point of action `error` was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fail point {0} was reached")]
pub struct Injected(pub &'static str);

/// A setting that names no fail point or no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fail point setting: POINT:kill, POINT:error or POINT:pause-until-file=PATH")]
pub struct BadSetting(pub String);

#[cfg(any(test, feature = "failpoints"))]
mod armed {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{BadSetting, Injected, Point};

    #[derive(Debug, Clone)]
    enum Action {
        Kill,
        Error,
        PauseUntilFile(PathBuf),
        /// Says so and stays for ever: in-process tests then drop what was running.
        #[cfg(test)]
        Hang(std::sync::Arc<tokio::sync::Notify>),
    }

    /// At most one armed point.
    #[derive(Debug, Clone, Default)]
    pub struct Failpoints(Option<(Point, Action)>);

    impl Failpoints {
        /// Reads `POINT:ACTION`.
        pub fn parse(setting: &str) -> Result<Self, BadSetting> {
            let bad = || BadSetting(setting.to_owned());
            let (name, action) = setting.split_once(':').ok_or_else(bad)?;
            let point = Point::ALL.into_iter().find(|point| point.name() == name).ok_or_else(bad)?;
            let action = match action.split_once('=') {
                None if action == "kill" => Action::Kill,
                None if action == "error" => Action::Error,
                Some(("pause-until-file", path)) => Action::PauseUntilFile(path.into()),
                _ => return Err(bad()),
            };
            Ok(Self(Some((point, action))))
        }

        /// Armed so that `point` never returns; the `Notify` tells when it is reached.
        #[cfg(test)]
        pub fn hang_at(point: Point) -> (Self, std::sync::Arc<tokio::sync::Notify>) {
            let reached = std::sync::Arc::new(tokio::sync::Notify::new());
            (Self(Some((point, Action::Hang(reached.clone())))), reached)
        }

        /// To be called where the code passes `point`.
        pub async fn reach(&self, point: Point) -> Result<(), Injected> {
            match &self.0 {
                Some((armed, action)) if *armed == point => act(point, action).await,
                _ => Ok(()),
            }
        }
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
        for bad in [
            "",
            "after-journal",
            "after-journal:",
            "nowhere:kill",
            "after-journal:kil",
            "after-journal:error=1",
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
}
