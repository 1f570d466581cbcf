//! Puts together and validates the labels of a series that is not known yet.

use millrace_model::{Labels, LabelsBuilder, LabelsError, METRIC_NAME};

use crate::options::Limits;
use crate::report::{Reason, excerpt};

/// Why a series is refused, whatever its samples are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadSeries {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// What it was, where one value can be named.
    pub(crate) value: Option<String>,
    /// What it is beyond.
    pub(crate) limit: Option<i64>,
}

impl BadSeries {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            value: None,
            limit: None,
        }
    }

    /// Names the value.
    pub(crate) fn value(mut self, value: &[u8]) -> Self {
        self.value = Some(excerpt(value));
        self
    }

    /// Names the limit.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        self
    }
}

/// Foreign bytes as text; `what` says what they should be.
pub(crate) fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, BadSeries> {
    std::str::from_utf8(bytes).map_err(|_| {
        BadSeries::new(
            Reason::InvalidUtf8,
            format!("{what} {:?} is not UTF-8", excerpt(bytes)),
        )
        .value(bytes)
    })
}

/// Collects the labels of one series and checks each against the limits.
#[derive(Debug)]
pub(crate) struct SeriesBuilder<'a> {
    labels: &'a mut LabelsBuilder,
    limits: &'a Limits,
    forced: &'a [(String, String)],
    metric: String,
    bytes: usize,
}

impl<'a> SeriesBuilder<'a> {
    /// `forced` labels stand in every series, whatever the body says under their names.
    pub(crate) fn new(
        labels: &'a mut LabelsBuilder,
        limits: &'a Limits,
        forced: &'a [(String, String)],
    ) -> Self {
        labels.clear();
        Self {
            labels,
            limits,
            forced,
            metric: String::new(),
            bytes: 0,
        }
    }

    /// Begins again.
    pub(crate) fn restart(&mut self) {
        self.labels.clear();
        self.metric.clear();
        self.bytes = 0;
    }

    /// Adds a label; `__name__` is the metric's name.
    pub(crate) fn label(&mut self, name: &str, value: &str) -> Result<(), BadSeries> {
        if self.forced.iter().any(|(forced, _)| forced == name) {
            return Ok(());
        }
        self.add(name, value)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), BadSeries> {
        let limits = self.limits;
        self.check_name("label name", name)?;
        if name == METRIC_NAME {
            self.check_name("metric name", value)?;
            value.clone_into(&mut self.metric);
        } else if value.len() > limits.label_value_bytes {
            return Err(BadSeries::new(
                Reason::LabelValueTooLong,
                format!(
                    "label {:?}: value {:?} has {} bytes, the limit is {}",
                    excerpt(name.as_bytes()),
                    excerpt(value.as_bytes()),
                    value.len(),
                    limits.label_value_bytes
                ),
            )
            .value(value.as_bytes())
            .limit(limits.label_value_bytes));
        }
        if self.labels.len() == limits.labels {
            return Err(BadSeries::new(
                Reason::TooManyLabels,
                format!(
                    "more than {} labels; {:?} is one too many",
                    limits.labels,
                    excerpt(name.as_bytes())
                ),
            )
            .value(name.as_bytes())
            .limit(limits.labels));
        }
        self.bytes += name.len() + value.len();
        if self.bytes > limits.labels_bytes {
            return Err(BadSeries::new(
                Reason::LabelsTooLarge,
                format!(
                    "labels have more than {} bytes together from label {:?} on",
                    limits.labels_bytes,
                    excerpt(name.as_bytes())
                ),
            )
            .value(name.as_bytes())
            .limit(limits.labels_bytes));
        }
        self.labels.push(name, value);
        Ok(())
    }

    fn check_name(&self, what: &str, name: &str) -> Result<(), BadSeries> {
        if name.len() <= self.limits.label_name_bytes {
            return Ok(());
        }
        Err(BadSeries::new(
            Reason::LabelNameTooLong,
            format!(
                "{what} {:?} has {} bytes, the limit is {}",
                excerpt(name.as_bytes()),
                name.len(),
                self.limits.label_name_bytes
            ),
        )
        .value(name.as_bytes())
        .limit(self.limits.label_name_bytes))
    }

    /// The metric's name as far as it is known.
    pub(crate) fn metric(&self) -> Option<&str> {
        (!self.metric.is_empty()).then_some(&self.metric)
    }

    /// The label set.
    pub(crate) fn finish(&mut self) -> Result<Labels, BadSeries> {
        if self.metric.is_empty() {
            return Err(BadSeries::new(
                Reason::MissingMetricName,
                "the series has no metric name",
            ));
        }
        for (name, value) in self.forced {
            self.add(name, value)?;
        }
        self.labels.build().map_err(|error| {
            let reason = match &error {
                LabelsError::EmptyName { .. } => Reason::EmptyLabelName,
                LabelsError::Duplicate { .. } => Reason::DuplicateLabel,
                LabelsError::Malformed => Reason::InvalidUtf8,
            };
            let bad = BadSeries::new(reason, excerpt(error.to_string().as_bytes()));
            match &error {
                LabelsError::Duplicate { name, .. } => bad.value(name.as_bytes()),
                LabelsError::EmptyName { .. } | LabelsError::Malformed => bad,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(pairs: &[(&str, &str)], limits: &Limits) -> Result<Labels, BadSeries> {
        let mut labels = LabelsBuilder::new();
        let mut builder = SeriesBuilder::new(&mut labels, limits, &[]);
        for (name, value) in pairs {
            builder.label(name, value)?;
        }
        builder.finish()
    }

    fn small() -> Limits {
        Limits {
            labels: 3,
            label_name_bytes: 8,
            label_value_bytes: 10,
            labels_bytes: 30,
            ..Limits::default()
        }
    }

    #[test]
    fn each_limit_is_met_at_its_value_and_refused_above() {
        let (n8, n9) = ("n".repeat(8), "n".repeat(9));
        let (v10, v11) = ("v".repeat(10), "v".repeat(11));
        // `__name__` (8) and `m` (1) leave 21 bytes of 30.
        let (v9, w2, w3) = ("v".repeat(9), "w".repeat(2), "w".repeat(3));
        type Case<'a> = (Vec<(&'a str, &'a str)>, Option<Reason>);
        let cases: Vec<Case<'_>> = vec![
            (vec![(&n8, "1")], None),
            (vec![(&n9, "1")], Some(Reason::LabelNameTooLong)),
            (vec![("a", &v10)], None),
            (vec![("a", &v11)], Some(Reason::LabelValueTooLong)),
            (vec![("a", "1"), ("b", "2")], None),
            (
                vec![("a", "1"), ("b", "2"), ("c", "3")],
                Some(Reason::TooManyLabels),
            ),
            (vec![("nnnnnnnn", &v9), ("ab", &w2)], None),
            (
                vec![("nnnnnnnn", &v9), ("ab", &w3)],
                Some(Reason::LabelsTooLarge),
            ),
            (vec![("", "1")], Some(Reason::EmptyLabelName)),
            (vec![("a", "1"), ("a", "2")], Some(Reason::DuplicateLabel)),
            (vec![("a", "")], None),
        ];
        for (mut pairs, reason) in cases {
            pairs.insert(0, (METRIC_NAME, "m"));
            let got = build(&pairs, &small()).err().map(|bad| bad.reason);
            assert_eq!(got, reason, "{pairs:?}");
        }
    }

    #[test]
    fn a_series_needs_a_metric_name_within_the_limit() {
        let reason = |pairs: &[(&str, &str)]| build(pairs, &small()).err().map(|b| b.reason);
        assert_eq!(reason(&[("a", "1")]), Some(Reason::MissingMetricName));
        assert_eq!(
            reason(&[(METRIC_NAME, "")]),
            Some(Reason::MissingMetricName)
        );
        assert_eq!(reason(&[(METRIC_NAME, "12345678")]), None);
        assert_eq!(
            reason(&[(METRIC_NAME, "123456789")]),
            Some(Reason::LabelNameTooLong)
        );
    }

    #[test]
    fn messages_name_label_value_and_limit() {
        let bad = build(&[(METRIC_NAME, "m"), ("site", "far too long")], &small()).unwrap_err();
        assert_eq!(
            bad.message,
            "label \"site\": value \"far too long\" has 12 bytes, the limit is 10"
        );
    }
}
