//! A query process that asks its stores by TLS, with a token and a certificate, all of which change while
//! it asks.

use std::path::Path;

use super::PATIENCE;
use crate::support::kafka::Cluster;
use crate::support::tls::{Pair, trusting};
use crate::support::{Client, Millrace, escape, eventually, succeed};

fn token(dir: &Path, name: &str, scopes: &[&str]) -> String {
    let data = dir.to_str().unwrap();
    let mut args = vec!["token", "create", "--data-dir", data, "--name", name];
    for scope in scopes {
        args.extend(["--scope", scope]);
    }
    succeed(&args).trim().to_owned()
}

/// Asks until the answer has this status and text.
fn until(client: &Client, expect: (u16, &str)) {
    eventually("an answer", PATIENCE, || {
        let answer = client.get(&format!("/api/v1/query?query={}", escape("sum(heat)")));
        let there = answer.status == expect.0 && answer.text.contains(expect.1);
        there.then_some(()).ok_or_else(|| format!("{answer:?}"))
    });
}

#[test]
fn stores_are_asked_by_tls_and_new_tokens_and_certificates_hold_at_once() {
    let topic = Cluster::shared().topic("fleet-tls").create(2, 1);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let (pair, own) = (Pair::new(), Pair::new());
    let (certificate, key) = pair.write(dir, "store");
    let (own_certificate, own_key) = own.write(dir, "own");
    let store_dir = dir.join("store");
    let writer = token(&store_dir, "writer", &["write", "monitor"]);
    let asks = token(&store_dir, "fleet", &["fleet"]);
    std::fs::write(dir.join("token"), &asks).unwrap();

    let file = |key: &str, path: &Path| format!("{key}={}", path.display());
    let own_settings = [
        "roles=ingest,store",
        "auth.enabled=true",
        &file("server.tls.certificate_file", &certificate),
        &file("server.tls.key_file", &key),
        &file("server.tls.client_ca_file", &own_certificate),
    ];
    let store = Millrace::spawn(&store_dir, &topic.settings(&own_settings));
    let to_store = Client::with_tls(&store.url, &trusting(&[&pair], Some(&own)));
    let bearer = format!("Bearer {writer}");
    let headers = [("authorization", bearer.as_str())];
    eventually("a push", PATIENCE, || {
        let answer = to_store.post("/write", &headers, "heat,device=a value=3\n");
        let taken = answer.status == 204;
        taken.then_some(()).ok_or_else(|| format!("{answer:?}"))
    });

    let address = store.url.trim_start_matches("https://");
    let query = [
        "roles=query",
        &format!("fleet.stores={address}"),
        "fleet.poll_interval=100ms",
        "fleet.tls=true",
        &file("fleet.tls_ca_file", &certificate),
        &file("fleet.tls_certificate_file", &own_certificate),
        &file("fleet.tls_key_file", &own_key),
        &file("fleet.token_file", &dir.join("token")),
    ];
    let query = Millrace::spawn(&dir.join("query"), &query);
    query.wait_ready();
    let reads = query.client();
    until(&reads, (200, r#","3"]"#));

    // The store's new certificate: nobody vouches for it until the file does.
    let next = Pair::new();
    next.write(dir, "store.new");
    for kind in ["pem", "key"] {
        let new = dir.join(format!("store.new.{kind}"));
        // The query process's copy of what it believes is this very file.
        std::fs::rename(new, dir.join(format!("store.{kind}"))).unwrap();
    }
    let trust = trusting(&[&next], Some(&own));
    eventually("the new certificate", PATIENCE, || {
        let answer =
            Client::with_tls(&store.url, &trust).send("GET", "/-/healthy", &[], Vec::new());
        answer.map(drop).map_err(|error| error.to_string())
    });
    until(&reads, (200, r#","3"]"#));

    // A token that is gone is an error that says so, and the next one in the file mends it.
    let id = asks.split('_').nth(1).unwrap();
    let data = store_dir.to_str().unwrap();
    succeed(&["token", "revoke", "--data-dir", data, id]);
    until(&reads, (503, "unavailable"));
    let asks = token(&store_dir, "fleet", &["fleet"]);
    std::fs::write(dir.join("token"), &asks).unwrap();
    until(&reads, (200, r#","3"]"#));

    // Our own new certificate is taken too; connections that there are go on.
    Pair::new().write(dir, "own");
    eventually("the metric", PATIENCE, || {
        let text = reads.get("/metrics").text;
        let told = text.contains("millrace_auth_reloads_total{what=\"fleet_tls\"}");
        told.then_some(()).ok_or(text)
    });
    let (_, log) = query.terminate();
    let secret = asks.rsplit('_').next().unwrap();
    assert!(!log.contains(secret), "{log}");
    let (status, stderr) = store.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_query_process_that_does_not_believe_its_store_says_why() {
    let topic = Cluster::shared().topic("fleet-stranger").create(1, 1);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let (pair, other) = (Pair::new(), Pair::new());
    let (certificate, key) = pair.write(dir, "store");
    let (other, _) = other.write(dir, "other");
    let file = |key: &str, path: &Path| format!("{key}={}", path.display());
    let settings = [
        "roles=ingest,store",
        &file("server.tls.certificate_file", &certificate),
        &file("server.tls.key_file", &key),
    ];
    let store = Millrace::spawn(&dir.join("store"), &topic.settings(&settings));
    let stores = format!("fleet.stores={}", store.url.trim_start_matches("https://"));
    let believes = file("fleet.tls_ca_file", &other);
    for (name, settings, expect) in [
        (
            "stranger",
            vec!["fleet.tls=true", &believes],
            "invalid peer certificate",
        ),
        // Plain HTTP to a store that speaks TLS.
        ("plain", vec![], "invalid HTTP version"),
    ] {
        let settings = [&["roles=query", &stores][..], &settings].concat();
        let query = Millrace::start(&dir.join(name), &settings);
        let client = query.client();
        eventually("what is wrong", PATIENCE, || {
            let text = client.get("/api/v1/status/fleet").text;
            text.contains(expect).then_some(()).ok_or(text)
        });
    }
}
