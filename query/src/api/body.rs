//! Sends an answer at the client's pace.
//!
//! A thread of the pool writes [`PIECES_AT_ONCE`] pieces and puts the rest of the answer aside; when
//! the client has taken them, the next ones are asked for. So an answer of any length needs a few
//! hundred KiB of text at a time, and no thread while it waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::json;
use super::pool::{Continuation, Pool};

/// Pieces written in one go: 256 KiB of text, more than most answers have.
const PIECES_AT_ONCE: usize = 4;

/// Pieces that are written, and the answer with what is not.
pub(super) struct Pieces {
    ready: VecDeque<Bytes>,
    rest: Box<Answer>,
}

/// Writes the first pieces; on a pool thread, right after the query.
pub(super) fn first_pieces(answer: Answer) -> Pieces {
    write(Box::new(answer))
}

fn write(mut rest: Box<Answer>) -> Pieces {
    let ready = std::iter::from_fn(|| rest.next_piece())
        .take(PIECES_AT_ONCE)
        .collect();
    Pieces { ready, rest }
}

/// The response that sends `pieces`, and then the rest.
pub(super) fn respond(pieces: Pieces, pool: &Pool) -> Response {
    let Pieces { mut ready, rest } = pieces;
    let body = if rest.is_done() && ready.len() == 1 {
        // With its length known, so that a client can tell a whole answer from a cut one.
        Body::from(ready.pop_front().unwrap_or_default())
    } else {
        Body::new(AnswerBody {
            ready,
            rest: State::Parked(rest),
            pool: pool.continuation(),
        })
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, json::CONTENT_TYPE);
    response
}

struct AnswerBody {
    ready: VecDeque<Bytes>,
    rest: State,
    pool: Continuation,
}

enum State {
    Parked(Box<Answer>),
    Writing(oneshot::Receiver<Pieces>),
    Done,
}

/// The pool is gone, or writing panicked. The connection is cut, and the client sees that its
/// answer is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be finished")]
struct Unfinished;

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            self.rest = match std::mem::replace(&mut self.rest, State::Done) {
                State::Parked(answer) if answer.is_done() => State::Done,
                State::Parked(answer) => State::Writing(self.pool.run(move || write(answer))),
                State::Writing(mut receiver) => match Pin::new(&mut receiver).poll(context) {
                    Poll::Pending => {
                        self.rest = State::Writing(receiver);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(pieces)) => {
                        self.ready = pieces.ready;
                        State::Parked(pieces.rest)
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(Unfinished))),
                },
                State::Done => return Poll::Ready(None),
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty()
            && match &self.rest {
                State::Parked(answer) => answer.is_done(),
                State::Writing(_) => false,
                State::Done => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
