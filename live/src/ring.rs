//! The newest frames of one partition, for all subscribers.
//!
//! Invariant: the frames follow one another without a hole, from `start` to `end`. Where they cannot, the ring
//! begins again, with another epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_model::Offset;
use parking_lot::RwLock;

use crate::filter::FilterId;
use crate::frame::Frame;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Ring {
    bytes_max: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: u64,
    frames: VecDeque<Arc<Frame>>,
    start: Offset,
    end: Offset,
    bytes: usize,
}

/// What stands at a place.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing yet.
    Wait,
    /// A frame that begins there, or tells nobody anything.
    Frame(Arc<Frame>),
    /// Frames that are of no use to the asker, because they were made before it came, or begin before the
    /// place. They end here.
    NotFor(Offset),
    /// The ring begins only here.
    Behind(Offset),
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            inner: RwLock::new(Inner::new(0, Offset::ZERO)),
        }
    }

    /// Empties it: the next frame begins at `start`.
    pub(crate) fn restart(&self, start: Offset) {
        let mut inner = self.inner.write();
        *inner = Inner::new(inner.epoch + 1, start);
    }

    /// Adds a frame, and lets the oldest go where there are too many bytes.
    pub(crate) fn push(&self, frame: Frame) {
        let mut inner = self.inner.write();
        assert_eq!(frame.start, inner.end, "a hole between two frames");
        inner.end = frame.end;
        inner.bytes += frame.bytes;
        inner.frames.push_back(Arc::new(frame));
        while inner.bytes > self.bytes_max && inner.frames.len() > 1 {
            let Some(oldest) = inner.frames.pop_front() else {
                break;
            };
            inner.bytes -= oldest.bytes;
            inner.start = oldest.end;
        }
    }

    /// What stands at `place` for a selection, and the epoch.
    pub(crate) fn look(&self, place: Offset, filter: FilterId) -> (u64, Look) {
        let inner = self.inner.read();
        (inner.epoch, inner.look(place, filter))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.read().bytes
    }
}

impl Inner {
    fn new(epoch: u64, start: Offset) -> Self {
        Self {
            epoch,
            frames: VecDeque::new(),
            start,
            end: start,
            bytes: 0,
        }
    }

    fn look(&self, place: Offset, filter: FilterId) -> Look {
        if place >= self.end {
            return Look::Wait;
        }
        if place < self.start {
            return Look::Behind(self.start);
        }
        let at = self.frames.partition_point(|frame| frame.end <= place);
        let frame = &self.frames[at];
        if frame.newest < filter.0 || (frame.start != place && !frame.is_empty()) {
            return Look::NotFor(frame.end);
        }
        Look::Frame(Arc::clone(frame))
    }
}
