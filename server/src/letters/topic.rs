//! The letters in the topic beside the queue's.

use millrace_model::TimestampMs;
use millrace_queue::kafka::{KafkaLetters, KafkaOptions};
use millrace_queue::{DeadLetter, LetterHead, Origin};
use parking_lot::Mutex;

use super::Letters;

/// Opened at the first call that needs it, so that a topic made meanwhile is found.
#[derive(Debug)]
pub struct TopicLetters {
    options: KafkaOptions,
    open: Mutex<Option<KafkaLetters>>,
}

impl TopicLetters {
    /// The letters of the queue of these options.
    #[must_use]
    pub fn new(options: KafkaOptions) -> Self {
        Self {
            options,
            open: Mutex::new(None),
        }
    }

    /// The topic, if it is there and right.
    ///
    /// # Errors
    ///
    /// In words, what is wrong with it, and with which command it is made right.
    pub fn topic(&self) -> Result<KafkaLetters, String> {
        let mut open = self.open.lock();
        if let Some(letters) = &*open {
            return Ok(letters.clone());
        }
        let letters = KafkaLetters::open(&self.options).map_err(|error| error.to_string())?;
        Ok(open.insert(letters).clone())
    }

    fn with<T>(
        &self,
        run: impl FnOnce(&KafkaLetters) -> Result<T, millrace_queue::kafka::KafkaError>,
    ) -> Result<T, String> {
        run(&self.topic()?).map_err(|error| error.to_string())
    }

    /// Enters letters, durably.
    ///
    /// # Errors
    ///
    /// In words, why it is not known that they are there.
    pub fn enter(&self, letters: &[DeadLetter]) -> Result<(), String> {
        self.with(|topic| topic.enter(letters))
    }
}

impl Letters for TopicLetters {
    fn list(&self) -> Result<Vec<LetterHead>, String> {
        self.with(KafkaLetters::list)
    }

    fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, String> {
        self.with(|topic| topic.read(origin))
    }

    fn purge(&self, origin: Origin, now: TimestampMs) -> Result<(), String> {
        self.with(|topic| topic.purge(&[origin], now))
    }
}
