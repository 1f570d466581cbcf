//! The queue of a running server, page by page.

use std::ops::Range;
use std::time::Duration;

use millrace_model::{Offset, PartitionId, QueueId, ShardKey, TimestampMs};
use millrace_queue::wire::RecordPage;
use millrace_queue::{ConsumeError, Consumer, QueueIdentity, Record, RecordSource};
use reqwest::blocking::{Client, Response};
use serde_json::Value;

use crate::commands::client;
use crate::failure::Failure;
use crate::records::error_type;

/// Longer than a page may wait for its first record.
const TIMEOUT: Duration = Duration::from_secs(60);

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct HttpQueue {
    client: Client,
    url: String,
    identity: QueueIdentity,
}

impl HttpQueue {
    /// Asks the server at `url` for its queue.
    ///
    /// # Errors
    ///
    /// It does not answer, or not as a millrace does.
    pub fn connect(url: &str) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        let client = client::built(client::builder()?.timeout(TIMEOUT))?;
        let answer: Value = client
            .get(format!("{url}/api/v1/queue"))
            .send()
            .and_then(Response::error_for_status)
            .and_then(Response::json)
            .map_err(|error| {
                Failure::Client(format!(
                    "{url} does not tell of its queue: {}; is the server running? --url names \
                     another, and --data-dir a directory that no server has open",
                    client::why(&error)
                ))
            })?;
        let identity = identity(&answer).ok_or_else(|| {
            Failure::Client(format!(
                "{url} describes its queue in a shape that is not millrace's"
            ))
        })?;
        Ok(Self {
            client,
            url,
            identity,
        })
    }

    fn get(
        &self,
        partition: PartitionId,
        path: &str,
        query: &[(&str, String)],
        wanted: Offset,
    ) -> Result<Response, ConsumeError> {
        let unavailable = |reason: String| ConsumeError::Unavailable { partition, reason };
        let pairs: Vec<String> = query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let url = format!(
            "{}/api/v1/queue{path}?partition={}&{}",
            self.url,
            partition.0,
            pairs.join("&")
        );
        let response = self.client.get(&url).send();
        let response = response.map_err(|error| unavailable(client::why(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.json().unwrap_or_default();
        let at = |field: &str| body[field].as_u64().map(Offset);
        match (body["errorType"].as_str(), at("first"), at("end")) {
            (Some(error_type::TOO_OLD), Some(first), _) => Err(ConsumeError::TooOld {
                partition,
                wanted,
                first,
            }),
            (Some(error_type::BEYOND_END), _, Some(end)) => Err(ConsumeError::BeyondEnd {
                partition,
                wanted,
                end,
            }),
            _ => Err(unavailable(format!(
                "{url}: {status}: {}",
                body["error"].as_str().unwrap_or("no reason given")
            ))),
        }
    }
}

fn identity(answer: &Value) -> Option<QueueIdentity> {
    let id: QueueId = answer["queue"].as_str()?.parse().ok()?;
    let labels = answer["shard_key"].as_array()?;
    let labels: Option<Vec<String>> = labels
        .iter()
        .map(|label| label.as_str().map(str::to_owned))
        .collect();
    Some(QueueIdentity {
        id,
        partitions: u32::try_from(answer["partitions"].as_array()?.len()).ok()?,
        shard_key: ShardKey::new(labels?),
    })
}

impl RecordSource for HttpQueue {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, ConsumeError> {
        let answer: Result<Value, String> = self
            .client
            .get(format!("{}/api/v1/queue", self.url))
            .send()
            .and_then(Response::error_for_status)
            .and_then(Response::json)
            .map_err(|error| error.to_string());
        let bounds = answer.and_then(|answer| {
            let entry = &answer["partitions"][partition.index()];
            let bound = |name: &str| entry[name].as_u64().map(Offset);
            bound("first")
                .zip(bound("end"))
                .ok_or_else(|| format!("{} does not tell the bounds", self.url))
        });
        match bounds {
            Ok((first, end)) => Ok(first..end),
            Err(reason) => Err(ConsumeError::Unavailable { partition, reason }),
        }
    }

    fn offset_at(&self, partition: PartitionId, time: TimestampMs) -> Result<Offset, ConsumeError> {
        let query = [("time_ms", time.0.to_string())];
        let answer = self.get(partition, "/offset", &query, Offset::ZERO)?;
        let answer: Option<Value> = answer.json().ok();
        let offset = answer.and_then(|answer| answer["offset"].as_u64());
        offset.map(Offset).ok_or_else(|| ConsumeError::Unavailable {
            partition,
            reason: format!("{} does not tell the offset of a time", self.url),
        })
    }

    fn read_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        let mut consumer = HttpConsumer {
            queue: self.clone(),
            partition,
            next: from,
            end: from,
        };
        // Says at once if `from` is not there.
        consumer.end = consumer.page(1, Duration::ZERO)?.end;
        Ok(Box::new(consumer))
    }
}

/// One partition of a running server's queue.
#[derive(Debug)]
struct HttpConsumer {
    queue: HttpQueue,
    partition: PartitionId,
    next: Offset,
    /// As the last page said.
    end: Offset,
}

impl HttpConsumer {
    fn page(&self, max_bytes: usize, wait: Duration) -> Result<RecordPage, ConsumeError> {
        let query = [
            ("from", self.next.0.to_string()),
            ("max_bytes", max_bytes.to_string()),
            ("wait_ms", wait.as_millis().to_string()),
        ];
        let response = self
            .queue
            .get(self.partition, "/records", &query, self.next)?;
        let bytes = response
            .bytes()
            .map_err(|error| ConsumeError::Unavailable {
                partition: self.partition,
                reason: error.to_string(),
            })?;
        RecordPage::decode(&bytes).map_err(|error| ConsumeError::Damaged {
            partition: self.partition,
            reason: error.to_string(),
        })
    }
}

impl Consumer for HttpConsumer {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn queue(&self) -> Result<QueueId, ConsumeError> {
        Ok(self.queue.identity.id)
    }

    fn range(&self) -> Result<Range<Offset>, ConsumeError> {
        self.queue.bounds(self.partition)
    }

    fn record_at(
        &mut self,
        offset: Offset,
        patience: Duration,
    ) -> Result<Option<Record>, ConsumeError> {
        self.next = offset;
        let page = self.page(1, patience)?;
        let first = page.records.into_iter().next();
        Ok(first.filter(|record| record.offset == offset))
    }

    fn poll(
        &mut self,
        max_bytes: usize,
        wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        let page = self.page(max_bytes, wait)?;
        self.next = page.next;
        self.end = page.end;
        out.extend(page.records);
        Ok(())
    }

    fn seek(&mut self, next: Offset) {
        self.next = next;
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(self.end)
    }

    fn commit(&mut self, _: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }

    fn release(&mut self, _: Offset) -> Result<(), ConsumeError> {
        // The server's own store decides what its queue may forget.
        Ok(())
    }
}
