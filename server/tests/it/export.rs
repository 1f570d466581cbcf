//! Series go out as text and come back bit for bit.

use std::path::Path;

use tempfile::TempDir;

use crate::support::{Client, Millrace, escape, now_ms};

const SET: &[&str] = &["log.level=error", "queue.partitions=2"];

fn succeed(args: &[&str]) -> String {
    let output = Millrace::command().args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stop(server: Millrace) {
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
}

/// Values of all kinds: the markers, the infinities, the zeros, the ends of the range, many digits.
const VALUES: &str = "1,-0.0,0,null,\"NaN(7ff0000000000002)\",\"NaN(fff8000000000123)\",\"Infinity\",\"-Infinity\",\
                      0.30000000000000004,5e-324,1.7976931348623157e308,9007199254740993,123456.78901234567";

fn fill(client: &Client, start: i64) {
    let count = 13;
    let times = |step: i64| {
        let all: Vec<String> = (0..count).map(|i| (start + i * step).to_string()).collect();
        all.join(",")
    };
    let mut body = String::new();
    for device in 0..5 {
        let labels = format!(
            "{{\"__name__\":\"odd\",\"device\":\"d{device}\",\"note\":\"a \\\"quoted\\\", comma\\nline ü\"}}"
        );
        body.push_str(&format!(
            "{{\"metric\":{labels},\"values\":[{VALUES}],\"timestamps\":[{}]}}\n",
            times(1_000 + device)
        ));
        body.push_str(&format!(
            "{{\"metric\":{{\"__name__\":\"plain\",\"device\":\"d{device}\"}},\"values\":[{VALUES}],\"timestamps\":[{}]}}\n",
            times(10_000)
        ));
    }
    let answer = client.post("/api/v1/import", &[], body);
    assert!(answer.status < 300, "{answer:?}");
    let position = answer.header("millrace-position").to_owned();
    let asked = client.query_with("count(odd)", None, &[("millrace-read-after", &position)]);
    assert_eq!(asked["resultType"], "vector");
}

#[test]
fn what_is_exported_and_imported_is_the_same_to_the_last_bit() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Millrace::start(&at("a"), SET);
    let start = now_ms() - 3_600_000;
    fill(&server.client(), start);
    let url = server.url.clone();
    let json = succeed(&["export", "--url", &url]);
    assert_eq!(json.lines().count(), 10, "{json}");
    for word in [
        "NaN(7ff0000000000002)",
        "NaN(fff8000000000123)",
        "-Infinity",
        ",-0,",
    ] {
        assert!(json.contains(word), "{word} in {json}");
    }
    succeed(&[
        "export",
        "--url",
        &url,
        "--format",
        "csv",
        "-o",
        text(&at("a.csv")),
    ]);
    // By matcher and time.
    let since = format!("{}", (start + 30_000) as f64 / 1e3);
    let some = [
        "export",
        "--url",
        &url,
        "plain{device=\"d1\"}",
        "--start",
        &since,
    ];
    let some = succeed(&some);
    assert_eq!(some.lines().count(), 1, "{some}");
    let path = format!(
        "/api/v1/export?match[]={}&max_rows_per_line=5",
        escape("plain{device=\"d1\"}")
    );
    let answer = server.client().get(&path);
    assert_eq!(
        (answer.status, answer.text.lines().count()),
        (200, 3),
        "{answer:?}"
    );
    let answer = server.client().get("/api/v1/export");
    assert_eq!(answer.status, 400, "{answer:?}");
    stop(server);

    let stopped = at("a");
    let offline = succeed(&["export", "--data-dir", text(&stopped)]);
    assert_eq!(offline, json);
    let subset = [
        "export",
        "--data-dir",
        text(&stopped),
        "plain{device=\"d1\"}",
        "--start",
        &since,
    ];
    assert_eq!(succeed(&subset), some);
    std::fs::write(at("a.jsonl"), &json).unwrap();
    for (name, format) in [("a.jsonl", "json"), ("a.csv", "csv")] {
        let copy = at(&format!("from-{format}"));
        let server = Millrace::start(&copy, SET);
        for _ in 0..2 {
            succeed(&[
                "import",
                text(&at(name)),
                "--format",
                format,
                "--url",
                &server.url,
            ]);
        }
        stop(server);
        let same = succeed(&["diff", text(&at("a")), text(&copy)]);
        assert_eq!(same, "no difference: 10 series, 130 samples\n", "{name}");
    }
}
