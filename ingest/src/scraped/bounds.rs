//! Bounds of buckets and quantiles. Targets write them as `1`, `1.0` or `1e0`, depending on the format that
//! they were asked for; as in Prometheus 3 all of these are the series that OpenMetrics would write.

use millrace_model::MetricType;

/// The value of a label as OpenMetrics writes it, if it is a bound or a quantile and a number.
pub(super) fn canonical(kind: MetricType, label: &str, value: &str) -> Option<String> {
    let of = match label {
        "le" => MetricType::Histogram,
        "quantile" => MetricType::Summary,
        _ => return None,
    };
    if kind != of {
        return None;
    }
    let number: f64 = value.parse().ok()?;
    // What is beyond all floats is no number to Go.
    let beyond = number.is_infinite() && value.contains(|c: char| c.is_ascii_digit());
    (!beyond).then(|| text(number))
}

/// A number with a point, or below 1e-4 and from 1e6 on with an exponent of two digits at least.
fn text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    // `{:?}` puts the point behind whole numbers.
    if number == 0.0 || (1e-4..1e6).contains(&number.abs()) {
        return format!("{:?}", number + 0.0);
    }
    let short = format!("{number:e}");
    let (mantissa, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_go_does() {
        for (value, expect) in [
            ("1", "1.0"),
            ("1.0", "1.0"),
            ("1e0", "1.0"),
            ("-1", "-1.0"),
            ("0", "0.0"),
            ("-0", "0.0"),
            ("0.5", "0.5"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e-10", "1e-10"),
            ("100000", "100000.0"),
            ("1000000", "1e+06"),
            ("1234567.5", "1.2345675e+06"),
            ("1e100", "1e+100"),
            ("Inf", "+Inf"),
            ("+Inf", "+Inf"),
            ("-inf", "-Inf"),
            ("nan", "NaN"),
        ] {
            let found = canonical(MetricType::Histogram, "le", value);
            assert_eq!(found.as_deref(), Some(expect), "{value}");
        }
    }

    #[test]
    fn everything_else_is_left_as_it_is() {
        use MetricType::{Gauge, Histogram, Summary};
        for (kind, label, value) in [
            (Gauge, "le", "1"),
            (Summary, "le", "1"),
            (Histogram, "quantile", "1"),
            (Histogram, "le", "much"),
            (Histogram, "le", ""),
            (Histogram, "le", "1e999"),
        ] {
            assert_eq!(
                canonical(kind, label, value),
                None,
                "{kind:?} {label} {value}"
            );
        }
    }
}
