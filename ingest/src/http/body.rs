//! Reading a body within its bound.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::IngestError;
use crate::memory::Reservation;

/// Reads a whole body of at most `limit` bytes, reserving memory as it comes. Within what time it
/// must come is up to whoever owns the connection.
///
/// # Errors
///
/// A body over the limit (unread where `Content-Length` says so), no memory, a broken connection.
pub(super) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limit: usize,
    memory: &mut Reservation,
) -> Result<Bytes, IngestError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .or_else(|| body.size_hint().exact());
    if let Some(announced) = announced.filter(|length| *length > limit as u64) {
        return Err(too_large(Some(announced), limit));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| IngestError::BodyBroken {
            detail: crate::report::excerpt(error.to_string().as_bytes()),
        })?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(announced, limit));
        }
        memory.grow(data.len())?;
        if first.is_empty() && rest.is_empty() {
            // Most bodies of devices come in one piece, which is not copied.
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

fn too_large(got: Option<u64>, limit: usize) -> IngestError {
    IngestError::TooLarge {
        what: "body (ingest.limits.body_bytes)",
        reason: "body_too_large",
        got,
        limit: limit as u64,
        unit: " bytes",
    }
}
