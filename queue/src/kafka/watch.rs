//! Whether the topic is still the one that was opened.
//!
//! Brokers identify a topic by its name, so a topic that is deleted and made again under that name
//! takes appends and answers fetches as if nothing had happened. Its id differs. It is asked for
//! now and then, and at once whenever something looks odd; producer and consumers of one queue share
//! what any of them found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_model::QueueId;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::client::Client;
use tracing::error;

use super::raw;

/// How long an answer is waited for. Whoever asks holds up its partition meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Errors come in swarms; one question answers them all.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct TopicWatch {
    topic: Arc<str>,
    expected: QueueId,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the id was last asked for.
    asked: Instant,
    /// Something looked odd since.
    suspected: bool,
    /// Something looked so odd that nothing may be believed before the brokers have answered.
    doubted: bool,
    /// The id that the topic has now, if it is another one. For good: positions of the topic that
    /// was opened mean nothing any more.
    replaced_by: Option<QueueId>,
}

impl TopicWatch {
    pub(super) fn new(topic: Arc<str>, expected: QueueId, every: Duration) -> Self {
        Self {
            topic,
            expected,
            every,
            state: Mutex::new(State {
                asked: Instant::now(),
                suspected: false,
                doubted: false,
                replaced_by: None,
            }),
        }
    }

    /// The queue that was opened.
    pub(super) fn expected(&self) -> QueueId {
        self.expected
    }

    /// The id of the topic that has taken the place of the one that was opened, if that is known.
    pub(super) fn replaced_by(&self) -> Option<QueueId> {
        self.state.lock().replaced_by
    }

    /// Something looks odd: the brokers are asked soon.
    pub(super) fn suspect(&self) {
        self.state.lock().suspected = true;
    }

    /// Something cannot be if this is the topic that was opened: the brokers are asked at once, and
    /// until they have answered [`doubted`](Self::doubted) says so.
    pub(super) fn doubt(&self) {
        self.state.lock().doubted = true;
    }

    /// Whether the topic may be another one by now.
    pub(super) fn doubted(&self) -> bool {
        let state = self.state.lock();
        state.doubted || state.replaced_by.is_some()
    }

    /// Asks the brokers if it is time, and says what is known.
    pub(super) fn look<C: ClientContext>(&self, client: &Client<C>) -> Option<QueueId> {
        {
            let mut state = self.state.lock();
            let since = state.asked.elapsed();
            let due = state.doubted
                || since >= self.every
                || (state.suspected && since >= SUSPICION_INTERVAL);
            if state.replaced_by.is_some() || !due {
                return state.replaced_by;
            }
            // Others go on meanwhile.
            state.asked = Instant::now();
        }
        // No answer is no finding: topic or brokers may be away for a moment.
        let _unanswered = self.ask(client);
        self.replaced_by()
    }

    /// Asks the brokers now. `None` if they do not tell.
    pub(super) fn ask<C: ClientContext>(&self, client: &Client<C>) -> Option<QueueId> {
        let found = raw::topic_id(client, &self.topic, PATIENCE)?;
        let mut state = self.state.lock();
        state.asked = Instant::now();
        (state.suspected, state.doubted) = (false, false);
        if found != self.expected && state.replaced_by.is_none() {
            error!(
                topic = %self.topic, opened = %self.expected, %found,
                "the topic was deleted and made again: it is another queue now"
            );
            state.replaced_by = Some(found);
        }
        Some(found)
    }
}
