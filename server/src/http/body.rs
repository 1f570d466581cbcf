//! Bodies on their way in and out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

use super::limits::HttpLimits;
use super::pace::Pace;
use super::stream::ConnectionState;

/// A body that was sent too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly: less than {rate} bytes a second over {stretch:?}")]
pub struct TooSlow {
    rate: u64,
    stretch: Duration,
}

/// A request's body that must keep a minimum pace.
pub struct PacedBody {
    inner: Incoming,
    ended: bool,
    pace: Pace,
    state: Arc<ConnectionState>,
    limits: HttpLimits,
}

impl PacedBody {
    /// Watches `inner`.
    pub fn new(inner: Incoming, state: Arc<ConnectionState>, limits: HttpLimits) -> Self {
        Self {
            ended: inner.is_end_stream(),
            inner,
            state,
            pace: Pace::new(limits.body_timeout, limits.min_rate),
            limits,
        }
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.pace.progressed(bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.pace.poll_too_slow(cx).map(|()| {
                self.state.give_up();
                let (rate, stretch) = (self.limits.min_rate, self.limits.body_timeout);
                Some(Err(TooSlow { rate, stretch }.into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            self.state.leave_unread();
        }
    }
}

/// An answer's body that tells the connection when it is done.
pub struct TrackedBody {
    inner: Body,
    state: Arc<ConnectionState>,
    limits: HttpLimits,
}

impl TrackedBody {
    /// Watches `inner`.
    pub fn new(inner: Body, state: Arc<ConnectionState>, limits: HttpLimits) -> Self {
        Self {
            inner,
            state,
            limits,
        }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.state.request_ends(&self.limits);
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut frame = std::pin::pin!(self.inner.frame());
        std::future::Future::poll(frame.as_mut(), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
