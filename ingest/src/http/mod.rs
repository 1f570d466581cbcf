//! The endpoints. What each takes and answers is in `docs/ingest.md`.

mod body;
mod denied;
mod influx;
mod media;
mod otlp;
mod params;
mod pushgateway;
mod respond;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{any, get, post};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::context::PushContext;
use crate::core::Format;
use crate::decode::csv::CsvFormat;
use crate::decode::json::JsonOptions;
use crate::decode::text::TextOptions;
use crate::encoding::Encoding;
use crate::metrics::Protocol;
use crate::report::Report;
use crate::service::{Answer, Request as IngestRequest};
use crate::{Ingest, IngestError, Precision};
pub use denied::PushShape;
use params::Params;
use respond::Shape;

impl Ingest {
    /// The routes of all protocols.
    pub fn router(&self) -> Router {
        let only_post = || async { respond::method_not_allowed("POST") };
        let only_get = || async { respond::method_not_allowed("GET,HEAD") };
        let only_query = || async { respond::method_not_allowed("GET,HEAD,POST") };
        let writes = [
            ("/api/v1/push", Protocol::Push),
            ("/api/v1/write", Protocol::RemoteWrite),
            ("/write", Protocol::InfluxV1),
            ("/api/v2/write", Protocol::InfluxV2),
            ("/api/v3/write_lp", Protocol::InfluxV3),
            ("/v1/metrics", Protocol::Otlp),
            ("/api/v1/otlp/v1/metrics", Protocol::Otlp),
            ("/otlp/v1/metrics", Protocol::Otlp),
            ("/opentelemetry/v1/metrics", Protocol::Otlp),
            ("/api/v1/import/prometheus", Protocol::Text),
            ("/api/v1/import/csv", Protocol::Csv),
            ("/api/v1/import", Protocol::VmJson),
        ];
        let mut router = Router::new();
        for (path, protocol) in writes {
            let write = async move |State(ingest): State<Ingest>, request: Request| {
                handle(ingest, protocol, request).await
            };
            router = router.route(path, post(write).fallback(only_post));
        }
        for path in pushgateway::ROUTES {
            router = router.route(path, any(pushgateway::handle));
        }
        router
            .route("/ping", get(influx::ping).fallback(only_get))
            .route("/health", get(influx::health).fallback(only_get))
            .route(
                "/query",
                get(influx::query).post(influx::query).fallback(only_query),
            )
            .with_state(self.clone())
    }
}

async fn handle(ingest: Ingest, protocol: Protocol, request: Request) -> Response {
    handle_labelled(ingest, protocol, request, Vec::new()).await
}

/// Handles a request whose path says labels that every series of it gets.
async fn handle_labelled(
    ingest: Ingest,
    protocol: Protocol,
    request: Request,
    labels: Vec<(String, String)>,
) -> Response {
    let in_flight = InFlight::begin(&ingest);
    let (parts, body) = request.into_parts();
    let shape = Shape::of(protocol, &parts);
    let outcome = accept(&ingest, &shape, &parts, body, labels).await;
    if let Err(error) = &outcome {
        ingest.metrics().count_refused(error.reason());
        let protocol = shape.protocol.as_str();
        tracing::debug!(protocol, %error, "refused a request");
    }
    let response = respond::respond(&ingest, &shape, outcome);
    let metrics = ingest.metrics().of(shape.protocol);
    metrics.count_request(response.status());
    drop(in_flight);
    response
}

/// Everything that can be refused without the body is refused before it is read.
async fn accept(
    ingest: &Ingest,
    shape: &Shape,
    parts: &Parts,
    body: axum::body::Body,
    labels: Vec<(String, String)>,
) -> Result<Answer, IngestError> {
    let protocol = shape.protocol;
    let params = Params::of(&parts.uri)?;
    let format = format(ingest, shape, parts, &params)?;
    let encoding = encoding(protocol, parts)?;
    let context = parts.extensions.get::<PushContext>();
    let mut context = context.cloned().unwrap_or_default();
    context.add_labels(labels);
    match protocol {
        Protocol::Text | Protocol::Csv | Protocol::VmJson => {
            context.add_labels(params.extra_labels()?);
        }
        Protocol::Push
        | Protocol::InfluxV1
        | Protocol::InfluxV2
        | Protocol::InfluxV3
        | Protocol::RemoteWrite
        | Protocol::RemoteWrite2
        | Protocol::Otlp
        | Protocol::Pushgateway => {}
    }
    let (tenant, limits) = ingest.tenant(&context.tenant)?;
    let limit = limits.request.body_bytes;
    let mut memory = ingest.reserve_memory(&tenant);
    let body = body::read(body, &parts.headers, limit, &mut memory).await?;
    let metrics = ingest.metrics().of(protocol);
    metrics.body_bytes.inc_by(body.len() as u64);
    ingest
        .ingest(IngestRequest {
            context,
            tenant,
            limits,
            details: if shape.full_receipt {
                usize::MAX
            } else {
                Report::DETAILS
            },
            protocol,
            format,
            encoding,
            body,
            memory,
        })
        .await
}

fn format(
    ingest: &Ingest,
    shape: &Shape,
    parts: &Parts,
    params: &Params,
) -> Result<Format, IngestError> {
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes());
    let database = |names: &[&str]| {
        let label = ingest.options().influx_database_label.as_ref();
        label
            .and_then(|_| names.iter().find_map(|name| params.get(name)))
            .map(str::to_owned)
    };
    match shape.protocol {
        Protocol::Push => Ok(Format::Json(JsonOptions {
            lines: media::json(content_type)?,
            precision: params.precision(Precision::Millis, Precision::parse)?,
        })),
        Protocol::InfluxV1 | Protocol::InfluxV2 => {
            media::line(content_type)?;
            Ok(Format::Line {
                precision: params.precision(Precision::Nanos, Precision::parse)?,
                database: database(&["bucket", "db"]),
                all_or_nothing: false,
                quote: false,
            })
        }
        Protocol::InfluxV3 => {
            media::line(content_type)?;
            Ok(Format::Line {
                precision: params.precision(Precision::Auto, Precision::parse_v3)?,
                database: database(&["db"]),
                all_or_nothing: !params.flag("accept_partial", true)?,
                quote: true,
            })
        }
        Protocol::RemoteWrite => {
            media::remote_write(content_type)?;
            Ok(Format::RemoteWrite)
        }
        Protocol::RemoteWrite2 => Ok(Format::RemoteWrite2),
        Protocol::Otlp => otlp::format(content_type),
        Protocol::Text | Protocol::Pushgateway => Ok(Format::Text(TextOptions {
            dialect: media::text(content_type)?,
            timestamp: params.timestamp()?,
        })),
        Protocol::VmJson => {
            media::json(content_type)?;
            Ok(Format::VmJson)
        }
        Protocol::Csv => {
            media::csv(content_type)?;
            let format = params.get("format").unwrap_or_default();
            Ok(Format::Csv(CsvFormat::parse(format)?))
        }
    }
}

fn encoding(protocol: Protocol, parts: &Parts) -> Result<Encoding, IngestError> {
    let header = parts.headers.get(CONTENT_ENCODING);
    let stated = Encoding::parse(header.map(|value| value.as_bytes()))?;
    Ok(stated.unwrap_or(match protocol {
        // Old senders leave the header out, and there is no other encoding in the specification.
        Protocol::RemoteWrite | Protocol::RemoteWrite2 => Encoding::Snappy,
        Protocol::Push
        | Protocol::InfluxV1
        | Protocol::InfluxV2
        | Protocol::InfluxV3
        | Protocol::Otlp
        | Protocol::Text
        | Protocol::Pushgateway
        | Protocol::VmJson
        | Protocol::Csv => Encoding::Identity,
    }))
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
