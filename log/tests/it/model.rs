//! The log against a vector of records.

use millrace_log::fs::sim::SimFs;
use millrace_log::{LogError, LogRecord, Lsn};
use millrace_model::TimestampMs;
use proptest::prelude::*;

use crate::support::{FIRST, append, content, open};

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Sync,
    Roll,
    /// Of what there is, in 256ths.
    RemoveBelow(u8),
    Reopen,
    /// From where, in 256ths, and how much.
    Read(u8, u16),
    Seek(i64),
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..5).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Roll),
        1 => any::<u8>().prop_map(Step::RemoveBelow),
        1 => Just(Step::Reopen),
        3 => (any::<u8>(), 0u16..2000).prop_map(|(from, max)| Step::Read(from, max)),
        2 => (900i64..2500).prop_map(Step::Seek),
    ]
}

/// The model: all records, how many are synced, how many are gone.
#[derive(Default)]
struct Model {
    records: Vec<LogRecord>,
    synced: usize,
    removed: usize,
}

impl Model {
    fn lsn(&self, at: usize) -> Lsn {
        Lsn(FIRST.0 + at as u64)
    }

    /// A place in what there is, and one beyond it at each end.
    fn place(&self, part: u8) -> usize {
        let span = self.synced + 1 - self.removed.saturating_sub(1);
        self.removed.saturating_sub(1) + span * usize::from(part) / 255
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector_of_records(steps in proptest::collection::vec(arb_step(), 1..80)) {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs).unwrap();
        let mut reader = log.reader();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(count) => {
                    let range = append(&mut log, count, 3).unwrap();
                    prop_assert_eq!(range.clone(), model.lsn(model.records.len())..log.next_lsn());
                    model.records.extend((range.start.0..range.end.0).map(|lsn| {
                        let (time, payload) = content(lsn, 3);
                        LogRecord { lsn: Lsn(lsn), time, payload: payload.into() }
                    }));
                    // A full segment is synced before the next is begun.
                    let synced = log.synced_lsn();
                    prop_assert!(synced == model.lsn(model.synced) || synced == range.start);
                    model.synced = usize::try_from(synced.0 - FIRST.0).unwrap();
                }
                Step::Sync => {
                    model.synced = model.records.len();
                    prop_assert_eq!(log.sync().unwrap(), model.lsn(model.synced));
                }
                Step::Roll => {
                    log.roll().unwrap();
                    model.synced = usize::try_from(log.synced_lsn().0 - FIRST.0).unwrap();
                }
                Step::RemoveBelow(part) => {
                    let below = model.lsn(model.place(part));
                    let segments = log.segments();
                    let wanted = segments.iter().skip(1).filter(|s| s.first_lsn <= below).count();
                    prop_assert_eq!(log.remove_below(below).unwrap(), wanted as u64);
                    model.removed = usize::try_from(segments.get(wanted).map_or(0, |s| s.first_lsn.0 - FIRST.0)).unwrap();
                }
                Step::Reopen => {
                    drop(log);
                    fs.kill();
                    log = open(&fs).unwrap().0;
                    reader = log.reader();
                    // The process ended, the machine did not: nothing that was written is lost.
                    model.synced = model.records.len();
                }
                Step::Read(part, max_bytes) => {
                    let from = model.place(part);
                    let mut out = Vec::new();
                    match reader.read(model.lsn(from), usize::from(max_bytes), &mut out) {
                        Err(LogError::Removed { first, .. }) => {
                            prop_assert!(from < model.removed);
                            prop_assert_eq!(first, model.lsn(model.removed));
                        }
                        Err(LogError::BeyondEnd { end, .. }) => {
                            prop_assert!(from > model.synced);
                            prop_assert_eq!(end, model.lsn(model.synced));
                        }
                        other => {
                            let next = other.unwrap();
                            prop_assert_eq!(next, model.lsn(from + out.len()));
                            prop_assert_eq!(&out[..], &model.records[from..from + out.len()]);
                            prop_assert_eq!(out.is_empty(), from == model.synced);
                        }
                    }
                }
                Step::Seek(time) => {
                    let time = TimestampMs(time);
                    let there = &model.records[model.removed..model.synced];
                    let wanted = there.iter().find(|record| record.time >= time);
                    let wanted = wanted.map_or(model.lsn(model.synced), |record| record.lsn);
                    prop_assert_eq!(reader.seek_time(time).unwrap(), wanted);
                }
            }
            prop_assert_eq!(log.first_lsn(), model.lsn(model.removed));
            prop_assert_eq!(log.next_lsn(), model.lsn(model.records.len()));
            prop_assert_eq!(reader.synced_lsn(), model.lsn(model.synced));
        }
        prop_assert_eq!(fs.violations(), []);
    }
}
