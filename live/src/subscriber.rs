//! One subscriber: where it stands, and what it is told next.
//!
//! Invariant: the place in an event is behind all that was told up to it, and behind nothing else that the
//! selection passes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_model::{Offset, PartitionId};
use millrace_queue::Position;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::catch_up::{self, Step};
use crate::event::{Event, Kind};
use crate::http::StillAllowed;
use crate::hub::Place;
use crate::ring::Look;
use crate::sieve::Sieve;

/// How often it is asked whether a subscriber still may listen.
const ALLOWED_INTERVAL: Duration = Duration::from_secs(5);

/// Why a feed ends, in metrics.
const SLOW: &str = "slow";
const QUEUE: &str = "queue";

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Subscriber {
    place: Place,
    published: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    /// One for each lane, in their order.
    cursors: Vec<Cursor>,
    /// The lane that is looked at first.
    turn: usize,
    waiting: VecDeque<Event>,
    /// When it is told its place, if nothing else is told before.
    heartbeat: Instant,
    ended: bool,
    /// What remembers series while it reads the queue itself.
    sieve: Option<Box<Sieve>>,
    /// Whether it still may listen, and when to ask again.
    allowed: Option<StillAllowed>,
    ask_at: Instant,
}

#[derive(Debug)]
struct Cursor {
    next: Offset,
    /// The epoch of the ring that it has reached: from then on it must keep up with it.
    joined: Option<u64>,
    /// Whether it began where nothing was applied yet: it may be a place that will never be.
    ahead: bool,
}

impl Subscriber {
    /// At `from`; in partitions of which that says nothing, now.
    pub(crate) fn new(place: Place, from: Option<Position>, allowed: Option<StillAllowed>) -> Self {
        let hub = Arc::clone(&place.hub);
        let now = hub.applied.position();
        let of_here = from.as_ref().filter(|from| from.queue == now.queue);
        let cursor = |partition: PartitionId| {
            let wanted = of_here.and_then(|from| from.next.get(&partition));
            let next = wanted.or_else(|| now.next.get(&partition));
            Cursor {
                next: next.copied().unwrap_or(Offset::ZERO),
                joined: None,
                ahead: wanted > now.next.get(&partition),
            }
        };
        let mut subscriber = Self {
            published: hub.published.subscribe(),
            closing: hub.closing.subscribe(),
            cursors: hub
                .lanes
                .iter()
                .map(|lane| cursor(lane.partition))
                .collect(),
            turn: 0,
            waiting: VecDeque::new(),
            heartbeat: Instant::now() + hub.options.heartbeat,
            ended: false,
            sieve: None,
            allowed,
            ask_at: Instant::now() + ALLOWED_INTERVAL,
            place,
        };
        subscriber.tell(Kind::Hello, json!({ "queue": now.queue.to_string() }), true);
        if let Some(from) = from.filter(|from| from.queue != now.queue) {
            let reason = "the place is of another queue";
            subscriber.gap(json!({
                "reason": reason, "from": from.to_string(), "to": subscriber.at().to_string(),
            }));
        }
        subscriber
    }

    /// What comes next; `None` behind the last event. May be dropped while it waits, and asked again.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.heartbeat = Instant::now() + self.place.hub.options.heartbeat;
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if *self.closing.borrow_and_update() {
                self.tell(Kind::Goodbye, json!({ "reason": "the server stops" }), true);
                continue;
            }
            if self.is_forbidden() {
                let reason = "the token is not valid any more";
                self.tell(Kind::Goodbye, json!({ "reason": reason }), false);
                continue;
            }
            // Before the look: what is published from here on is noticed.
            self.published.borrow_and_update();
            if self.advance().await {
                continue;
            }
            let grown = async {
                tokio::select! {
                    // The hub lives as long as this.
                    _ = self.published.changed() => {}
                    _ = self.closing.changed() => {}
                }
            };
            let until = match self.allowed {
                Some(_) => self.heartbeat.min(self.ask_at),
                None => self.heartbeat,
            };
            let waited = timeout_at(until, grown).await;
            if waited.is_err() && Instant::now() >= self.heartbeat {
                self.tell(Kind::Heartbeat, json!({}), false);
            }
        }
    }

    /// Asks now and then.
    fn is_forbidden(&mut self) -> bool {
        let Some(StillAllowed(allowed)) = &self.allowed else {
            return false;
        };
        if Instant::now() < self.ask_at {
            return false;
        }
        self.ask_at = Instant::now() + ALLOWED_INTERVAL;
        !allowed()
    }

    /// Goes on in one lane, if one has something; whether it did.
    async fn advance(&mut self) -> bool {
        let lanes = self.cursors.len();
        let first = self.turn;
        for lane in (0..lanes).map(|i| (first + i) % lanes) {
            if self.advance_in(lane).await {
                // The next one first, next time: no lane holds up the others.
                self.turn = (lane + 1) % lanes;
                return true;
            }
        }
        false
    }

    /// Goes on in a lane until there is something to tell, or nothing more. Whether there is.
    async fn advance_in(&mut self, lane: usize) -> bool {
        loop {
            let hub = Arc::clone(&self.place.hub);
            let at = &hub.lanes[lane];
            let cursor = &mut self.cursors[lane];
            let (epoch, look) = at.ring.look(cursor.next, self.place.filter.id);
            match look {
                Look::Wait if cursor.ahead => {
                    cursor.ahead = false;
                    let range = (cursor.next, cursor.next);
                    if let Some(told) = self.catch_up(lane, at.partition, range).await {
                        return told;
                    }
                }
                Look::Wait => {
                    cursor.joined = Some(epoch);
                    return false;
                }
                Look::Frame(frame) => {
                    *cursor = Cursor {
                        next: frame.end,
                        joined: Some(epoch),
                        ahead: false,
                    };
                    if let Some(text) = frame.text(self.place.filter.id) {
                        self.tell_samples(text.clone());
                        return true;
                    }
                }
                Look::Behind(_) if cursor.joined == Some(epoch) => {
                    self.drop_out(SLOW, "the subscriber reads too slowly");
                    return true;
                }
                Look::Behind(to) | Look::NotFor(to) => {
                    let from = cursor.next;
                    if let Some(told) = self.catch_up(lane, at.partition, (from, to)).await {
                        return told;
                    }
                }
            }
        }
    }

    /// Reads some of the queue. Whether there is something to tell; `None` if it is to be gone on.
    async fn catch_up(
        &mut self,
        lane: usize,
        partition: PartitionId,
        range: (Offset, Offset),
    ) -> Option<bool> {
        let hub = Arc::clone(&self.place.hub);
        let filter = Arc::clone(&self.place.filter);
        let mut sieve = self.sieve.take().unwrap_or_default();
        let permit = hub.catch_up.acquire().await;
        let reading = {
            let hub = Arc::clone(&hub);
            tokio::task::spawn_blocking(move || {
                let step = catch_up::step(&hub, &filter, &mut sieve, partition, range);
                (step, sieve)
            })
        };
        // If this is dropped here, nothing was told and the cursor stands where it stood.
        let read = reading.await;
        drop(permit);
        let (step, sieve) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "reading the queue for a subscriber panicked");
                self.drop_out(QUEUE, "the queue could not be read");
                return Some(true);
            }
        };
        match step {
            Ok(Step::Told(next, text)) => {
                let stuck = next < range.1 && next == range.0;
                self.cursors[lane].next = next;
                // Memory of series is for who still needs it.
                self.sieve = (next < range.1).then_some(sieve);
                match text {
                    Some(text) => {
                        self.tell_samples(text);
                        Some(true)
                    }
                    None if stuck => {
                        self.drop_out(QUEUE, "the queue does not bring its records");
                        Some(true)
                    }
                    None => None,
                }
            }
            Ok(Step::Gap(to, reason)) => {
                self.cursors[lane].next = to;
                self.gap(json!({
                    "reason": reason, "partition": partition.0, "from": range.0.0, "to": to.0,
                }));
                Some(true)
            }
            Err(error) => {
                tracing::warn!(%error, "the queue could not be read for a subscriber");
                self.drop_out(QUEUE, "the queue could not be read");
                Some(true)
            }
        }
    }

    /// Where it stands in all lanes.
    fn at(&self) -> Position {
        let hub = &self.place.hub;
        let mut at = Position::new(hub.records.identity().id);
        for (lane, cursor) in hub.lanes.iter().zip(&self.cursors) {
            at.advance(lane.partition, cursor.next);
        }
        at
    }

    fn tell(&mut self, kind: Kind, data: serde_json::Value, advise: bool) {
        let reconnect = advise.then(|| self.place.hub.reconnect());
        let event = Event::told(kind, self.at(), data, reconnect);
        self.ended |= kind.is_last();
        self.waiting.push_back(event);
    }

    fn tell_samples(&mut self, data: Bytes) {
        self.waiting.push_back(Event {
            kind: Kind::Samples,
            place: self.at(),
            data,
            reconnect: None,
        });
    }

    fn gap(&mut self, data: serde_json::Value) {
        self.place.hub.metrics.gaps.inc();
        self.tell(Kind::Gap, data, false);
    }

    fn drop_out(&mut self, reason: &str, words: &str) {
        let metrics = &self.place.hub.metrics;
        metrics.dropped.with_label_values(&[reason]).inc();
        self.tell(Kind::Dropped, json!({ "reason": words }), true);
    }
}
