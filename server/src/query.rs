//! `millrace query`: a PromQL answer as a table.

use serde_json::Value;

use crate::cli::QueryArgs;
use crate::commands::client;
use crate::failure::Failure;

/// Asks the server and prints the answer.
///
/// # Errors
///
/// The server cannot be reached, or refuses the question.
pub fn run(args: &QueryArgs) -> Result<(), Failure> {
    let url = format!("{}/api/v1/query", args.url.trim_end_matches('/'));
    let mut form = vec![("query", args.expression.as_str())];
    if let Some(time) = &args.time {
        form.push(("time", time));
    }
    let body = form
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect::<Vec<_>>()
        .join("&");
    let answer = client::client()?
        .post(&url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .and_then(|response| response.json::<Value>())
        .map_err(|error| {
            Failure::Client(format!(
                "{url} does not answer: {}; is the server running? `millrace` starts one, \
                 --url names another",
                client::why(&error)
            ))
        })?;
    if answer["status"] != "success" {
        return Err(Failure::Client(format!(
            "{}: {}",
            answer["errorType"].as_str().unwrap_or("error"),
            answer["error"]
                .as_str()
                .unwrap_or("the answer is not the Prometheus API's")
        )));
    }
    let rows = rows(&answer["data"]).ok_or_else(|| {
        Failure::Client(format!(
            "{url} answers in a shape that is not the Prometheus API's"
        ))
    })?;
    crate::print(&table(&rows))
}

/// Percent-encodes a form value (<https://url.spec.whatwg.org/#urlencoded-serializing>).
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn rows(data: &Value) -> Option<Vec<(String, String)>> {
    let result = &data["result"];
    match data["resultType"].as_str()? {
        "scalar" | "string" => Some(vec![(String::new(), result[1].as_str()?.to_owned())]),
        "vector" => result
            .as_array()?
            .iter()
            .map(|item| {
                Some((
                    series(&item["metric"])?,
                    item["value"][1].as_str()?.to_owned(),
                ))
            })
            .collect(),
        "matrix" => result
            .as_array()?
            .iter()
            .map(|item| {
                let values: Option<Vec<&str>> = item["values"]
                    .as_array()?
                    .iter()
                    .map(|pair| pair[1].as_str())
                    .collect();
                Some((series(&item["metric"])?, values?.join(" ")))
            })
            .collect(),
        _ => None,
    }
}

fn series(metric: &Value) -> Option<String> {
    let metric = metric.as_object()?;
    let name = metric.get("__name__").and_then(Value::as_str).unwrap_or("");
    let labels: Vec<String> = metric
        .iter()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    Some(if labels.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", labels.join(", "))
    })
}

fn table(rows: &[(String, String)]) -> String {
    if rows.is_empty() {
        return "no series\n".to_owned();
    }
    let width = rows
        .iter()
        .map(|(s, _)| s.chars().count())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(series, value)| {
            if width == 0 {
                format!("{value}\n")
            } else {
                format!("{series:width$}  {value}\n")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_become_tables() {
        let vector = json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "a"}, "value": [1, "1"]},
            {"metric": {"job": "bc"}, "value": [1, "NaN"]},
        ]});
        let shown = table(&rows(&vector).unwrap());
        assert_eq!(shown, "up{job=\"a\"}  1\n{job=\"bc\"}   NaN\n");
        let scalar = json!({"resultType": "scalar", "result": [1, "2"]});
        assert_eq!(table(&rows(&scalar).unwrap()), "2\n");
        assert_eq!(table(&[]), "no series\n");
        assert_eq!(rows(&json!({"resultType": "cube"})), None);
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(escape("a{b=\"c d+\"}"), "a%7Bb%3D%22c%20d%2B%22%7D");
    }
}
