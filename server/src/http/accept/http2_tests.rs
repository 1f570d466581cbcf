//! HTTP/2 on the listener of everything: what runs side by side, and what a peer cannot do with it.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use tokio::task::JoinHandle;

use super::tests::{QUICK, Server};
use super::*;

const PATIENCE: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(10);

/// Runs what must end by itself.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("an end") })
}

type Connection = JoinHandle<Result<(), h2::Error>>;

/// A connection with prior knowledge, with room for more than one answer that is not read.
async fn connect(server: &Server) -> (SendRequest<Bytes>, Connection) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // One round trip for each window: small ones would make a long answer slow on a busy machine.
    builder.initial_window_size(1 << 20);
    builder.initial_connection_window_size(4 << 20);
    let (client, connection) = builder.handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://localhost{path}");
    let built = Request::builder().method(method).uri(uri);
    built.version(http::Version::HTTP_2).body(()).unwrap()
}

/// An answer whose body is not read yet.
async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (answer, _) = client.send_request(request, true)?;
    answer.await
}

async fn text(answer: Response<RecvStream>) -> Result<String, h2::Error> {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

async fn hello(client: &SendRequest<Bytes>) {
    let answer = ask(client, request("GET", "/")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await.unwrap(), "hello");
}

#[test]
fn requests_run_side_by_side_and_no_more_than_are_allowed() {
    let mut server = Server::start(QUICK, GRACE);
    run(async {
        let (client, connection) = connect(&server).await;
        hello(&client).await;
        assert_eq!(client.current_max_send_streams(), 8);
        // One that is never answered holds up no other.
        let mut ready = client.clone().ready().await.unwrap();
        let (never, mut body) = ready.send_request(request("GET", "/never"), true).unwrap();
        let big = ask(&client, request("GET", "/big")).await.unwrap();
        let (big, ()) = tokio::join!(text(big), hello(&client));
        assert_eq!(big.unwrap().len(), 64 << 20);
        let mut ready = client.clone().ready().await.unwrap();
        let (echo, mut sent) = ready.send_request(request("POST", "/echo"), false).unwrap();
        sent.send_data(Bytes::from_static(b"one "), false).unwrap();
        sent.send_data(Bytes::from_static(b"two"), true).unwrap();
        assert_eq!(text(echo.await.unwrap()).await.unwrap(), "one two");
        body.send_reset(Reason::CANCEL);
        drop((never, body, ready, client));
        connection.await.unwrap().unwrap();
    });
    assert_eq!(server.stop(), Drained::All);
    assert_eq!(server.metrics.requests.with_label_values(&["200"]).get(), 4);
}

#[test]
fn a_stalled_body_ends_its_own_request_only() {
    let mut server = Server::start(QUICK, GRACE);
    run(async {
        let (client, connection) = connect(&server).await;
        let mut ready = client.clone().ready().await.unwrap();
        let (echo, mut sent) = ready.send_request(request("POST", "/echo"), false).unwrap();
        sent.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let answer = echo.await.unwrap();
        // The answer breaks off: what was echoed is not all.
        assert!(text(answer).await.is_err());
        hello(&client).await;
        drop((sent, ready, client));
        connection.await.unwrap().unwrap();
    });
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn an_answer_that_its_reader_leaves_is_reset_and_the_others_go_on() {
    let mut server = Server::start(QUICK, GRACE);
    run(async {
        let (client, connection) = connect(&server).await;
        let mut stalled = ask(&client, request("GET", "/big"))
            .await
            .unwrap()
            .into_body();
        // No window is given back, so it ends with the first one.
        let mut came = 0;
        let error = loop {
            match stalled.data().await {
                Some(Ok(piece)) => came += piece.len(),
                Some(Err(error)) => break error,
                None => panic!("all of it came"),
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
        assert!(came <= 1 << 20, "{came}");
        hello(&client).await;
        drop((stalled, client));
        connection.await.unwrap().unwrap();
    });
    let timeouts = server.metrics.failed.with_label_values(&["timeout"]);
    assert_eq!(timeouts.get(), 1);
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_peer_that_resets_what_it_begins_is_cut_off_soon() {
    let mut server = Server::start(QUICK, GRACE);
    let begun = run(async {
        let (client, connection) = connect(&server).await;
        let mut begun = 0;
        while begun < 100_000 {
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let Ok((_, mut stream)) = ready.send_request(request("GET", "/never"), true) else {
                break;
            };
            begun += 1;
            // Some are seen by their handlers, some are gone before.
            if begun % 3 > 0 {
                tokio::task::yield_now().await;
            }
            stream.send_reset(Reason::CANCEL);
        }
        drop(client);
        assert!(connection.await.unwrap().is_err());
        begun
    });
    assert!(begun < 20_000, "{begun}");
    // Others are served.
    run(async {
        let (client, _connection) = connect(&server).await;
        hello(&client).await;
    });
    let failed = |reason| server.metrics.failed.with_label_values(&[reason]).get();
    let told = [failed("abandoned"), failed("malformed"), failed("peer")];
    assert!(told.iter().sum::<u64>() > 0, "{told:?}");
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn a_head_that_is_too_long_is_refused_before_it_is_held() {
    let mut server = Server::start(QUICK, GRACE);
    run(async {
        let (client, connection) = connect(&server).await;
        let mut many = request("GET", "/");
        for i in 0..=MAX_HEADERS {
            let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
            many.headers_mut().insert(name, "1".parse().unwrap());
        }
        let answer = ask(&client, many).await.unwrap();
        assert_eq!(answer.status(), 431);
        let mut long = request("GET", "/");
        let value = "x".repeat(MAX_HEAD_BYTES);
        long.headers_mut().insert("x-long", value.parse().unwrap());
        match ask(&client, long).await {
            Ok(answer) => assert_eq!(answer.status(), 431),
            Err(error) => assert!(error.is_remote(), "{error}"),
        }
        hello(&client).await;
        drop(client);
        connection.await.unwrap().unwrap();
    });
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn neither_silence_nor_pings_keep_a_connection_without_requests() {
    let mut server = Server::start(QUICK, GRACE);
    run(async {
        // Not one request.
        let (client, connection) = connect(&server).await;
        assert!(connection.await.unwrap().is_err() || client.ready().await.is_err());
        // One, and then nothing but pings.
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let connection = tokio::spawn(connection);
        hello(&client).await;
        let mut answered = 0;
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            answered += 1;
            tokio::task::yield_now().await;
        }
        assert!(answered > 0);
        drop(connection.await.unwrap());
    });
    let timeouts = server.metrics.failed.with_label_values(&["timeout"]);
    assert_eq!(timeouts.get(), 2);
    assert_eq!(server.stop(), Drained::All);
}

#[test]
fn requests_in_flight_end_before_the_server_does() {
    let mut server = Server::start(QUICK, GRACE);
    let (drained, answer) = run(async {
        let (client, connection) = connect(&server).await;
        hello(&client).await;
        let asked = tokio::spawn({
            let client = client.clone();
            async move { text(ask(&client, request("GET", "/until-stop")).await?).await }
        });
        // It is at work once another one, asked later, was answered.
        tokio::task::yield_now().await;
        hello(&client).await;
        let stopping = tokio::task::spawn_blocking(move || server.stop());
        let answer = asked.await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        (stopping.await.unwrap(), answer)
    });
    assert_eq!(drained, Drained::All);
    assert_eq!(answer.unwrap(), "finished");
}

#[test]
fn with_no_streams_allowed_it_is_not_spoken() {
    let limits = HttpLimits {
        http2_streams: 0,
        ..QUICK
    };
    let mut server = Server::start(limits, GRACE);
    run(async {
        let (client, connection) = connect(&server).await;
        let answer = ask(&client, request("GET", "/")).await;
        assert!(answer.is_err());
        drop(client);
        // Whether the end looks like one in order depends on when it comes.
        drop(connection.await.unwrap());
    });
    assert_eq!(server.stop(), Drained::All);
}
