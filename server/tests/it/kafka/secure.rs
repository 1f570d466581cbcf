//! A broker that asks for a login, and one that speaks TLS.

use std::path::Path;

use super::roles::push;
use crate::support::kafka::{Cluster, Topic};
use crate::support::{Millrace, eventually};

/// A topic on a broker with further listeners.
struct Secure {
    dir: tempfile::TempDir,
    topic: Topic,
    cluster: Cluster,
}

const PASSWORD: &str = "canary-of-a-password";

impl Secure {
    fn start() -> Self {
        let cluster = Cluster::start_secure(PASSWORD);
        let topic = cluster.topic("secure").create(1, 1);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        std::fs::write(dir.path().join("wrong"), "another").unwrap();
        Self {
            dir,
            topic,
            cluster,
        }
    }

    /// Settings to reach the listener of that name, with a login by this mechanism.
    fn settings(&self, listener: &str, protocol: &str, login: Option<(&str, &str)>) -> Vec<String> {
        let of_broker = |name: &str| self.cluster.path().join(name);
        let address = std::fs::read_to_string(of_broker(listener)).unwrap();
        let mut settings = vec![
            format!("queue.kafka.brokers={}", address.trim()),
            format!("queue.kafka.security_protocol={protocol}"),
            "log.level=debug".to_owned(),
        ];
        if protocol.ends_with("ssl") {
            let file = of_broker("ca.pem");
            settings.push(format!("queue.kafka.tls_ca_file={}", file.display()));
        }
        if let Some((mechanism, password)) = login {
            let file = self.dir.path().join(password);
            settings.push(format!("queue.kafka.sasl_mechanism={mechanism}"));
            settings.push("queue.kafka.sasl_username=millrace".to_owned());
            settings.push(format!("queue.kafka.sasl_password_file={}", file.display()));
        }
        settings
    }

    /// Starts a millrace there, pushes and asks; everything that it said.
    fn works(&self, settings: &[String]) -> String {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let data = tempfile::tempdir().unwrap();
        let server = self.topic.start(data.path(), &settings);
        let client = server.client();
        let position = push(&client, 3, 1.0);
        let after = [("millrace-read-after", position.as_str())];
        client.query_with("sum(heat)", None, &after);
        let paths = [
            "/metrics",
            "/api/v1/status/durability",
            "/api/v1/status/flags",
        ];
        let mut said: String = paths.map(|path| client.get(path).text).concat();
        said.push_str(&server.terminate().1);
        said
    }

    /// Starts a millrace that does not get in; what it says while it tries.
    fn waits(&self, settings: &[String], expect: &str) {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let none = Path::new("/nonexistent");
        let all = self
            .topic
            .settings(&[&settings[..], &["roles=ingest"]].concat());
        let server = Millrace::spawn(none, &all);
        eventually("the reason", super::PATIENCE, || {
            let text = server.client().get("/-/ready").text;
            if text.contains(expect) {
                Ok(())
            } else {
                Err(text)
            }
        });
        let stderr = server.kill();
        assert!(!stderr.contains(PASSWORD), "{stderr}");
    }
}

#[test]
fn logins_and_tls_are_passed_through_and_what_is_wrong_is_not_let_in() {
    let secure = Secure::start();
    let plain = secure.settings("login", "sasl_plaintext", Some(("PLAIN", "password")));
    let mut said = secure.works(&plain);
    let wrong = secure.settings("login", "sasl_plaintext", Some(("PLAIN", "wrong")));
    secure.waits(&wrong, "uthentication");
    if cfg!(feature = "kafka-tls") {
        said.push_str(&secure.works(&secure.settings("tls", "ssl", None)));
        for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
            let login = Some((mechanism, "password"));
            said.push_str(&secure.works(&secure.settings("login-tls", "sasl_ssl", login)));
        }
        // Nobody vouches for the broker's certificate.
        let mut unknown = secure.settings("tls", "ssl", None);
        unknown.retain(|setting| !setting.contains("tls_ca_file"));
        secure.waits(&unknown, "opening the queue: kafka");
    }
    assert!(!said.contains(PASSWORD), "{said}");
}
