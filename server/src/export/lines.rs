//! Series as text: VictoriaMetrics' JSON lines, and CSV.
//!
//! Invariant: what is written is read back bit for bit, by `millrace import` and by
//! `POST /api/v1/import`. JSON has no numbers for NaN and the infinities: they are `null`,
//! `"Infinity"`, `"-Infinity"`, and a NaN with other bits than [`f64::NAN`] (a staleness marker, say) is
//! `"NaN(7ff0000000000002)"`, which is ours alone.

use millrace_model::Labels;

/// How series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One sample a line, behind a header that names the columns.
    Csv,
}

/// What a sample's line holds before its labels.
pub const CSV_COLUMNS: [&str; 2] = ["timestamp_ms", "value"];

/// Appends `{"metric":{…},"values":[…],"timestamps":[…]}` and a line feed.
pub fn json_line(labels: &Labels, timestamps: &[i64], values: &[f64], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"metric\":{");
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json_text(name, out);
        out.push(b':');
        json_text(value, out);
    }
    out.extend_from_slice(b"},\"values\":[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json_value(*value, out);
    }
    out.extend_from_slice(b"],\"timestamps\":[");
    for (at, timestamp) in timestamps.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(timestamp.to_string().as_bytes());
    }
    out.extend_from_slice(b"]}\n");
}

/// Appends the line that names the columns.
pub fn csv_header(names: &[String], out: &mut Vec<u8>) {
    let columns = CSV_COLUMNS
        .into_iter()
        .chain(names.iter().map(String::as_str));
    for (at, column) in columns.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        csv_field(column, out);
    }
    out.push(b'\n');
}

/// Appends a line for each sample. `names` are the columns of labels; the series has no others.
pub fn csv_lines(
    names: &[String],
    labels: &Labels,
    timestamps: &[i64],
    values: &[f64],
    out: &mut Vec<u8>,
) {
    let mut behind = Vec::new();
    for name in names {
        behind.push(b',');
        csv_field(labels.get(name).unwrap_or_default(), &mut behind);
    }
    behind.push(b'\n');
    for (timestamp, value) in timestamps.iter().zip(values) {
        out.extend_from_slice(timestamp.to_string().as_bytes());
        out.push(b',');
        out.extend_from_slice(word(*value).unwrap_or_else(|| number(*value)).as_bytes());
        out.extend_from_slice(&behind);
    }
}

/// The value of a field of [`csv_lines`].
#[must_use]
pub fn read_value(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => match text.strip_prefix("NaN(").and_then(|t| t.strip_suffix(')')) {
            Some(bits) => {
                let value = f64::from_bits(u64::from_str_radix(bits, 16).ok()?);
                value.is_nan().then_some(value)
            }
            None => text.parse().ok().filter(|value: &f64| value.is_finite()),
        },
    }
}

/// Appends a value as JSON.
pub fn json_value(value: f64, out: &mut Vec<u8>) {
    match word(value) {
        Some(nan) if nan == "NaN" => out.extend_from_slice(b"null"),
        Some(word) => {
            out.push(b'"');
            out.extend_from_slice(word.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(number(value).as_bytes()),
    }
}

/// What is no number, in a word.
fn word(value: f64) -> Option<String> {
    if value.is_nan() {
        let bits = value.to_bits();
        let usual = bits == f64::NAN.to_bits();
        return Some(if usual {
            "NaN".to_owned()
        } else {
            format!("NaN({bits:016x})")
        });
    }
    value
        .is_infinite()
        .then(|| if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned())
}

/// The shortest digits that give back the same bits.
fn number(value: f64) -> String {
    let text = format!("{value:?}");
    // What is whole needs no point.
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\0'..='\x1f' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => {
                let mut bytes = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut bytes).as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn csv_field(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"', '\n', '\r']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_so_that_their_bits_come_back() {
        let bits = [
            0,
            (-0.0f64).to_bits(),
            1,
            0x7ff0_0000_0000_0002,
            f64::NAN.to_bits(),
            (-f64::NAN).to_bits(),
            f64::INFINITY.to_bits(),
            f64::NEG_INFINITY.to_bits(),
            f64::MAX.to_bits(),
            f64::MIN_POSITIVE.to_bits(),
            0.1f64.to_bits(),
            1e300f64.to_bits(),
            9_007_199_254_740_993u64,
        ];
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "x,\"y\"\n")]).unwrap();
        let names = ["__name__", "a", "b"].map(str::to_owned);
        for bits in bits {
            let value = f64::from_bits(bits);
            let mut line = Vec::new();
            csv_lines(&names, &labels, &[-5], &[value], &mut line);
            let line = String::from_utf8(line).unwrap();
            let field = line.split(',').nth(1).unwrap();
            assert_eq!(read_value(field).map(f64::to_bits), Some(bits), "{line}");
            assert!(line.ends_with(",m,\"x,\"\"y\"\"\n\",\n"), "{line}");
            let mut json = Vec::new();
            json_line(&labels, &[-5], &[value], &mut json);
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json["metric"]["a"], "x,\"y\"\n");
            assert_eq!(json["timestamps"][0], -5);
            if value.is_finite() {
                let back = json["values"][0].as_f64().unwrap();
                assert_eq!(back.to_bits(), bits, "{json}");
            }
        }
        for text in ["", "x", "NaN(1)", "NaN(", "inf", "1e999"] {
            assert_eq!(read_value(text), None, "{text}");
        }
    }
}
