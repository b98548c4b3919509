//! A daemon's disk: what its cache holds, and throwing away what is not needed.
//!
//! Filters are containerd's: `type==source.local`, `id~=PREFIX`, `description~=…`, `inuse`, `mutable`, `shared`,
//! `private`; the entries of one list each suffice. Which names there are is the daemon's to know.

use std::time::Duration;

use lemnos_proto::control as wire;
use lemnos_proto::worker::GcPolicy;
use serde::{Serialize, Serializer};

use super::{Client, Error, Moment};

/// Longest wait for the records: a daemon counts the size of each that it has not counted yet.
const USAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// One record of a daemon's cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub id: String,
    pub mutable: bool,
    /// Whether something needs it now, so that it cannot be thrown away.
    pub in_use: bool,
    /// Bytes, without those of its parents.
    pub size: i64,
    pub created_at: Option<Moment>,
    pub last_used_at: Option<Moment>,
    pub usage_count: i64,
    pub parents: Vec<String>,
    /// As in `[2/3] RUN make`.
    pub description: String,
    /// `regular`, `internal`, `frontend`, `source.local`, `source.git.checkout`, `exec.cachemount`.
    pub record_type: String,
    /// Whether its bytes are an image's, too.
    pub shared: bool,
}

/// What records come to, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub total: i64,
    pub reclaimable: i64,
    pub shared: i64,
}

impl Sum {
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Usage>) -> Self {
        records.into_iter().fold(Self::default(), |sum, record| {
            let size = record.size.max(0);
            Self {
                total: sum.total.saturating_add(size),
                reclaimable: sum.reclaimable.saturating_add(if record.in_use { 0 } else { size }),
                shared: sum.shared.saturating_add(if record.shared { size } else { 0 }),
            }
        })
    }
}

/// What to throw away, once or, as a worker's rule, whenever there is too much. Nothing set: all that is not in use and
/// neither internal nor a frontend's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Internal and frontend records, too.
    pub all: bool,
    /// Only records that match one of these.
    #[serde(rename = "filter")]
    pub filters: Vec<String>,
    /// Not what was used within this time.
    #[serde(serialize_with = "as_ns")]
    pub keep_duration: Duration,
    /// Bytes that the cache may have always.
    pub reserved_space: i64,
    /// Bytes that it may have at most; 0 for no bound.
    pub max_used_space: i64,
    /// Bytes of the disk that are to stay free, for which the cache shrinks down to `reserved_space`; 0 for no bound.
    pub min_free_space: i64,
}

fn as_ns<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(ns(*duration))
}

fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Client {
    /// The cache's records that match one of `filters`, small ones first. None: all of them. `unused_for` leaves out
    /// what was used within that time.
    pub async fn disk_usage(&self, filters: &[String], unused_for: Duration) -> Result<Vec<Usage>, Error> {
        let mut control = self.control();
        let request = wire::DiskUsageRequest { filter: filters.to_vec(), age_limit: ns(unused_for) };
        let asked = async { Ok(control.disk_usage(request).await?.into_inner()) };
        let answer = self.answer_within(USAGE_TIMEOUT, asked).await?;
        let mut records: Vec<Usage> = answer.record.into_iter().map(Usage::from).collect();
        records.sort_by(|a, b| a.size.cmp(&b.size).then_with(|| a.id.cmp(&b.id)));
        Ok(records)
    }

    /// Throws away what `rule` says. `on_record` is told of each record that has gone, as it goes; what this returns is
    /// what they came to. Dropping the future stops the daemon, which leaves the rest as it is.
    pub async fn prune(&self, rule: &Rule, mut on_record: impl FnMut(Usage) + Send) -> Result<Sum, Error> {
        for (name, space) in [
            ("reserved space", rule.reserved_space),
            ("maximum used space", rule.max_used_space),
            ("minimum free space", rule.min_free_space),
        ] {
            if space < 0 {
                return Err(
                    self.error(&tonic::Status::invalid_argument(format!("a {name} of {space} bytes")))
                );
            }
        }
        let request = wire::PruneRequest {
            filter: rule.filters.clone(),
            all: rule.all,
            keep_duration: ns(rule.keep_duration),
            reserved_space: rule.reserved_space,
            max_used_space: rule.max_used_space,
            min_free_space: rule.min_free_space,
        };
        let mut control = self.control();
        self.while_alive(async {
            let mut records = control.prune(request).await?.into_inner();
            let mut sum = Sum::default();
            while let Some(record) = records.message().await? {
                let record = Usage::from(record);
                let one = Sum::of([&record]);
                sum.total = sum.total.saturating_add(one.total);
                sum.reclaimable = sum.reclaimable.saturating_add(one.reclaimable);
                sum.shared = sum.shared.saturating_add(one.shared);
                on_record(record);
            }
            Ok(sum)
        })
        .await
    }
}

impl From<wire::UsageRecord> for Usage {
    fn from(r: wire::UsageRecord) -> Self {
        Self {
            id: r.id,
            mutable: r.mutable,
            in_use: r.in_use,
            size: r.size,
            created_at: r.created_at.map(Moment::from),
            last_used_at: r.last_used_at.map(Moment::from),
            usage_count: r.usage_count,
            parents: r.parents,
            description: r.description,
            record_type: r.record_type,
            shared: r.shared,
        }
    }
}

impl From<GcPolicy> for Rule {
    fn from(policy: GcPolicy) -> Self {
        Self {
            all: policy.all,
            filters: policy.filters,
            keep_duration: Duration::from_nanos(u64::try_from(policy.keep_duration).unwrap_or(0)),
            reserved_space: policy.reserved_space,
            max_used_space: policy.max_used_space,
            min_free_space: policy.min_free_space,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_count_what_is_reclaimable_and_what_is_shared() {
        let record = |size, in_use, shared| Usage { size, in_use, shared, ..Usage::default() };
        let records = [record(5, true, false), record(7, false, true), record(-1, false, false)];
        assert_eq!(Sum::of(&records), Sum { total: 12, reclaimable: 7, shared: 7 });
    }
}
