//! `--ulimit`, `--shm-size`, `--resource`, `--add-host`.

use std::net::IpAddr;

use super::{FlagError, wrong};
use crate::buildkit::solve::{HostEntry, Resources, Ulimit};

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `--ulimit nofile=1024:2048`; one number is both limits, -1 is without one.
pub fn ulimit(given: &str) -> Result<Ulimit, FlagError> {
    const FLAG: &str = "--ulimit";
    let (name, limits) = given
        .split_once('=')
        .ok_or_else(|| wrong(FLAG, given, "write NAME=SOFT[:HARD], as in nofile=1024"))?;
    if !ULIMITS.contains(&name) {
        return Err(wrong(FLAG, given, format!("{name:?} is no limit: there are {}", ULIMITS.join(", "))));
    }
    let number =
        |text: &str| text.parse::<i64>().map_err(|_| wrong(FLAG, given, format!("{text:?} is no number")));
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(wrong(FLAG, given, "the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `--shm-size 64m`.
pub fn shm_size(given: &str) -> Result<u64, FlagError> {
    bytes("--shm-size", given)
}

/// A number of bytes with a binary unit: `512`, `64m`, `1.5GiB`.
pub fn bytes(flag: &'static str, given: &str) -> Result<u64, FlagError> {
    let bad = || wrong(flag, given, "write a number and k, m, g, t or p, as in 64m");
    let end = given.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ')).ok_or_else(bad)?;
    let (number, unit) = given.split_at_checked(end + 1).ok_or_else(bad)?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain).ok_or_else(bad)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return Err(bad()),
    };
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = (number * factor as f64) as u64;
    // beyond what a daemon can hold in its own signed number
    if size > i64::MAX as u64 { Err(bad()) } else { Ok(size) }
}

/// `--resource memory=1g`: one limit more in `into`.
pub fn resource(given: &str, into: &mut Resources) -> Result<(), FlagError> {
    const FLAG: &str = "--resource";
    let (name, value) = given.split_once('=').ok_or_else(|| wrong(FLAG, given, "write NAME=VALUE"))?;
    let (name, value) = (name.trim(), value.trim());
    let number = || {
        let read = value.parse::<i64>();
        read.map_err(|_| wrong(FLAG, given, format!("{value:?} is no number")))
    };
    let unsigned = || number().map(|n| u64::try_from(n).unwrap_or(0));
    match name {
        "memory" => into.memory = bytes(FLAG, value)?,
        "memory-swap" if value == "-1" => into.memory_swap = -1,
        "memory-swap" => into.memory_swap = i64::try_from(bytes(FLAG, value)?).unwrap_or(i64::MAX),
        "cpu-shares" => into.cpu_shares = unsigned()?,
        "cpu-period" => into.cpu_period = unsigned()?,
        "cpu-quota" => into.cpu_quota = number()?,
        "cpuset-cpus" => value.clone_into(&mut into.cpuset_cpus),
        "cpuset-mems" => value.clone_into(&mut into.cpuset_mems),
        other => {
            let known = "memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus and cpuset-mems";
            return Err(wrong(FLAG, given, format!("{other:?} is no resource: there are {known}")));
        }
    }
    Ok(())
}

/// `--add-host NAME:ADDRESS[,ADDRESS]`, with `=` for `:` too. `gateway` is what `host-gateway` stands for, where it is known.
pub fn add_host(given: &str, gateway: Option<IpAddr>) -> Result<Vec<HostEntry>, FlagError> {
    const FLAG: &str = "--add-host";
    let bad = || wrong(FLAG, given, "write NAME:ADDRESS, as in db:10.0.0.7");
    let (name, addresses) = given.split_once('=').or_else(|| given.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || addresses.is_empty() {
        return Err(bad());
    }
    let entry = |address| HostEntry { name: name.to_owned(), address };
    if addresses == "host-gateway" {
        let reason = "this builder does not tell its host-gateway address: write the address";
        return Ok(vec![entry(gateway.ok_or_else(|| wrong(FLAG, given, reason))?)]);
    }
    let one = |text: &str| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(entry).map_err(|_| wrong(FLAG, given, format!("{text:?} is no IP address")))
    };
    addresses.split(',').map(one).collect()
}
