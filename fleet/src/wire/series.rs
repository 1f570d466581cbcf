//! Frames of series with their samples.
//!
//! A series comes in pieces, one behind the other; a piece of a series that the frame before has
//! begun says so and has no labels. Columns are read only when somebody wants them: who receives
//! a frame takes note of where they are.

use bytes::Bytes;
use millrace_model::{Labels, write_varint};

use super::columns::{
    PIECE_SAMPLES_MAX, ValueEncoder, decode_timestamps, decode_values, encode_timestamps, steps,
};
use super::frame::{FRAME_HEADER_BYTES, FrameBuffer, FrameKind};
use super::items::{LabelsReader, LabelsWriter};
use super::{Input, WireError};

/// The piece is of the series of the piece before.
const CONTINUES: u8 = 1;

/// Samples of a piece as they are written; a gap makes only its own piece wider.
pub const PIECE_SAMPLES: usize = 8_192;

/// Timestamps that are remembered for series that share them: a frame's series come metric by
/// metric, so the ones of a hundred targets take turns.
const RECENT: usize = 128;

/// Timestamps that stand in the frame already, and where.
#[derive(Debug, Default)]
struct Recent {
    timestamps: Vec<i64>,
    at: usize,
}

/// Writes one frame of series.
#[derive(Debug, Default)]
pub struct SeriesWriter {
    frame: FrameBuffer,
    labels: LabelsWriter,
    values: ValueEncoder,
    scratch: Vec<u8>,
    recent: Vec<Recent>,
}

impl SeriesWriter {
    /// Length of the frame's body so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Adds a piece: with the series' labels, or of the series of the piece before.
    ///
    /// # Panics
    ///
    /// If the columns differ in length, are empty, or longer than [`PIECE_SAMPLES_MAX`].
    pub fn piece(&mut self, labels: Option<&Labels>, timestamps: &[i64], values: &[f64]) {
        assert_eq!(timestamps.len(), values.len(), "columns of a piece");
        let out = self.frame.body();
        match labels {
            Some(labels) => {
                out.push(0);
                self.labels.write(labels, out);
            }
            None => out.push(CONTINUES),
        }
        write_varint(out, timestamps.len() as u64);
        self.timestamps(timestamps);
        self.scratch.clear();
        self.values.encode(values, &mut self.scratch);
        let out = self.frame.body();
        write_varint(out, self.scratch.len() as u64);
        out.extend_from_slice(&self.scratch);
    }

    fn timestamps(&mut self, timestamps: &[i64]) {
        let out = self.frame.body();
        let here = out.len() - FRAME_HEADER_BYTES;
        // Regular ones are shorter than what says where they are.
        let regular = steps(timestamps).is_none_or(|(least, greatest)| least == greatest);
        if !regular {
            self.recent.resize_with(RECENT, Recent::default);
            let recent = &mut self.recent[slot(timestamps)];
            if recent.timestamps == timestamps {
                write_varint(out, (here - recent.at) as u64);
                return;
            }
            recent.timestamps.clear();
            recent.timestamps.extend_from_slice(timestamps);
            // Behind the zero that says that they follow.
            recent.at = here + 1;
        }
        write_varint(out, 0);
        self.scratch.clear();
        encode_timestamps(timestamps, &mut self.scratch);
        write_varint(out, self.scratch.len() as u64);
        out.extend_from_slice(&self.scratch);
    }

    /// The frame as it is sent; the writer begins the next one.
    #[must_use]
    pub fn finish(&mut self) -> Bytes {
        let frame = std::mem::take(&mut self.frame);
        self.labels = LabelsWriter::default();
        // What was remembered stands in the frame that is gone.
        for recent in &mut self.recent {
            recent.timestamps.clear();
        }
        frame.finish(FrameKind::Series)
    }
}

fn slot(timestamps: &[i64]) -> usize {
    let step = timestamps.len().div_ceil(32);
    let mix = |hash: u64, t: &i64| (hash ^ *t as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = timestamps
        .iter()
        .step_by(step)
        .fold(timestamps.len() as u64, mix);
    (hash >> 32) as usize % RECENT
}

/// Where in a frame the columns of a piece are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    timestamps_at: u32,
    values_at: u32,
    count: u32,
}

impl Piece {
    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Appends the samples of a piece of that frame.
    ///
    /// # Errors
    ///
    /// Columns that are none, or timestamps that do not grow.
    pub fn read(
        &self,
        body: &[u8],
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), WireError> {
        let count = self.count as usize;
        let before = timestamps.last().copied();
        let first = timestamps.len();
        let column = Input::at(body, self.timestamps_at as usize).counted("timestamps")?;
        decode_timestamps(column, count, timestamps)?;
        if before.is_some_and(|before| timestamps[first] <= before) {
            return Err(WireError::Invalid {
                what: "order of pieces",
            });
        }
        let column = Input::at(body, self.values_at as usize).counted("values")?;
        decode_values(column, count, values)
    }
}

/// Reads the directory of a frame: `each` is told of each piece, with labels where a series begins.
///
/// # Errors
///
/// Bytes that are no such frame, or what `each` says.
pub fn decode_series<E: From<WireError>>(
    body: &[u8],
    mut each: impl FnMut(Option<Labels>, Piece) -> Result<(), E>,
) -> Result<(), E> {
    let mut input = Input::new(body);
    let mut labels = LabelsReader::default();
    let invalid = |what| WireError::Invalid { what };
    let place = |pos: usize| u32::try_from(pos).map_err(|_| invalid("place in a frame"));
    while !input.is_empty() {
        let begun = match input.u8("piece")? {
            0 => Some(labels.read(&mut input)?),
            CONTINUES => None,
            _ => return Err(invalid("kind of a piece").into()),
        };
        let count: usize = input.number("count of samples")?;
        if !(1..=PIECE_SAMPLES_MAX).contains(&count) {
            return Err(invalid("count of samples").into());
        }
        let here = input.pos();
        let back: usize = input.number("timestamps")?;
        let timestamps_at = if back == 0 {
            let at = input.pos();
            input.counted("timestamps")?;
            at
        } else {
            here.checked_sub(back).ok_or(invalid("timestamps"))?
        };
        let values_at = input.pos();
        input.counted("values")?;
        let piece = Piece {
            timestamps_at: place(timestamps_at)?,
            values_at: place(values_at)?,
            count: count as u32,
        };
        each(begun, piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Columns = (Vec<i64>, Vec<f64>);

    fn labels(name: usize) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("n", &*format!("{name}"))]).unwrap()
    }

    fn read(body: &[u8]) -> Result<Vec<(Option<Labels>, Columns)>, WireError> {
        let mut all = Vec::new();
        decode_series::<WireError>(body, |labels, piece| {
            let mut columns = Columns::default();
            piece.read(body, &mut columns.0, &mut columns.1)?;
            all.push((labels, columns));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn shared_timestamps_stand_once_in_a_frame_and_again_in_the_next() {
        let times: Vec<i64> = (0..500).map(|i| i * 1000 + i % 7).collect();
        let values = vec![1.0; 500];
        let mut writer = SeriesWriter::default();
        for _ in 0..2 {
            writer.piece(Some(&labels(0)), &times, &values);
            let one = writer.len();
            for name in 1..10 {
                writer.piece(Some(&labels(name)), &times, &values);
            }
            writer.piece(None, &[1_000_000], &[2.0]);
            assert!(writer.len() < one + 10 * 40, "{}", writer.len());
            let frame = writer.finish();
            let found = read(&frame[FRAME_HEADER_BYTES..]).unwrap();
            assert_eq!(found.len(), 11);
            for (name, (found, columns)) in found[..10].iter().enumerate() {
                assert_eq!(found.as_ref(), Some(&labels(name)));
                assert_eq!((&columns.0, &columns.1), (&times, &values));
            }
            assert_eq!(found[10], (None, (vec![1_000_000], vec![2.0])));
        }
    }

    #[test]
    fn pieces_that_go_back_in_time_are_refused() {
        let mut writer = SeriesWriter::default();
        writer.piece(Some(&labels(0)), &[1, 5], &[1.0, 1.0]);
        writer.piece(None, &[5], &[1.0]);
        let frame = writer.finish();
        let body = &frame[FRAME_HEADER_BYTES..];
        let mut columns = Columns::default();
        let read = decode_series::<WireError>(body, |_, piece| {
            piece.read(body, &mut columns.0, &mut columns.1)
        });
        assert!(matches!(read, Err(WireError::Invalid { .. })), "{read:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_series_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            drop(read(&bytes));
        }

        #[test]
        fn any_changed_byte_ends_in_series_or_an_error(
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut writer = SeriesWriter::default();
            for name in 0..5 {
                writer.piece(Some(&labels(name)), &[1, 4, 9], &[0.5, 1.5, 7.25]);
            }
            let mut bytes = writer.finish()[FRAME_HEADER_BYTES..].to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(read(&bytes));
        }
    }
}
