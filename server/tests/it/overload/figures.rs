//! How much memory the server takes.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A long run is one in which memory has to be flat.
const LONG: Duration = Duration::from_secs(60);

/// The memory of a process, watched.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    mib: Mutex<Vec<u64>>,
}

impl Memory {
    pub fn of(pid: u32) -> Self {
        Self {
            pid,
            mib: Mutex::default(),
        }
    }

    /// Looks at it again and again for some time.
    pub fn watch_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let now = self.now();
            self.mib.lock().unwrap().push(now);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn now(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.expect("Linux tells it").trim().split(' ').next();
        kib.expect("a number").parse::<u64>().unwrap() >> 10
    }

    /// Highest value in each of four quarters of the time.
    fn quarters(&self) -> [u64; 4] {
        let mib = self.mib.lock().unwrap();
        let quarter = |i: usize| {
            let part = &mib[i * mib.len() / 4..(i + 1) * mib.len() / 4];
            part.iter().copied().max().unwrap_or(0)
        };
        [0, 1, 2, 3].map(quarter)
    }

    /// It was within the budget, and in a long run it did not grow.
    pub fn check(&self, budget_mib: u64, time: Duration) {
        let quarters = self.quarters();
        let most = quarters.into_iter().max().unwrap();
        assert!(most <= budget_mib, "{most} MiB of {budget_mib}");
        if time >= LONG {
            // What fills up in the beginning is full by then.
            let [_, early, _, late] = quarters;
            assert!(late <= early + early / 10, "it grows: {quarters:?}");
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} MiB at most, by quarters of the time",
            self.quarters()
        )
    }
}
