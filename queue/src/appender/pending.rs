//! What a submitter waits for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use millrace_model::{Offset, PartitionId};
use parking_lot::{Condvar, Mutex};

use crate::{AppendError, Position};

/// Resolves when every part of a submission is durable, to the position behind it; or as soon as
/// one part has failed. Then the outcome of the others is not known.
///
/// Await it, or block on [`wait`](Self::wait). Dropping it cancels nothing.
#[must_use = "what was submitted is acknowledged only when this resolves"]
pub struct PendingAppend {
    ticket: Arc<Ticket>,
}

impl PendingAppend {
    pub(super) fn new(ticket: Arc<Ticket>) -> Self {
        Self { ticket }
    }

    /// Blocks until it resolves. Not for threads that run futures.
    ///
    /// # Errors
    ///
    /// If a part could not be made durable.
    pub fn wait(self) -> Result<Position, AppendError> {
        let mut state = self.ticket.state.lock();
        loop {
            if let Some(outcome) = state.outcome() {
                return outcome;
            }
            self.ticket.resolved.wait(&mut state);
        }
    }
}

impl Future for PendingAppend {
    type Output = Result<Position, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.ticket.state.lock();
        if let Some(outcome) = state.outcome() {
            return Poll::Ready(outcome);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl fmt::Debug for PendingAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAppend").finish_non_exhaustive()
    }
}

/// Counts the parts of one submission down.
pub(super) struct Ticket {
    state: Mutex<State>,
    resolved: Condvar,
}

struct State {
    missing: usize,
    position: Position,
    failed: Option<AppendError>,
    waker: Option<Waker>,
}

impl State {
    fn outcome(&self) -> Option<Result<Position, AppendError>> {
        match &self.failed {
            Some(error) => Some(Err(error.clone())),
            None => (self.missing == 0).then(|| Ok(self.position.clone())),
        }
    }
}

impl Ticket {
    pub(super) fn new(position: Position, parts: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                missing: parts,
                position,
                failed: None,
                waker: None,
            }),
            resolved: Condvar::new(),
        })
    }

    /// Notes that one part, in `partition`, is durable up to the given offset, or failed.
    pub(super) fn resolve(&self, partition: PartitionId, outcome: Result<Offset, AppendError>) {
        let mut state = self.state.lock();
        assert!(state.missing > 0, "a part was resolved twice");
        state.missing -= 1;
        match outcome {
            Ok(next) => state.position.advance(partition, next),
            Err(error) => {
                state.failed.get_or_insert(error);
            }
        }
        if state.missing > 0 && state.failed.is_none() {
            return;
        }
        let waker = state.waker.take();
        drop(state);
        self.resolved.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
