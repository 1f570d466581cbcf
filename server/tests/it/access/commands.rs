//! `millrace token`, and what a running server makes of it.

use std::time::Instant;

use super::{bearer, create, token, until};
use crate::support::{Millrace, eventually, fail};

#[test]
fn tokens_made_revoked_and_rotated_hold_without_a_restart_and_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = Millrace::start(dir, &["auth.enabled=true"]);
    let client = server.client();
    let path = "/api/v1/labels";
    assert_eq!(client.get(path).status, 401);
    let (first, id) = token(dir, &["create", "--name", "grafana", "--scope", "read"]);
    let begun = Instant::now();
    until(&client, path, &first, 200);
    println!("a new token held after {:?}", begun.elapsed());
    let (second, _) = token(dir, &["rotate", &id, "--overlap", "1h"]);
    until(&client, path, &second, 200);
    until(&client, path, &first, 200);
    token(dir, &["revoke", &id]);
    until(&client, path, &first, 401);
    until(&client, path, &second, 200);
    let expired = create(dir, "anonymous", &["read"], &["--expires", "1ms"]);
    let monitor = create(dir, "anonymous", &["monitor"], &[]);
    // Before the server has read the file it does not know the token, which is 401 too.
    eventually("the reason", super::PATIENCE, || {
        until(&client, path, &expired, 401);
        let headers = [("authorization", &*bearer(&monitor))];
        let metrics = client.send("GET", "/metrics", &headers, Vec::new());
        let text = metrics.map_err(|error| error.to_string())?.text;
        let told = text.contains("millrace_auth_refused_total{reason=\"expired\"}");
        told.then_some(()).ok_or(text)
    });

    let (listed, _) = token(dir, &["list"]);
    for expect in ["grafana", "revoked", "valid", "expired", "anonymous"] {
        assert!(listed.contains(expect), "no {expect} in\n{listed}");
    }
    let audit = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    let acts: Vec<String> = audit
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|act| act["what"].as_str().unwrap().to_owned())
        .collect();
    let expect = [
        "token_create",
        "token_rotate",
        "token_revoke",
        "token_create",
        "token_create",
    ];
    assert_eq!(acts, expect, "{audit}");
    let file = std::fs::read_to_string(dir.join("tokens.json")).unwrap();
    for secret in [&first, &second, &expired, &monitor] {
        let hidden = secret.rsplit('_').next().unwrap();
        assert!(!(audit.clone() + &file + &listed).contains(hidden));
    }
}

#[test]
fn a_reload_is_answered_when_tokens_are_read_and_says_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let admin = create(dir, "anonymous", &["admin", "read"], &[]);
    let server = Millrace::start(dir, &["auth.enabled=true", "server.admin_api=true"]);
    let client = server.client();
    let reload = || {
        let headers = [("authorization", &*bearer(&admin))];
        client.post("/-/reload", &headers, "")
    };
    for _ in 0..5 {
        let new = create(dir, "anonymous", &["read"], &[]);
        assert_eq!(reload().status, 200);
        let headers = [("authorization", &*bearer(&new))];
        let asked = client.send("GET", "/api/v1/labels", &headers, Vec::new());
        assert_eq!(asked.unwrap().status, 200);
    }
    std::fs::write(dir.join("tokens.json"), "nothing").unwrap();
    let failed = reload();
    assert_eq!(failed.status, 500, "{failed:?}");
    assert!(failed.text.contains("tokens.json"), "{failed:?}");
}

#[test]
fn a_new_token_is_shown_though_it_cannot_be_noted_and_no_server_starts_that_could_note_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    std::fs::create_dir(dir.path().join("audit.jsonl")).unwrap();
    let output = Millrace::command()
        .args(["token", "--data-dir", data, "create", "--name", "a"])
        .args(["--scope", "read"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("done, but not noted"), "{stderr}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let id = shown.split('_').nth(1).unwrap();
    assert!(token(dir.path(), &["list"]).0.contains(id));
    let refused = fail(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
        "--set",
        "server.admin_api=true",
    ]);
    assert!(refused.contains("auth.audit_file"), "{refused}");
}

#[test]
fn a_public_address_without_tokens_is_refused_and_with_them_serves_no_admin_routes() {
    let dir = tempfile::tempdir().unwrap();
    let admin = create(dir.path(), "anonymous", &["admin", "read"], &[]);
    let out = Millrace::command()
        .args([
            "--listen",
            "0.0.0.0:0",
            "--set",
            "server.admin_listen=0.0.0.0:0",
        ])
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(78));
    let server = Millrace::start(
        dir.path(),
        &["auth.enabled=true", "server.admin_listen=127.0.0.1:0"],
    );
    let client = server.client();
    let header = super::bearer(&admin);
    let headers = [("authorization", header.as_str())];
    let here = client
        .send("GET", "/api/v1/queue", &headers, Vec::new())
        .unwrap();
    assert_eq!(here.status, 404, "{here:?}");
    let line = server
        .banner()
        .lines()
        .find(|line| line.contains("  admin "));
    let url = line.unwrap().split_whitespace().last().unwrap();
    let own = crate::support::Client::new(url);
    let there = own
        .send("GET", "/api/v1/queue", &headers, Vec::new())
        .unwrap();
    assert_eq!(there.status, 200, "{there:?}");
    assert_eq!(own.get("/api/v1/queue").status, 401);
    let data = own
        .send("GET", "/api/v1/labels", &headers, Vec::new())
        .unwrap();
    assert_eq!(data.status, 404, "{data:?}");
    // The commands show a token too.
    let file = dir.path().join("token");
    std::fs::write(&file, &admin).unwrap();
    let file = file.to_str().unwrap();
    let shown = crate::support::succeed(&["queue", "tail", "--url", url, "--token-file", file]);
    assert!(shown.is_empty(), "{shown}");
    crate::support::fail(&["queue", "tail", "--url", url]);
}
