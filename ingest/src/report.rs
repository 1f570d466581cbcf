//! What was refused of a request, whatever protocol it came by.
//!
//! Invariants: every refused item is counted under its [`Reason`]; the first
//! [`Report::DETAILS`] of them are kept with place, series and message, or where all are asked for as many
//! as [`Report::FULL_BYTES`] hold; the message of a later one is not even put together.

use std::fmt;

use serde::Serialize;

use crate::series::BadSeries;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)+) => {
        /// Why an item of a request was refused. Its [`id`](Self::id) is part of the interface:
        /// it stands in answers, in metrics and in `docs/ingest.md`, and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable word for it.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }
        }
    };
}

reasons! {
    /// A line or element that is not JSON.
    MalformedJson = "malformed_json",
    /// A line that is not line protocol.
    MalformedLine = "malformed_line",
    /// Bytes that are not UTF-8 where text is expected.
    InvalidUtf8 = "invalid_utf8",
    /// A key of a JSON item that has no meaning here.
    UnknownKey = "unknown_key",
    /// A key that comes twice in one JSON object.
    DuplicateKey = "duplicate_key",
    /// A JSON item without its device.
    MissingDevice = "missing_device",
    /// An item without fields.
    MissingFields = "missing_fields",
    /// A value of a type that cannot be stored or used there.
    UnsupportedType = "unsupported_type",
    /// A string field of line protocol, where these are refused.
    StringField = "string_field",
    /// A number that does not fit.
    NumberOutOfRange = "number_out_of_range",
    /// A timestamp that cannot be read.
    BadTimestamp = "bad_timestamp",
    /// A timestamp before the oldest that is taken.
    TooOld = "too_old",
    /// A timestamp behind the newest that is taken.
    TooFarAhead = "too_far_ahead",
    /// A series without a metric name.
    MissingMetricName = "missing_metric_name",
    /// A label without a name.
    EmptyLabelName = "empty_label_name",
    /// A tag without a value.
    EmptyTagValue = "empty_tag_value",
    /// A label name that comes twice in one series.
    DuplicateLabel = "duplicate_label",
    /// More labels than a series may have.
    TooManyLabels = "too_many_labels",
    /// A label or metric name over the limit.
    LabelNameTooLong = "label_name_too_long",
    /// A label value over the limit.
    LabelValueTooLong = "label_value_too_long",
    /// Labels that are too large together.
    LabelsTooLarge = "labels_too_large",
    /// A native histogram; only floats are stored.
    NativeHistogram = "native_histogram",
    /// Metric metadata over a limit.
    BadMetadata = "bad_metadata",
    /// References of a remote write 2.0 series that name no symbols, or come in odd number.
    BadSymbolReference = "bad_symbol_reference",
    /// Labels of a remote write 2.0 series that are not sorted by name.
    UnsortedLabels = "unsorted_labels",
    /// A series or data point that carries no value.
    MissingValue = "missing_value",
    /// An exponential histogram of OTLP; only explicit buckets are stored.
    ExponentialHistogram = "exponential_histogram",
    /// A sum or histogram of OTLP with delta temporality, where these are refused.
    DeltaTemporality = "delta_temporality",
    /// A histogram of OTLP whose bounds and counts do not belong together.
    BadHistogram = "bad_histogram",
    /// A metric or attribute name that has no form under the translation strategy.
    BadName = "bad_name",
    /// A line of the text exposition formats that does not parse.
    MalformedText = "malformed_text",
    /// A line of CSV that does not fit its column mapping.
    MalformedCsv = "malformed_csv",
    /// A series that is not active, of a tenant that has as many active ones as it may.
    TooManyActiveSeries = "too_many_active_series",
    /// A series that is not active, of a tenant that has had as many new ones in an hour as it may.
    TooManyNewSeries = "too_many_new_series",
}

impl Reason {
    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Where in a request a refused item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A line of the body. The first is 1; blank lines and comments count.
    Line(u64),
    /// An element of a JSON array. The first is 0.
    Index(u64),
    /// A time series of a remote write request. The first is 0. (`series` is its name.)
    #[serde(rename = "timeseries")]
    Series(u64),
    /// A metadata entry of a remote write request. The first is 0.
    Metadata(u64),
    /// A data point of an OTLP request, counted over all its resources and metrics. The first is 0.
    Point(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Index(n) => write!(f, "index {n}"),
            Self::Series(n) => write!(f, "series {n}"),
            Self::Metadata(n) => write!(f, "metadata {n}"),
            Self::Point(n) => write!(f, "data point {n}"),
        }
    }
}

/// One refused item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// The series or metric that it was for, if it came that far; cut to a readable length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// The field, if only that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Why, for machines.
    pub reason: Reason,
    /// What it was that was refused, where one value can be named; cut to a readable length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The limit that it is beyond, where there is one: bytes, a count or milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Why, for people: with the value and the limit.
    pub message: String,
    /// The line as it came, cut to a readable length; only where lines can be told apart.
    #[serde(skip)]
    pub line: Option<String>,
}

impl Rejection {
    /// One at `place`, with nothing said yet about series, field and line.
    pub(crate) fn new(place: Place, bad: BadSeries) -> Self {
        Self {
            place,
            series: None,
            field: None,
            reason: bad.reason,
            value: bad.value,
            limit: bad.limit,
            message: bad.message,
            line: None,
        }
    }

    /// About what it takes, here or in an answer.
    fn bytes(&self) -> usize {
        let texts = [&self.series, &self.field, &self.value, &self.line];
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<Self>() + self.message.len() + texts.sum::<usize>()
    }

    /// Names the series.
    pub(crate) fn of_series(mut self, series: Option<String>) -> Self {
        self.series = series;
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(series) = &self.series {
            write!(f, ", {series}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field:?}")?;
        }
        write!(f, ": {} ({})", self.message, self.reason)
    }
}

/// Counts of what was refused of one request, and the first few in detail.
#[derive(Clone, Debug)]
pub struct Report {
    keep: usize,
    bytes: usize,
    items: u64,
    samples: u64,
    by_reason: [u64; Reason::ALL.len()],
    details: Vec<Rejection>,
}

impl Default for Report {
    fn default() -> Self {
        Self::keeping(Self::DETAILS)
    }
}

impl Report {
    /// Bytes that the descriptions of one request may take where `?receipt=full` asks for all of them:
    /// some 50,000 items.
    pub const FULL_BYTES: usize = 16 << 20;

    /// A report that describes all refused items, within [`FULL_BYTES`](Self::FULL_BYTES).
    #[must_use]
    pub fn full() -> Self {
        Self::keeping(usize::MAX)
    }

    /// A report that describes the first `keep` refused items.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self {
            keep,
            bytes: 0,
            items: 0,
            samples: 0,
            by_reason: [0; Reason::ALL.len()],
            details: Vec::new(),
        }
    }

    /// As many refused items are described in an answer: enough to see what is wrong, and short
    /// enough for a log line of the sender.
    pub const DETAILS: usize = 10;

    /// Counts an item that held `samples` samples (0 where it could not be read so far), and
    /// keeps its description if it is among the first.
    pub fn reject(&mut self, reason: Reason, samples: usize, describe: impl FnOnce() -> Rejection) {
        self.items += 1;
        self.samples += samples as u64;
        // An unreadable item counts as one, so that no refusal leaves its reason at zero.
        self.by_reason[reason.index()] += samples.max(1) as u64;
        if self.details.len() < self.keep && self.bytes < Self::FULL_BYTES {
            let described = describe();
            self.bytes += described.bytes();
            self.details.push(described);
        }
    }

    /// Counts further samples of the item that was refused last.
    pub fn add_samples(&mut self, reason: Reason, samples: usize) {
        self.samples += samples as u64;
        self.by_reason[reason.index()] += samples as u64;
    }

    /// Puts the descriptions in the order of the request.
    pub(crate) fn sort(&mut self) {
        self.details.sort_by_key(|rejection| rejection.place);
    }

    /// Quotes the line of every described item that stands in one.
    pub(crate) fn quote_lines(&mut self, body: &[u8]) {
        let mut lines = (1u64..).zip(body.split(|b| *b == b'\n'));
        for rejection in &mut self.details {
            let Place::Line(number) = rejection.place else {
                continue;
            };
            // They are in order, and one line may have several.
            if let Some((_, line)) = lines.clone().find(|(n, _)| *n == number) {
                let line = excerpt(line.trim_ascii_end());
                self.bytes += line.len();
                rejection.line = Some(line);
            }
            while lines.clone().next().is_some_and(|(n, _)| n < number) {
                lines.next();
            }
        }
    }

    /// About what the descriptions take.
    pub(crate) fn detail_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all descriptions but the first [`DETAILS`](Self::DETAILS).
    pub(crate) fn shorten(&mut self) {
        self.details.truncate(Self::DETAILS);
        self.details.shrink_to_fit();
        self.bytes = self.details.iter().map(Rejection::bytes).sum();
    }

    /// Number of refused items: lines, JSON items or their fields, series.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Number of refused samples, as far as they could be counted.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The first refused items.
    #[must_use]
    pub fn details(&self) -> &[Rejection] {
        &self.details
    }

    /// Reasons that occurred, with their counts of samples (an unreadable item counts as one).
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .iter()
            .map(|reason| (*reason, self.by_reason[reason.index()]))
            .filter(|(_, count)| *count > 0)
    }
}

/// Foreign bytes as they may stand in a message: lossy UTF-8, control characters escaped, cut.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const MAX_CHARS: usize = 80;
    // Four bytes make at least one character, so this much is enough for the cut below.
    let head = &bytes[..bytes.len().min(MAX_CHARS * 4 + 4)];
    let text = String::from_utf8_lossy(head);
    let mut out: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(|c| {
            let control = c.is_control();
            control
                .then(|| c.escape_default())
                .into_iter()
                .flatten()
                .chain((!control).then_some(c))
        })
        .collect();
    if text.chars().count() > MAX_CHARS || head.len() < bytes.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_when_details_end() {
        let mut report = Report::default();
        for line in 1..=25 {
            report.reject(Reason::TooOld, 2, || {
                Rejection::new(Place::Line(line), BadSeries::new(Reason::TooOld, "old"))
            });
        }
        assert_eq!((report.items(), report.samples()), (25, 50));
        assert_eq!(report.details().len(), Report::DETAILS);
        assert_eq!(
            report.by_reason().collect::<Vec<_>>(),
            [(Reason::TooOld, 50)]
        );
        assert_eq!(report.details()[9].to_string(), "line 10: old (too_old)");
    }

    #[test]
    fn a_full_report_has_all_within_its_bytes() {
        let mut report = Report::full();
        for line in 1..=100_000 {
            report.reject(Reason::TooOld, 1, || {
                Rejection::new(
                    Place::Line(line),
                    BadSeries::new(Reason::TooOld, "o".repeat(200)),
                )
            });
        }
        assert_eq!(report.items(), 100_000);
        let described = report.details().len();
        assert!((30_000..100_000).contains(&described), "{described}");
        assert!(report.detail_bytes() < Report::FULL_BYTES + 1000);
        report.shorten();
        assert_eq!(report.details().len(), Report::DETAILS);
        assert!(report.detail_bytes() < 10_000);
    }

    #[test]
    fn reason_ids_are_distinct() {
        let ids: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.id()).collect();
        assert_eq!(ids.len(), Reason::ALL.len());
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
        }
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(b"a\nb\xff"), "a\\nb\u{fffd}");
        assert_eq!(excerpt(&[b'x'; 200]).chars().count(), 81);
    }
}
