//! Secrets are seen in no output of the server, whatever is asked and however much it logs.

use super::{bearer, create, until};
use crate::support::{Millrace, succeed};

#[test]
fn no_secret_is_in_logs_metrics_errors_files_or_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let scopes = ["read", "write", "monitor", "admin"];
    let good = create(dir, "a", &scopes, &[]);
    let gone = create(dir, "a", &scopes, &[]);
    super::token(dir, &["revoke", gone.split('_').nth(1).unwrap()]);
    let set = [
        "auth.enabled=true",
        "server.admin_api=true",
        "log.level=debug",
    ];
    let server = Millrace::start(dir, &set);
    let client = server.client();
    until(&client, "/api/v1/labels", &good, 200);
    let mut said = server.banner().to_owned();
    for token in [&good, &gone] {
        let basic = format!("Basic {}", base64(&format!("user:{token}")));
        for header in [
            bearer(token),
            basic,
            format!("Token {token}"),
            format!("Bearer {token}x"),
        ] {
            let headers = [("authorization", header.as_str())];
            for path in [
                "/metrics",
                "/api/v1/query?query=%7B",
                "/api/v1/status/config",
                "/api/v1/status/flags",
                "/nowhere",
            ] {
                said += &client.send("GET", path, &headers, Vec::new()).unwrap().text;
            }
            for path in ["/write", "/api/v1/push", "/api/v1/admin/tsdb/delete_series"] {
                said += &client.post(path, &headers, "no such thing").text;
            }
        }
        for path in [
            format!("/write?u=user&p={token}&db=x"),
            format!("/query?u=user&p={token}&q=DROP+DATABASE"),
            format!("/api/v1/admin/tsdb/delete_series?p={token}&match[]=x"),
        ] {
            let headers = [("authorization", bearer(&good))];
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            said += &client.post(&path, &headers, "a b").text;
            said += &client.post(&path, &[], "a b").text;
        }
    }
    let metrics = client.send(
        "GET",
        "/metrics",
        &[("authorization", &bearer(&good))],
        Vec::new(),
    );
    let metrics = metrics.unwrap().text;
    said += &metrics;
    for reason in ["missing", "malformed", "revoked"] {
        let expect = format!("millrace_auth_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&expect), "no {expect}");
    }
    let data = dir.to_str().unwrap();
    said += &succeed(&["config", "--data-dir", data, "--set", "auth.enabled=true"]);
    said += &succeed(&["token", "list", "--data-dir", data]);
    said += &succeed(&["token", "list", "--json", "--data-dir", data]);
    for file in ["tokens.json", "audit.jsonl"] {
        said += &std::fs::read_to_string(dir.join(file)).unwrap();
    }
    let (_, log) = server.terminate();
    assert!(log.contains("DEBUG"), "the log says little:\n{log}");
    assert!(log.contains("administrative act"), "{log}");
    said += &log;
    for token in [&good, &gone] {
        let secret = token.rsplit('_').next().unwrap();
        if let Some(at) = said.find(secret) {
            let from = at.saturating_sub(300);
            panic!(
                "a secret was said: …{}",
                String::from_utf8_lossy(&said.as_bytes()[from..at])
            );
        }
        assert!(!said.contains(&base64(&format!("user:{token}"))));
    }
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bits = 0u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}
