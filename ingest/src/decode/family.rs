//! Metadata of a metric family, as the protocols that have such bring it.

use millrace_model::{MetricMetadata, MetricType};

use crate::metadata::MetadataFilter;
use crate::options::Limits;
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, text};

/// What is said about a metric family; texts are foreign bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family<'a> {
    pub(crate) metric: &'a [u8],
    pub(crate) metric_type: MetricType,
    pub(crate) help: &'a [u8],
    pub(crate) unit: &'a [u8],
}

impl Family<'_> {
    /// Bytes that are the same for two families exactly if all but their metric's name is.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = vec![self.metric_type.code()];
        message.extend_from_slice(&(self.help.len() as u64).to_le_bytes());
        message.extend_from_slice(self.help);
        message.extend_from_slice(self.unit);
        message
    }
}

/// Adds metadata that are within the limits and not known yet; `message` tells whether they are.
pub(crate) fn add(
    family: &Family<'_>,
    message: &[u8],
    place: Place,
    filter: &mut MetadataFilter<'_>,
    out: &mut Collector<'_>,
) {
    match check(family, out.context().limits) {
        Ok([metric, help, unit]) if filter.is_news(metric.as_bytes(), message) => {
            out.add_metadata(MetricMetadata {
                metric: metric.to_owned(),
                metric_type: family.metric_type,
                help: help.to_owned(),
                unit: unit.to_owned(),
            });
        }
        Ok(_) => {}
        Err(bad) => out.report().reject(bad.reason, 0, || {
            let series = (!family.metric.is_empty()).then(|| excerpt(family.metric));
            Rejection::new(place, bad).of_series(series)
        }),
    }
}

/// The texts of a family: its name, help and unit.
///
/// # Errors
///
/// One that is missing, over a limit, or not UTF-8.
pub(crate) fn check<'a>(family: &Family<'a>, limits: &Limits) -> Result<[&'a str; 3], BadSeries> {
    let Family {
        metric, help, unit, ..
    } = *family;
    if metric.is_empty() {
        return Err(BadSeries::new(
            Reason::BadMetadata,
            "metadata without a metric name",
        ));
    }
    for (what, got, limit) in [
        ("metric name", metric, limits.label_name_bytes),
        ("help", help, limits.label_value_bytes),
        ("unit", unit, limits.label_name_bytes),
    ] {
        if got.len() > limit {
            let message = format!(
                "{what} of the metadata has {} bytes, the limit is {limit}",
                got.len()
            );
            let bad = BadSeries::new(Reason::BadMetadata, message);
            return Err(bad.value(got).limit(limit));
        }
    }
    Ok([
        text(metric, "metric name")?,
        text(help, "help")?,
        text(unit, "unit")?,
    ])
}
