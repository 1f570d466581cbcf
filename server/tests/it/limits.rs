//! Limits of tenants on a running server: overrides that are read again, what is told of their use, and refused
//! samples that are queued later.

use std::time::Duration;

use crate::support::{Client, Millrace, eventually, now_ms, remote_write, succeed, vector};

const PATIENCE: Duration = Duration::from_secs(30);

fn lines(name: &str, series: std::ops::Range<u32>) -> String {
    let now = now_ms();
    series
        .map(|n| format!("{name},n={n} value={n} {now}\n"))
        .collect()
}

fn push(client: &Client, body: String) -> u16 {
    client.post("/write?precision=ms", &[], body).status
}

#[test]
fn overrides_are_read_again_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.toml");
    let write = |text: &str| {
        let new = dir.path().join("limits.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    write("[tenant.anonymous]\nactive_series = 5\n");
    let setting = format!("ingest.tenants.overrides_file={}", file.display());
    let data = dir.path().join("data");
    let server = Millrace::start(&data, &[&setting]);
    let client = server.client();
    assert_eq!(push(&client, lines("a", 0..6)), 400);
    let used = client.get("/api/v1/status/limits").json();
    let of_tenant = &used["data"]["tenants"][0];
    assert_eq!(of_tenant["tenant"], "anonymous");
    assert_eq!(of_tenant["active_series"], 5);
    assert_eq!(of_tenant["active_series_limit"], 5);
    assert_eq!(of_tenant["refused_new_series"], 1);
    assert_eq!(of_tenant["top_metrics"][0]["name"], "a");
    assert_eq!(
        client.get("/api/v1/admin/limits").status,
        503,
        "not an admin's server"
    );

    write("[tenant.anonymous]\nactive_series = 8\n");
    eventually("the new limit", PATIENCE, || {
        let status = push(&client, lines("a", 0..8));
        (status == 204)
            .then_some(())
            .ok_or_else(|| status.to_string())
    });

    write("[tenant.anonymous]\nactive_series = 'many'\n");
    eventually("the complaint", PATIENCE, || {
        let metrics = client.get("/metrics").text;
        let bad = metrics.contains("\nmillrace_ingest_limit_overrides_bad 1\n");
        bad.then_some(()).ok_or(metrics)
    });
    assert_eq!(push(&client, lines("a", 0..8)), 204);
    assert_eq!(
        push(&client, lines("b", 0..1)),
        400,
        "the old limit is in force"
    );
    let (_, stderr) = server.terminate();
    assert!(
        stderr.contains("limits.toml: tenant anonymous: active_series must be"),
        "{stderr}"
    );

    // At the start it is an error.
    let stderr = Millrace::spawn(&data, &[&setting]).wait().1;
    assert!(stderr.contains("limits.toml"), "{stderr}");
}

#[test]
fn what_was_refused_is_kept_and_queued_once_somebody_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "ingest.tenants.active_series=2",
        "ingest.keep_rejected=1MiB",
        "server.admin_api=true",
    ];
    let server = Millrace::start(dir.path(), &settings);
    let client = server.client();
    let answer = client.post("/write?precision=ms&receipt=full", &[], lines("a", 0..5));
    assert_eq!(answer.status, 400);
    let receipt = answer.json();
    assert_eq!(
        (&receipt["accepted"], &receipt["kept_samples"]),
        (&2.into(), &3.into())
    );
    let old = remote_write::series(&[("__name__", "a"), ("n", "0")], &[(1000, 7.0)]);
    let old = remote_write::body(vec![old]);
    let old = client.post("/api/v1/write", remote_write::HEADERS, old);
    assert_eq!(old.status, 400, "too old, and kept too");

    let list = |client: &Client| client.get("/api/v1/dlq").json()["data"]["letters"].clone();
    let letters = eventually("the letters", PATIENCE, || {
        let letters = list(&client);
        let samples = |reason: &str| {
            let all = letters.as_array().unwrap().iter();
            all.filter(|l| l["reason"].as_str().unwrap().contains(reason))
                .count()
        };
        let both = samples("too_many_active_series") > 0 && samples("too_old") > 0;
        both.then(|| letters.clone())
            .ok_or_else(|| letters.to_string())
    });
    let name = letters[0]["name"].as_str().unwrap();
    let shown = client
        .get(&format!("/api/v1/dlq/letter?name={name}"))
        .json();
    assert!(
        shown["data"]["record"].to_string().contains("anonymous"),
        "{shown}"
    );

    let done = client.post("/api/v1/dlq/requeue?reason=too_many_active_series", &[], "");
    assert_eq!(done.status, 200, "{done:?}");
    eventually("all five series", PATIENCE, || {
        let count = vector(&client.query("count(a)", None));
        let count = count.values().next().copied().unwrap_or(0.0);
        (count == 5.0)
            .then_some(())
            .ok_or_else(|| count.to_string())
    });
    let left = list(&client);
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");

    // The rest is there after a stop, for the command.
    let dir = dir.path().to_str().unwrap();
    let listed = succeed(&["--data-dir", dir, "dlq", "list"]);
    assert!(listed.contains("too_old"), "{listed}");
    succeed(&[
        "--data-dir",
        dir,
        "dlq",
        "purge",
        "--reason",
        "too_old",
        "--yes",
    ]);
    assert_eq!(succeed(&["--data-dir", dir, "dlq", "list"]), "");
}
