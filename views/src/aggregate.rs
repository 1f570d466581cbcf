//! What a view tells of a bucket.

use crate::definition::Parts;

/// One aggregate. Its word is the last part of the name of the view's series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregate {
    /// How many samples.
    Count,
    /// Their sum.
    Sum,
    /// Their mean.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The value of the first in time.
    First,
    /// The value of the last in time.
    Last,
    /// By how much counters grew.
    Increase,
    /// The same, per second.
    Rate,
    /// Quantiles of the values, from a sketch.
    Quantile,
    /// How many values a label has.
    Distinct,
}

impl Aggregate {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Count,
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::First,
        Self::Last,
        Self::Increase,
        Self::Rate,
        Self::Quantile,
        Self::Distinct,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
            Self::Increase => "increase",
            Self::Rate => "rate",
            Self::Quantile => "quantile",
            Self::Distinct => "distinct",
        }
    }

    /// The aggregate of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.as_str() == word)
    }

    /// What a bucket must hold for it, beyond what every bucket holds.
    #[must_use]
    pub fn needs(self) -> Parts {
        match self {
            Self::Count | Self::Sum | Self::Avg | Self::Min | Self::Max => Parts::BASE,
            Self::First | Self::Last => Parts::ENDS,
            Self::Increase | Self::Rate => Parts::INCREASE,
            Self::Quantile => Parts::SKETCH,
            Self::Distinct => Parts::DISTINCT,
        }
    }
}
