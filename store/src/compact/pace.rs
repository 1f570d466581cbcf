//! How fast a compaction may write, whether it may go on at all, and a file system that heeds both.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_log::fs::{DirEntry, Fs, FsFile, FsLock, Space};
use parking_lot::{Condvar, Mutex};

/// Credit that is saved up while nothing is written.
const BURST: Duration = Duration::from_millis(100);

/// Bounds the bytes that are written in a second, and can halt the writer.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    paused: bool,
    stopped: bool,
    /// Everything written so far is paid for at this moment.
    paid_at: Instant,
}

impl Pace {
    /// So many bytes in a second; 0 stands for no bound.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            state: Mutex::new(State {
                paused: false,
                stopped: false,
                paid_at: Instant::now(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Halts whoever spends, or lets them go on.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.state.lock().paused = paused;
        self.changed.notify_all();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Ends every wait for good.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits until `bytes` may be written.
    ///
    /// # Errors
    ///
    /// If it was stopped.
    pub(crate) fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state.lock();
        let floor = Instant::now().checked_sub(BURST);
        state.paid_at = floor.map_or(state.paid_at, |floor| state.paid_at.max(floor));
        if let Some(nanos) = (bytes as u64)
            .saturating_mul(1_000_000_000)
            .checked_div(self.bytes_per_second)
        {
            state.paid_at += Duration::from_nanos(nanos);
        }
        loop {
            if state.stopped {
                return Err(io::Error::other("compaction was stopped"));
            }
            if state.paused {
                self.changed.wait(&mut state);
                continue;
            }
            let until = state.paid_at;
            if until <= Instant::now() {
                return Ok(());
            }
            self.changed.wait_until(&mut state, until);
        }
    }
}

/// A file system whose writes keep to a [`Pace`].
#[derive(Clone, Debug)]
pub(crate) struct PacedFs {
    fs: Arc<dyn Fs>,
    pace: Arc<Pace>,
}

impl PacedFs {
    pub(crate) fn new(fs: Arc<dyn Fs>, pace: Arc<Pace>) -> Self {
        Self { fs, pace }
    }

    fn paced(&self, file: Box<dyn FsFile>) -> Box<dyn FsFile> {
        Box::new(PacedFile {
            file,
            pace: Arc::clone(&self.pace),
        })
    }
}

impl Fs for PacedFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.fs.create_new(path).map(|file| self.paced(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.fs.open(path)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.fs.open_rw(path).map(|file| self.paced(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.fs.unlink(path)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.fs.mkdir(path)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.fs.rmdir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.fs.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        self.fs.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.fs.space(path)
    }

    fn unique_id(&self) -> io::Result<u128> {
        self.fs.unique_id()
    }
}

#[derive(Debug)]
struct PacedFile {
    file: Box<dyn FsFile>,
    pace: Arc<Pace>,
}

impl FsFile for PacedFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.pace.spend(bytes.len())?;
        self.file.write_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_rate_wait() {
        let pace = Pace::new(1_000_000);
        let started = Instant::now();
        // 100 ms are saved up at the most.
        for _ in 0..4 {
            pace.spend(100_000).unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(250));
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn whoever_is_halted_goes_on_when_told_and_ends_when_stopped() {
        let pace = Arc::new(Pace::new(0));
        pace.set_paused(true);
        let (told, done) = crossbeam_channel::unbounded();
        let spender = {
            let pace = Arc::clone(&pace);
            std::thread::spawn(move || {
                for _ in 0..2 {
                    told.send(pace.spend(1).is_ok()).unwrap();
                }
            })
        };
        assert!(done.recv_timeout(Duration::from_millis(30)).is_err());
        pace.set_paused(false);
        assert_eq!(done.recv(), Ok(true));
        assert_eq!(done.recv(), Ok(true));
        spender.join().unwrap();
        pace.set_paused(true);
        pace.stop();
        assert!(pace.spend(1).is_err());
    }
}
