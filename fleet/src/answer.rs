//! Answers as they come in, and the memory that they take.
//!
//! An answer is read from the network to its end before the first of its samples is decoded: only
//! then it is known to be whole, and another replica can still be asked. What is kept are the
//! frames as they came; a series decodes its columns when it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use millrace_model::{Labels, MetricMetadata};
use millrace_query::{ReadContext, ReadStats, SampleColumns, SourceError, StoredSeries};
use prometheus::IntGauge;

use crate::client::{CallError, Collector};
use crate::wire::WireError;
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::items::{decode_labels, decode_metadata, decode_texts};
use crate::wire::series::{Piece, decode_series};

/// What a series or text takes beside its bytes, about.
const ITEM_OVERHEAD: u64 = 96;

/// Memory of all reads together.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicU64,
    limit: u64,
    gauge: IntGauge,
}

impl Memory {
    pub(crate) fn new(limit: u64, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            limit,
            gauge,
        })
    }
}

/// Memory of one read, of all stores that it asks.
#[derive(Debug)]
pub(crate) struct ReadMemory {
    all: Arc<Memory>,
    used: AtomicU64,
    limit: u64,
}

impl ReadMemory {
    pub(crate) fn new(all: Arc<Memory>, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            all,
            used: AtomicU64::new(0),
            limit,
        })
    }
}

/// A part of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Arc<ReadMemory>,
    bytes: u64,
}

impl Charge {
    pub(crate) fn new(memory: Arc<ReadMemory>) -> Self {
        Self { memory, bytes: 0 }
    }

    fn add(&mut self, bytes: u64) -> Result<(), CallError> {
        let ReadMemory { all, used, limit } = &*self.memory;
        self.bytes += bytes;
        let of_read = used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_all = all.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        all.gauge.set(i64::try_from(of_all).unwrap_or(i64::MAX));
        if of_read > *limit {
            return Err(CallError::Memory {
                limit: *limit,
                all: false,
            });
        }
        if of_all > all.limit {
            return Err(CallError::Memory {
                limit: all.limit,
                all: true,
            });
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let ReadMemory { all, used, .. } = &*self.memory;
        used.fetch_sub(self.bytes, Ordering::Relaxed);
        let before = all.used.fetch_sub(self.bytes, Ordering::Relaxed);
        let left = i64::try_from(before - self.bytes).unwrap_or(i64::MAX);
        all.gauge.set(left);
    }
}

/// A collector that begins with the memory that it may take.
pub(crate) trait Answer: Collector + Send + Sized {
    fn new(charge: Charge) -> Self;
}

fn unexpected() -> CallError {
    CallError::Wire(WireError::Invalid {
        what: "kind of a frame in this answer",
    })
}

/// Series with samples.
#[derive(Debug)]
pub(crate) struct SeriesAnswer {
    charge: Charge,
    /// Bodies.
    frames: Vec<Bytes>,
    /// Of all series, one behind the other, with the frame that each is in.
    pieces: Vec<(u32, Piece)>,
    /// With the number of the first piece.
    series: Vec<(Labels, u32)>,
    samples: u64,
}

impl Answer for SeriesAnswer {
    fn new(charge: Charge) -> Self {
        Self {
            charge,
            frames: Vec::new(),
            pieces: Vec::new(),
            series: Vec::new(),
            samples: 0,
        }
    }
}

impl Collector for SeriesAnswer {
    fn accept(&mut self, frame: Frame) -> Result<(), CallError> {
        if frame.kind != FrameKind::Series {
            return Err(unexpected());
        }
        self.charge.add(frame.body.len() as u64)?;
        let Self {
            charge,
            frames,
            pieces,
            series,
            samples,
        } = self;
        let too_many = || WireError::Invalid {
            what: "number of pieces",
        };
        let at = u32::try_from(frames.len()).map_err(|_| too_many())?;
        decode_series(&frame.body, |labels, piece| {
            let next = u32::try_from(pieces.len()).map_err(|_| too_many())?;
            match labels {
                Some(labels) => {
                    charge.add(labels.canonical().len() as u64 + ITEM_OVERHEAD)?;
                    series.push((labels, next));
                }
                None if series.is_empty() => {
                    let what = "first piece";
                    return Err(CallError::Wire(WireError::Invalid { what }));
                }
                None => charge.add(size_of::<(u32, Piece)>() as u64)?,
            }
            *samples += piece.count() as u64;
            pieces.push((at, piece));
            Ok(())
        })?;
        frames.push(frame.body);
        Ok(())
    }

    fn came(&self) -> (u64, u64) {
        (self.series.len() as u64, self.samples)
    }
}

/// What the series of an answer share.
#[derive(Debug)]
struct Frames {
    frames: Vec<Bytes>,
    pieces: Vec<(u32, Piece)>,
    store: String,
    context: Arc<ReadContext>,
    _charge: Charge,
}

/// A series whose samples are here, not decoded yet.
struct RemoteSeries {
    labels: Labels,
    from: Arc<Frames>,
    first: u32,
    end: u32,
}

impl SeriesAnswer {
    /// The series, to be read at will.
    pub(crate) fn series(
        self,
        store: &str,
        context: &Arc<ReadContext>,
        out: &mut Vec<Box<dyn StoredSeries>>,
    ) {
        let frames = Arc::new(Frames {
            frames: self.frames,
            pieces: self.pieces,
            store: store.to_owned(),
            context: context.clone(),
            _charge: self.charge,
        });
        let last = frames.pieces.len() as u32;
        let mut ends: Vec<u32> = self
            .series
            .iter()
            .skip(1)
            .map(|(_, first)| *first)
            .collect();
        ends.push(last);
        for ((labels, first), end) in self.series.into_iter().zip(ends) {
            out.push(Box::new(RemoteSeries {
                labels,
                from: frames.clone(),
                first,
                end,
            }));
        }
    }
}

impl StoredSeries for RemoteSeries {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let begun = Instant::now();
        let from = &*self.from;
        let mut bytes = 0;
        // Pieces must follow one another in time, but not what stood in `out` before.
        let mut own = SampleColumns::default();
        let columns = if out.is_empty() { &mut *out } else { &mut own };
        for (frame, piece) in &from.pieces[self.first as usize..self.end as usize] {
            let body = &from.frames[*frame as usize];
            piece
                .read(body, &mut columns.timestamps, &mut columns.values)
                .map_err(|error| SourceError::DataUnavailable {
                    reason: format!("store {}: {}: {error}", from.store, self.labels),
                })?;
            bytes += piece.count() as u64 * 16;
        }
        if !own.is_empty() {
            out.timestamps.append(&mut own.timestamps);
            out.values.append(&mut own.values);
        }
        let stats = &from.context.stats;
        ReadStats::add(&stats.bytes, bytes);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        ReadStats::add(&stats.read_nanos, nanos);
        Ok(())
    }
}

/// Label sets, texts or metadata: small, and decoded at once.
macro_rules! list_answer {
    ($name:ident, $item:ty, $kind:ident, $decode:expr, $bytes:expr) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            charge: Charge,
            pub(crate) items: Vec<$item>,
        }

        impl Answer for $name {
            fn new(charge: Charge) -> Self {
                Self {
                    charge,
                    items: Vec::new(),
                }
            }
        }

        impl Collector for $name {
            fn accept(&mut self, frame: Frame) -> Result<(), CallError> {
                if frame.kind != FrameKind::$kind {
                    return Err(unexpected());
                }
                let Self { charge, items } = self;
                $decode(&frame.body, &mut |item: $item| {
                    let bytes: usize = $bytes(&item);
                    charge.add(bytes as u64 + ITEM_OVERHEAD)?;
                    items.push(item);
                    Ok(())
                })
            }

            fn came(&self) -> (u64, u64) {
                (self.items.len() as u64, 0)
            }
        }
    };
}

type Each<'a, T> = &'a mut dyn FnMut(T) -> Result<(), CallError>;

list_answer!(
    LabelsAnswer,
    Labels,
    Labels,
    |body: &[u8], each: Each<'_, Labels>| decode_labels(body, each),
    |labels: &Labels| labels.canonical().len()
);
list_answer!(
    TextsAnswer,
    String,
    Texts,
    |body: &[u8], each: Each<'_, String>| decode_texts(body)?.into_iter().try_for_each(each),
    |text: &String| text.len()
);
list_answer!(
    MetadataAnswer,
    MetricMetadata,
    Metadata,
    |body: &[u8], each: Each<'_, MetricMetadata>| {
        decode_metadata(body)?.into_iter().try_for_each(each)
    },
    |entry: &MetricMetadata| entry.metric.len() + entry.help.len() + entry.unit.len()
);
