//! `millrace retention`: what retention of a running server would let go now; `--now` lets it go.

use chrono::DateTime;
use serde_json::Value;

use crate::cli::RetentionArgs;
use crate::commands::client;
use crate::failure::Failure;

/// Asks the server and prints the answer, and has it done with `--now`.
///
/// # Errors
///
/// The server cannot be reached, or refuses.
pub fn run(args: &RetentionArgs) -> Result<(), Failure> {
    let url = format!("{}/api/v1/admin/retention", args.url.trim_end_matches('/'));
    let asked = client::client()?.get(&url).send();
    let answer = asked.and_then(|response| response.json::<Value>());
    let answer = answer.map_err(|error| {
        Failure::Client(format!(
            "{url} does not answer: {}; is the server running? --url names another",
            client::why(&error)
        ))
    })?;
    if answer["status"] != "success" {
        return Err(Failure::Client(format!(
            "{}: {}",
            answer["errorType"].as_str().unwrap_or("error"),
            answer["error"]
                .as_str()
                .unwrap_or("the answer is no report")
        )));
    }
    let data = &answer["data"];
    if args.now {
        let url = format!("{url}/run");
        let done = client::builder()?.timeout(None);
        let done = client::built(done)?.post(&url).send();
        let done = done.and_then(reqwest::blocking::Response::error_for_status);
        done.map_err(|error| Failure::Client(format!("{url}: {}", client::why(&error))))?;
    }
    crate::print(&report(data, args.now))
}

/// The report as text.
fn report(data: &Value, gone: bool) -> String {
    let mut out = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    if data["clock_frozen"] == true {
        out.push_str("The clock has jumped ahead and is not believed.\n");
    }
    let items = data["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        out.push_str(if gone {
            "Nothing had to go.\n"
        } else {
            "Nothing would go.\n"
        });
        return out;
    }
    out.push_str("partition  block                  from                  to                       series      samples        bytes  what     why\n");
    for item in items {
        let what = item["what"].as_str().unwrap_or("");
        out.push_str(&format!(
            "{:>9}  {:<21}  {}  {}  {:>8}  {:>11}  {:>11}  {what:<7}  {}\n",
            number(&item["partition"]),
            item["block"].as_str().unwrap_or(""),
            moment(&item["start_ms"]),
            moment(&item["end_ms"]),
            number(&item["series"]),
            number(&item["samples"]),
            number(&item["bytes"]),
            item["reason"].as_str().unwrap_or(""),
        ));
    }
    out.push_str(&format!(
        "{} samples, {} bytes, counted from {}{}\n",
        number(&data["samples"]),
        number(&data["bytes"]),
        moment(&data["now_ms"]),
        if gone { ": gone" } else { "" }
    ));
    out
}

fn moment(value: &Value) -> String {
    let time = value.as_i64().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(
        || format!("{value:<20}"),
        |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_names_each_block_and_the_sum() {
        let text = report(
            &json!({
                "now_ms": 1_795_233_600_000i64, "clock_frozen": true, "samples": 12, "bytes": 400,
                "items": [{"partition": 1, "block": "0000000000000001-0000", "start_ms": 0,
                    "end_ms": 7_199_999, "series": 3, "samples": 12, "bytes": 400, "what": "series",
                    "reason": "age"}],
            }),
            false,
        );
        for part in [
            "not believed",
            "0000000000000001-0000",
            "1970-01-01T01:59:59Z",
            "series   age",
            "12 samples, 400 bytes",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(report(&json!({"items": []}), false), "Nothing would go.\n");
        assert_eq!(report(&json!({"items": []}), true), "Nothing had to go.\n");
    }
}
