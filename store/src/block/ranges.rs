//! Where a block's bytes come from.

use std::fmt::Debug;
use std::io;

use millrace_log::fs::FsFile;

/// Bytes that can be read by ranges: a file, or an object in a store of such.
///
/// [`BlockReader`](super::BlockReader) reads nothing but what it needs: header and tail when it is
/// opened, the directory once, and then a range for each page, bitmap, rollup, or run of chunks.
pub trait ReadRanges: Debug + Send + Sync {
    /// How many bytes there are.
    ///
    /// # Errors
    ///
    /// Of whatever holds them.
    fn total_bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if there are fewer; of whatever holds them.
    fn read_range(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadRanges for Box<dyn FsFile> {
    fn total_bytes(&self) -> io::Result<u64> {
        self.len()
    }

    fn read_range(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}
