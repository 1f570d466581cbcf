use proptest::prelude::*;

use super::*;

type Bits = (i64, u64);

fn encode(samples: &[Bits]) -> Vec<u8> {
    let timestamps: Vec<_> = samples.iter().map(|s| s.0).collect();
    let values: Vec<_> = samples.iter().map(|s| f64::from_bits(s.1)).collect();
    let mut out = Vec::new();
    ColumnEncoder::new().encode(&timestamps, &values, &mut out);
    out
}

fn decoded(bytes: &[u8], count: usize, first: i64) -> Result<Vec<Bits>, ColumnError> {
    let (mut timestamps, mut values) = (vec![7], vec![7.0]);
    let result = decode(bytes, count as u32, first, &mut timestamps, &mut values);
    assert_eq!(timestamps.len(), values.len());
    assert!(
        result.is_ok() || timestamps.len() == 1,
        "columns are not as before"
    );
    let bits = values.into_iter().map(f64::to_bits);
    result.map(|()| timestamps.into_iter().zip(bits).skip(1).collect())
}

#[track_caller]
fn check(samples: &[Bits]) -> usize {
    let bytes = encode(samples);
    let got = decoded(&bytes, samples.len(), samples[0].0).unwrap();
    for (i, (got, want)) in got.iter().zip(samples).enumerate() {
        assert_eq!(got, want, "sample {i} of {}", samples.len());
    }
    assert_eq!(got.len(), samples.len());
    bytes.len()
}

/// Values at one a step; returns the bytes of the chunk.
#[track_caller]
fn check_values(values: impl IntoIterator<Item = f64>) -> usize {
    let values = values.into_iter().map(f64::to_bits);
    let samples: Vec<_> = values
        .enumerate()
        .map(|(i, v)| (i as i64 * 15_000, v))
        .collect();
    check(&samples)
}

/// Lengths around groups and blocks.
const LENGTHS: [usize; 16] = [
    1, 2, 3, 7, 8, 9, 63, 64, 65, 120, 127, 128, 129, 192, 1_000, 1_024,
];

/// A small generator with a fixed seed (xorshift64*).
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn every_width_survives_in_every_length() {
    let mut state = 1;
    for len in LENGTHS {
        for width in 0..=64 {
            let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
            let numbers: Vec<_> = (0..len)
                .map(|_| (random(&mut state) & mask) as i64)
                .collect();
            let samples: Vec<_> = numbers.iter().map(|&n| (n, n as u64)).collect();
            check(&samples);
        }
    }
}

#[test]
fn kernels_agree_with_a_plain_reading() {
    let mut state = 3;
    for width in 1..=64 {
        let mask = u64::MAX >> (64 - width);
        let numbers: Vec<_> = (0..150).map(|_| random(&mut state) & mask).collect();
        let mut bytes = Vec::new();
        kernels::pack(&numbers, width, &mut bytes);
        assert_eq!(bytes.len(), kernels::packed_bytes(150, width));
        let mut out = [0; 150];
        kernels::unpack(&bytes, width, -5, &mut out);
        for (i, number) in numbers.iter().enumerate() {
            // Number i begins at bit i * width of its group of 64, lowest bit first.
            let start = i / 64 * width as usize * 64 + i % 64 * width as usize;
            let bit = |at: usize| u64::from(bytes[(start + at) / 8] >> ((start + at) % 8) & 1);
            let plain: u64 = (0..width as usize).map(|at| bit(at) << at).sum();
            assert_eq!(plain, *number);
            assert_eq!(
                out[i],
                (plain as i64).wrapping_sub(5),
                "width {width}, number {i}"
            );
        }
    }
}

#[test]
fn every_kind_of_float_survives() {
    let odd = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        f64::from_bits(millrace_model::STALE_NAN_BITS),
        f64::NAN,
        f64::from_bits(u64::MAX),
        f64::from_bits(1),
        -f64::from_bits(1),
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        1.0 / 3.0,
        9_007_199_254_740_993.0,
        1e-300,
        35_184_372_088_832.0,
        2_251_799_813_685_248.0,
        0.1 + 0.2,
    ];
    for len in LENGTHS {
        check_values((0..len).map(|i| odd[i % odd.len()]));
        // One odd value among decimals, at each end and in the middle.
        for value in odd {
            for at in [0, len / 2, len - 1] {
                check_values((0..len).map(|i| if i == at { value } else { i as f64 * 0.25 }));
            }
        }
    }
}

#[test]
fn decimals_around_the_limits_survive() {
    for power in 0..52 {
        for off in -3i64..4 {
            for exponent in 0..16 {
                let mantissa = (1i64 << power) + off;
                let value = mantissa as f64 / 10f64.powi(exponent);
                check_values([value, -value, value * 0.001, value + 0.1, value]);
            }
        }
    }
}

#[test]
fn ends_of_the_time_line_survive() {
    let times = [
        i64::MIN,
        i64::MAX,
        0,
        -1,
        1,
        i64::MIN + 1,
        i64::MAX - 1,
        i64::MIN,
        5,
    ];
    check(&times.map(|t| (t, t as u64)));
    check(&[(i64::MIN, 0), (i64::MAX, 1)]);
    let far: Vec<_> = (0..200)
        .map(|i| (i64::MIN + i * (i64::MAX / 200), 0))
        .collect();
    check(&far);
}

// What each transform is for, by the bytes that it leaves. 720 samples are two hours at 10 s.

#[test]
fn a_constant_takes_a_dozen_bytes() {
    assert!(check_values([42.0; 720]) <= 12);
    assert!(check_values([0.1; 720]) <= 12);
    assert!(check_values([1.0 / 3.0; 720]) <= 20);
}

#[test]
fn small_integers_take_few_bits() {
    let mut state = 5;
    let walk = |state: &mut u64| (random(state) % 3) as i64 - 1;
    let mut value = 50;
    let bytes = check_values((0..720).map(|_| {
        value += walk(&mut state);
        value as f64
    }));
    assert!(bytes <= 720 * 2 / 8 + 40, "{bytes}");
}

#[test]
fn hundredths_are_integers() {
    let mut state = 5;
    let mut value = 2_150i64;
    let bytes = check_values((0..720).map(|_| {
        value += (random(&mut state) % 7) as i64 - 3;
        value as f64 / 100.0
    }));
    assert!(bytes <= 720 * 3 / 8 + 40, "{bytes}");
}

#[test]
fn products_that_miss_their_decimal_are_corrected() {
    let mut state = 5;
    let mut value = 1_000i64;
    let bytes = check_values((0..720).map(|_| {
        value += (random(&mut state) % 64) as i64;
        value as f64 * 0.001
    }));
    assert!(bytes <= 720 * 8 / 8 + 60, "{bytes}");
}

#[test]
fn multiples_are_divided() {
    let mut state = 5;
    let bytes = check_values((0..720).map(|_| (random(&mut state) % 16 * 4_096) as f64));
    assert!(bytes <= 720 / 2 + 40, "{bytes}");
}

#[test]
fn rare_changes_take_a_bitmap() {
    let mut state = 5;
    let mut value = 0.0;
    let bytes = check_values((0..720).map(|i| {
        if i % 40 == 0 {
            value += (random(&mut state) % 1_000_000) as f64;
        }
        value
    }));
    assert!(bytes <= 720 / 8 + 18 * 4 + 40, "{bytes}");
}

#[test]
fn jittered_scrapes_lie_on_a_line() {
    let mut state = 5;
    let samples: Vec<_> = (0..720)
        .map(|i| {
            let off = if random(&mut state).is_multiple_of(4) {
                (random(&mut state) % 5) as i64 - 2
            } else {
                0
            };
            (1_795_233_600_000 + i * 15_000 + off, 0)
        })
        .collect();
    let bytes = check(&samples);
    assert!(bytes <= 720 * 3 / 8 + 30, "{bytes}");
}

#[test]
fn outliers_are_patched() {
    let mut state = 5;
    let bytes = check_values((0..720).map(|i| {
        let small = (random(&mut state) % 4) as f64;
        if i % 50 == 7 { small + 1e9 } else { small }
    }));
    assert!(bytes <= 720 * 2 / 8 + 15 * 7 + 60, "{bytes}");
}

#[test]
fn staleness_markers_are_exceptions() {
    let bytes = check_values((0..720).map(|i| {
        if i % 100 == 99 {
            millrace_model::stale_nan()
        } else {
            21.5
        }
    }));
    assert!(bytes <= 12 + 8 * 11, "{bytes}");
}

#[test]
fn wrong_counts_and_truncations_are_errors() {
    let mut state = 9;
    let samples: Vec<_> = (0..200).map(|i| (i * 1_000, random(&mut state))).collect();
    let bytes = encode(&samples);
    for count in [
        0,
        1,
        199,
        201,
        500,
        SAMPLES_MAX as usize + 1,
        u32::MAX as usize,
    ] {
        assert!(decoded(&bytes, count, 0).is_err(), "{count}");
    }
    for end in 0..bytes.len() {
        assert!(decoded(&bytes[..end], 200, 0).is_err(), "{end}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(decoded(&longer, 200, 0).is_err());
}

/// The golden chunk, whose dump is on the page: it must never change.
#[test]
fn golden_columns_are_reproduced() {
    let values = [
        21.5,
        21.5,
        21.75,
        22.0,
        f64::from_bits(millrace_model::STALE_NAN_BITS),
        0.1 + 0.2,
    ];
    let samples: Vec<_> = (0..18)
        .map(|i| {
            (
                1_795_233_600_000 + i * 15_000 + i % 3,
                values[i as usize % 6].to_bits(),
            )
        })
        .collect();
    let bytes = encode(&samples);
    let golden: &[u8] = include_bytes!("../../../testdata/columns-v1.bin");
    let dump = crate::golden::hex_dump(&bytes);
    assert!(bytes == golden, "the columns are now:\n{dump}");
    assert_eq!(decoded(golden, 18, samples[0].0), Ok(samples));
    let page = include_str!("../../../../docs/formats/columns.md");
    assert!(
        page.contains(&dump),
        "docs/formats/columns.md lacks the dump of the golden columns"
    );
}

fn any_samples() -> impl Strategy<Value = Vec<Bits>> {
    let time_step = prop_oneof![
        4 => Just(15_000i64),
        3 => 14_990i64..15_010,
        1 => any::<i64>(),
    ];
    let shape = proptest::sample::select((0..7).collect::<Vec<_>>());
    let steps = proptest::collection::vec((time_step, any::<u64>(), 0u32..20), 1..300);
    (any::<i64>(), shape, 0i32..16, steps).prop_map(|(start, shape, exponent, steps)| {
        let (mut time, mut state) = (start, 0i64);
        let next = steps.into_iter().map(|(step, bits, rare)| {
            time = time.wrapping_add(step);
            let bits = match shape {
                0 => bits,
                1 => (bits as f64).to_bits(),
                2 => 42f64.to_bits(),
                3 => {
                    state += (bits % 200) as i64 - 90;
                    (state as f64 / 10f64.powi(exponent)).to_bits()
                }
                4 => {
                    state += (bits % 200) as i64;
                    (state as f64 * 0.001).to_bits()
                }
                5 => {
                    if rare == 0 {
                        bits
                    } else {
                        f64::from(rare).to_bits()
                    }
                }
                _ => {
                    state += if rare == 0 {
                        (bits % 512) as i64 * 4_096
                    } else {
                        0
                    };
                    (state as f64).to_bits()
                }
            };
            (time, bits)
        });
        next.collect()
    })
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(samples in any_samples()) {
        let bytes = encode(&samples);
        prop_assert_eq!(decoded(&bytes, samples.len(), samples[0].0), Ok(samples));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, count in 0usize..500, first: i64) {
        if let Ok(got) = decoded(&bytes, count, first) {
            prop_assert_eq!(got.len(), count);
        }
    }

    #[test]
    fn damaged_columns_never_panic(
        samples in any_samples(),
        at: proptest::sample::Index,
        flip in 1u8..=255,
        count in 0usize..400,
    ) {
        let mut bytes = encode(&samples);
        *at.get_mut(&mut bytes) ^= flip;
        for count in [count, samples.len()] {
            if let Ok(got) = decoded(&bytes, count, 0) {
                prop_assert_eq!(got.len(), count);
            }
        }
    }
}
