//! The endpoints. What each takes and answers is in `docs/ingest.md`.

mod body;
mod influx;
mod media;
mod respond;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use millrace_model::TenantId;

use crate::core::Format;
use crate::decode::json::JsonOptions;
use crate::encoding::Encoding;
use crate::metrics::Protocol;
use crate::service::{Answer, Request as IngestRequest};
use crate::{Ingest, IngestError, Precision};

impl Ingest {
    /// The routes of all protocols.
    pub fn router(&self) -> Router {
        let only_post = || async { respond::method_not_allowed("POST") };
        let only_get = || async { respond::method_not_allowed("GET,HEAD") };
        Router::new()
            .route("/api/v1/push", post(push).fallback(only_post))
            .route("/api/v1/write", post(remote_write).fallback(only_post))
            .route("/write", post(influx_v1).fallback(only_post))
            .route("/api/v2/write", post(influx_v2).fallback(only_post))
            .route("/ping", get(influx::ping).fallback(only_get))
            .route("/health", get(influx::health).fallback(only_get))
            .with_state(self.clone())
    }
}

async fn push(State(ingest): State<Ingest>, request: Request) -> Response {
    handle(ingest, Protocol::Push, request).await
}

async fn remote_write(State(ingest): State<Ingest>, request: Request) -> Response {
    handle(ingest, Protocol::RemoteWrite, request).await
}

async fn influx_v1(State(ingest): State<Ingest>, request: Request) -> Response {
    handle(ingest, Protocol::InfluxV1, request).await
}

async fn influx_v2(State(ingest): State<Ingest>, request: Request) -> Response {
    handle(ingest, Protocol::InfluxV2, request).await
}

async fn handle(ingest: Ingest, protocol: Protocol, request: Request) -> Response {
    let in_flight = InFlight::begin(&ingest);
    // Everybody is one tenant until there are tokens.
    let outcome = accept(&ingest, TenantId::anonymous(), protocol, request).await;
    if let Err(error) = &outcome {
        ingest.metrics().count_refused(error.reason());
        tracing::debug!(protocol = protocol.as_str(), %error, "refused a request");
    }
    let response = respond::respond(&ingest, protocol, outcome);
    let metrics = ingest.metrics().of(protocol);
    metrics.count_request(response.status());
    drop(in_flight);
    response
}

/// Everything that can be refused without the body is refused before it is read.
async fn accept(
    ingest: &Ingest,
    tenant: TenantId,
    protocol: Protocol,
    request: Request,
) -> Result<Answer, IngestError> {
    let (parts, body) = request.into_parts();
    let format = format(ingest, protocol, &parts)?;
    let encoding = encoding(protocol, &parts)?;
    let limit = ingest.options().limits.body_bytes;
    let mut memory = ingest.reserve_memory();
    let body = body::read(body, &parts.headers, limit, &mut memory).await?;
    let metrics = ingest.metrics().of(protocol);
    metrics.body_bytes.inc_by(body.len() as u64);
    ingest
        .ingest(IngestRequest {
            tenant,
            protocol,
            format,
            encoding,
            body,
            memory,
        })
        .await
}

fn format(ingest: &Ingest, protocol: Protocol, parts: &Parts) -> Result<Format, IngestError> {
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes());
    let params = Params::of(parts)?;
    match protocol {
        Protocol::Push => Ok(Format::Json(JsonOptions {
            lines: media::json(content_type)?,
            precision: params.precision(Precision::Millis)?,
        })),
        Protocol::InfluxV1 | Protocol::InfluxV2 => {
            media::line(content_type)?;
            Ok(Format::Line {
                precision: params.precision(Precision::Nanos)?,
                database: ingest
                    .options()
                    .influx_database_label
                    .as_ref()
                    .and_then(|_| params.get("bucket").or_else(|| params.get("db")))
                    .map(str::to_owned),
            })
        }
        Protocol::RemoteWrite => {
            media::remote_write(content_type)?;
            Ok(Format::RemoteWrite)
        }
    }
}

fn encoding(protocol: Protocol, parts: &Parts) -> Result<Encoding, IngestError> {
    let header = parts.headers.get(CONTENT_ENCODING);
    let stated = Encoding::parse(header.map(|value| value.as_bytes()))?;
    Ok(stated.unwrap_or(match protocol {
        // Old senders leave the header out, and there is no other encoding in the specification.
        Protocol::RemoteWrite => Encoding::Snappy,
        Protocol::Push | Protocol::InfluxV1 | Protocol::InfluxV2 => Encoding::Identity,
    }))
}

/// The query string. Parameters that are not known (`org`, `rp`, `u` …) are ignored.
struct Params(Vec<(String, String)>);

impl Params {
    fn of(parts: &Parts) -> Result<Self, IngestError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = query.map_err(|_| IngestError::BadParameter {
            name: "query string",
            got: crate::report::excerpt(parts.uri.query().unwrap_or_default().as_bytes()),
            expected: "name=value pairs, percent-encoded",
        })?;
        Ok(Self(pairs))
    }

    /// The first value under `name`.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn precision(&self, default: Precision) -> Result<Precision, IngestError> {
        match self.get("precision") {
            None | Some("") => Ok(default),
            Some(text) => Precision::parse(text),
        }
    }
}

/// Counts a request as being in hand, however its future ends.
struct InFlight(prometheus::IntGauge);

impl InFlight {
    fn begin(ingest: &Ingest) -> Self {
        let gauge = ingest.metrics().in_flight.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
