use std::io::{Read as _, Write as _};
use std::net::TcpStream as Client;
use std::time::Instant;

use axum::routing::{get, post};
use prometheus::Registry;

use super::*;

pub(super) const QUICK: HttpLimits = HttpLimits {
    connections: 64,
    connections_per_peer: 3,
    header_timeout: Duration::from_millis(300),
    body_timeout: Duration::from_millis(300),
    write_timeout: Duration::from_millis(300),
    min_rate: 1000,
    idle_timeout: Duration::from_millis(900),
    http2_streams: 8,
};

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) metrics: HttpMetrics,
    stop: watch::Sender<bool>,
    done: Option<std::thread::JoinHandle<Drained>>,
}

impl Server {
    pub(super) fn start(limits: HttpLimits, grace: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let slow = stopped.clone();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/echo", post(async |body: Body| body))
            .route("/big", get(|| async { "x".repeat(64 << 20) }))
            .route(
                "/until-stop",
                get(move || {
                    let mut slow = slow.clone();
                    async move {
                        wait_for_stop(&mut slow).await;
                        "finished"
                    }
                }),
            )
            .route("/never", get(std::future::pending::<String>));
        let metrics = HttpMetrics::new(&Registry::new()).unwrap();
        let serving = Serving {
            router,
            limits,
            metrics: metrics.clone(),
            listener: Listener::Main,
            tls: None,
        };
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(listener, serving, stopped, grace).await
            })
        });
        Self {
            address,
            metrics,
            stop,
            done: Some(done),
        }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client
    }

    pub(super) fn stop(&mut self) -> Drained {
        self.stop.send(true).unwrap();
        self.done.take().unwrap().join().unwrap()
    }
}

/// Everything until the server closes, and how long that took.
fn until_closed(client: &mut Client) -> (String, Duration) {
    let started = Instant::now();
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed: {error}"),
    }
    (
        String::from_utf8_lossy(&bytes).into_owned(),
        started.elapsed(),
    )
}

#[test]
fn a_slow_head_is_cut_even_if_it_drips() {
    let mut server = Server::start(QUICK, Duration::from_secs(1));
    let mut client = server.connect();
    let dripping = {
        let mut client = client.try_clone().unwrap();
        std::thread::spawn(move || {
            // Fails as soon as the server has closed.
            while client.write_all(b"x").is_ok() {
                #[expect(clippy::disallowed_methods, reason = "the pace is the test")]
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let (answer, took) = until_closed(&mut client);
    assert_eq!(answer, "");
    assert!(took < Duration::from_secs(3), "{took:?}");
    dripping.join().unwrap();
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_connection_may_be_idle_longer_than_a_head_may_take() {
    let limits = HttpLimits {
        idle_timeout: Duration::from_secs(3),
        ..QUICK
    };
    let mut server = Server::start(limits, Duration::from_secs(1));
    let mut client = server.connect();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request).unwrap();
    let mut head = [0; 12];
    client.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // Longer than `header_timeout`, shorter than `idle_timeout`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the time between requests is the test"
    )]
    std::thread::sleep(Duration::from_millis(500));
    client.write_all(request).unwrap();
    let (rest, took) = until_closed(&mut client);
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
    assert!(took > Duration::from_millis(600), "{took:?}");
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_stalled_body_ends_the_connection() {
    let mut server = Server::start(QUICK, Duration::from_secs(1));
    let mut client = server.connect();
    client
        .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc")
        .unwrap();
    let (answer, took) = until_closed(&mut client);
    assert!(!answer.contains("0\r\n\r\n"), "complete: {answer}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_reader_that_stalls_is_cut() {
    let mut server = Server::start(QUICK, Duration::from_secs(30));
    let mut client = server.connect();
    client
        .write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    client.read_exact(&mut first).unwrap();
    // Nothing more is read: the drain can only end in time because the answer is given up.
    let started = Instant::now();
    assert_eq!(server.stop(), Drained::All);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn one_peer_has_no_more_than_its_connections() {
    let mut server = Server::start(QUICK, Duration::from_secs(1));
    let mut kept: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut kept {
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
    }
    let (answer, _) = until_closed(&mut server.connect());
    assert_eq!(answer, "");
    kept.pop();
    // The place is free again as soon as the server has seen the close.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut client = server.connect();
        // An error here is the refusal again.
        let sent = client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        if sent.is_ok() && until_closed(&mut client).0.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "the place was never given back");
    }
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn too_many_headers_are_refused() {
    let mut server = Server::start(QUICK, Duration::from_secs(1));
    let mut client = server.connect();
    let mut request = "GET / HTTP/1.1\r\n".to_owned();
    for i in 0..=MAX_HEADERS {
        request.push_str(&format!("h{i}: x\r\n"));
    }
    client.write_all((request + "\r\n").as_bytes()).unwrap();
    let (answer, _) = until_closed(&mut client);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_request_in_flight_is_answered_before_the_end_and_idle_connections_do_not_hold_it() {
    let mut server = Server::start(QUICK, Duration::from_secs(20));
    let mut idle = server.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    let mut busy = server.connect();
    busy.write_all(b"GET /until-stop HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    // A later answer on another connection proves that the request above was read.
    let mut probe = server.connect();
    probe
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    probe.read_exact(&mut [0; 12]).unwrap();
    let started = Instant::now();
    assert_eq!(server.stop(), Drained::All);
    assert!(started.elapsed() < Duration::from_secs(10));
    let (answer, _) = until_closed(&mut busy);
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("finished"), "{answer}");
}

#[test]
fn a_request_that_never_ends_is_cut_after_the_grace() {
    let mut server = Server::start(QUICK, Duration::from_millis(200));
    let mut client = server.connect();
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut probe = server.connect();
    probe
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    probe.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(server.stop(), Drained::Cut(1));
}
