//! Turns what a source finds into frames, one at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use millrace_model::{Labels, Matcher, MetricMetadata, TenantId, TimeRange};
use millrace_query::{
    CancelFlag, LabelRequest, ReadContext, SampleColumns, Select, SeriesSource, SourceError,
    StoredSeries,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use crate::metrics::ServeMetrics;
use crate::wire::frame::{End, ErrorCode, FrameBuffer, FrameKind, Hello, StreamError};
use crate::wire::items::{
    ITEM_BYTES_MAX, LabelsWriter, WARNINGS_MAX, encode_metadata, encode_text,
};
use crate::wire::messages::stream_error;
use crate::wire::series::{PIECE_SAMPLES, SeriesWriter};

/// A question, checked.
#[derive(Debug)]
pub(super) enum Question {
    Select(TenantId, Vec<Matcher>, TimeRange),
    Newest(TenantId, Vec<Matcher>, TimeRange),
    Series(TenantId, Vec<Matcher>, TimeRange),
    LabelNames(TenantId, Vec<Vec<Matcher>>, TimeRange),
    LabelValues(TenantId, String, Vec<Vec<Matcher>>, TimeRange),
    Metadata(TenantId, Option<String>),
}

/// Makes the frames of one answer. Blocks.
pub(super) struct Producer {
    source: Arc<dyn SeriesSource>,
    question: Question,
    context: Arc<ReadContext>,
    frame_bytes: usize,
    found: Option<Found>,
    sent: End,
    /// Whether the warnings were sent, or there are none.
    warned: bool,
}

/// What is left to send.
enum Found {
    Series(Box<SeriesLeft>),
    Labels(VecDeque<Labels>),
    Texts(VecDeque<String>),
    Metadata(VecDeque<MetricMetadata>),
}

/// Series are read one by one. One that is longer than a frame waits in `columns`.
struct SeriesLeft {
    series: std::vec::IntoIter<Box<dyn StoredSeries>>,
    labels: Option<Labels>,
    columns: SampleColumns,
    written: usize,
    writer: SeriesWriter,
}

impl Producer {
    pub(super) fn new(
        source: Arc<dyn SeriesSource>,
        question: Question,
        context: Arc<ReadContext>,
        frame_bytes: usize,
    ) -> Self {
        Self {
            source,
            question,
            context,
            frame_bytes,
            found: None,
            sent: End::default(),
            warned: false,
        }
    }

    /// The next frame, the last of which is the end frame or an error; `None` behind it, and once
    /// nobody waits any more.
    fn next(&mut self) -> Option<(Bytes, bool)> {
        match self.frame() {
            Ok(Some(frame)) => {
                self.sent.frames += 1;
                Some((frame, false))
            }
            Ok(None) => Some(match self.warnings_frame() {
                Some(frame) => {
                    self.sent.frames += 1;
                    (frame, false)
                }
                None => (self.sent.encode(), true),
            }),
            Err(Stop::Cancelled) => None,
            Err(Stop::Source(error)) => Some((stream_error(&error).encode(), true)),
            Err(Stop::TooLong { what, bytes }) => {
                let message = format!("{what} of {bytes} bytes, the limit is {ITEM_BYTES_MAX}");
                let code = ErrorCode::Limit;
                Some((StreamError { code, message }.encode(), true))
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Bytes>, Stop> {
        self.check()?;
        let mut found = match self.found.take() {
            Some(found) => found,
            None => self.find()?,
        };
        let frame = match &mut found {
            Found::Series(left) => self.series_frame(left)?,
            Found::Labels(left) => self.labels_frame(left)?,
            Found::Texts(left) => {
                self.frame_of(FrameKind::Texts, left, String::len, |text, frame| {
                    encode_text(&text, frame);
                })?
            }
            Found::Metadata(left) => {
                let bytes = |e: &MetricMetadata| e.metric.len() + e.help.len() + e.unit.len() + 32;
                self.frame_of(FrameKind::Metadata, left, bytes, |entry, frame| {
                    encode_metadata(&entry, frame);
                })?
            }
        };
        self.found = Some(found);
        Ok(frame)
    }

    fn find(&self) -> Result<Found, Stop> {
        let (source, context) = (&self.source, &self.context);
        let left = |series: Vec<Box<dyn StoredSeries>>| {
            Found::Series(Box::new(SeriesLeft {
                series: series.into_iter(),
                labels: None,
                columns: SampleColumns::default(),
                written: 0,
                writer: SeriesWriter::default(),
            }))
        };
        Ok(match &self.question {
            Question::Select(tenant, matchers, range) => left(source.select(&Select {
                tenant,
                matchers,
                range: *range,
                context,
            })?),
            Question::Newest(tenant, matchers, range) => left(source.newest(&Select {
                tenant,
                matchers,
                range: *range,
                context,
            })?),
            Question::Series(tenant, matchers, range) => {
                let request = Select {
                    tenant,
                    matchers,
                    range: *range,
                    context,
                };
                Found::Labels(source.series(&request)?.into())
            }
            Question::LabelNames(tenant, matcher_sets, range) => {
                let request = LabelRequest {
                    tenant,
                    matcher_sets,
                    range: *range,
                    context,
                };
                Found::Texts(source.label_names(&request)?.into())
            }
            Question::LabelValues(tenant, name, matcher_sets, range) => {
                let request = LabelRequest {
                    tenant,
                    matcher_sets,
                    range: *range,
                    context,
                };
                Found::Texts(source.label_values(name, &request)?.into())
            }
            Question::Metadata(tenant, metric) => {
                Found::Metadata(source.metadata(tenant, metric.as_deref(), context)?.into())
            }
        })
    }

    fn series_frame(&mut self, left: &mut SeriesLeft) -> Result<Option<Bytes>, Stop> {
        while left.writer.len() < self.frame_bytes {
            if left.written == left.columns.len() {
                self.check()?;
                let Some(series) = left.series.next() else {
                    break;
                };
                left.columns.clear();
                left.written = 0;
                series.read(&mut left.columns)?;
                if left.columns.is_empty() {
                    continue;
                }
                let labels = series.labels().clone();
                bounded("a label set", labels.canonical().len())?;
                left.labels = Some(labels);
                self.sent.items += 1;
            }
            let end = left.columns.len().min(left.written + PIECE_SAMPLES);
            let piece = left.written..end;
            self.sent.samples += piece.len() as u64;
            left.writer.piece(
                left.labels.take().as_ref(),
                &left.columns.timestamps[piece.clone()],
                &left.columns.values[piece],
            );
            left.written = end;
        }
        Ok((!left.writer.is_empty()).then(|| left.writer.finish()))
    }

    /// The warnings that the source had, once.
    fn warnings_frame(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.warned, true) {
            return None;
        }
        let mut frame = FrameBuffer::default();
        for text in self.context.warnings().iter().take(WARNINGS_MAX) {
            encode_text(text, &mut frame);
        }
        (!frame.is_empty()).then(|| frame.finish(FrameKind::Warnings))
    }

    fn labels_frame(&mut self, left: &mut VecDeque<Labels>) -> Result<Option<Bytes>, Stop> {
        let mut writer = LabelsWriter::default();
        let bytes = |labels: &Labels| labels.canonical().len();
        self.frame_of(FrameKind::Labels, left, bytes, |labels, frame| {
            writer.write(&labels, frame.body());
        })
    }

    fn frame_of<T>(
        &mut self,
        kind: FrameKind,
        left: &mut VecDeque<T>,
        bytes: impl Fn(&T) -> usize,
        mut write: impl FnMut(T, &mut FrameBuffer),
    ) -> Result<Option<Bytes>, Stop> {
        let mut frame = FrameBuffer::default();
        while frame.len() < self.frame_bytes {
            let Some(item) = left.pop_front() else {
                break;
            };
            bounded("an item", bytes(&item))?;
            write(item, &mut frame);
            self.sent.items += 1;
        }
        Ok((!frame.is_empty()).then(|| frame.finish(kind)))
    }

    fn check(&self) -> Result<(), Stop> {
        if self.context.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }
}

/// Why no further frame is made.
enum Stop {
    Cancelled,
    Source(SourceError),
    TooLong { what: &'static str, bytes: usize },
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

fn bounded(what: &'static str, bytes: usize) -> Result<(), Stop> {
    if bytes <= ITEM_BYTES_MAX {
        Ok(())
    } else {
        Err(Stop::TooLong { what, bytes })
    }
}

/// What bounds the making of frames.
pub(super) struct Pace {
    pub(super) running: Arc<Semaphore>,
    pub(super) deadline: Instant,
    pub(super) cancel: CancelFlag,
    /// Of the answer, given back when it ends.
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) metrics: ServeMetrics,
}

/// The bytes of an answer. The next frame is made when the last one is taken.
pub(super) fn frames(
    hello: Hello,
    producer: Producer,
    pace: Pace,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    enum Stage {
        Hello(Hello, Box<Producer>, Alive),
        Frames(Box<Producer>, Alive),
        Ended,
    }
    let alive = Alive(pace);
    stream::unfold(
        Stage::Hello(hello, Box::new(producer), alive),
        |stage| async move {
            let (bytes, next, alive) = match stage {
                Stage::Ended => return None,
                Stage::Hello(hello, producer, alive) => {
                    let bytes = hello.encode();
                    alive.0.metrics.sent(bytes.len());
                    return Some((Ok(bytes), Stage::Frames(producer, alive)));
                }
                Stage::Frames(producer, alive) => {
                    let made = alive.make(producer).await;
                    match made {
                        Made::Frame(bytes, producer) => (bytes, Some(producer), alive),
                        Made::Last(bytes) => (bytes, None, alive),
                        Made::Nothing => return None,
                    }
                }
            };
            alive.0.metrics.sent(bytes.len());
            let next = next.map_or(Stage::Ended, |producer| Stage::Frames(producer, alive));
            Some((Ok(bytes), next))
        },
    )
}

/// As long as it lives, somebody waits for the answer.
struct Alive(Pace);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

enum Made {
    Frame(Bytes, Box<Producer>),
    Last(Bytes),
    Nothing,
}

impl Alive {
    async fn make(&self, mut producer: Box<Producer>) -> Made {
        let making = async {
            let permit = self.0.running.clone().acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (producer.next(), producer)
            })
            .await
        };
        match timeout_at(self.0.deadline.into(), making).await {
            Ok(Ok((Some((bytes, false)), producer))) => Made::Frame(bytes, producer),
            Ok(Ok((Some((bytes, true)), _))) => Made::Last(bytes),
            Ok(Ok((None, _))) => Made::Nothing,
            Ok(Err(error)) => last(
                ErrorCode::Internal,
                format!("a frame was not made: {error}"),
            ),
            Err(_) => {
                self.0.cancel.cancel();
                last(ErrorCode::Deadline, "the read took too long".to_owned())
            }
        }
    }
}

fn last(code: ErrorCode, message: String) -> Made {
    Made::Last(StreamError { code, message }.encode())
}
