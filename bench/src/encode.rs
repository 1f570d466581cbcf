//! Bodies in each protocol, from measurements.
//!
//! What does not change between two measurements of a group (names and tags) is encoded once.

use clap::ValueEnum;

use crate::fleet::Group;
use crate::wire;

/// How samples are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Prometheus remote write 1.0: Protocol Buffers in snappy
    RemoteWrite,
    /// InfluxDB line protocol, timestamps in milliseconds
    Line,
    /// millrace's own JSON, one object a line
    Json,
}

impl Protocol {
    /// Path and query of the endpoint, where a server has the usual one.
    pub fn path(self) -> &'static str {
        match self {
            Self::RemoteWrite => "/api/v1/write",
            Self::Line => "/write?precision=ms",
            Self::Json => "/api/v1/push",
        }
    }

    /// The headers that say what the body is.
    pub fn headers(self) -> &'static str {
        match self {
            Self::RemoteWrite => {
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                 X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
            Self::Line => "Content-Type: text/plain; charset=utf-8\r\n",
            Self::Json => "Content-Type: application/x-ndjson\r\n",
        }
    }
}

impl Protocol {
    /// The metric that a field becomes.
    pub fn series_name(self, group: &Group, field: &str) -> String {
        match self.measurement(group) {
            "" => field.to_owned(),
            measurement => format!("{measurement}_{field}"),
        }
    }

    fn measurement(self, group: &Group) -> &str {
        match self {
            // A line needs one.
            Self::Line if group.measurement.is_empty() => "device",
            Self::RemoteWrite | Self::Line | Self::Json => &group.measurement,
        }
    }
}

/// A group whose unchanging part is encoded.
#[derive(Clone, Debug)]
pub struct PreparedGroup {
    /// Remote write: for each field the label part of its series. Line and JSON: what stands
    /// before the first field, then before each value.
    parts: Vec<Vec<u8>>,
    head: Vec<u8>,
    integer: Vec<bool>,
}

impl PreparedGroup {
    /// Encodes names and tags.
    pub fn new(protocol: Protocol, group: &Group) -> Self {
        let fields = || group.fields.iter();
        let (head, parts) = match protocol {
            Protocol::RemoteWrite => (
                Vec::new(),
                fields().map(|f| series_labels(group, &f.name)).collect(),
            ),
            Protocol::Line => (
                line_head(group),
                fields().map(|f| line_key(&f.name)).collect(),
            ),
            Protocol::Json => (
                json_head(group),
                fields()
                    .map(|f| json_text(&protocol.series_name(group, &f.name)))
                    .collect(),
            ),
        };
        Self {
            parts,
            head,
            integer: fields().map(|f| f.source.is_integer()).collect(),
        }
    }
}

/// A body that is being filled.
#[derive(Debug)]
pub struct BodyWriter {
    protocol: Protocol,
    plain: Vec<u8>,
    samples: usize,
}

impl BodyWriter {
    /// An empty one.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            plain: Vec::new(),
            samples: 0,
        }
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Adds one measurement: a value for each field.
    pub fn add(&mut self, group: &PreparedGroup, timestamp_ms: i64, values: &[f64]) {
        assert_eq!(values.len(), group.parts.len(), "one value a field");
        self.samples += values.len();
        let out = &mut self.plain;
        match self.protocol {
            Protocol::RemoteWrite => {
                for (labels, value) in group.parts.iter().zip(values) {
                    wire::time_series(out, labels, *value, timestamp_ms);
                }
            }
            Protocol::Line => {
                out.extend_from_slice(&group.head);
                let fields = group.parts.iter().zip(values).zip(&group.integer);
                for (i, ((key, value), integer)) in fields.enumerate() {
                    out.push(if i == 0 { b' ' } else { b',' });
                    out.extend_from_slice(key);
                    let suffix = if *integer { "i" } else { "" };
                    out.extend_from_slice(format!("={value}{suffix}").as_bytes());
                }
                out.extend_from_slice(format!(" {timestamp_ms}\n").as_bytes());
            }
            Protocol::Json => {
                out.extend_from_slice(&group.head);
                out.extend_from_slice(
                    format!("\"timestamp\":{timestamp_ms},\"fields\":{{").as_bytes(),
                );
                for (i, (name, value)) in group.parts.iter().zip(values).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    out.extend_from_slice(format!(":{value}").as_bytes());
                }
                out.extend_from_slice(b"}}\n");
            }
        }
    }

    /// The body as it goes over the wire; the writer is empty afterwards.
    pub fn finish(&mut self) -> Vec<u8> {
        self.samples = 0;
        let body = match self.protocol {
            Protocol::RemoteWrite => wire::snappy(&self.plain),
            Protocol::Line | Protocol::Json => self.plain.clone(),
        };
        self.plain.clear();
        body
    }
}

/// The labels of a field's series, as remote write has them.
pub fn series_labels(group: &Group, field: &str) -> Vec<u8> {
    let name = Protocol::RemoteWrite.series_name(group, field);
    let mut labels = vec![("__name__", name.as_str())];
    labels.extend(group.tags.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    wire::labels(&labels)
}

fn line_head(group: &Group) -> Vec<u8> {
    let mut head = Protocol::Line.measurement(group).as_bytes().to_vec();
    for (name, value) in &group.tags {
        head.push(b',');
        head.extend(line_key(name));
        head.push(b'=');
        head.extend(line_key(value));
    }
    head
}

/// Escapes what would end a name or value.
fn line_key(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b',' | b'=' | b' ') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

fn json_text(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).expect("a string can be written as JSON")
}

/// `{"device":…,"tags":{…},`. The device is the tag of that name, or else the one that names the
/// target.
fn json_head(group: &Group) -> Vec<u8> {
    let is_device =
        |(name, _): &&(String, String)| matches!(name.as_str(), "device" | "hostname" | "instance");
    let device = group.tags.iter().find(is_device);
    let mut head = b"{".to_vec();
    if let Some((_, value)) = device {
        head.extend(b"\"device\":");
        head.extend(json_text(value));
        head.push(b',');
    }
    head.extend(b"\"tags\":{");
    let rest = group.tags.iter().filter(|tag| Some(*tag) != device);
    for (i, (name, value)) in rest.enumerate() {
        if i > 0 {
            head.push(b',');
        }
        head.extend(json_text(name));
        head.push(b':');
        head.extend(json_text(value));
    }
    head.extend(b"},");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Field;
    use crate::values::{Random, Shape, Source};

    fn example() -> Group {
        let field = |name: &str, shape| Field {
            name: name.to_owned(),
            source: Source::new(shape, &mut Random::new(1)),
        };
        Group {
            measurement: "cpu".to_owned(),
            tags: vec![
                ("hostname".to_owned(), "h 1".to_owned()),
                ("os".to_owned(), "x".to_owned()),
            ],
            fields: vec![
                field("user", Shape::Constant),
                field("load", Shape::Seconds { per_step: 1.0 }),
            ],
        }
    }

    fn body(protocol: Protocol) -> Vec<u8> {
        let group = PreparedGroup::new(protocol, &example());
        let mut writer = BodyWriter::new(protocol);
        writer.add(&group, 1_000, &[58.0, 0.25]);
        assert_eq!(writer.samples(), 2);
        let body = writer.finish();
        assert_eq!(writer.samples(), 0);
        body
    }

    #[test]
    fn lines_are_escaped_and_typed() {
        let text = String::from_utf8(body(Protocol::Line)).unwrap();
        assert_eq!(text, "cpu,hostname=h\\ 1,os=x user=58i,load=0.25 1000\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = String::from_utf8(body(Protocol::Json)).unwrap();
        assert_eq!(
            text,
            "{\"device\":\"h 1\",\"tags\":{\"os\":\"x\"},\"timestamp\":1000,\
             \"fields\":{\"cpu_user\":58,\"cpu_load\":0.25}}\n"
        );
        serde_json::from_str::<serde_json::Value>(text.trim()).unwrap();
    }

    #[test]
    fn remote_write_is_snappy_around_two_series() {
        let plain = snap::raw::Decoder::new()
            .decompress_vec(&body(Protocol::RemoteWrite))
            .unwrap();
        let text = String::from_utf8_lossy(&plain);
        assert!(text.contains("cpu_user") && text.contains("cpu_load"));
        // Each series: tag of the field, length, content.
        let first = 2 + usize::from(plain[1]);
        assert_eq!((plain[0], plain[first]), (0x0a, 0x0a));
        assert_eq!(plain.len(), first + 2 + usize::from(plain[first + 1]));
    }
}
