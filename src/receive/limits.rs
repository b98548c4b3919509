//! What one push may cost. Every bound has its unit in its name, and a default that a real project does not meet.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// The bounds of a request. `Default` is what `lemnos serve` uses unless configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Packed bytes that one push may send.
    pub max_input_bytes: u64,
    /// Inflated size of one object.
    pub max_blob_bytes: u64,
    /// Inflated size of all objects that one push brings.
    pub max_new_bytes: u64,
    /// Number of objects that one push brings.
    pub max_new_objects: u64,
    /// Paths of one tip's tree, counted as a checkout would make them.
    pub max_tree_entries: u64,
    /// Nested directories of one tip's tree.
    pub max_tree_depth: u32,
    /// Size of one tip's tree as a checkout would make it.
    pub max_tree_bytes: u64,
    /// Ref commands of one push.
    pub max_updates: usize,
    /// Push options of one push, and the length of each.
    pub max_options: usize,
    pub max_option_bytes: usize,
    /// A request in which no byte moved for this long is ended. The time that the server itself works does not count.
    pub stall_seconds: u64,
    /// From the start of a request until the server has all objects (a push) or the client has all data.
    pub transfer_seconds: u64,
    /// What waits for a slow pusher's terminal before lines are dropped.
    pub output_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_input_bytes: 2048 * MIB,
            max_blob_bytes: 256 * MIB,
            max_new_bytes: 4096 * MIB,
            max_new_objects: 5_000_000,
            max_tree_entries: 200_000,
            max_tree_depth: 64,
            max_tree_bytes: 4096 * MIB,
            max_updates: 1000,
            max_options: 64,
            max_option_bytes: 4096,
            stall_seconds: 600,
            transfer_seconds: 7200,
            output_buffer_bytes: 1024 * 1024,
        }
    }
}

/// `300 MiB`, `1 byte`: rounded down to the largest unit that fits.
pub(super) fn human_bytes(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        b if b >= 1024 * MIB && b % (1024 * MIB) == 0 => format!("{} GiB", b / (1024 * MIB)),
        b if b >= MIB => format!("{} MiB", b / MIB),
        b if b >= 1024 => format!("{} KiB", b / 1024),
        b => format!("{b} bytes"),
    }
}
