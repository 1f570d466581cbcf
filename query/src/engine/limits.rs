//! Bounds on the text of an expression.

/// Bounds that hold before anything recursive sees an expression.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextLimits {
    pub(super) bytes: usize,
    pub(super) tokens: usize,
    pub(super) depth: usize,
    /// Regular expressions: each may compile to a megabyte, however short it is.
    pub(super) patterns: usize,
}
