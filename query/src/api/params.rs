//! Parameters of a request, from its URL and its form, merged as Go's `ParseForm` merges them:
//! values of the form come before those of the URL, and where one value is wanted the first counts.
//! (Grafana sends the expression in the form and what its user configured in the URL.)

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, Limited};
use millrace_model::{TimeRange, TimestampMs};

use super::error::ApiError;
use super::{App, numbers};
use crate::{ReadPoint, ReadScope};

/// A request's parameters, and whose data it sees.
#[derive(Debug)]
pub(super) struct Params {
    pub(super) scope: ReadScope,
    /// Shared with [`observe`](super::observe), which tells the client what was included.
    pub(super) point: Arc<ReadPoint>,
    pub(super) headers: HeaderMap,
    pairs: Vec<(String, String)>,
}

impl Params {
    /// The first value of a parameter; an empty one counts as none, as in Prometheus.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(n, _)| n == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// A moment, if it is given.
    pub(super) fn time(&self, name: &str) -> Result<Option<TimestampMs>, ApiError> {
        self.get(name)
            .map(|text| {
                numbers::timestamp(text).ok_or_else(|| ApiError::invalid(name, no_timestamp(text)))
            })
            .transpose()
    }

    /// A moment that must be given.
    pub(super) fn required_time(&self, name: &str) -> Result<TimestampMs, ApiError> {
        self.time(name)?
            .ok_or_else(|| ApiError::invalid(name, no_timestamp("")))
    }

    /// `start` and `end`, each the end of time where it is missing.
    pub(super) fn range(&self) -> Result<TimeRange, ApiError> {
        Ok(TimeRange {
            start: self.time("start")?.unwrap_or(TimeRange::ALL.start),
            end: self.time("end")?.unwrap_or(TimeRange::ALL.end),
        })
    }

    /// `partial_response`: whether series that cannot be reached may be missing. Thanos's parameter,
    /// with Go's words for a boolean.
    pub(super) fn partial(&self) -> Result<bool, ApiError> {
        self.flag("partial_response")
    }

    /// A parameter with Go's words for a boolean; false without it.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(ApiError::invalid(
                name,
                format_args!("cannot parse {other:?} to true or false"),
            )),
        }
    }

    /// `limit`: `None` without one, and for 0.
    pub(super) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get("limit") else {
            return Ok(None);
        };
        let limit: i64 = text.parse().map_err(|_| {
            ApiError::invalid(
                "limit",
                format_args!("cannot parse {text:?} to a whole number"),
            )
        })?;
        if limit < 0 {
            return Err(ApiError::invalid("limit", "limit must be non-negative"));
        }
        // A limit beyond the address space cuts nothing off.
        Ok(usize::try_from(limit).ok().filter(|&limit| limit > 0))
    }
}

fn no_timestamp(text: &str) -> String {
    format!("cannot parse {text:?} to a valid timestamp")
}

impl FromRequest<Arc<App>> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut pairs = Vec::new();
        if parts.method == Method::POST && is_form(&parts.headers) {
            let form = read_body(body, app.api.options.max_form_bytes).await?;
            parse_pairs(&form, &mut pairs)?;
        }
        parse_pairs(parts.uri.query().unwrap_or_default().as_bytes(), &mut pairs)?;
        Ok(Self {
            scope: ReadScope::of(&parts.extensions),
            point: parts.extensions.get().cloned().unwrap_or_default(),
            headers: parts.headers,
            pairs,
        })
    }
}

/// A request's body, if it is no longer than `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(
            format!("form larger than the limit of {limit} bytes"),
        )),
        Err(error) => Err(ApiError::bad_data(format!(
            "error reading the form: {error}"
        ))),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    essence.is_some_and(|text| {
        text.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Reads `a=1&b=two+words&c=%7B`. Where an escape is broken, Go forgets the pair and goes on, and
/// Prometheus then complains of a parameter that is not there; we say what is wrong.
fn parse_pairs(text: &[u8], pairs: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    for pair in text.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or_default();
        pairs.push((unescape(&pair[..equals])?, unescape(value)?));
    }
    Ok(())
}

fn unescape(text: &[u8]) -> Result<String, ApiError> {
    let broken =
        |reason: String| ApiError::bad_data(format!("error parsing form values: {reason}"));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'+' => {
                out.push(b' ');
                tail
            }
            b'%' => match tail {
                [high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                    tail
                }
                _ => {
                    let escape = String::from_utf8_lossy(&rest[..rest.len().min(3)]);
                    return Err(broken(format!("invalid URL escape {escape:?}")));
                }
            },
            other => {
                out.push(other);
                tail
            }
        };
    }
    String::from_utf8(out).map_err(|_| broken("a value is not UTF-8".to_owned()))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &str)]) {
        let mut pairs = Vec::new();
        parse_pairs(text.as_bytes(), &mut pairs).unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, expect, "{text}");
    }

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        check("", &[]);
        check(
            "a=1&b=two+words&&c",
            &[("a", "1"), ("b", "two words"), ("c", "")],
        );
        check(
            "match%5B%5D=%7Ba%3D%22%C3%BC%22%7D",
            &[("match[]", "{a=\"ü\"}")],
        );
        check("a==b&=x", &[("a", "=b"), ("", "x")]);
    }

    #[test]
    fn broken_escapes_are_named() {
        for (text, expect) in [
            (
                "a=%zz",
                "error parsing form values: invalid URL escape \"%zz\"",
            ),
            (
                "a=%4",
                "error parsing form values: invalid URL escape \"%4\"",
            ),
            ("a=%ff", "error parsing form values: a value is not UTF-8"),
        ] {
            let error = parse_pairs(text.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), expect);
        }
    }
}
