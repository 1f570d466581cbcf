//! What a view is.

use std::fmt;

use millrace_model::{Labels, LabelsBuilder, METRIC_NAME, Matcher, TenantId};
use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::Aggregate;
use crate::codec::encode_content;
use crate::span::Span;

/// A day: widths divide it or are multiples of it, so that days are whole buckets.
pub const DAY_MS: i64 = 24 * 3_600_000;

/// How far before a bucket the sample may stand from which a counter's growth is counted: the
/// lookback of queries, as `increase(..[w] anchored)` has it.
pub const INCREASE_LOOKBACK_MS: i64 = 300_000;

/// Samples further than this from the epoch are in no bucket: millions of years.
pub(crate) const EDGE_MS: i64 = i64::MAX / 4;

/// Says what is derived, and so which files are a view's: views that derive the same share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub u64);

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which labels a group is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// These, sorted.
    By(Vec<String>),
    /// All but these, sorted, and but the metric's name.
    Without(Vec<String>),
}

impl Grouping {
    /// Whether series that differ in the label `name` are in different groups.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        match self {
            Self::By(names) => names.iter().any(|of| of == name),
            Self::Without(names) => name != METRIC_NAME && names.iter().all(|of| of != name),
        }
    }

    /// The group of a series.
    ///
    /// # Panics
    ///
    /// Never: a part of a label set is one.
    #[must_use]
    pub fn group_of(&self, labels: &Labels, builder: &mut LabelsBuilder) -> Labels {
        builder.clear();
        for (name, value) in labels {
            if self.keeps(name) {
                builder.push(name, value);
            }
        }
        builder.build().expect("labels out of a label set")
    }
}

/// How a sample's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// All of them. One that begins with another stands before it.
    pub const ALL: [Self; 6] = [
        Self::Equal,
        Self::NotEqual,
        Self::LessOrEqual,
        Self::Less,
        Self::GreaterOrEqual,
        Self::Greater,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Which samples count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueFilter {
    /// How they are compared.
    pub comparison: Comparison,
    /// With what.
    pub value: f64,
}

impl ValueFilter {
    /// Whether a sample of this value counts.
    #[must_use]
    pub fn takes(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Equal => value == self.value,
            Comparison::NotEqual => value != self.value,
            Comparison::Less => value < self.value,
            Comparison::LessOrEqual => value <= self.value,
            Comparison::Greater => value > self.value,
            Comparison::GreaterOrEqual => value >= self.value,
        }
    }
}

/// What a bucket holds beyond count, sum, least and greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts(pub(crate) u8);

impl Parts {
    /// Nothing more.
    pub const BASE: Self = Self(0);
    /// First and last sample.
    pub const ENDS: Self = Self(1);
    /// Growth of counters.
    pub const INCREASE: Self = Self(2);
    /// A sketch of the values.
    pub const SKETCH: Self = Self(4);
    /// The values of a label.
    pub const DISTINCT: Self = Self(8);

    /// Its byte in files.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }

    /// Those of that byte.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        (code < 16).then_some(Self(code))
    }

    /// What one of them holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Who defined a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The API; changed and dropped there.
    Api,
    /// A file; changed and dropped there.
    File,
}

/// A view whose parts fit together: made by [`ViewSpec::check`](crate::ViewSpec::check).
#[derive(Clone, Debug, PartialEq)]
pub struct ViewDefinition {
    /// Whose.
    pub tenant: TenantId,
    /// Its name among the views of the tenant.
    pub name: String,
    /// Which series, as it was written.
    pub selector: String,
    /// The same, as tests.
    pub matchers: Vec<Matcher>,
    /// Which groups.
    pub grouping: Grouping,
    /// Width of a bucket.
    pub width_ms: i64,
    /// What it tells of a bucket, sorted.
    pub aggregates: Vec<Aggregate>,
    /// Which quantiles, rising.
    pub quantiles: Vec<f64>,
    /// Of which label the values are counted.
    pub distinct: Option<String>,
    /// Which samples.
    pub filter: Option<ValueFilter>,
    /// How long buckets are kept; for good, if nothing is said.
    pub retention_ms: Option<i64>,
    /// Where it is from.
    pub origin: Origin,
}

impl ViewDefinition {
    /// What its buckets hold.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let needs = self.aggregates.iter().map(|of| of.needs());
        needs.fold(Parts::BASE, Parts::or)
    }

    /// What identifies its buckets: all that they depend on, and nothing else.
    #[must_use]
    pub fn id(&self) -> ViewId {
        ViewId(xxh3_64(&encode_content(self)))
    }

    /// How far before a bucket samples are looked at.
    #[must_use]
    pub fn lookback_ms(&self) -> i64 {
        if self.parts().has(Parts::INCREASE) {
            INCREASE_LOOKBACK_MS
        } else {
            0
        }
    }

    /// Width of the pieces of time that are derived and kept together: a day, or a bucket if that is
    /// wider.
    #[must_use]
    pub fn cell_ms(&self) -> i64 {
        self.width_ms.max(DAY_MS)
    }

    /// The buckets that a sample at one of the moments of `span` changes.
    #[must_use]
    pub fn touched(&self, span: Span) -> Span {
        let last = span.to.clamp(-EDGE_MS, EDGE_MS) + self.lookback_ms();
        bucket_span(Span::new(span.from, last), self.width_ms)
    }

    /// The name of its series of one aggregate.
    #[must_use]
    pub fn series_name(&self, aggregate: Aggregate) -> String {
        format!("view:{}:{}", self.name, aggregate.as_str())
    }

    /// The moment before which its buckets have had their time.
    #[must_use]
    pub fn expired_until(&self, now_ms: i64) -> i64 {
        self.retention_ms
            .map_or(i64::MIN, |age| now_ms.saturating_sub(age))
    }
}

/// The end of the bucket that holds `moment`.
#[must_use]
pub fn bucket_end(moment: i64, width_ms: i64) -> i64 {
    let inside = moment.clamp(-EDGE_MS, EDGE_MS);
    -((-inside).div_euclid(width_ms)) * width_ms
}

/// The buckets, whole, that have a moment of `span`.
#[must_use]
pub fn bucket_span(span: Span, width_ms: i64) -> Span {
    let first = bucket_end(span.from.saturating_add(1), width_ms);
    Span::new(first - width_ms, bucket_end(span.to, width_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_end_and_not_its_beginning() {
        let cases = [
            (-61, -60),
            (-60, -60),
            (-59, 0),
            (0, 0),
            (1, 60),
            (60, 60),
            (61, 120),
        ];
        for (moment, end) in cases {
            assert_eq!(bucket_end(moment, 60), end, "{moment}");
        }
        assert_eq!(bucket_span(Span::new(0, 60), 60), Span::new(0, 60));
        assert_eq!(bucket_span(Span::new(-1, 61), 60), Span::new(-60, 120));
        // Far away, nothing overflows.
        for moment in [i64::MIN, i64::MAX] {
            assert!(bucket_end(moment, 7 * DAY_MS).abs() <= EDGE_MS + 7 * DAY_MS);
        }
    }
}
