//! What a subscriber is told, as server-sent events and as messages of a WebSocket.

use std::time::Duration;

use bytes::Bytes;
use millrace_queue::Position;
use serde_json::{Value, json};

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// Where to go on behind it.
    pub(crate) place: Position,
    /// JSON without line breaks.
    pub(crate) data: Bytes,
    /// When a subscriber that loses its connection should be back.
    pub(crate) reconnect: Option<Duration>,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first one: where the feed begins.
    Hello,
    /// Samples that were applied.
    Samples,
    /// Something is missing.
    Gap,
    /// Nothing has happened, up to here.
    Heartbeat,
    /// The last one: too slow, or not to be had.
    Dropped,
    /// The last one: the server stops, or the subscriber may not listen any more.
    Goodbye,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Samples => "samples",
            Self::Gap => "gap",
            Self::Heartbeat => "heartbeat",
            Self::Dropped => "dropped",
            Self::Goodbye => "goodbye",
        }
    }

    /// Whether nothing comes behind it.
    pub(crate) fn is_last(self) -> bool {
        match self {
            Self::Hello | Self::Samples | Self::Gap | Self::Heartbeat => false,
            Self::Dropped | Self::Goodbye => true,
        }
    }
}

impl Event {
    /// An event whose data are small.
    pub(crate) fn told(
        kind: Kind,
        place: Position,
        mut data: Value,
        reconnect: Option<Duration>,
    ) -> Self {
        if let Some(after) = reconnect {
            data["reconnectMs"] = json!(millis(after));
        }
        Self {
            kind,
            place,
            data: data.to_string().into(),
            reconnect,
        }
    }

    /// As a server-sent event, in pieces: the data are not copied.
    pub(crate) fn server_sent(self) -> [Bytes; 3] {
        let mut head = format!("event: {}\nid: {}\n", self.kind.as_str(), self.place);
        if let Some(after) = self.reconnect {
            head.push_str(&format!("retry: {}\n", millis(after)));
        }
        head.push_str("data: ");
        [head.into(), self.data, Bytes::from_static(b"\n\n")]
    }

    /// As a message.
    pub(crate) fn message(&self) -> String {
        // What is not UTF-8 in labels never came in.
        let data = String::from_utf8_lossy(&self.data);
        let (kind, place) = (self.kind.as_str(), &self.place);
        format!("{{\"event\":\"{kind}\",\"id\":\"{place}\",\"data\":{data}}}")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
