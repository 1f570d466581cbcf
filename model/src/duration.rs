//! Durations as Prometheus writes them.

/// From large to small, in ms.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The milliseconds of a text such as `1h30m` or `500ms`: units from large to small, each at most once
/// (<https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations>). `None` for
/// any other text, the bare `0` among them, and for more than 64 bits hold.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut units) = (text, 0_u64, &UNITS[..]);
    loop {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit_end = tail.find(|c: char| c.is_ascii_digit());
        let (unit, tail) = tail.split_at(unit_end.unwrap_or(tail.len()));
        let place = units.iter().position(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(units[place].1)?;
        total = total.checked_add(part)?;
        (rest, units) = (tail, &units[place + 1..]);
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_from_large_to_small_and_each_once() {
        for (text, ms) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("0s", 0),
            ("1y2w", 365 * 86_400_000 + 14 * 86_400_000),
            ("1d1h1m1s1ms", 90_061_001),
        ] {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "0",
            "1",
            "s",
            "s1",
            "1s1m",
            "1s1s",
            "1.5s",
            "-1s",
            "1x",
            " 1s",
            "1s ",
            "1s2",
            "99999999999999999999s",
            "9999999999999999y",
            "1µs",
        ] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }
}
