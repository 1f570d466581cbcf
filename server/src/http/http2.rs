//! HTTP/2: what one connection may take, and readers of single answers that stall.
//!
//! The timers of the socket see bytes of all requests together. So each answer has a watch of its own: a
//! reader that opens no window for it would otherwise keep it in memory for as long as it likes.
//!
//! **Invariants:**
//! - an answer is handed on in pieces, one when the window has taken the one before, so that the time between
//!   two of them is the reader's;
//! - a stalled answer ends alone (its stream is reset); a peer that resets what it begins, or reads nothing at
//!   all, loses the connection.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tracing::debug;

use super::limits::{HttpLimits, MAX_HEAD_BYTES};
use super::pace::Pace;

/// Handed on at once: one frame of HTTP/2's default size.
pub const PIECE_BYTES: usize = 16 << 10;

/// Of one request's body, not yet read by its handler.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;

/// Of all bodies of a connection. The 4,096 connections of the default together hold 1 GiB at the worst.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Of one answer, not yet taken by the socket.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Streams that were reset before we looked at them, and that were wrong: beyond, the connection ends.
const RESETS_MAX: usize = 32;

/// A peer is asked whether it is still there, and has this time to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How connections are spoken to.
pub fn builder(limits: HttpLimits, failed: IntCounterVec) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor { limits, failed });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

tokio::task_local! {
    static WATCH: Arc<AnswerWatch>;
}

/// Runs each request of a connection in a task of its own, and ends it when its reader stalls.
#[derive(Clone, Debug)]
pub struct StreamExecutor {
    limits: HttpLimits,
    failed: IntCounterVec,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let watch = Arc::new(AnswerWatch::new(&self.limits));
        let failed = self.failed.clone();
        let watching = watch.clone();
        let watched = async move {
            tokio::select! {
                // The stream first: what it hands on is what the watch then waits for.
                biased;
                () = stream => {}
                () = std::future::poll_fn(|cx| watching.poll_too_slow(cx)) => {
                    failed.with_label_values(&["timeout"]).inc();
                    debug!("an answer was read too slowly");
                }
            }
        };
        tokio::spawn(WATCH.scope(watch, watched));
    }
}

/// How the reader of one answer takes it.
#[derive(Debug)]
pub struct AnswerWatch(Mutex<Taking>);

#[derive(Debug)]
struct Taking {
    pace: Pace,
    /// Bytes of the piece that the window has to take; `None` while we have nothing to send.
    handed: Option<usize>,
}

impl AnswerWatch {
    fn new(limits: &HttpLimits) -> Self {
        Self(Mutex::new(Taking {
            pace: Pace::new(limits.write_timeout, limits.min_rate),
            handed: None,
        }))
    }

    /// Of the request whose task asks; `None` outside of HTTP/2.
    pub fn of_this_stream() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    /// There is room for the next piece.
    pub fn asked_for_more(&self) {
        let mut taking = self.0.lock();
        if let Some(bytes) = taking.handed.take() {
            taking.pace.progressed(bytes);
        }
    }

    /// A piece was handed on.
    pub fn handed_on(&self, bytes: usize) {
        self.0.lock().handed = Some(bytes);
    }

    /// Polled by the task of the stream, which is woken when there is room.
    fn poll_too_slow(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut taking = self.0.lock();
        match taking.handed {
            Some(_) => taking.pace.poll_too_slow(cx),
            None => Poll::Pending,
        }
    }
}
