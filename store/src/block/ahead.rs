//! Reading ahead: who reads the samples of one series mostly reads those of the next, which stand
//! behind them. A call of the system for each of them would take longer than to decode them.
//!
//! Each thread remembers, for the blocks that it read last, where it stopped. If it goes on there, it
//! reads more than it was asked for, the more the longer it goes on. Blocks never change, so what
//! was read ahead stays right; it is verified like everything else when it is used.

use std::cell::RefCell;

use super::{BlockError, BlockReader, Section};

/// Blocks that a thread remembers: it reads one series in all of them, then the next.
const BLOCKS: usize = 16;

/// Of the first read ahead.
const LEAST_BYTES: u64 = 4 << 10;
/// Of the longest one.
const MOST_BYTES: u64 = 64 << 10;

/// Bytes that may be passed over: another metric's few series are not worth a new beginning.
const GAP_BYTES: u64 = 1 << 10;

/// What a thread has of one block.
#[derive(Debug, Default)]
struct Window {
    /// The block's number.
    block: u64,
    /// Where the bytes begin in its file.
    start: u64,
    bytes: Vec<u8>,
    /// Where the last read ended.
    end: u64,
    /// Bytes to read ahead next time.
    ahead: u64,
}

impl Window {
    /// The bytes, if they are all here.
    fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// Whether a read goes on where the one before ended.
    fn goes_on(&self, offset: u64) -> bool {
        offset
            .checked_sub(self.end)
            .is_some_and(|gap| gap <= GAP_BYTES)
    }
}

thread_local! {
    /// The one that was used last comes last.
    static WINDOWS: RefCell<Vec<Window>> = const { RefCell::new(Vec::new()) };
}

/// The thread's window of a block, or a new one in the place of the one that was not used for longest.
fn take_window(block: u64) -> Window {
    WINDOWS.with_borrow_mut(|windows| {
        if let Some(at) = windows.iter().rposition(|window| window.block == block) {
            return windows.remove(at);
        }
        let mut window = if windows.len() < BLOCKS {
            Window::default()
        } else {
            windows.remove(0)
        };
        window.bytes.clear();
        Window {
            block,
            bytes: window.bytes,
            ..Window::default()
        }
    })
}

impl BlockReader {
    /// Calls `with` with bytes of samples.
    pub(super) fn with_samples<R>(
        &self,
        offset: u64,
        bytes: u64,
        with: impl FnOnce(&[u8]) -> Result<R, BlockError>,
    ) -> Result<R, BlockError> {
        if bytes > MOST_BYTES {
            return self.with_bytes(offset, bytes, with);
        }
        let mut window = take_window(self.number);
        // At most MOST_BYTES.
        let len = bytes as usize;
        if window.get(offset, len).is_none() {
            window.ahead = match window.goes_on(offset) {
                true => (window.ahead * 2).clamp(LEAST_BYTES, MOST_BYTES),
                false => 0,
            };
            let section = self.footer.section(Section::Chunks);
            let left = (section.offset + section.bytes).saturating_sub(offset);
            let wanted = window.ahead.min(left).max(bytes);
            window.bytes.resize(wanted as usize, 0);
            window.start = offset;
            if let Err(error) = self.read_into(&mut window.bytes, offset) {
                // Nothing of it is to be used.
                window.bytes.clear();
                return Err(error);
            }
        }
        window.end = offset + bytes;
        let read = window.get(offset, len).expect("it was read just now");
        let result = with(read);
        if result.is_err() {
            // Who asks again is to see what the file has by then.
            window.bytes.clear();
        }
        WINDOWS.with_borrow_mut(|windows| windows.push(window));
        result
    }
}
