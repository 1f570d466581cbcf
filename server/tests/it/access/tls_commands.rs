//! millrace's own commands ask a server that speaks TLS, asks for tokens, and for certificates.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use super::create;
use crate::support::tls::{Pair, TlsClient, trusting};
use crate::support::{Millrace, eventually, fail};

/// A server, and what a command needs to be let in.
struct Guarded {
    dir: tempfile::TempDir,
    server: Millrace,
    token: String,
}

impl Guarded {
    fn start(pair: &Pair, own: Option<&Pair>) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let (certificate, key) = pair.write(dir, "server");
        let mut settings = vec![
            "auth.enabled=true".to_owned(),
            "server.admin_api=true".to_owned(),
            format!("server.tls.certificate_file={}", certificate.display()),
            format!("server.tls.key_file={}", key.display()),
        ];
        if let Some(own) = own {
            let (certificate, _) = own.write(dir, "own");
            let ca = certificate.display();
            settings.push(format!("server.tls.client_ca_file={ca}"));
        }
        let scopes = ["read", "write", "monitor", "admin"];
        let token = create(dir, "anonymous", &scopes, &[]);
        std::fs::write(dir.join("token"), &token).unwrap();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Millrace::spawn(dir, &settings);
        let mut client = TlsClient::new(&server.url, trusting(&[pair], own));
        eventually("ready", Duration::from_secs(60), || {
            let answer = client.send("GET", "/-/ready", &[], b"");
            let ready = matches!(answer, Ok((200, _)));
            ready.then_some(()).ok_or_else(|| format!("{answer:?}"))
        });
        Self {
            dir: temporary,
            server,
            token,
        }
    }

    fn file(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command with an environment.
    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Millrace::command();
        command.args(args).args(["--url", &self.server.url]);
        command.envs(environment.iter().copied());
        command.output().unwrap()
    }

    fn fails(&self, args: &[&str], environment: &[(&str, &str)], expect: &str) {
        let output = self.run(args, environment);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?} {environment:?}");
        assert!(said.contains(expect), "{args:?} {environment:?}: {said}");
        let secret = self.token.rsplit('_').next().unwrap();
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn every_command_that_asks_a_server_speaks_tls_and_shows_token_and_certificate() {
    let (pair, own) = (Pair::new(), Pair::new());
    let guarded = Guarded::start(&pair, Some(&own));
    let [ca, cert, key, token] =
        ["server.pem", "own.pem", "own.key", "token"].map(|name| guarded.file(name));
    let access = [
        "--ca-file",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
        "--token-file",
        &token,
    ];
    let environment = [
        ("MILLRACE_CA_FILE", ca.as_str()),
        ("MILLRACE_CERT_FILE", &cert),
        ("MILLRACE_KEY_FILE", &key),
        ("MILLRACE_TOKEN", &guarded.token),
    ];
    let (lines, backup) = (guarded.file("lines.json"), guarded.file("backup"));
    let backed = ["backup", &backup];
    let commands: [&[&str]; 9] = [
        &["demo", "--devices", "2", "--backfill", "1m", "--for", "1ms"],
        &["query", "count({__name__=~\".+\"})"],
        &["export"],
        &["import", &lines],
        &["queue", "tail"],
        &["dlq", "list"],
        &["retention", "--dry-run"],
        &["retention", "--now"],
        &backed,
    ];
    for command in commands {
        let begun = if command == backed {
            // A backup is taken of this server's directory.
            vec!["--data-dir", guarded.dir.path().to_str().unwrap()]
        } else {
            Vec::new()
        };
        // Without a certificate there is no connection, and without a token no answer.
        let bare = [command, &begun, &["--ca-file", &ca]].concat();
        if !["demo", "import"].contains(&command[0]) {
            // These two try again for half a minute.
            guarded.fails(&bare, &[], "CertificateRequired");
        }
        let stranger = [command, &begun, &access[..6]].concat();
        guarded.fails(&stranger, &[], "");
        let args = [command, &begun, &access].concat();
        let output = guarded.run(&args, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
        if command == backed {
            // What is there is not written over.
            std::fs::remove_dir_all(&backup).unwrap();
        } else if command == ["export"] {
            assert!(!output.stdout.is_empty());
            std::fs::write(&lines, &output.stdout).unwrap();
        }
        let output = guarded.run(&[command, &begun].concat(), &environment);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
    }
    assert!(Path::new(&backup).exists());
    guarded.fails(
        &["query", "up", "--ca-file", &ca],
        &environment[1..3],
        "a token is needed",
    );
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_shown_the_token() {
    let (pair, other) = (Pair::of(&["localhost"]), Pair::new());
    let guarded = Guarded::start(&pair, None);
    let [ca, token] = ["server.pem", "token"].map(|name| guarded.file(name));
    let (other, key) = other.write(guarded.dir.path(), "other");
    let other = other.to_str().unwrap();
    let query = ["query", "vector(1)", "--token-file", &token];
    let with = |more: &[&'static str]| -> Vec<&str> { [&query, more].concat() };
    // The system's authorities do not know it, whatever of them there is.
    guarded.fails(&query, &[], "does not answer");
    let file = [("MILLRACE_CA_FILE", other)];
    guarded.fails(&query, &file, "--ca-file names those who vouch for it");
    // It is for another name than the one in the URL.
    let good = [("MILLRACE_CA_FILE", ca.as_str())];
    guarded.fails(&query, &good, "certificate not valid for name");
    let output = guarded.run(&with(&["--server-name", "localhost"]), &good);
    assert!(output.status.success(), "{output:?}");
    let nothing = [("MILLRACE_CA_FILE", token.as_str())];
    guarded.fails(&query, &nothing, "no certificate in PEM");
    let absent = [("MILLRACE_CA_FILE", "/nowhere/ca.pem")];
    guarded.fails(&query, &absent, "/nowhere/ca.pem");
    guarded.fails(&with(&["--cert", "x"]), &good, "--key");
    assert!(key.exists());
    // What commands take is refused where it would mean nothing.
    let refused = fail(&["run", "--cert", "a", "--key", "b"]);
    assert!(refused.contains("server.tls.certificate_file"), "{refused}");
}
