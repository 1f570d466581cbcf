//! Sends an answer at the client's pace.
//!
//! A thread of the pool writes [`PIECES_AT_ONCE`] pieces and puts the rest of the answer aside; when
//! the client has taken them, the next ones are asked for. So an answer of any length needs a few
//! hundred KiB of text at a time, and no thread while it waits. A client that takes no piece for
//! [`ApiOptions::max_stall`](super::ApiOptions::max_stall) loses the rest, and its memory is free.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinHandle;

use super::error::ApiError;
use super::metrics::ApiMetrics;
use super::pool::{Continuation, Pool};

/// Pieces written in one go: 256 KiB of text, more than most answers have.
const PIECES_AT_ONCE: usize = 4;

/// What the body of an answer is made from, a piece at a time.
pub(super) trait Write: Send {
    /// The next piece, of about 64 KiB; `None` after the last.
    ///
    /// # Errors
    ///
    /// The rest cannot be made. What came before is then not to be taken for an answer.
    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError>;

    /// Whether there is no piece left.
    fn is_done(&self) -> bool;
}

/// Pieces that are written, and the answer with what is not.
pub(super) struct Pieces {
    ready: VecDeque<Bytes>,
    rest: Box<dyn Write>,
}

/// Writes the first pieces; on a pool thread, right after the query. What fails until here can
/// still be answered as an error.
pub(super) fn first_pieces(answer: Box<dyn Write>) -> Result<Pieces, ApiError> {
    write(answer)
}

fn write(mut rest: Box<dyn Write>) -> Result<Pieces, ApiError> {
    let mut ready = VecDeque::with_capacity(PIECES_AT_ONCE);
    while ready.len() < PIECES_AT_ONCE
        && let Some(piece) = rest.next_piece()?
    {
        ready.push_back(piece);
    }
    Ok(Pieces { ready, rest })
}

/// Like [`write`], for a response that has begun: an error can only be told to the log, and to the
/// client by a connection that is cut.
fn write_more(rest: Box<dyn Write>) -> Option<Pieces> {
    write(rest)
        .inspect_err(|error| tracing::warn!(%error, "an answer could not be finished"))
        .ok()
}

/// The response that sends `pieces`, and then the rest.
pub(super) fn respond(
    pieces: Pieces,
    pool: &Pool,
    max_stall: Duration,
    metrics: &ApiMetrics,
) -> Response {
    let Pieces { mut ready, rest } = pieces;
    let body = if rest.is_done() && ready.len() == 1 {
        // With its length known, so that a client can tell a whole answer from a cut one.
        Body::from(ready.pop_front().unwrap_or_default())
    } else {
        let shared = Arc::new(Shared {
            sending: Mutex::new(Sending {
                ready,
                rest: Rest::Parked(rest),
            }),
            progress: Notify::new(),
        });
        Body::new(AnswerBody {
            watch: tokio::spawn(watch(shared.clone(), max_stall, metrics.clone())),
            pool: pool.continuation(),
            shared,
        })
    };
    Response::new(body)
}

struct AnswerBody {
    shared: Arc<Shared>,
    pool: Continuation,
    watch: JoinHandle<()>,
}

struct Shared {
    sending: Mutex<Sending>,
    /// Told of every piece that is taken.
    progress: Notify,
}

struct Sending {
    ready: VecDeque<Bytes>,
    rest: Rest,
}

enum Rest {
    /// Put aside until the client has taken what is ready.
    Parked(Box<dyn Write>),
    /// On a thread of the pool.
    Writing(oneshot::Receiver<Option<Pieces>>),
    Done,
    /// The end will never come.
    Lost,
}

/// The client stalled, the pool is gone, or writing panicked. The connection is cut, and the client
/// sees that its answer is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be finished")]
struct Unfinished;

/// Throws the answer away once no piece of it was taken for so long.
async fn watch(shared: Arc<Shared>, max_stall: Duration, metrics: ApiMetrics) {
    loop {
        let progress = shared.progress.notified();
        if tokio::time::timeout(max_stall, progress).await.is_ok() {
            continue;
        }
        if shared.sending.lock().drop_if_stalled() {
            metrics.stalled();
            tracing::debug!(
                ?max_stall,
                "a client stopped reading; its answer is cut off"
            );
            return;
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.abort();
        self.shared.sending.lock().drop_all(Rest::Done);
    }
}

impl Sending {
    fn drop_all(&mut self, rest: Rest) {
        self.ready = VecDeque::new();
        self.rest = rest;
    }

    /// Throws everything away, unless it is the client who waits for us.
    fn drop_if_stalled(&mut self) -> bool {
        if let Rest::Writing(receiver) = &mut self.rest {
            match receiver.try_recv() {
                Ok(Some(pieces)) => {
                    // Ready only just now, as far as we know: its time begins here.
                    self.ready = pieces.ready;
                    self.rest = Rest::Parked(pieces.rest);
                    return false;
                }
                Err(TryRecvError::Empty) => return false,
                Ok(None) | Err(TryRecvError::Closed) => {}
            }
        }
        self.drop_all(Rest::Lost);
        true
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        pool: &Continuation,
    ) -> Poll<Option<Result<Bytes, Unfinished>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            self.rest = match std::mem::replace(&mut self.rest, Rest::Done) {
                Rest::Parked(answer) if answer.is_done() => Rest::Done,
                Rest::Parked(answer) => Rest::Writing(pool.run(move || write_more(answer))),
                Rest::Writing(mut receiver) => match Pin::new(&mut receiver).poll(context) {
                    Poll::Pending => {
                        self.rest = Rest::Writing(receiver);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some(pieces))) => {
                        self.ready = pieces.ready;
                        Rest::Parked(pieces.rest)
                    }
                    Poll::Ready(Ok(None) | Err(_)) => Rest::Lost,
                },
                Rest::Done => return Poll::Ready(None),
                Rest::Lost => return Poll::Ready(Some(Err(Unfinished))),
            };
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        let polled = self.shared.sending.lock().poll_piece(context, &self.pool);
        if let Poll::Ready(Some(Ok(_))) = polled {
            self.shared.progress.notify_one();
        }
        polled.map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        let sending = self.shared.sending.lock();
        sending.ready.is_empty()
            && match &sending.rest {
                Rest::Parked(answer) => answer.is_done(),
                Rest::Writing(_) | Rest::Lost => false,
                Rest::Done => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
