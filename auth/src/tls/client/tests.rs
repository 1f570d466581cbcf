use std::io::{Read as _, Write as _};
use std::path::Path;

use millrace_log::fs::OsFs;
use rustls::{ClientConnection, ServerConnection};

use super::super::{TlsFiles, TlsReload};
use super::*;

struct Pair {
    certificate: String,
    key: String,
}

fn pair(name: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    Pair {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A server of that pair, which asks for a certificate of `client_ca` if that is given.
fn server(dir: &Path, pair: &Pair, client_ca: Option<&Pair>) -> TlsReload {
    let files = TlsFiles {
        certificate: write(dir, "server.pem", &pair.certificate),
        key: write(dir, "server.key", &pair.key),
        client_ca: client_ca.map(|ca| write(dir, "clients.pem", &ca.certificate)),
        http2: true,
    };
    TlsReload::open(Arc::new(OsFs), files).unwrap()
}

/// One byte each way without a socket; what went wrong at whichever side noticed.
fn talk(client: &ClientTls, server: &TlsReload, host: &str) -> Result<(), String> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client.config().unwrap()), name).unwrap();
    let mut server = ServerConnection::new(server.current()).unwrap();
    client.writer().write_all(b"x").unwrap();
    let mut got = [0; 1];
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server
                .process_new_packets()
                .map_err(|error| format!("server: {error}"))?;
        }
        if server.reader().read(&mut got).is_ok_and(|n| n == 1) {
            return Ok(());
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client
                .process_new_packets()
                .map_err(|error| format!("client: {error}"))?;
        }
    }
    Err("no end".to_owned())
}

fn open(files: ClientTlsFiles) -> ClientTls {
    ClientTls::open(Arc::new(OsFs), files).unwrap()
}

#[test]
fn a_server_is_believed_if_the_file_vouches_for_it_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (pair("localhost"), pair("localhost"));
    let server = server(dir.path(), &good, None);
    let files = ClientTlsFiles {
        ca: Some(write(dir.path(), "ca.pem", &good.certificate)),
        ..ClientTlsFiles::default()
    };
    let client = open(files.clone());
    talk(&client, &server, "localhost").unwrap();
    let error = talk(&client, &server, "elsewhere").unwrap_err();
    assert!(error.contains("certificate not valid for name"), "{error}");
    let named = open(ClientTlsFiles {
        server_name: Some("localhost".to_owned()),
        ..files.clone()
    });
    talk(&named, &server, "10.0.0.1").unwrap();
    std::fs::write(files.ca.as_ref().unwrap(), &other.certificate).unwrap();
    let error = talk(&open(files), &server, "localhost").unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // Nothing of the system vouches for it either.
    let error = talk(&open(ClientTlsFiles::default()), &server, "localhost").unwrap_err();
    assert!(error.starts_with("client: "), "{error}");
}

#[test]
fn a_configuration_that_was_given_out_follows_changed_files() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, us) = (pair("localhost"), pair("localhost"), pair("us"));
    let (old, new) = (
        server(dir.path(), &first, None),
        server(dir.path(), &second, Some(&us)),
    );
    let ca = write(dir.path(), "ca.pem", &first.certificate);
    let own = (
        write(dir.path(), "own.pem", &first.certificate),
        write(dir.path(), "own.key", &first.key),
    );
    let client = open(ClientTlsFiles {
        ca: Some(ca.clone()),
        own: Some(own.clone()),
        server_name: None,
    });
    talk(&client, &old, "localhost").unwrap();
    talk(&client, &new, "localhost").unwrap_err();
    assert!(!client.reload().unwrap());
    std::fs::write(&ca, &second.certificate).unwrap();
    assert!(client.reload().unwrap());
    talk(&client, &old, "localhost").unwrap_err();
    // It is asked for a certificate now, and shows one that is not good.
    let error = talk(&client, &new, "localhost").unwrap_err();
    assert!(error.starts_with("server: "), "{error}");
    std::fs::write(&own.0, &us.certificate).unwrap();
    let error = client.reload().unwrap_err().to_string();
    assert!(error.contains("own.pem"), "{error}");
    std::fs::write(&own.1, &us.key).unwrap();
    assert!(client.reload().unwrap());
    talk(&client, &new, "localhost").unwrap();
}

#[test]
fn what_is_no_certificate_key_or_name_is_named_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |files| {
        let opened = ClientTls::open(Arc::new(OsFs), files);
        opened.unwrap_err().to_string()
    };
    let error = refused(ClientTlsFiles {
        ca: Some(write(dir.path(), "ca.pem", "nothing")),
        ..ClientTlsFiles::default()
    });
    assert!(error.contains("ca.pem"), "{error}");
    let us = pair("us");
    let canary = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END";
    let error = refused(ClientTlsFiles {
        own: Some((
            write(dir.path(), "own.pem", &us.certificate),
            write(dir.path(), "own.key", canary),
        )),
        ..ClientTlsFiles::default()
    });
    assert!(
        error.contains("own.key") && !error.contains("Y2Fu"),
        "{error}"
    );
    let error = refused(ClientTlsFiles {
        server_name: Some("no name".to_owned()),
        ..ClientTlsFiles::default()
    });
    assert!(error.contains("no name"), "{error}");
}
