//! Bounds on the text of an expression.

/// Bounds that hold before anything recursive sees an expression.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextLimits {
    pub(super) bytes: usize,
    pub(super) tokens: usize,
    pub(super) depth: usize,
}
