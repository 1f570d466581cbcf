//! Bytes and nanoseconds per sample of the memtable's bit stream and of the blocks' columns, beside
//! the crate `tsz` on the same samples in seconds (it is wrong in milliseconds).
//!
//! `cargo run --release -p millrace-store --example chunk_codec`

use std::hint::black_box;
use std::time::{Duration, Instant};

use millrace_store::block::columns::{self, ColumnEncoder};
use millrace_store::chunk::{ChunkWriter, decode_chunk};
use tsz::stream::{BufferedReader, BufferedWriter};
use tsz::{DataPoint, Decode, Encode, StdDecoder, StdEncoder};

const SERIES: usize = 100;
const CHUNKS: usize = 10;
const ROUNDS: usize = 9;
const START_MS: i64 = 1_795_233_600_000;

/// A small generator with a fixed seed (xorshift64*): the figures are to be repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About N(0, 1).
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

type Samples = Vec<(i64, f64)>;

/// A source of timestamps and one of values.
type Source = fn(&mut Random, usize) -> Samples;

fn series(
    random: &mut Random,
    count: usize,
    jitter: fn(&mut Random) -> i64,
    mut value: impl FnMut(&mut Random) -> f64,
) -> Samples {
    let one = |i| (START_MS + i as i64 * 10_000 + jitter(random), value(random));
    (0..count).map(one).collect()
}

fn on_the_grid(_: &mut Random) -> i64 {
    0
}

/// As scrapes of a real Prometheus are: three of four on the millisecond, the rest off by a few.
fn scrape_jitter(random: &mut Random) -> i64 {
    if random.next().is_multiple_of(4) {
        (random.normal() * 1.5) as i64
    } else {
        0
    }
}

fn walk(random: &mut Random, state: &mut f64) -> f64 {
    *state = (*state + random.normal()).clamp(0.0, 100.0);
    *state
}

const SETS: [(&str, Source); 7] = [
    ("tsbs integers", |r, n| {
        let mut state = 100.0 * r.unit();
        series(r, n, on_the_grid, |r| walk(r, &mut state).trunc())
    }),
    ("tsbs floats", |r, n| {
        let mut state = 100.0 * r.unit();
        series(r, n, on_the_grid, |r| walk(r, &mut state))
    }),
    ("counters", |r, n| {
        let (mut total, rate) = (1e6 * r.unit(), 200.0 * r.unit());
        total = total.trunc();
        series(r, n, scrape_jitter, |r| {
            total += (rate + rate.sqrt() * r.normal()).max(0.0).trunc();
            total
        })
    }),
    ("two decimals", |r, n| {
        let mut state = 2_000.0;
        series(r, n, scrape_jitter, |r| {
            state += (r.normal() * 3.0).trunc();
            state / 100.0
        })
    }),
    ("constant", |r, n| series(r, n, on_the_grid, |_| 1.0)),
    ("constant, jitter", |r, n| {
        series(r, n, scrape_jitter, |_| 1.0)
    }),
    ("noise", |r, n| series(r, n, on_the_grid, |r| r.unit())),
];

fn main() {
    println!(
        "{SERIES} series, {CHUNKS} chunks each; bytes and ns per sample (timestamp + value), \
         median of {ROUNDS}\n"
    );
    println!(
        "| set | samples a chunk | bits: bytes | push | decode | columns: bytes | encode | decode \
         | tsz: bytes | push | decode |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (name, source) in SETS {
        for len in [120, 240, 1_024] {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let chunks: Vec<Samples> = (0..SERIES)
                .flat_map(|_| {
                    let all = source(&mut random, len * CHUNKS);
                    all.chunks(len).map(<[_]>::to_vec).collect::<Vec<_>>()
                })
                .collect();
            print!("| {name} | {len}");
            for (bytes, encode, decode) in [
                measure_bits(&chunks),
                measure_columns(&chunks),
                measure_tsz(&chunks),
            ] {
                print!(" | {bytes:.3} | {encode:.1} | {decode:.1}");
            }
            println!(" |");
        }
    }
}

/// Bytes, and ns to encode and to decode a sample.
type Figures = (f64, f64, f64);

fn median(mut times: Vec<Duration>, samples: usize) -> f64 {
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / samples as f64
}

fn measure_bits(chunks: &[Samples]) -> Figures {
    let samples: usize = chunks.iter().map(Vec::len).sum();
    let (mut push, mut decode) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let coded: Vec<ChunkWriter> = chunks
            .iter()
            .map(|chunk| {
                let mut writer = ChunkWriter::new();
                for &(timestamp, value) in black_box(chunk) {
                    writer.push(timestamp, value);
                }
                writer
            })
            .collect();
        push.push(start.elapsed());
        bytes = coded.iter().map(|c| c.bytes().len()).sum();
        let start = Instant::now();
        for chunk in &coded {
            timestamps.clear();
            values.clear();
            let count = chunk.len() as u32;
            decode_chunk(
                black_box(chunk.bytes()),
                count,
                &mut timestamps,
                &mut values,
            )
            .expect("a chunk just written");
            black_box((&timestamps, &values));
        }
        decode.push(start.elapsed());
        for (chunk, samples) in coded.iter().zip(chunks) {
            timestamps.clear();
            values.clear();
            decode_chunk(
                chunk.bytes(),
                chunk.len() as u32,
                &mut timestamps,
                &mut values,
            )
            .expect("a chunk just written");
            let got = timestamps
                .iter()
                .zip(&values)
                .map(|(&t, v)| (t, v.to_bits()));
            assert!(
                got.eq(samples.iter().map(|&(t, v)| (t, v.to_bits()))),
                "not what was pushed"
            );
        }
    }
    (
        bytes as f64 / samples as f64,
        median(push, samples),
        median(decode, samples),
    )
}

fn measure_columns(chunks: &[Samples]) -> Figures {
    let samples: usize = chunks.iter().map(Vec::len).sum();
    let (mut encode, mut decode) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let split: Vec<(Vec<i64>, Vec<f64>)> =
        chunks.iter().map(|c| c.iter().copied().unzip()).collect();
    for _ in 0..ROUNDS {
        let mut encoder = ColumnEncoder::new();
        let start = Instant::now();
        let coded: Vec<Vec<u8>> = split
            .iter()
            .map(|(timestamps, values)| {
                let mut out = Vec::new();
                encoder.encode(black_box(timestamps), black_box(values), &mut out);
                out
            })
            .collect();
        encode.push(start.elapsed());
        bytes = coded.iter().map(Vec::len).sum();
        let start = Instant::now();
        for (chunk, (expect, _)) in coded.iter().zip(&split) {
            timestamps.clear();
            values.clear();
            let count = expect.len() as u32;
            columns::decode(
                black_box(chunk),
                count,
                expect[0],
                &mut timestamps,
                &mut values,
            )
            .expect("a chunk just written");
            black_box((&timestamps, &values));
        }
        decode.push(start.elapsed());
    }
    (
        bytes as f64 / samples as f64,
        median(encode, samples),
        median(decode, samples),
    )
}

fn measure_tsz(chunks: &[Samples]) -> Figures {
    let samples: usize = chunks.iter().map(Vec::len).sum();
    let (mut push, mut decode) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let coded: Vec<Box<[u8]>> = chunks
            .iter()
            .map(|chunk| {
                let seconds = |ms: i64| (ms / 1_000) as u64;
                let mut encoder = StdEncoder::new(seconds(chunk[0].0), BufferedWriter::new());
                for &(timestamp, value) in black_box(chunk) {
                    encoder.encode(DataPoint::new(seconds(timestamp), value));
                }
                encoder.close()
            })
            .collect();
        push.push(start.elapsed());
        bytes = coded.iter().map(|c| c.len()).sum();
        let start = Instant::now();
        for chunk in coded {
            let mut decoder = StdDecoder::new(BufferedReader::new(chunk));
            while let Ok(point) = decoder.next() {
                black_box(point);
            }
        }
        decode.push(start.elapsed());
    }
    (
        bytes as f64 / samples as f64,
        median(push, samples),
        median(decode, samples),
    )
}
