//! The queue's refusals as people see them: the same push may find room later.

use super::{Kind, Report};
use crate::jobs::queue::Full;

impl From<Full> for Report {
    fn from(full: Full) -> Self {
        let hint = match &full {
            Full::Queue { .. } => "push again in a while; the operator can raise queued_builds",
            Full::App { .. } => {
                "push again when some of them are done; the operator can raise queued_builds_per_app"
            }
        };
        Self::new(Kind::Unavailable, full.to_string()).hint(hint)
    }
}
