//! A minimum pace: so many bytes in every stretch of time, or the transfer is given up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Watches one direction of one transfer.
///
/// A stretch begins when somebody first waits; it is over as soon as enough bytes have come, and
/// the next begins with the next wait. Time in which nobody waits (the server is at work) never
/// counts against the peer.
#[derive(Debug)]
pub struct Pace {
    stretch: Duration,
    min_bytes: u64,
    bytes: u64,
    waiting: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// At least `rate` bytes per second on average over every `stretch`.
    pub fn new(stretch: Duration, rate: u64) -> Self {
        Self {
            stretch,
            min_bytes: (stretch.as_secs_f64() * rate as f64) as u64,
            bytes: 0,
            waiting: false,
            deadline: None,
        }
    }

    /// Bytes have come through.
    pub fn progressed(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waiting = false;
        if self.bytes >= self.min_bytes {
            self.deadline = None;
        }
    }

    /// The peer makes us wait: ready when it has done so for too long. Wakes the task then.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let was_waiting = std::mem::replace(&mut self.waiting, true);
        // A stretch that ended while nobody waited says nothing about the peer.
        let stale = self
            .deadline
            .as_ref()
            .is_some_and(|sleep| !was_waiting && sleep.is_elapsed());
        if self.deadline.is_none() || stale {
            self.bytes = 0;
            self.deadline = Some(Box::pin(sleep_until(Instant::now() + self.stretch)));
        }
        match &mut self.deadline {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_like::poll_once;

    /// Polls without a runtime's help, so that a test decides when.
    mod futures_like {
        use super::*;

        pub async fn poll_once(pace: &mut Pace) -> bool {
            std::future::poll_fn(|cx| Poll::Ready(pace.poll_too_slow(cx).is_ready())).await
        }
    }

    const RATE: u64 = 100;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(10), RATE)
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_peer_is_given_up_after_one_stretch() {
        let mut pace = pace();
        assert!(!poll_once(&mut pace).await);
        pass(9).await;
        assert!(!poll_once(&mut pace).await);
        pass(2).await;
        assert!(poll_once(&mut pace).await);
    }

    #[tokio::test(start_paused = true)]
    async fn drops_of_bytes_do_not_buy_time() {
        let mut pace = pace();
        assert!(!poll_once(&mut pace).await);
        for _ in 0..9 {
            pass(1).await;
            pace.progressed(1);
            assert!(!poll_once(&mut pace).await);
        }
        pass(2).await;
        assert!(poll_once(&mut pace).await);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_bytes_begin_a_new_stretch() {
        let mut pace = pace();
        for _ in 0..5 {
            assert!(!poll_once(&mut pace).await);
            pass(8).await;
            pace.progressed(1000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_does_not_count() {
        let mut pace = pace();
        assert!(!poll_once(&mut pace).await);
        pace.progressed(1);
        pass(60).await;
        assert!(!poll_once(&mut pace).await);
        pass(9).await;
        assert!(!poll_once(&mut pace).await);
    }
}
