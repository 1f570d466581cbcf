//! Tokens and certificates change while clients push and query, and no request fails.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustls::ClientConfig;

use super::{create, token};
use crate::support::tls::{Pair, TlsClient, trusting};
use crate::support::{Millrace, eventually, now_ms};

fn write(dir: &Path, pair: &Pair) {
    // Both names change at once for whoever reads them in between: a rename each, key last.
    for (name, text) in [("cert.pem", &pair.certificate), ("key.pem", &pair.key)] {
        let new = dir.join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, dir.join(name)).unwrap();
    }
}

fn settings(dir: &Path) -> Vec<String> {
    vec![
        "auth.enabled=true".to_owned(),
        format!(
            "server.tls.certificate_file={}",
            dir.join("cert.pem").display()
        ),
        format!("server.tls.key_file={}", dir.join("key.pem").display()),
    ]
}

fn start(dir: &Path, settings: &[String]) -> Millrace {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Millrace::spawn(dir, &settings)
}

fn wait_ready(client: &mut TlsClient) {
    eventually("ready", Duration::from_secs(60), || {
        match client.send("GET", "/-/ready", &[], b"") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Pushes and queries until it is told to stop; what failed.
struct Load<'a> {
    url: &'a str,
    trust: Arc<ClientConfig>,
    token: &'a RwLock<String>,
    stop: &'a AtomicBool,
    done: &'a AtomicU64,
    /// The token of its last request that was answered.
    shown: &'a Mutex<String>,
}

impl Load<'_> {
    fn run(&self, number: usize) -> Vec<String> {
        let mut client = TlsClient::new(self.url, self.trust.clone());
        let mut failed = Vec::new();
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            n += 1;
            let token = self.token.read().unwrap().clone();
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let line = format!("load,client={number} value={n} {}000000", now_ms());
            let outcome = if n % 3 == 0 {
                client.send(
                    "GET",
                    "/api/v1/query?query=count(load_value)",
                    &headers,
                    b"",
                )
            } else {
                client.send("POST", "/write", &headers, line.as_bytes())
            };
            match outcome {
                Ok((200 | 204, _)) => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    *self.shown.lock().unwrap() = token;
                }
                other => failed.push(format!("{other:?}")),
            }
            if n % 7 == 0 {
                client.reconnect();
            }
        }
        failed
    }
}

#[test]
fn neither_a_new_token_nor_a_new_certificate_fails_a_request_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pairs = [Pair::new(), Pair::new(), Pair::new()];
    write(dir, &pairs[0]);
    let scopes = ["read", "write", "monitor"];
    let first = create(dir, "anonymous", &scopes, &[]);
    let server = start(dir, &settings(dir));
    let trust = trusting(&pairs.iter().collect::<Vec<_>>(), None);
    let mut client = TlsClient::new(&server.url, trust.clone());
    wait_ready(&mut client);
    let (current, stop, done) = (
        RwLock::new(first),
        AtomicBool::new(false),
        AtomicU64::new(0),
    );
    let shown = [(); 4].map(|()| Mutex::default());
    let failed = std::thread::scope(|scope| {
        let loads: Vec<_> = shown
            .iter()
            .enumerate()
            .map(|(number, shown)| {
                let load = Load {
                    url: &server.url,
                    trust: trust.clone(),
                    token: &current,
                    stop: &stop,
                    done: &done,
                    shown,
                };
                scope.spawn(move || load.run(number))
            })
            .collect();
        let more = |by: u64| {
            let goal = done.load(Ordering::Relaxed) + by;
            eventually("requests", Duration::from_secs(60), || {
                let now = done.load(Ordering::Relaxed);
                (now >= goal)
                    .then_some(())
                    .ok_or_else(|| format!("{now} of {goal}"))
            });
        };
        let mut metric = |name: &str, at_least: u64| {
            eventually(name, Duration::from_secs(60), || {
                let bearer = format!("Bearer {}", current.read().unwrap());
                let sent = client.send("GET", "/metrics", &[("authorization", &bearer)], b"");
                let (status, text) = sent.map_err(|error| error.to_string())?;
                let value = text
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
                let seen = value.unwrap_or(0.0);
                (seen >= at_least as f64)
                    .then_some(())
                    .ok_or_else(|| format!("{status} {seen}"))
            });
        };
        more(50);
        for round in 1..=2 {
            // The token: a new one, then all clients take it, then the old one goes.
            let old = current.read().unwrap().clone();
            let id = old.split('_').nth(1).unwrap().to_owned();
            let (new, _) = token(dir, &["rotate", &id, "--overlap", "1h"]);
            metric(
                "millrace_auth_reloads_total{what=\"tokens\"}",
                2 * round - 1,
            );
            *current.write().unwrap() = new.clone();
            eventually(
                "all clients to show the new token",
                Duration::from_secs(60),
                || {
                    let all = shown.iter().all(|shown| *shown.lock().unwrap() == new);
                    all.then_some(()).ok_or_else(|| "not yet".to_owned())
                },
            );
            token(dir, &["revoke", &id]);
            metric("millrace_auth_reloads_total{what=\"tokens\"}", 2 * round);
            more(50);
            // The certificate.
            write(dir, &pairs[usize::try_from(round).unwrap()]);
            metric("millrace_auth_reloads_total{what=\"tls\"}", round);
            more(50);
        }
        stop.store(true, Ordering::Relaxed);
        let failed = loads.into_iter().flat_map(|load| load.join().unwrap());
        failed.collect::<Vec<_>>()
    });
    assert!(
        failed.is_empty(),
        "{} of {:?}: {failed:?}",
        failed.len(),
        done
    );
    println!("{done:?} requests, none failed");
    // It is the newest certificate that is shown now, and no other.
    let newest = trusting(&[&pairs[2]], None);
    let mut client = TlsClient::new(&server.url, newest);
    assert_eq!(client.send("GET", "/-/healthy", &[], b"").unwrap().0, 200);
    let mut client = TlsClient::new(&server.url, trusting(&[&pairs[0]], None));
    assert!(client.send("GET", "/-/healthy", &[], b"").is_err());
}

#[test]
fn a_bad_new_certificate_leaves_the_old_one_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pair = Pair::new();
    write(dir, &pair);
    let monitor = create(dir, "anonymous", &["monitor"], &[]);
    let server = start(dir, &settings(dir));
    let mut client = TlsClient::new(&server.url, trusting(&[&pair], None));
    wait_ready(&mut client);
    std::fs::write(dir.join("cert.pem"), "nothing").unwrap();
    server.signal(rustix::process::Signal::HUP);
    let bearer = format!("Bearer {monitor}");
    eventually("the metric", Duration::from_secs(60), || {
        client.reconnect();
        let (_, text) = client
            .send("GET", "/metrics", &[("authorization", &bearer)], b"")
            .map_err(|e| e.to_string())?;
        let told = text.contains("millrace_auth_reload_errors_total{what=\"tls\"}");
        told.then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    let (_, log) = server.terminate();
    assert!(
        log.contains("cannot be taken") && log.contains("cert.pem"),
        "{log}"
    );
}

#[test]
fn a_server_that_asks_for_client_certificates_talks_to_nobody_without() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (pair, known, unknown) = (Pair::new(), Pair::new(), Pair::new());
    write(dir, &pair);
    std::fs::write(dir.join("ca.pem"), &known.certificate).unwrap();
    let mut settings = settings(dir);
    settings.push(format!(
        "server.tls.client_ca_file={}",
        dir.join("ca.pem").display()
    ));
    let server = start(dir, &settings);
    let mut client = TlsClient::new(&server.url, trusting(&[&pair], Some(&known)));
    wait_ready(&mut client);
    for shows in [None, Some(&unknown)] {
        let mut client = TlsClient::new(&server.url, trusting(&[&pair], shows));
        let answer = client.send("GET", "/-/healthy", &[], b"");
        assert!(answer.is_err(), "{answer:?}");
    }
    // A client certificate is no token.
    let (status, _) = client.send("GET", "/api/v1/labels", &[], b"").unwrap();
    assert_eq!(status, 401);
}
