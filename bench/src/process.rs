//! What the system says about a process and a directory.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Linux counts CPU time in hundredths for user space, on every architecture that it is built for
/// here (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process and its threads so far, in user space and in the kernel.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    cpu_of_stat(&text).with_context(|| format!("{path}: {text:?}"))
}

fn cpu_of_stat(text: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; user and system time are the 14th and 15th
    // field of all, so the 12th and 13th behind it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// CPU time of the threads of a process so far, finer than [`cpu_seconds`].
#[derive(Debug)]
pub struct ThreadTimes(HashMap<String, u64>);

impl ThreadTimes {
    /// As it is now.
    pub fn of(pid: u32) -> Result<Self> {
        let dir = format!("/proc/{pid}/task");
        let mut times = HashMap::new();
        for thread in fs::read_dir(&dir).with_context(|| dir.clone())? {
            let thread = thread?;
            // A thread that has ended meanwhile is not there.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else {
                continue;
            };
            let nanos = text.split_ascii_whitespace().next();
            let nanos = nanos.and_then(|nanos| nanos.parse().ok());
            let nanos = nanos.with_context(|| format!("{dir}: {text:?}"))?;
            times.insert(thread.file_name().to_string_lossy().into_owned(), nanos);
        }
        Ok(Self(times))
    }

    /// Seconds of CPU time since then, of the threads that are there now.
    pub fn seconds_since(&self, pid: u32) -> Result<f64> {
        let now = Self::of(pid)?;
        let spent = now.0.iter().map(|(thread, nanos)| {
            let before = self.0.get(thread).copied().unwrap_or(0);
            nanos.saturating_sub(before)
        });
        Ok(spent.sum::<u64>() as f64 / 1e9)
    }
}

/// CPU time so far of those threads of a process whose names begin so, as far as they live.
pub fn threads_cpu_seconds(pid: u32, prefix: &str) -> Result<f64> {
    let dir = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for thread in fs::read_dir(&dir).with_context(|| dir.clone())? {
        let thread = thread?.path();
        // A thread that has ended meanwhile is not there.
        let Ok(name) = fs::read_to_string(thread.join("comm")) else {
            continue;
        };
        if name.starts_with(prefix)
            && let Ok(text) = fs::read_to_string(thread.join("schedstat"))
        {
            let first = text.split_ascii_whitespace().next();
            let spent: Option<u64> = first.and_then(|nanos| nanos.parse().ok());
            nanos += spent.with_context(|| format!("{dir}: {text:?}"))?;
        }
    }
    Ok(nanos as f64 / 1e9)
}

/// Most memory that a process ever had resident, in bytes.
pub fn peak_memory_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// Memory that a process has resident now, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmRSS:")
}

fn memory_bytes(pid: u32, what: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {what} in {path}"))? * 1024)
}

/// Bytes that the files under a directory take on the disk, each counted once. Files that vanish
/// meanwhile are passed over.
pub fn disk_bytes(dir: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut sum = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten();
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) if seen.insert(metadata.ino()) => sum += metadata.blocks() * 512,
                Ok(_) | Err(_) => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_awkward_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0";
        assert_eq!(cpu_of_stat(text), Some(2.0));
    }

    #[test]
    fn this_process_has_figures() {
        let own = std::process::id();
        assert!(cpu_seconds(own).unwrap() >= 0.0);
        let before = ThreadTimes::of(own).unwrap();
        let sum: u64 = (0..20_000_000u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && before.seconds_since(own).unwrap() > 1e-4);
        assert!(peak_memory_bytes(own).unwrap() > 100_000);
        assert!(threads_cpu_seconds(own, "").unwrap() > 0.0);
        assert_eq!(threads_cpu_seconds(own, "no such thread").unwrap(), 0.0);
    }

    #[test]
    fn linked_files_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/a");
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&file, vec![1; 100_000]).unwrap();
        let once = disk_bytes(dir.path());
        fs::hard_link(&file, dir.path().join("b")).unwrap();
        assert!(once >= 100_000);
        assert_eq!(disk_bytes(dir.path()), once);
    }
}
