//! The one table of settings: key, flag, shape, default. The environment's name follows from the key.

/// What a setting's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Text,
    /// A path; relative ones count from the working directory, in the file from the file's directory.
    Path,
    /// Several texts: an array in the file, separated by commas in the environment, a flag given several times.
    List,
    /// Builder specs: as `List`, but separated by white space in the environment.
    Builders,
    /// A whole number within bounds, both included.
    Number {
        least: u64,
        most: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in lemnos.toml; `limits.push_bytes` is `push_bytes` in the table `[limits]`.
    pub key: &'static str,
    pub flag: Option<&'static str>,
    pub shape: Shape,
    /// As it would be written in the environment; none where absence means something.
    pub default: Option<&'static str>,
}

impl Setting {
    /// `LEMNOS_LIMITS_PUSH_BYTES`
    pub fn variable(&self) -> String {
        format!("LEMNOS_{}", self.key.to_ascii_uppercase().replace('.', "_"))
    }

    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

const fn setting(key: &'static str, shape: Shape, default: Option<&'static str>) -> Setting {
    Setting { key, flag: None, shape, default }
}

const fn flagged(
    key: &'static str,
    flag: &'static str,
    shape: Shape,
    default: Option<&'static str>,
) -> Setting {
    Setting { key, flag: Some(flag), shape, default }
}

const fn number(key: &'static str, least: u64, most: u64, default: &'static str) -> Setting {
    setting(key, Shape::Number { least, most }, Some(default))
}

const DAY_S: u64 = 86_400;
const TIB: u64 = 1 << 40;

pub static SETTINGS: &[Setting] = &[
    flagged("ssh", "--ssh", Shape::Text, Some("127.0.0.1:2222")),
    flagged("http", "--http", Shape::Text, Some("127.0.0.1:8080")),
    flagged("builders", "--builder", Shape::Builders, None),
    flagged("log_format", "--log-format", Shape::Text, Some("text")),
    flagged("registry", "--registry", Shape::Text, None),
    setting("push_destinations", Shape::List, None),
    flagged("registry_listen", "--registry-listen", Shape::Text, Some("127.0.0.1:5000")),
    flagged("buildkitd", "--buildkitd", Shape::Path, None),
    flagged("registry_program", "--registry-program", Shape::Path, None),
    flagged("mirrors", "--mirror", Shape::List, None),
    setting("network", Shape::Text, Some("isolated")),
    setting("build_cache_limit", Shape::Text, Some("60%")),
    flagged("plain_http_hosts", "--plain-http", Shape::List, None),
    setting("registry_token_hosts", Shape::List, None),
    setting("docker_config", Shape::Path, None),
    setting("ssh_user_ca_keys", Shape::Path, None),
    setting("ssh_revoked_keys", Shape::Path, None),
    setting("frontends", Shape::List, Some("docker.io/docker/dockerfile")),
    setting("frontends_by_digest", Shape::Text, Some("off")),
    setting("sbom_generator", Shape::Text, None),
    setting("base_images", Shape::List, None),
    setting("base_images_by_digest", Shape::Text, Some("off")),
    setting("remote_sources", Shape::List, None),
    number("git_uid", 0, 4_294_967_293, "64097"),
    number("concurrent_builds", 1, 1_000, "4"),
    number("solves_per_builder", 1, 1_000, "4"),
    number("queued_builds", 0, 100_000, "100"),
    number("queued_builds_per_app", 0, 100_000, "50"),
    number("keep_builds_per_app", 1, 100_000, "200"),
    number("keep_builds_days", 1, 36_500, "365"),
    number("keep_logs_days", 1, 36_500, "90"),
    number("keep_logs_bytes", 1 << 20, TIB, "10737418240"),
    number("keep_unreachable_days", 0, 36_500, "14"),
    number("housekeeping_seconds", 1, DAY_S, "600"),
    number("log_tail_lines", 0, 1_000, "30"),
    number("heartbeat_seconds", 1, 3_600, "15"),
    number("audit.keep_days", 1, 36_500, "365"),
    number("audit.keep_entries", 1_000, 100_000_000, "1000000"),
    number("shutdown_grace_seconds", 1, DAY_S, "600"),
    number("limits.push_bytes", 1_024, TIB, "2147483648"),
    number("limits.blob_bytes", 1_024, TIB, "268435456"),
    number("limits.new_bytes", 1_024, TIB, "4294967296"),
    number("limits.new_objects", 1, 1_000_000_000, "5000000"),
    number("limits.tree_entries", 1, 100_000_000, "200000"),
    number("limits.tree_depth", 1, 1_000, "64"),
    number("limits.tree_bytes", 1_024, TIB, "4294967296"),
    number("limits.refs_per_push", 1, 10_000, "1000"),
    number("limits.stall_seconds", 1, DAY_S, "600"),
    number("limits.transfer_seconds", 1, DAY_S, "7200"),
    number("limits.build_seconds", 1, 7 * DAY_S, "7200"),
    number("limits.silence_seconds", 1, 7 * DAY_S, "1800"),
    number("ssh_limits.login_grace_seconds", 1, 3_600, "20"),
    number("ssh_limits.auth_tries", 1, 100, "6"),
    number("ssh_limits.connections", 1, 100_000, "1000"),
    number("ssh_limits.connections_per_source", 1, 100_000, "150"),
    number("ssh_limits.sessions_per_connection", 1, 1_000, "10"),
    number("ssh_limits.keepalive_seconds", 1, 3_600, "20"),
    number("ssh_limits.keepalive_count", 1, 1_000, "6"),
    number("ssh_limits.idle_seconds", 1, DAY_S, "600"),
    number("ssh_limits.output_stall_seconds", 1, DAY_S, "300"),
    number("ssh_limits.drain_seconds", 1, DAY_S, "600"),
];
