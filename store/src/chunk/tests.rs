use proptest::prelude::*;
use tsz::stream::{BufferedReader, BufferedWriter};
use tsz::{DataPoint, Decode, Encode, StdDecoder, StdEncoder};

use super::*;

type Bits = (i64, u64);

fn encode(samples: &[Bits]) -> ChunkWriter {
    let mut chunk = ChunkWriter::new();
    for &(timestamp, bits) in samples {
        chunk.push(timestamp, f64::from_bits(bits));
    }
    chunk
}

fn decode(bytes: &[u8], count: usize) -> Result<Vec<Bits>, ChunkError> {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    decode_chunk(bytes, count as u32, &mut timestamps, &mut values)?;
    let values = values.into_iter().map(f64::to_bits);
    Ok(timestamps.into_iter().zip(values).collect())
}

#[track_caller]
fn check(samples: &[Bits]) {
    let chunk = encode(samples);
    assert_eq!(chunk.len(), samples.len());
    assert_eq!(decode(chunk.bytes(), samples.len()).as_deref(), Ok(samples));
}

fn floats(samples: &[(i64, f64)]) -> Vec<Bits> {
    samples.iter().map(|&(t, v)| (t, v.to_bits())).collect()
}

const START: i64 = 1_700_000_000_000;

// The four inputs on which the crate `tsz` 0.1.4 is silently wrong.

#[test]
fn a_first_delta_over_16_383_seconds_survives() {
    check(&floats(&[
        (START, 1.0),
        (START + 20_000, 2.0),
        (START + 40_000, 3.0),
    ]));
}

#[test]
fn a_gap_over_24_8_days_survives() {
    const DAY: i64 = 86_400_000;
    check(&floats(&[
        (START, 1.0),
        (START + 1_000, 2.0),
        (START + 25 * DAY, 3.0),
        (START + 25 * DAY + 1_000, 4.0),
        (START + 50_000 * DAY, 5.0),
    ]));
}

#[test]
fn timestamps_out_of_order_survive() {
    check(&floats(&[
        (START, 1.0),
        (START - 5, 2.0),
        (START - 5, 3.0),
        (START + 7, 4.0),
        (-1, 5.0),
    ]));
}

#[test]
fn a_nanosecond_clock_survives() {
    let samples: Vec<_> = (0..50)
        .map(|i| {
            (
                START * 1_000_000 + i * 15_000_000_123 + i * i % 977,
                i as f64 * 0.5,
            )
        })
        .collect();
    check(&floats(&samples));
}

#[test]
fn the_ends_of_the_time_line_survive() {
    let times = [
        i64::MIN,
        i64::MAX,
        0,
        i64::MAX,
        i64::MIN,
        -1,
        1,
        i64::MIN + 1,
        i64::MAX - 1,
    ];
    check(&times.map(|t| (t, 0)));
}

#[test]
fn every_kind_of_float_survives() {
    let values = [
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        (-0.0f64).to_bits(),
        0,
        millrace_model::STALE_NAN_BITS,
        f64::NAN.to_bits(),
        0xffff_ffff_ffff_ffff,
        0x7ff0_0000_0000_0001,
        1,
        0x000f_ffff_ffff_ffff,
        f64::MIN_POSITIVE.to_bits(),
        f64::MAX.to_bits(),
        (1.0f64 / 3.0).to_bits(),
        9_007_199_254_740_993.0f64.to_bits(),
        1e-300f64.to_bits(),
    ];
    let mut samples = Vec::new();
    for (i, first) in values.into_iter().enumerate() {
        for second in values {
            samples.extend([
                (i as i64, first),
                (i as i64, second),
                (i as i64 * 3, second),
            ]);
        }
    }
    check(&samples);
}

#[test]
fn every_width_of_change_and_of_window_survives() {
    let mut samples = Vec::new();
    let (mut time, mut delta) = (0i64, 0i64);
    for bits in 0..64 {
        for change in [1u64 << bits, (1 << bits) - 1, (1 << bits) + 1] {
            delta = delta.wrapping_add(millrace_model::unzigzag(change));
            time = time.wrapping_add(delta);
            samples.push((time, change.rotate_left(bits)));
            samples.push((time, u64::MAX >> bits));
        }
    }
    // Around the edges of the bins.
    for bin in BINS {
        for change in [
            bin.base - 1,
            bin.base,
            bin.base + (1 << bin.bits) - 1,
            bin.base + (1 << bin.bits),
        ] {
            delta = delta.wrapping_add(millrace_model::unzigzag(change));
            time = time.wrapping_add(delta);
            samples.push((time, 0));
        }
    }
    check(&samples);
}

#[test]
fn a_steady_series_takes_one_bit_a_sample() {
    let samples: Vec<_> = (0..1_000).map(|i| (START + i * 15_000, 42.0)).collect();
    let chunk = encode(&floats(&samples));
    // The first sample, one first difference of 2 + 28 + 1 bits, one change back to none.
    assert!(
        chunk.bytes().len() <= 16 + 4 + 998 / 8 + 1,
        "{}",
        chunk.bytes().len()
    );
    check(&floats(&samples));
}

#[test]
fn a_cleared_chunk_is_as_new() {
    let samples = floats(&[(5, 1.5), (7, -2.5), (8, f64::NAN), (100, 0.1)]);
    let mut chunk = encode(&samples);
    let heap = chunk.heap_bytes();
    chunk.clear();
    assert!(chunk.is_empty() && chunk.bytes().is_empty());
    assert_eq!(chunk.heap_bytes(), heap);
    for &(timestamp, bits) in &samples {
        chunk.push(timestamp, f64::from_bits(bits));
    }
    assert_eq!(chunk.bytes(), encode(&samples).bytes());
}

#[test]
fn the_ends_of_an_open_chunk_are_known() {
    let chunk = encode(&floats(&[(-5, 1.5), (7, -2.5)]));
    assert_eq!((chunk.first_timestamp(), chunk.last_timestamp()), (-5, 7));
    assert_eq!(chunk.last_value(), -2.5);
    let empty = ChunkWriter::new();
    assert_eq!(
        (
            empty.first_timestamp(),
            empty.last_timestamp(),
            empty.heap_bytes()
        ),
        (0, 0, 0)
    );
    assert_eq!(decode(empty.bytes(), 0), Ok(vec![]));
}

#[test]
fn reserved_memory_stays_close_to_what_is_used() {
    let mut chunk = ChunkWriter::new();
    for i in 0..240 {
        chunk.push(START + i * 15_000, (i as f64).sqrt());
        let (used, reserved) = (chunk.bytes().len(), chunk.heap_bytes());
        assert!(
            reserved <= used + used / 4 + 32,
            "{used} bytes used of {reserved}"
        );
    }
}

#[test]
fn wrong_counts_are_errors() {
    let chunk = encode(&floats(&[(1, 1.0), (2, 2.0), (4, 2.0), (5, 9.0)]));
    let bytes = chunk.bytes();
    for count in [0, 1, 2, 3] {
        let got = decode(bytes, count);
        assert!(
            matches!(got, Err(ChunkError::Trailing { .. })),
            "{count}: {got:?}"
        );
    }
    // A fifth sample might be one of the zeros that fill the last byte; a sixteenth cannot.
    assert!(matches!(
        decode(bytes, 20),
        Err(ChunkError::Truncated { .. })
    ));
    let huge = ChunkReader::new(bytes, u32::MAX);
    assert!(matches!(
        huge,
        Err(ChunkError::Truncated {
            count: u32::MAX,
            ..
        })
    ));
}

#[test]
fn every_truncation_is_an_error() {
    let samples: Vec<_> = (0..40)
        .map(|i| (START + i * 1_003 + i % 3, i as f64 * 0.37))
        .collect();
    let chunk = encode(&floats(&samples));
    for end in 0..chunk.bytes().len() {
        let got = decode(&chunk.bytes()[..end], samples.len());
        assert!(got.is_err(), "{end} of {} bytes", chunk.bytes().len());
    }
    let mut longer = chunk.bytes().to_vec();
    longer.push(0);
    assert!(matches!(
        decode(&longer, samples.len()),
        Err(ChunkError::Trailing { .. })
    ));
}

#[test]
fn a_window_over_the_end_of_a_value_is_named() {
    // Second sample: on the grid (`10`), new window (`1`), 31 zeros, 64 bits.
    let mut bytes = vec![0; 16];
    bytes.extend([0b1011_1111, 0b1111_1100, 0, 0, 0, 0, 0, 0, 0, 0]);
    let expect = ChunkError::Window {
        sample: 1,
        lead: 31,
        width: 64,
    };
    assert_eq!(decode(&bytes, 2), Err(expect));
}

/// The golden chunk, whose dump is on the page: it must never change.
#[test]
fn golden_chunk_is_reproduced() {
    let samples = golden();
    let chunk = encode(&samples);
    let golden = include_bytes!("../../testdata/chunk-v1.bin");
    assert_eq!(chunk.bytes(), golden);
    assert_eq!(decode(golden, samples.len()), Ok(samples));
    let page = include_str!("../../../docs/formats/chunk.md");
    let dump = crate::golden::hex_dump(golden);
    assert!(
        page.contains(&dump),
        "docs/formats/chunk.md lacks the dump of the golden chunk:\n{dump}"
    );
}

/// One sample for each line of the page's tables.
pub(crate) fn golden() -> Vec<Bits> {
    floats(&[
        (1_795_233_600_000, 21.5),
        (1_795_233_615_000, 21.5),
        (1_795_233_630_000, 21.5),
        (1_795_233_645_000, 21.75),
        (1_795_233_660_003, 21.75),
        (1_795_233_675_000, 22.0),
        (1_795_233_690_500, -0.0),
        (
            1_795_233_720_000,
            f64::from_bits(millrace_model::STALE_NAN_BITS),
        ),
        (1_795_320_120_000, 0.1),
        (1_795_320_119_999, 0.1),
    ])
}

/// Timestamps and values as sources make them, and as nobody does.
fn any_samples() -> impl Strategy<Value = Vec<Bits>> {
    let time_step = prop_oneof![
        4 => Just(15_000i64),
        3 => 14_990i64..15_010,
        2 => -100_000i64..100_000,
        1 => any::<i64>(),
    ];
    let bits = prop_oneof![
        3 => Just(42.0f64.to_bits()),
        3 => (0i32..100).prop_map(|v| f64::from(v).to_bits()),
        2 => (-1e6f64..1e6).prop_map(f64::to_bits),
        2 => any::<u64>(),
        1 => any::<u64>().prop_map(|b| b | 0x7ff0_0000_0000_0000),
    ];
    let step = (time_step, bits);
    (any::<i64>(), proptest::collection::vec(step, 0..300)).prop_map(|(start, steps)| {
        let mut time = start;
        let next = steps.into_iter().map(|(step, bits)| {
            time = time.wrapping_add(step);
            (time, bits)
        });
        next.collect()
    })
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(samples in any_samples()) {
        let chunk = encode(&samples);
        prop_assert_eq!(decode(chunk.bytes(), samples.len()), Ok(samples));
    }

    #[test]
    fn an_open_chunk_is_complete_after_each_sample(samples in any_samples()) {
        let mut chunk = ChunkWriter::new();
        for (i, &(timestamp, bits)) in samples.iter().enumerate().take(40) {
            chunk.push(timestamp, f64::from_bits(bits));
            let got = decode(chunk.bytes(), chunk.len());
            prop_assert_eq!(got.as_deref(), Ok(&samples[..=i]));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, count in 0u32..500) {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        if decode_chunk(&bytes, count, &mut timestamps, &mut values).is_ok() {
            prop_assert_eq!(timestamps.len(), count as usize);
        }
        prop_assert!(timestamps.len() <= count as usize && timestamps.len() == values.len());
    }

    #[test]
    fn damaged_chunks_never_panic(
        samples in any_samples(),
        at: proptest::sample::Index,
        flip in 1u8..=255,
        count in 0u32..400,
    ) {
        let mut bytes = encode(&samples).bytes().to_vec();
        if !bytes.is_empty() {
            *at.get_mut(&mut bytes) ^= flip;
        }
        for count in [count, samples.len() as u32] {
            if let Ok(got) = decode(&bytes, count as usize) {
                prop_assert_eq!(got.len(), count as usize);
            }
        }
    }

    /// Where `tsz` is right (seconds, in order, small gaps), both give the same samples.
    #[test]
    fn agrees_with_tsz_on_seconds(
        steps in proptest::collection::vec((1u64..3_000, any::<u64>()), 1..200),
    ) {
        const START_S: u64 = 1_700_000_000;
        let mut time = START_S;
        let samples: Vec<_> = steps.into_iter().map(|(step, bits)| {
            time += step;
            (time as i64, bits)
        }).collect();
        let mut encoder = StdEncoder::new(START_S, BufferedWriter::new());
        for &(time, bits) in &samples {
            encoder.encode(DataPoint::new(time as u64, f64::from_bits(bits)));
        }
        let mut decoder = StdDecoder::new(BufferedReader::new(encoder.close()));
        let ours = decode(encode(&samples).bytes(), samples.len());
        let ours = ours.map_err(|error| TestCaseError::fail(error.to_string()))?;
        for (time, bits) in ours {
            let point = decoder.next().map_err(|_| TestCaseError::fail("tsz ended early"))?;
            prop_assert_eq!((point.get_time() as i64, point.get_value().to_bits()), (time, bits));
        }
        prop_assert!(decoder.next().is_err());
    }
}
