//! Tokens, tenants, TLS: who reaches what, from outside.

mod commands;
mod isolation;
mod matrix;
mod protocols;
mod rotation;
mod secrets;
mod tls_commands;

use std::path::Path;
use std::time::Duration;

use crate::support::{Client, Millrace, eventually};

/// Makes a token; the token, and its id.
fn token(dir: &Path, args: &[&str]) -> (String, String) {
    let output = Millrace::command()
        .args(["token", "--data-dir"])
        .arg(dir)
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let id = token.split('_').nth(1).unwrap_or_default().to_owned();
    (token, id)
}

pub fn create(dir: &Path, tenant: &str, scopes: &[&str], more: &[&str]) -> String {
    let mut args = vec!["create", "--name", "test", "--tenant", tenant];
    for scope in scopes {
        args.extend(["--scope", scope]);
    }
    args.extend(more);
    token(dir, &args).0
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Longer than a server may take to see a change of the tokens, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a request with that token is answered so.
fn until(client: &Client, path: &str, token: &str, status: u16) {
    let header = bearer(token);
    eventually("a change of the tokens", PATIENCE, || {
        let headers = [("authorization", header.as_str())];
        let answer = client.send("GET", path, &headers, Vec::new());
        let found = answer.map_err(|error| error.to_string())?.status;
        (found == status).then_some(()).ok_or(format!("{found}"))
    });
}
