//! The accept loop, and the end of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millrace_auth::tls::TlsReload;
use millrace_live::Held;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::body::{InFlight, PacedBody, TrackedBody};
use super::http2;
use super::limits::{HttpLimits, MAX_BUFFER_BYTES, MAX_HEAD_BYTES, MAX_HEADERS};
use super::metrics::HttpMetrics;
use super::origin::{Listener, Origin};
use super::stream::{ConnectionState, TimedStream};

/// After a failed accept that no closing connection will cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the accept loop works with.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Answers the requests.
    pub router: Router,
    /// Bounds.
    pub limits: HttpLimits,
    /// Figures.
    pub metrics: HttpMetrics,
    /// Which address this is.
    pub listener: Listener,
    /// What new connections begin TLS with; `None` for none.
    pub tls: Option<Arc<TlsReload>>,
}

/// How the connections ended after the loop stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All requests in flight were answered.
    All,
    /// This many connections were cut with a request in flight.
    Cut(usize),
}

/// Serves until `stop` turns true, then lets requests in flight end for at most `grace`.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) -> Drained {
    let permits = Arc::new(Semaphore::new(serving.limits.connections));
    let peers = Peers::default();
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    let stopping = wait_for_stop(&mut stop);
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let Some(place) = peers.enter(peer.ip(), serving.limits.connections_per_peer)
                else {
                    serving.metrics.refused.with_label_values(&["peer"]).inc();
                    continue;
                };
                serving.metrics.accepted.inc();
                let serving = serving.clone();
                let stopped = stopped.clone();
                connections.spawn(async move {
                    serving.metrics.connections.inc();
                    // A WebSocket outlives its request, and keeps the place.
                    let held = Held(Arc::new((place, permit)));
                    connection(stream, (peer, held), &serving, stopped).await;
                    serving.metrics.connections.dec();
                });
            }
            Err(error) => after_failed_accept(&error, &serving.metrics).await,
        }
    }
    drop(listener);
    drain(connections, grace).await
}

async fn drain(mut connections: JoinSet<()>, grace: Duration) -> Drained {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_ok() {
        return Drained::All;
    }
    let cut = connections.len();
    connections.shutdown().await;
    Drained::Cut(cut)
}

async fn wait_for_stop(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody could stop the loop any more.
    if stop.wait_for(|stop| *stop).await.is_err() {
        debug!("whoever stops the server is gone, so it stops");
    }
}

/// The permit comes before the connection: what has none stays in the system's backlog.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

async fn after_failed_accept(error: &io::Error, metrics: &HttpMetrics) {
    let peer_left = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if peer_left {
        return;
    }
    metrics.refused.with_label_values(&["accept"]).inc();
    warn!(%error, "a connection could not be accepted");
    // Out of files or memory: an immediate retry would only spin.
    #[expect(
        clippy::disallowed_methods,
        reason = "the system does not say when files are free again"
    )]
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn connection(
    stream: TcpStream,
    (peer, held): (SocketAddr, Held),
    serving: &Serving,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "the connection was gone at once");
        return;
    }
    let (mut stream, state) = TimedStream::new(stream, serving.limits);
    let Some(tls) = &serving.tls else {
        let begun = match serving.limits.http2_streams {
            0 => Ok(false),
            _ => tokio::select! {
                biased;
                () = wait_for_stop(&mut stop) => return,
                begun = stream.begins_http2() => begun,
            },
        };
        let at = At {
            peer,
            serving,
            state: &state,
            held: &held,
        };
        return match begun {
            Ok(true) => http2_requests(stream, at, stop).await,
            Ok(false) => requests(stream, at, stop).await,
            Err(error) => at.ended_early(&error),
        };
    };
    // The stream's timer for the first head covers the handshake too.
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    let shaken = tokio::select! {
        biased;
        () = wait_for_stop(&mut stop) => return,
        shaken = handshake => shaken,
    };
    match shaken {
        Ok(stream) => {
            let at = At {
                peer,
                serving,
                state: &state,
                held: &held,
            };
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => http2_requests(stream, at, stop).await,
                _ => requests(stream, at, stop).await,
            }
        }
        Err(error) => {
            serving.metrics.failed.with_label_values(&["tls"]).inc();
            debug!(%peer, %error, "a connection could not begin TLS");
        }
    }
}

/// A connection, and what it is served with.
#[derive(Clone, Copy)]
struct At<'a> {
    peer: SocketAddr,
    serving: &'a Serving,
    state: &'a Arc<ConnectionState>,
    held: &'a Held,
}

impl At<'_> {
    /// What answers a request.
    fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<TrackedBody>, Infallible>> + use<> {
        request.extensions_mut().insert(Origin {
            listener: self.serving.listener,
            peer: Some(self.peer),
        });
        request.extensions_mut().insert(self.held.clone());
        answer(request, self.serving.clone(), self.state.clone())
    }

    fn ended_early(self, error: &(dyn Error + 'static)) {
        let reason = reason(error);
        let failed = &self.serving.metrics.failed;
        failed.with_label_values(&[reason]).inc();
        debug!(peer = %self.peer, %error, reason, "a connection ended early");
    }
}

/// Answers the requests of a connection, one after the other.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    at: At<'_>,
    mut stop: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        // The stream has timers of its own: hyper's would count the time between two requests
        // as part of the next head.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| at.answer(request)),
        )
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        // The stop first, so that an answer that is ready at that moment says `connection: close`.
        biased;
        () = wait_for_stop(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        at.ended_early(&error);
    }
}

/// Answers the requests of a connection, several at once.
async fn http2_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    at: At<'_>,
    mut stop: watch::Receiver<bool>,
) {
    at.state.multiplex();
    let connection = http2::builder(at.serving.limits, at.serving.metrics.failed.clone())
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| at.answer(request)),
        );
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = wait_for_stop(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        at.ended_early(&error);
    }
}

/// The word for it in metrics.
fn reason(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match io {
            Some(io::ErrorKind::TimedOut) => return "timeout",
            Some(io::ErrorKind::ConnectionAborted) => return "abandoned",
            Some(_) | None => {}
        }
        let wrong = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse);
        // What we found wrong, not what the peer told us.
        let wrong_http2 = error
            .downcast_ref::<h2::Error>()
            .is_some_and(h2::Error::is_library);
        if wrong || wrong_http2 {
            return "malformed";
        }
        cause = error.source();
    }
    "peer"
}

fn answer(
    request: Request<Incoming>,
    serving: Serving,
    state: Arc<ConnectionState>,
) -> impl Future<Output = Result<Response<TrackedBody>, Infallible>> {
    let limits = serving.limits;
    let in_flight = InFlight::new(state.clone(), limits);
    let too_many = request.headers().len() > MAX_HEADERS;
    let request = request.map(|body| Body::new(PacedBody::new(body, state.clone(), limits)));
    async move {
        let response = if too_many {
            // HTTP/1.1 has refused them before; HTTP/2 bounds only their bytes.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()
        } else {
            let answered = serving.router.oneshot(request).await;
            answered.unwrap_or_else(|infallible| match infallible {})
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            state.upgraded();
        }
        serving
            .metrics
            .requests
            .with_label_values(&[response.status().as_str()])
            .inc();
        Ok(response.map(|body| TrackedBody::new(body, in_flight)))
    }
}

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Peers {
    fn enter(&self, peer: IpAddr, limit: usize) -> Option<Place> {
        let mut counts = self.0.lock();
        let count = counts.entry(peer).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: self.clone(),
            peer,
        })
    }
}

/// One connection's place among its peer's.
#[derive(Debug)]
struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod http2_tests;
#[cfg(test)]
mod tests;
