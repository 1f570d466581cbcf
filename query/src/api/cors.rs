//! Answers for scripts of other origins, as Prometheus gives them.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use regex::Regex;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const HEADERS: HeaderValue =
    HeaderValue::from_static("Accept, Authorization, Content-Type, Origin");
const EXPOSED: HeaderValue = HeaderValue::from_static("Date");

/// Whose scripts may read answers in a browser.
#[derive(Clone, Debug)]
pub struct CorsOrigin {
    /// `None` for all.
    pattern: Option<Regex>,
}

impl CorsOrigin {
    /// Origins that `pattern` matches as a whole; `.*` is everybody.
    ///
    /// # Errors
    ///
    /// The pattern is no regular expression.
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        let pattern = match pattern {
            ".*" => None,
            pattern => Some(Regex::new(&format!("^(?:{pattern})$"))?),
        };
        Ok(Self { pattern })
    }

    /// What the answer to `origin` says.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.pattern {
            None => Some(HeaderValue::from_static("*")),
            Some(pattern) => origin
                .to_str()
                .is_ok_and(|origin| pattern.is_match(origin))
                .then(|| origin.clone()),
        }
    }
}

/// Adds what a browser wants to know to the headers of an answer.
pub(super) fn add(setting: Option<&CorsOrigin>, origin: Option<&HeaderValue>, to: &mut HeaderMap) {
    let Some(setting) = setting else { return };
    to.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    let mut put = |name: HeaderName, value| to.insert(name, value);
    put(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    put(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    put(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if let Some(allowed) = setting.allowed(origin) {
        put(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
}
