//! Intervals of time, open on the left and closed on the right, as buckets are.

/// The moments `t` with `from < t <= to`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The last moment before it.
    pub from: i64,
    /// The last moment in it.
    pub to: i64,
}

impl Span {
    /// From `from`, which is outside, to `to`, which is inside.
    #[must_use]
    pub fn new(from: i64, to: i64) -> Self {
        Self { from, to }
    }

    /// Whether there is no moment in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Whether `moment` is in it.
    #[must_use]
    pub fn contains(self, moment: i64) -> bool {
        self.from < moment && moment <= self.to
    }

    /// What the two have in common; it may be empty.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }
}

/// A set of moments: spans in order of time that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// The set of one span.
    #[must_use]
    pub fn of(span: Span) -> Self {
        Self::from_iter([span])
    }

    /// Whether there is no moment in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans, in order of time.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// The first span.
    #[must_use]
    pub fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    /// The last span.
    #[must_use]
    pub fn last(&self) -> Option<Span> {
        self.0.last().copied()
    }

    /// Whether `moment` is in it.
    #[must_use]
    pub fn contains(&self, moment: i64) -> bool {
        let at = self.0.partition_point(|span| span.to < moment);
        self.0.get(at).is_some_and(|span| span.contains(moment))
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            both.push(x.and(**y));
            if x.to <= y.to {
                a.next();
            } else {
                b.next();
            }
        }
        Self::from_iter(both)
    }

    /// What is in one of them.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for span in &self.0 {
            let mut from = span.from;
            let at = other.0.partition_point(|o| o.to <= span.from);
            for hole in other.0[at..].iter().take_while(|o| o.from < span.to) {
                left.push(Span::new(from, hole.from));
                from = hole.to;
            }
            left.push(Span::new(from.max(span.from), span.to));
        }
        Self::from_iter(left)
    }

    /// Milliseconds in it.
    #[must_use]
    pub fn len_ms(&self) -> u64 {
        let lengths = self.0.iter().map(|span| span.to.abs_diff(span.from));
        lengths.fold(0, u64::saturating_add)
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().filter(|s| !s.is_empty()).collect();
        spans.sort_unstable();
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => joined.push(span),
            }
        }
        Self(joined)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Spans> {
        let span = (-20i64..20, 0i64..8).prop_map(|(from, len)| Span::new(from, from + len));
        proptest::collection::vec(span, 0..6).prop_map(Spans::from_iter)
    }

    proptest! {
        #[test]
        fn sets_of_spans_are_sets_of_moments(a in spans(), b in spans()) {
            for moment in -25..30 {
                let (x, y) = (a.contains(moment), b.contains(moment));
                prop_assert_eq!(a.and(&b).contains(moment), x && y);
                prop_assert_eq!(a.or(&b).contains(moment), x || y);
                prop_assert_eq!(a.minus(&b).contains(moment), x && !y);
            }
            let moments = (-25i64..30).filter(|&t| a.contains(t)).count() as u64;
            prop_assert_eq!(a.len_ms(), moments);
        }
    }
}
