//! An HTTP client that never retries by itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::blocking;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    http: blocking::Client,
    url: String,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_else(|| panic!("no header {name}: {self:?}"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn read(response: blocking::Response) -> reqwest::Result<Self> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text()?,
        })
    }
}

impl Client {
    pub fn new(url: &str) -> Self {
        Self::with_tls(url, &super::tls::trusting(&[], None))
    }

    /// Of a server that may speak TLS.
    pub fn with_tls(url: &str, tls: &rustls::ClientConfig) -> Self {
        let http = blocking::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .timeout(Duration::from_secs(60))
            .retry(reqwest::retry::never())
            .build()
            .expect("a client");
        Self {
            http,
            url: url.to_owned(),
        }
    }

    /// A request to be made by hand.
    pub fn request(&self, method: reqwest::Method, path: &str) -> blocking::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new())
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        self.try_post(path, headers, body)
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// An error means that the outcome is unknown.
    pub fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> reqwest::Result<Answer> {
        self.send("POST", path, headers, body.into())
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> reqwest::Result<Answer> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.url));
        Answer::read(request.headers(map).body(body).send()?)
    }

    /// The `data` of a successful query.
    pub fn query(&self, expression: &str, time: Option<&str>) -> Value {
        self.query_with(expression, time, &[])
    }

    pub fn query_with(
        &self,
        expression: &str,
        time: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Value {
        let mut form = format!("query={}", escape(expression));
        if let Some(time) = time {
            form.push_str(&format!("&time={time}"));
        }
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        let answer = self.post("/api/v1/query", &all, form);
        assert_eq!(answer.status, 200, "{expression}: {answer:?}");
        answer.json()["data"].clone()
    }

    /// The `data` of a successful range query.
    pub fn query_range(&self, expression: &str, start: &str, end: &str, step: &str) -> Value {
        let form = format!(
            "query={}&start={start}&end={end}&step={step}",
            escape(expression)
        );
        let answer = self.post(
            "/api/v1/query_range",
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        );
        assert_eq!(answer.status, 200, "{expression}: {answer:?}");
        answer.json()["data"].clone()
    }
}

/// Percent-encodes a form value.
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// A vector as label set → value.
pub fn vector(data: &Value) -> BTreeMap<String, f64> {
    assert_eq!(data["resultType"], "vector", "{data}");
    let result = data["result"].as_array().expect("an array");
    result
        .iter()
        .map(|item| (item["metric"].to_string(), number(&item["value"][1])))
        .collect()
}

/// A matrix as label set → (timestamp in ms, value).
pub fn matrix(data: &Value) -> BTreeMap<String, Vec<(i64, f64)>> {
    assert_eq!(data["resultType"], "matrix", "{data}");
    let result = data["result"].as_array().expect("an array");
    let samples = |item: &Value| {
        item["values"]
            .as_array()
            .expect("an array")
            .iter()
            .map(|pair| {
                let seconds = pair[0].as_f64().expect("a number");
                ((seconds * 1000.0).round() as i64, number(&pair[1]))
            })
            .collect()
    };
    result
        .iter()
        .map(|item| (item["metric"].to_string(), samples(item)))
        .collect()
}

fn number(value: &Value) -> f64 {
    match value.as_str().expect("values are texts") {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().expect("a number"),
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}
