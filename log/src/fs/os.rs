//! The operating system's file system.
/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;
