//! What is asked for, and what came.

use millrace_ingest::ScrapeFormat;

use crate::config::Protocol;

/// The `Accept` header that asks for these, the first rather than the next.
pub(crate) fn accept_header(protocols: &[Protocol]) -> String {
    let mut header = String::new();
    let mut weight = protocols.len() + 1;
    for protocol in protocols {
        header.push_str(&format!("{};q=0.{weight},", media_type(*protocol)));
        weight -= 1;
    }
    header.push_str(&format!("*/*;q=0.{weight}"));
    header
}

fn media_type(protocol: Protocol) -> &'static str {
    match protocol {
        // Never in the list of a job that was checked.
        Protocol::PrometheusProto => "application/vnd.google.protobuf",
        Protocol::PrometheusText004 => "text/plain;version=0.0.4",
        Protocol::PrometheusText100 => "text/plain;version=1.0.0;escaping=allow-utf-8",
        Protocol::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
        Protocol::OpenMetricsText100 => {
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
        }
    }
}

/// The format that a content type names, or the one that the job falls back to.
///
/// # Errors
///
/// In words, if there is none that can be read.
pub(crate) fn format_of(
    content_type: Option<&str>,
    fallback: Option<Protocol>,
) -> Result<ScrapeFormat, String> {
    let given = content_type
        .map(str::trim)
        .filter(|given| !given.is_empty());
    let media = given.and_then(|given| given.split(';').next());
    match media.map(|media| media.trim().to_lowercase()).as_deref() {
        Some("text/plain") => return Ok(ScrapeFormat::Text),
        Some("application/openmetrics-text") => return Ok(ScrapeFormat::OpenMetrics),
        Some(_) | None => {}
    }
    match fallback {
        Some(Protocol::PrometheusText004 | Protocol::PrometheusText100) => Ok(ScrapeFormat::Text),
        Some(Protocol::OpenMetricsText001 | Protocol::OpenMetricsText100) => {
            Ok(ScrapeFormat::OpenMetrics)
        }
        Some(Protocol::PrometheusProto) | None => Err(match given {
            Some(given) => format!(
                "received unsupported Content-Type {given:?} and no fallback_scrape_protocol \
                 specified for target"
            ),
            None => "non-compliant scrape target sending blank Content-Type and no \
                     fallback_scrape_protocol specified for target"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_first_weighs_most() {
        let header = accept_header(&[Protocol::OpenMetricsText100, Protocol::PrometheusText004]);
        assert_eq!(
            header,
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
    }

    #[test]
    fn content_types_decide_and_the_fallback_helps() {
        let text = Ok(ScrapeFormat::Text);
        let open = Ok(ScrapeFormat::OpenMetrics);
        assert_eq!(format_of(Some("text/plain; version=0.0.4"), None), text);
        assert_eq!(format_of(Some("Text/Plain"), None), text);
        assert_eq!(
            format_of(Some("application/openmetrics-text; version=1.0.0"), None),
            open
        );
        assert_eq!(format_of(None, Some(Protocol::PrometheusText004)), text);
        assert_eq!(
            format_of(Some("text/html"), Some(Protocol::OpenMetricsText100)),
            open
        );
        assert!(
            format_of(None, None)
                .unwrap_err()
                .contains("blank Content-Type")
        );
        assert!(
            format_of(Some("text/html"), None)
                .unwrap_err()
                .contains("\"text/html\"")
        );
    }
}
