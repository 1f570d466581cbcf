//! The few Protocol Buffers messages of remote write 1.0, written by hand
//! (`prompb/remote.proto` and `types.proto` of Prometheus): a `WriteRequest` is a sequence of
//! `TimeSeries` (field 1), each with `Label`s (field 1: name 1, value 2) and `Sample`s (field 2:
//! value 1, timestamp 2).

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// The labels of a series, sorted by name, as they stand in a `TimeSeries`.
pub fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let mut label = Vec::new();
        bytes(&mut label, 0x0a, name.as_bytes());
        bytes(&mut label, 0x12, value.as_bytes());
        bytes(&mut out, 0x0a, &label);
    }
    out
}

/// Appends a `TimeSeries` with one sample to a `WriteRequest`. Fields that are zero are left out,
/// as Prometheus does.
pub fn time_series(out: &mut Vec<u8>, labels: &[u8], value: f64, timestamp_ms: i64) {
    let mut sample = [0; 20];
    let mut len = 0;
    if value.to_bits() != 0 {
        sample[0] = 0x09;
        sample[1..9].copy_from_slice(&value.to_le_bytes());
        len = 9;
    }
    if timestamp_ms != 0 {
        sample[len] = 0x10;
        len += 1;
        let mut rest = timestamp_ms as u64;
        loop {
            let more = rest >= 0x80;
            sample[len] = (rest as u8 & 0x7f) | if more { 0x80 } else { 0 };
            len += 1;
            rest >>= 7;
            if !more {
                break;
            }
        }
    }
    out.push(0x0a);
    varint(out, (labels.len() + 2 + len) as u64);
    out.extend_from_slice(labels);
    bytes(out, 0x12, &sample[..len]);
}

/// Appends a `TimeSeries` with several samples, given as timestamp and value, to a `WriteRequest`.
pub fn time_series_of(out: &mut Vec<u8>, labels: &[u8], samples: &[(i64, f64)]) {
    let mut content = labels.to_vec();
    let mut sample = Vec::new();
    for (timestamp_ms, value) in samples {
        sample.clear();
        sample.push(0x09);
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, *timestamp_ms as u64);
        bytes(&mut content, 0x12, &sample);
    }
    bytes(out, 0x0a, &content);
}

/// The snappy block format, as remote write wants it.
pub fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(plain)
        .expect("a body is far below the 4 GiB that snappy can hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_written_as_the_specification_has_it() {
        let mut out = Vec::new();
        time_series(&mut out, &labels(&[("a", "b")]), 1.0, 300);
        let expected = [
            &[0x0a, 22][..],
            &[0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'],
            &[
                0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02,
            ],
        ]
        .concat();
        assert_eq!(out, expected);
        out.clear();
        time_series(&mut out, &[], 0.0, 0);
        assert_eq!(out, [0x0a, 2, 0x12, 0]);
        let (mut one, mut several) = (Vec::new(), Vec::new());
        time_series(&mut one, &labels(&[("a", "b")]), 1.0, 300);
        time_series_of(&mut several, &labels(&[("a", "b")]), &[(300, 1.0)]);
        assert_eq!(one, several);
        // The longest timestamp fits.
        time_series(&mut out, &[], 1.0, -1);
    }
}
