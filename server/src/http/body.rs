//! Bodies on their way in and out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

use super::http2::{AnswerWatch, PIECE_BYTES};
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
                self.state.body_too_slow();
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

/// A request that is at work, from the end of its head to the end of its answer.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<ConnectionState>,
    limits: HttpLimits,
    answered: bool,
}

impl InFlight {
    /// A request's head is complete.
    pub fn new(state: Arc<ConnectionState>, limits: HttpLimits) -> Self {
        state.request_begins();
        Self {
            state,
            limits,
            answered: false,
        }
    }

    /// There is an answer to be sent.
    pub fn answered(&mut self) {
        self.answered = true;
        self.state.request_answered();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.answered {
            self.state.request_abandoned();
        }
        self.state.request_ends(&self.limits);
    }
}

/// An answer's body that tells the connection when it is done, and HTTP/2's watch how its reader takes it.
pub struct TrackedBody {
    inner: Body,
    watch: Option<Arc<AnswerWatch>>,
    /// What is still to be handed on of a frame that was cut.
    rest: Bytes,
    _request: InFlight,
}

impl TrackedBody {
    /// Watches `inner`, the answer to that request.
    pub fn new(inner: Body, mut request: InFlight) -> Self {
        request.answered();
        Self {
            inner,
            watch: AnswerWatch::of_this_stream(),
            rest: Bytes::new(),
            _request: request,
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(watch) = self.watch.clone() else {
            return self.poll_inner(cx);
        };
        watch.asked_for_more();
        if self.rest.is_empty() {
            match ready!(self.poll_inner(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let fits = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(fits);
        watch.handed_on(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl TrackedBody {
    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut frame = std::pin::pin!(self.inner.frame());
        std::future::Future::poll(frame.as_mut(), cx)
    }
}
