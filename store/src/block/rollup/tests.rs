use proptest::prelude::*;

use super::*;

/// The definitions, written down as plainly as can be.
fn naive(samples: &[(i64, f64)], resolution: i64) -> RollupColumns {
    let mut out = RollupColumns::default();
    let alive: Vec<_> = samples.iter().filter(|s| !is_stale(s.1)).copied().collect();
    let mut numbers: Vec<i64> = alive.iter().map(|s| s.0.div_euclid(resolution)).collect();
    numbers.dedup();
    for number in numbers {
        let of = |s: &&(i64, f64)| s.0.div_euclid(resolution) == number;
        let bucket: Vec<_> = alive.iter().filter(of).copied().collect();
        let (first, last) = (bucket[0], bucket[bucket.len() - 1]);
        let (mut min, mut max, mut resets) = (first.1, first.1, 0.0);
        let (mut sum, mut rest) = (first.1, 0.0f64);
        for pair in bucket.windows(2) {
            let (before, value) = (pair[0].1, pair[1].1);
            if value < before {
                resets += before;
            }
            if min.is_nan() || value < min {
                min = value;
            }
            if max.is_nan() || value > max {
                max = value;
            }
            let total = sum + value;
            let (large, small) = if sum.abs() >= value.abs() {
                (sum, value)
            } else {
                (value, sum)
            };
            rest = if total.is_infinite() {
                0.0
            } else {
                rest + ((large - total) + small)
            };
            sum = total;
        }
        out.starts.push(number.saturating_mul(resolution));
        out.counts.push(bucket.len() as u64);
        out.first_times.push(first.0);
        out.last_times.push(last.0);
        out.firsts.push(first.1);
        out.lasts.push(last.1);
        out.mins.push(min);
        out.maxs.push(max);
        let sum = if rest == 0.0 { sum } else { sum + rest };
        out.sums.push(if sum.is_nan() { f64::NAN } else { sum });
        out.resets.push(resets);
    }
    let falls = alive.windows(2).filter(|p| p[1].1 < p[0].1).count();
    out.no_counter = falls * 8 > alive.len().saturating_sub(1);
    if out.no_counter {
        out.resets.fill(0.0);
    }
    out
}

fn computed(samples: &[(i64, f64)], resolution: i64) -> RollupColumns {
    let (timestamps, values): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
    let mut out = RollupColumns::default();
    out.push_samples(&timestamps, &values, resolution);
    out
}

#[track_caller]
fn check(samples: &[(i64, f64)], resolution: i64) -> RollupColumns {
    let got = computed(samples, resolution);
    let want = naive(samples, resolution);
    assert!(got.same_bits(&want), "{got:#?}\nwanted {want:#?}");
    let (mut times, mut values) = (Vec::new(), Vec::new());
    RollupEncoder::default().encode(&got, resolution, &mut times, &mut values);
    let mut back = RollupColumns::default();
    decode_times(&times, resolution, &mut back).unwrap();
    decode_values(&values, &mut back).unwrap();
    assert!(back.same_bits(&got), "{back:#?}\nwritten {got:#?}");
    got
}

#[test]
fn buckets_tile_the_time_line_before_the_epoch_too() {
    let got = check(
        &[(-301, 1.0), (-300, 2.0), (-1, 3.0), (0, 4.0), (299, 5.0)],
        300,
    );
    assert_eq!(got.starts, [-600, -300, 0]);
    assert_eq!(got.counts, [1, 2, 2]);
}

#[test]
fn staleness_markers_are_no_samples_and_other_nans_are() {
    let stale = millrace_model::stale_nan();
    let got = check(&[(0, stale), (1, f64::NAN), (2, 3.0), (3, stale)], 10);
    assert_eq!(
        (got.counts[0], got.first_times[0], got.last_times[0]),
        (2, 1, 2)
    );
    assert!(got.sums[0].is_nan() && got.firsts[0].is_nan());
    assert_eq!((got.mins[0], got.maxs[0]), (3.0, 3.0));
    assert!(check(&[(0, stale)], 10).is_empty());
}

#[test]
fn a_counter_with_a_reset_has_its_increase() {
    let values = [5.0, 7.0, 9.0, 1.0, 4.0, 6.0, 8.0, 9.0, 11.0, 12.0];
    let samples: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(i, &v)| (i as i64, v))
        .collect();
    let got = check(&samples, 100);
    // 5 to 9, from 0 to 12.
    assert_eq!(got.increase(0), Some(4.0 + 12.0));
    // The reset lies between two buckets of 3: it is in neither, and in the fold.
    let fine = check(&samples, 3);
    assert_eq!(fine.resets.iter().sum::<f64>(), 0.0);
    let mut coarse = RollupColumns::default();
    fine.fold(99, &mut coarse);
    assert_eq!(coarse.increase(0), Some(16.0));
}

#[test]
fn what_falls_again_and_again_is_no_counter() {
    let samples: Vec<_> = (0..40).map(|i| (i, (i % 4) as f64)).collect();
    assert_eq!(check(&samples, 10).increase(0), None);
    let samples: Vec<_> = (0..40).map(|i| (i, (i % 20) as f64)).collect();
    assert_eq!(check(&samples, 10).increase(0), Some(9.0));
}

#[test]
fn sums_are_compensated() {
    let got = check(&[(0, 1e100), (1, 1.0), (2, -1e100)], 10);
    assert_eq!(got.sums, [1.0]);
    let got = check(&[(0, f64::INFINITY), (1, 1.0)], 10);
    assert_eq!(got.sums, [f64::INFINITY]);
    let got = check(&[(0, f64::INFINITY), (1, f64::NEG_INFINITY)], 10);
    assert!(got.sums[0].is_nan());
}

/// A day of a gauge with two decimals takes about a byte and a half for a bucket and column.
#[test]
fn decimals_are_small() {
    let samples: Vec<_> = (0..5_760i64)
        .map(|i| (i * 15_000, (i * i % 977 + 2_000) as f64 / 100.0))
        .collect();
    let got = check(&samples, 300_000);
    let (mut times, mut values) = (Vec::new(), Vec::new());
    RollupEncoder::default().encode(&got, 300_000, &mut times, &mut values);
    assert!(times.len() <= 16, "{} bytes of times", times.len());
    assert!(
        values.len() <= got.len() * 8,
        "{} bytes of values",
        values.len()
    );
}

#[test]
fn constants_take_a_few_bytes() {
    let samples: Vec<_> = (0..480).map(|i| (i * 15_000, 4_096.0)).collect();
    let got = check(&samples, 300_000);
    let (mut times, mut values) = (Vec::new(), Vec::new());
    RollupEncoder::default().encode(&got, 300_000, &mut times, &mut values);
    assert!(values.len() <= 6, "{} bytes", values.len());
}

#[test]
fn resolutions_that_are_multiples_are_not_stored() {
    assert_eq!(stored_resolutions(&[3_600_000, 300_000]), [300_000]);
    assert_eq!(stored_resolutions(&[60, 90, 180, 60]), [60, 90]);
    assert_eq!(stored_resolutions(&[]), [0i64; 0]);
}

/// Bytes that nobody wrote: any answer or error, no panic.
#[test]
fn forged_buckets_never_panic() {
    let samples: Vec<_> = (0..100).map(|i| (i * 7, (i % 13) as f64 / 4.0)).collect();
    let got = computed(&samples, 50);
    let (mut times, mut values) = (Vec::new(), Vec::new());
    RollupEncoder::default().encode(&got, 50, &mut times, &mut values);
    for at in 0..times.len() {
        for byte in 0..=255 {
            let mut forged = times.clone();
            forged[at] = byte;
            let mut back = RollupColumns::default();
            if decode_times(&forged, 50, &mut back).is_ok() {
                let _either = decode_values(&values, &mut back);
            }
        }
    }
    for at in 0..values.len() {
        for byte in 0..=255 {
            let mut forged = values.clone();
            forged[at] = byte;
            let mut back = RollupColumns::default();
            decode_times(&times, 50, &mut back).unwrap();
            let _either = decode_values(&forged, &mut back);
        }
        let mut back = RollupColumns::default();
        decode_times(&times, 50, &mut back).unwrap();
        assert!(decode_values(&values[..at], &mut back).is_err());
    }
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-50i32..50).prop_map(f64::from),
        4 => (-5_000i32..5_000).prop_map(|v| f64::from(v) / 100.0),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(millrace_model::stale_nan()),
        1 => Just(f64::NAN),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
    ]
}

fn any_samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let times = prop_oneof![
        20 => -500i64..500,
        1 => any::<i64>(),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX)
    ];
    proptest::collection::btree_map(times, any_value(), 0..80)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn buckets_are_as_defined_and_survive(samples in any_samples(), resolution in 1i64..400) {
        check(&samples, resolution);
    }

    /// Folding what was folded gives what folding at once gives, and all but sums are those of
    /// the samples.
    #[test]
    fn folding_is_computing(samples in any_samples(), fine in 1i64..40, factor in 1i64..9) {
        let mut folded = RollupColumns::default();
        computed(&samples, fine).fold(fine * factor, &mut folded);
        let mut direct = computed(&samples, fine * factor);
        prop_assert_eq!(folded.sums.len(), direct.sums.len());
        // Adding in groups may lose other bits.
        direct.sums.clone_from(&folded.sums);
        let close = folded.resets.iter().zip(&direct.resets).all(|(a, b)| {
            a.to_bits() == b.to_bits() || (a - b).abs() <= a.abs() * 1e-9 || !b.is_finite()
        });
        prop_assert!(close, "{:?} {:?}", folded.resets, direct.resets);
        direct.resets.clone_from(&folded.resets);
        prop_assert!(folded.same_bits(&direct), "{:#?}\n{:#?}", folded, direct);
    }

    /// Cut anywhere between two buckets, the halves fold as the whole does.
    #[test]
    fn halves_fold_as_the_whole(samples in any_samples(), fine in 1i64..40, cut in -500i64..500) {
        let cut = cut.div_euclid(fine) * fine;
        let whole = computed(&samples, fine);
        let (before, behind): (Vec<_>, Vec<_>) = samples.iter().partition(|s| s.0 < cut);
        let mut halves = RollupColumns::default();
        for half in [before, behind] {
            computed(&half, fine).fold(fine, &mut halves);
        }
        let mut whole = whole;
        whole.note_counter(halves.no_counter);
        halves.note_counter(whole.no_counter);
        prop_assert!(halves.same_bits(&whole));
    }
}
