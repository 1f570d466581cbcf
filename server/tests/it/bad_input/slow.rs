//! Clients that take their time, against the real binary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Millrace, eventually};

fn closed_after(server: &Millrace, request: &[u8]) -> (String, Duration) {
    let address = server.url.strip_prefix("http://").unwrap();
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!(
            "{:?} is not closed: {error}; so far {:?}",
            String::from_utf8_lossy(&request[..request.len().min(60)]),
            String::from_utf8_lossy(&answer)
        ),
    }
    (
        String::from_utf8_lossy(&answer).into_owned(),
        started.elapsed(),
    )
}

#[test]
fn slow_heads_and_bodies_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(
        dir.path(),
        &[
            "server.header_timeout=500ms",
            "server.body_timeout=500ms",
            "server.idle_timeout=700ms",
        ],
    );
    let heads: [&[u8]; 3] = [b"", b"POST /api/v1/push HTTP/1.1\r\nhost: x\r\n", b"G"];
    for head in heads {
        let (answer, took) = closed_after(&server, head);
        assert_eq!(answer, "", "{head:?}");
        assert!(
            took >= Duration::from_millis(400),
            "{head:?} after {took:?}"
        );
        assert!(took < Duration::from_secs(10), "{head:?} after {took:?}");
    }
    let body = b"POST /api/v1/push HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n{\"device\":";
    let (answer, took) = closed_after(&server, body);
    assert_eq!(
        answer, "",
        "closed, so that the client knows the outcome as unknown"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    // The connections are given back.
    eventually(
        "the connections to be gone",
        Duration::from_secs(10),
        || {
            let metrics = server.client().get("/metrics").text;
            let open = metrics
                .lines()
                .find(|line| line.starts_with("millrace_http_connections "))
                .expect("the gauge is there")
                .to_owned();
            if open == "millrace_http_connections 1" {
                Ok(())
            } else {
                Err(open)
            }
        },
    );
}

#[test]
fn malformed_http_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    for (request, status) in [
        ("NONSENSE\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "POST /api/v1/push HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)),
            "HTTP/1.1 431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "a".repeat(70_000)
            ),
            "HTTP/1.1 431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                (0..65).map(|i| format!("h{i}: x\r\n")).collect::<String>()
            ),
            "HTTP/1.1 431",
        ),
    ] {
        let (answer, _) = closed_after(&server, request.as_bytes());
        let head = &request[..request.len().min(60)];
        assert!(answer.starts_with(status), "{head:?} gives {answer:?}");
    }
    assert_eq!(server.client().get("/-/ready").status, 200);
}
