//! Content types, by protocol. None at all is taken everywhere: old senders and devices leave it
//! out.

use crate::IngestError;
use crate::decode::text::Dialect;
use crate::report::excerpt;

/// Whether the body is said to be NDJSON.
pub(super) fn json(header: Option<&[u8]>) -> Result<bool, IngestError> {
    let expected = "application/json, application/x-ndjson or text/plain";
    let Some(media) = MediaType::parse(header) else {
        return Ok(false);
    };
    if !media.is_utf8() {
        return Err(media.refused("text in UTF-8"));
    }
    match media.name.as_str() {
        // The last is what `curl -d` says unless told otherwise.
        "application/json" | "text/plain" | "application/x-www-form-urlencoded" => Ok(false),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(true),
        _ => Err(media.refused(expected)),
    }
}

/// Line protocol.
pub(super) fn line(header: Option<&[u8]>) -> Result<(), IngestError> {
    let Some(media) = MediaType::parse(header) else {
        return Ok(());
    };
    if !media.is_utf8() {
        return Err(media.refused("text in UTF-8"));
    }
    match media.name.as_str() {
        "text/plain" | "application/x-www-form-urlencoded" | "application/octet-stream" => Ok(()),
        _ => Err(media.refused("text/plain")),
    }
}

/// Remote write 1.0.
pub(super) fn remote_write(header: Option<&[u8]>) -> Result<(), IngestError> {
    let expected = "application/x-protobuf with a prometheus.WriteRequest (remote write 1.0) \
                    or an io.prometheus.write.v2.Request (2.0)";
    let Some(media) = MediaType::parse(header) else {
        return Ok(());
    };
    if media.name != "application/x-protobuf" {
        return Err(media.refused(expected));
    }
    match media.parameter("proto").as_deref() {
        None | Some("prometheus.writerequest") => Ok(()),
        Some(_) => Err(media.refused(expected)),
    }
}

/// Whether the body is said to be of remote write 2.0.
pub(super) fn is_remote_write_2(header: Option<&[u8]>) -> bool {
    MediaType::parse(header).is_some_and(|media| {
        media.name == "application/x-protobuf"
            && media.parameter("proto").as_deref() == Some("io.prometheus.write.v2.request")
    })
}

/// OTLP: whether it is JSON.
pub(super) fn otlp(header: Option<&[u8]>) -> Result<bool, IngestError> {
    let Some(media) = MediaType::parse(header) else {
        return Ok(false);
    };
    match media.name.as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(false),
        "application/json" if media.is_utf8() => Ok(true),
        _ => Err(media.refused("application/x-protobuf or application/json")),
    }
}

/// Whether the body, and so the answer, is JSON.
pub(super) fn is_json(header: Option<&[u8]>) -> bool {
    MediaType::parse(header).is_some_and(|media| media.name == "application/json")
}

/// Text exposition formats.
pub(super) fn text(header: Option<&[u8]>) -> Result<Dialect, IngestError> {
    let Some(media) = MediaType::parse(header) else {
        return Ok(Dialect::Prometheus);
    };
    if !media.is_utf8() {
        return Err(media.refused("text in UTF-8"));
    }
    match media.name.as_str() {
        "application/openmetrics-text" => Ok(Dialect::OpenMetrics),
        "text/plain" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
            Ok(Dialect::Prometheus)
        }
        _ => Err(media.refused(
            "text/plain (text format 0.0.4) or application/openmetrics-text; \
             the protobuf format is not taken",
        )),
    }
}

/// CSV.
pub(super) fn csv(header: Option<&[u8]>) -> Result<(), IngestError> {
    let Some(media) = MediaType::parse(header) else {
        return Ok(());
    };
    if !media.is_utf8() {
        return Err(media.refused("text in UTF-8"));
    }
    match media.name.as_str() {
        "text/csv"
        | "application/csv"
        | "text/plain"
        | "application/x-www-form-urlencoded"
        | "application/octet-stream" => Ok(()),
        _ => Err(media.refused("text/csv or text/plain")),
    }
}

/// A media type as leniently as senders write it: any case, spaces, quotes.
struct MediaType {
    raw: String,
    name: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn parse(header: Option<&[u8]>) -> Option<Self> {
        let header = header?;
        let text = String::from_utf8_lossy(header).to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        if name.is_empty() {
            return None;
        }
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| {
                let value = value.trim().trim_matches('"');
                (name.trim().to_owned(), value.to_owned())
            })
            .collect();
        Some(Self {
            raw: excerpt(header),
            name,
            parameters,
        })
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let found = self.parameters.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    }

    fn is_utf8(&self) -> bool {
        let charset = self.parameter("charset");
        charset.is_none_or(|c| matches!(c.as_str(), "utf-8" | "utf8" | "us-ascii"))
    }

    fn refused(self, expected: &'static str) -> IngestError {
        IngestError::UnsupportedContentType {
            got: self.raw,
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_types() {
        let check = |header: &str| json(Some(header.as_bytes())).ok();
        for header in [
            "",
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/plain",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(check(header), Some(false), "{header}");
        }
        assert_eq!(check("application/x-ndjson"), Some(true));
        for header in ["application/xml", "text/plain; charset=latin1", "json"] {
            assert_eq!(check(header), None, "{header}");
        }
        assert!(!json(None).unwrap());
    }

    #[test]
    fn remote_write_types() {
        let check = |header: &str| remote_write(Some(header.as_bytes()));
        for header in [
            "application/x-protobuf",
            "application/x-protobuf; proto=prometheus.WriteRequest",
            "application/x-protobuf;PROTO=\"prometheus.WriteRequest\"",
        ] {
            assert!(check(header).is_ok(), "{header}");
        }
        for (header, is) in [
            (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                true,
            ),
            (
                "Application/X-Protobuf; proto=\"io.prometheus.write.v2.Request\"",
                true,
            ),
            (
                "application/x-protobuf;proto=prometheus.WriteRequest",
                false,
            ),
            ("application/x-protobuf", false),
            (
                "application/json;proto=io.prometheus.write.v2.Request",
                false,
            ),
        ] {
            assert_eq!(is_remote_write_2(Some(header.as_bytes())), is, "{header}");
        }
        assert!(check("application/x-protobuf;proto=other").is_err());
        assert!(check("application/json").is_err());
    }
}
