//! `GET /api/v1/live`.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use millrace_model::Matcher;
use millrace_query::ReadScope;
use millrace_query::api::Evaluate;
use millrace_queue::Position;
use serde_json::json;

use crate::filter::Filter;
use crate::hub::Live;
use crate::subscriber::Subscriber;

/// Where a client that was connected before says where it stands; browsers do so by themselves.
const LAST_EVENT_ID: &str = "last-event-id";

/// Longest parameters.
const QUERY_BYTES_MAX: usize = 64 << 10;

/// Selectors of one subscription at most.
const SELECTORS_MAX: usize = 64;

/// Says whether who began to listen still may. Whoever authenticates requests puts it into the request's
/// extensions; without it, whoever began may go on.
#[derive(Clone)]
pub struct StillAllowed(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for StillAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StillAllowed")
    }
}

/// What is given back when the connection ends: its place among all connections. A WebSocket, which outlives
/// its request, holds it as long as it lives.
#[derive(Clone)]
pub struct Held(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

struct App {
    live: Live,
    engine: Arc<dyn Evaluate>,
}

/// The route. `engine` reads selectors.
pub fn router(live: Live, engine: Arc<dyn Evaluate>) -> Router {
    Router::new()
        .route("/api/v1/live", get(subscribe))
        .with_state(Arc::new(App { live, engine }))
}

async fn subscribe(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    extensions: Extensions,
) -> Response {
    let wants_socket = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let asked = match Asked::read(&*app.engine, query.as_deref(), &headers, &extensions) {
        Ok(asked) => asked,
        Err(text) => return refusal(StatusCode::BAD_REQUEST, "bad_data", &text),
    };
    // Before it enters: a refused upgrade takes no place.
    let upgrade = match (wants_socket, upgrade) {
        (true, Ok(upgrade)) => Some(upgrade),
        (true, Err(rejection)) => return rejection.into_response(),
        (false, _) => None,
    };
    let allowed = extensions.get::<StillAllowed>().cloned();
    let subscriber = match app.live.subscribe(asked.filter, asked.from, allowed) {
        Ok(subscriber) => subscriber,
        Err(full) => {
            let mut response = refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                &full.to_string(),
            );
            let after = app.live.0.reconnect().as_secs().max(1);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(after));
            return response;
        }
    };
    match upgrade {
        None => server_sent(subscriber),
        Some(upgrade) => {
            let held = extensions.get::<Held>().cloned();
            upgrade.on_upgrade(move |socket| async move {
                talk(socket, subscriber).await;
                drop(held);
            })
        }
    }
}

/// What a request asks for.
struct Asked {
    filter: Filter,
    from: Option<Position>,
}

impl Asked {
    fn read(
        engine: &dyn Evaluate,
        query: Option<&str>,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, String> {
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(format!("parameters longer than {QUERY_BYTES_MAX} bytes"));
        }
        let scope = ReadScope::of(extensions);
        let forced = scope.matchers();
        let (mut sets, mut position) = (Vec::new(), None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "match[]" => {
                    let mut matchers = engine
                        .selector(&value)
                        .map_err(|error| format!("match[]: {error}"))?;
                    if matchers.iter().all(Matcher::matches_empty) {
                        let text = "match[] must contain at least one non-empty matcher";
                        return Err(text.to_owned());
                    }
                    matchers.extend(forced.iter().cloned());
                    sets.push(matchers);
                }
                "position" if !value.is_empty() => position = Some(value.into_owned()),
                _ => {}
            }
        }
        if sets.is_empty() {
            return Err("no match[] parameter provided".to_owned());
        }
        if sets.len() > SELECTORS_MAX {
            return Err(format!("more than {SELECTORS_MAX} selectors"));
        }
        // A browser that comes back has the old URL and the new place.
        let last = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
        let last = last.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let from = last.or(position).map(|text| text.parse::<Position>());
        Ok(Self {
            filter: Filter {
                tenant: scope.tenant,
                sets,
            },
            from: from.transpose().map_err(|error| error.to_string())?,
        })
    }
}

fn refusal(status: StatusCode, kind: &str, text: &str) -> Response {
    let body = json!({"status": "error", "errorType": kind, "error": text});
    (status, axum::Json(body)).into_response()
}

fn server_sent(subscriber: Subscriber) -> Response {
    type Pieces = std::array::IntoIter<Bytes, 3>;
    let pieces = stream::unfold(
        (subscriber, None::<Pieces>),
        |(mut subscriber, left)| async {
            let mut left = left.unwrap_or_else(|| <[Bytes; 3]>::default().into_iter());
            loop {
                match left.next() {
                    Some(piece) if piece.is_empty() => {}
                    Some(piece) => {
                        return Some((Ok::<_, Infallible>(piece), (subscriber, Some(left))));
                    }
                    None => left = subscriber.next().await?.server_sent().into_iter(),
                }
            }
        },
    );
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that would rather collect an answer before they pass it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

async fn talk(mut socket: WebSocket, mut subscriber: Subscriber) {
    loop {
        tokio::select! {
            event = subscriber.next() => {
                let Some(event) = event else { break };
                if socket.send(Message::Text(event.message().into())).await.is_err() {
                    return;
                }
            }
            came = socket.recv() => match came {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                // Pings are answered below; nothing that a client says changes anything.
                Some(Ok(_)) => {}
            }
        }
    }
    let frame = CloseFrame {
        code: close_code::RESTART,
        reason: "see the last message".into(),
    };
    if let Err(error) = socket.send(Message::Close(Some(frame))).await {
        tracing::debug!(%error, "a subscriber had gone before the end");
    }
}
