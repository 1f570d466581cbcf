//! Calls that fail.

use std::io;

/// A planned failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the call that fails, counted from 1 ([`SimFs::call_count`](super::SimFs)).
    pub call: u64,
    /// How.
    pub kind: FaultKind,
    /// Whether all later calls that can fail this way do so, too. Interruptions then strike every
    /// second call: without a pause no program could go on.
    pub for_ever: bool,
}

/// In which way a call fails. A call that cannot fail that way does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Any call: EIO. Nothing was done; what was pending stays so.
    Io,
    /// Calls that take space, and syncs: ENOSPC. Of a write the first half was done.
    NoSpace,
    /// Writes: half of the bytes are taken.
    Short,
    /// Reads and writes: EINTR, nothing was done.
    Interrupted,
    /// Syncs of files: EIO, as kernels do it. What was pending counts as clean and never reaches the disk,
    /// reads still see it, and the next sync reports success.
    SyncLost,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Io,
        Self::NoSpace,
        Self::Short,
        Self::Interrupted,
        Self::SyncLost,
    ];
}

/// What a fault makes of a call that it did not simply refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Short,
    HalfThenNoSpace,
    LosePending,
}

impl Fault {
    /// How call number `call` is to fail, if it can.
    pub(super) fn strikes(&self, call: u64) -> Option<FaultKind> {
        let interrupted = self.kind == FaultKind::Interrupted;
        let strikes = match call.checked_sub(self.call)? {
            0 => true,
            since => self.for_ever && (!interrupted || since.is_multiple_of(2)),
        };
        strikes.then_some(self.kind)
    }
}

impl FaultKind {
    pub(super) fn effect(self) -> io::Result<Effect> {
        match self {
            Self::Io => Err(io_error()),
            // Only writes can do half; for the other calls the half is nothing.
            Self::NoSpace => Ok(Effect::HalfThenNoSpace),
            Self::Short => Ok(Effect::Short),
            Self::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Self::SyncLost => Ok(Effect::LosePending),
        }
    }
}

/// EIO, as the operating system says it.
pub(super) fn io_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// ENOSPC, as the operating system says it.
pub(super) fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}
