//! What the kernel says of this process, under the names that Prometheus' own clients use.

use std::fs;

use prometheus::{Counter, Gauge, IntGauge, Registry};

pub(super) struct Process {
    resident: IntGauge,
    descriptors: IntGauge,
    most_descriptors: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    started: Gauge,
}

/// The fields of /proc/self/stat that are shown.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// In user and kernel mode, in ticks.
    cpu: u64,
    threads: i64,
    /// In ticks after boot.
    started: u64,
    resident_pages: i64,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let one = IntGauge::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let cpu = Counter::new("process_cpu_seconds_total", "Time on a processor, without children")?;
        registry.register(Box::new(cpu.clone()))?;
        let started = Gauge::new("process_start_time_seconds", "When the process began, in Unix time")?;
        registry.register(Box::new(started.clone()))?;
        Ok(Self {
            resident: gauge("process_resident_memory_bytes", "Memory that is resident")?,
            descriptors: gauge("process_open_fds", "Open file descriptors")?,
            most_descriptors: gauge("process_max_fds", "How many may be open")?,
            threads: gauge("process_threads", "Threads")?,
            cpu,
            started,
        })
    }

    /// Brings all up to date; what the kernel does not say stays as it was.
    pub(super) fn look(&self) {
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // the listing itself is one of them
            self.descriptors.set(i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1));
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.most_descriptors.set(most.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX));
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| read_stat(&text)) else {
            return;
        };
        let page = i64::try_from(rustix::param::page_size()).unwrap_or_default();
        self.resident.set(stat.resident_pages.saturating_mul(page));
        self.threads.set(stat.threads);
        let ticks = rustix::param::clock_ticks_per_second();
        // two scrapes at once may both add a little; the next one is right again
        let more = seconds(stat.cpu, ticks) - self.cpu.get();
        if more > 0.0 {
            self.cpu.inc_by(more);
        }
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)) {
            #[expect(clippy::cast_precision_loss, reason = "Unix time has room in a double")]
            self.started.set(boot as f64 + seconds(stat.started, ticks));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a process have room in a double")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second.max(1) as f64
}

/// The program's name, in brackets, may have anything in it: the last bracket ends it.
fn read_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the state, which comes first here, is its third
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    let (user, kernel): (u64, u64) = (field(14)?.parse().ok()?, field(15)?.parse().ok()?);
    Some(Stat {
        cpu: user.checked_add(kernel)?,
        threads: field(20)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
        resident_pages: field(24)?.parse().ok()?,
    })
}

/// Unix seconds.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read_past_any_program_name() {
        let text = "7 (a) b ) S 1 7 7 0 -1 4194560 9 0 0 0 30 12 0 0 20 0 5 0 8899 1000 77 184 1 1";
        assert_eq!(read_stat(text), Some(Stat { cpu: 42, threads: 5, started: 8899, resident_pages: 77 }));
        assert_eq!(read_stat("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_began_in_the_past_and_holds_something() {
        let process = Process::new(&Registry::new()).unwrap();
        process.look();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - process.started.get())), "{}", process.started.get());
        assert!(process.resident.get() > 1 << 20 && process.descriptors.get() > 2);
        assert!(process.most_descriptors.get() >= process.descriptors.get() && process.threads.get() > 0);
    }
}
