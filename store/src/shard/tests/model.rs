//! Random operations against a map from (tenant, series, timestamp) to bits.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use millrace_model::{DeleteId, MatchOp, Matcher};

use super::views;
use super::*;
use crate::compact::CompactJob;
use crate::read::StoreSeries;
use crate::retain::{RetentionOptions, RetentionRule};

/// Operations of the test: so many by default, or what the environment says. The whole of issue 4's
/// claim is `MILLRACE_MODEL_OPS=1000000`.
const OPS: u32 = 8_000;
/// A case has 1 to this many, and a half of it on average.
const OPS_PER_CASE_MAX: u32 = 80;

fn cases() -> u32 {
    let wanted = std::env::var("MILLRACE_MODEL_OPS").ok();
    let wanted = wanted.map_or(OPS, |text| text.parse().expect("a number of operations"));
    wanted.div_ceil(OPS_PER_CASE_MAX / 2)
}

#[derive(Clone, Debug)]
enum Op {
    Append(&'static str, Rows),
    Requeue(&'static str, Rows),
    Poison,
    Redeliver(u64),
    BeginSeal,
    FinishSeal,
    Seal,
    SyncWal,
    /// Clean stop and open.
    Close,
    /// The process dies; what was written is still there.
    Kill,
    /// The machine dies; what was not synced is gone, and the queue delivers it again.
    PowerCut,
    Query(i64, i64),
    /// Tenant, series as a regular expression, range, and for how many records it can be revoked.
    Delete(&'static str, &'static str, (i64, i64), i64),
    /// One of the deletes so far.
    Revoke(usize),
    /// Everything that upkeep can do.
    Upkeep,
    /// Lets go what is older than so many milliseconds at a moment, but for one series.
    Retain(i64, u64, Option<&'static str>),
    /// A turn of the thread that derives views.
    Derive,
    /// Turns of it until there is nothing to do.
    DeriveAll,
    /// The view of a number is defined, or dropped if it is.
    Redefine(usize),
    /// A merge begins, and goes on while other things happen.
    BeginMerge,
    FinishMerge,
    /// A reader selects, and reads much later.
    BeginRead,
    FinishRead,
}

fn arb_rows() -> impl Strategy<Value = Rows> {
    // Few series and timestamps, so that everything meets; some far apart.
    let time = prop_oneof![
        6 => 0i64..40,
        3 => (0i64..30).prop_map(|t| t * 1_000_000),
        1 => any::<i64>(),
    ];
    let bits = prop_oneof![4 => 0u64..3, 1 => any::<u64>(), 1 => Just(STALE_NAN_BITS)];
    let series = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    let row = (series.prop_map(str::to_owned), time, bits);
    proptest::collection::vec(row, 1..12)
}

/// Samples in order of time, as most are: they fill chunks.
fn arb_run() -> impl Strategy<Value = Rows> {
    (0i64..5_000, 1i64..60_000, 1usize..300).prop_map(|(start, step, count)| {
        let at = |i: usize| start + step * i as i64;
        (0..count)
            .map(|i| ("run".to_owned(), at(i), (i % 7) as u64))
            .collect()
    })
}

fn arb_delete() -> impl Strategy<Value = Op> {
    let tenant = prop_oneof![3 => Just("one"), 1 => Just("two")];
    let series = prop_oneof![
        Just("a"),
        Just("a|b"),
        Just("run"),
        Just(".*"),
        Just("nobody")
    ];
    let range = prop_oneof![
        4 => (0i64..40, 0i64..40),
        2 => (0i64..30_000_000, 0i64..30_000_000),
        1 => Just((i64::MIN, i64::MAX)),
        1 => any::<(i64, i64)>(),
    ];
    (tenant, series, range, -1i64..12).prop_map(|(tenant, series, range, undo)| {
        let range = (range.0.min(range.1), range.0.max(range.1));
        Op::Delete(tenant, series, range, undo)
    })
}

fn arb_retain() -> impl Strategy<Value = Op> {
    let now = prop_oneof![
        3 => 0i64..40,
        2 => (0i64..30).prop_map(|t| t * 1_000_000),
        1 => any::<i64>(),
    ];
    let spared = prop_oneof![3 => Just(None), 1 => Just(Some("a")), 1 => Just(Some("run"))];
    (now, 0u64..20, spared).prop_map(|(now, age, spared)| Op::Retain(now, age, spared))
}

fn arb_op() -> impl Strategy<Value = Op> {
    let tenant = prop_oneof![3 => Just("one"), 1 => Just("two")];
    prop_oneof![
        12 => (tenant, prop_oneof![5 => arb_rows().boxed(), 1 => arb_run().boxed()])
            .prop_map(|(t, r)| Op::Append(t, r)),
        4 => (prop_oneof![3 => Just("one"), 1 => Just("two")], arb_rows())
            .prop_map(|(t, r)| Op::Requeue(t, r)),
        1 => Just(Op::Poison),
        2 => (0u64..6).prop_map(Op::Redeliver),
        1 => Just(Op::BeginSeal),
        1 => Just(Op::FinishSeal),
        2 => Just(Op::Seal),
        1 => Just(Op::SyncWal),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => Just(Op::PowerCut),
        3 => arb_delete(),
        2 => (0usize..8).prop_map(Op::Revoke),
        2 => Just(Op::Upkeep),
        1 => arb_retain(),
        2 => Just(Op::BeginMerge),
        3 => Just(Op::Derive),
        2 => Just(Op::DeriveAll),
        1 => (0usize..8).prop_map(Op::Redefine),
        2 => Just(Op::FinishMerge),
        1 => Just(Op::BeginRead),
        1 => Just(Op::FinishRead),
        4 => (any::<i64>(), 0i64..40, 0i64..40).prop_map(|(wide, a, b)| {
            if wide % 3 == 0 { Op::Query(wide.min(a), wide.max(a)) } else { Op::Query(a.min(b), a.max(b)) }
        }),
    ]
}

struct World {
    fs: SimFs,
    queue: VecQueue,
    shard: Option<Shard>,
    job: Option<SealJob>,
    merge: Option<CompactJob>,
    deletes: Vec<(&'static str, DeleteId)>,
    /// What retention was free to take: everything before a moment, but for one series.
    retained: Vec<(i64, Option<&'static str>)>,
    /// What was selected, and what there was.
    reader: Option<(Vec<(String, StoreSeries)>, Model)>,
}

impl World {
    fn new() -> Self {
        let fs = SimFs::new();
        let shard = open(Arc::new(fs.clone()), small()).unwrap();
        for number in 0..4 {
            views::redefine(&shard, number);
        }
        Self {
            shard: Some(shard),
            queue: VecQueue::default(),
            job: None,
            merge: None,
            deletes: Vec::new(),
            retained: Vec::new(),
            reader: None,
            fs,
        }
    }

    fn shard(&mut self) -> &mut Shard {
        self.shard.as_mut().unwrap()
    }

    fn feed(&mut self) {
        let queue = &self.queue;
        let shard = self.shard.as_mut().unwrap();
        feed(shard, queue);
        if self.job.is_none() && shard.seal_due().is_some() {
            shard.seal().unwrap();
        }
    }

    fn reopen(&mut self) {
        (self.shard, self.job, self.merge, self.reader) = (None, None, None, None);
        self.fs.kill();
        self.shard = Some(open(Arc::new(self.fs.clone()), small()).unwrap());
        self.feed();
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Append(tenant, rows) => {
                self.queue.push_rows(tenant, rows);
                self.feed();
            }
            Op::Requeue(tenant, rows) => {
                self.queue.push_requeued(tenant, rows);
                self.feed();
            }
            Op::Poison => {
                self.queue.push_payload(b"no batch".as_slice().into(), 3);
                self.feed();
            }
            Op::Redeliver(back) => {
                let from = Offset(self.shard().applied().0.saturating_sub(back));
                // Alone, not with what came behind it.
                let records: Vec<_> = self.queue.from(from).first().cloned().into_iter().collect();
                self.shard().apply(&records).unwrap();
            }
            Op::BeginSeal => {
                if self.job.is_none() {
                    self.job = self.shard().begin_seal().unwrap();
                }
            }
            Op::FinishSeal => {
                if let Some(job) = self.job.take() {
                    drop(self.shard().finish_seal(job.run()).unwrap());
                }
            }
            Op::Seal => {
                self.shard().seal().unwrap();
            }
            Op::SyncWal => self.shard().sync_wal().unwrap(),
            Op::Close => {
                (self.job, self.merge, self.reader) = (None, None, None);
                self.shard.take().unwrap().close().unwrap();
                self.reopen();
            }
            Op::Kill => self.reopen(),
            Op::PowerCut => {
                (self.shard, self.job, self.merge, self.reader) = (None, None, None, None);
                self.fs = self.fs.power_cut();
                self.reopen();
            }
            Op::Query(start, end) => self.check((start, end)),
            Op::Delete(tenant, series, range, undo) => {
                let id = self.deletes.len() as u128;
                self.deletes.push((tenant, DeleteId(id)));
                let undo_until = self.queue.now() + undo;
                self.queue
                    .push_delete(tenant, delete(id, series, range, undo_until));
                self.feed();
            }
            Op::Revoke(which) => {
                let Some(&(tenant, id)) = self.deletes.iter().rev().nth(which) else {
                    return;
                };
                self.queue.push_revoke(tenant, id);
                self.feed();
            }
            Op::Upkeep => {
                if self.merge.is_none() {
                    upkeep(self.shard()).unwrap();
                }
            }
            Op::Retain(now, age, spared) => {
                // One thread does both.
                if self.merge.is_none() {
                    self.retain(now, age, spared);
                }
            }
            Op::BeginMerge => {
                if self.merge.is_none() {
                    let upkeep = self.shard().upkeep();
                    self.merge = upkeep.next_merge(&upkeep.context.fs, true);
                }
            }
            Op::FinishMerge => {
                if let Some(job) = self.merge.take() {
                    run_job(self.shard(), job).unwrap();
                    self.shard().upkeep().remove_obsolete().unwrap();
                }
            }
            Op::Derive => {
                views::derive_once(self.shard());
            }
            Op::DeriveAll => views::derive_all(self.shard()),
            Op::Redefine(number) => views::redefine(self.shard(), number),
            Op::BeginRead => self.begin_read(),
            Op::FinishRead => self.finish_read(),
        }
    }

    fn begin_read(&mut self) {
        let view = self.shard().shared.view();
        let mut all = Vec::new();
        for name in ["one", "two"] {
            let mut found = Vec::new();
            let range = millrace_model::TimeRange::ALL;
            view.select(&tenant(name), &[], range, &mut found).unwrap();
            all.extend(found.into_iter().map(|series| (name.to_owned(), series)));
        }
        let mut expect = self.queue.fold(self.queue.end());
        expect.retain(|key, _| !self.may_be_gone(key));
        self.reader = Some((all, expect));
    }

    fn retain(&mut self, now: i64, age: u64, spared: Option<&'static str>) {
        let age = Duration::from_millis(age);
        let rule = |series: &str| RetentionRule {
            tenant: None,
            matchers: vec![Matcher::new("series", MatchOp::Equal, series).unwrap()],
            age: None,
        };
        let options = RetentionOptions {
            age: Some(age),
            rules: spared.map(rule).into_iter().collect(),
            ..RetentionOptions::default()
        };
        let cutoff = TimestampMs(now).saturating_sub(age).0;
        let gone = retain(self.shard(), &options, now).unwrap();
        assert!(gone.iter().all(|item| item.range.1.0 < cutoff), "{gone:?}");
        let more = retain(self.shard(), &options, now).unwrap();
        assert!(more.is_empty(), "{more:?}");
        self.retained.push((cutoff, spared));
    }

    fn may_be_gone(&self, (_, series, timestamp): &Key) -> bool {
        let mut retained = self.retained.iter();
        retained.any(|(cutoff, spared)| timestamp < cutoff && *spared != Some(series))
    }

    /// What was selected is there, whatever was sealed, merged and removed since. It may be joined by
    /// what came to the memtable later.
    fn finish_read(&mut self) {
        let Some((found, expect)) = self.reader.take() else {
            return;
        };
        let mut got = Model::new();
        for (tenant, series) in found {
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            series.read(&mut timestamps, &mut values).unwrap();
            let name = series.labels().get("series").unwrap();
            for (timestamp, value) in timestamps.into_iter().zip(values) {
                got.insert(
                    (tenant.clone(), name.to_owned(), timestamp),
                    value.to_bits(),
                );
            }
        }
        let missing = expect.keys().find(|key| !got.contains_key(*key));
        assert_eq!(missing, None, "a reader lost a sample");
    }

    /// Compares what is read in a range with the model. What retention may take is there with a value
    /// that it had, or is not there; all else is there as it was sent last.
    fn check(&mut self, (start, end): (i64, i64)) {
        let mut expect = self.queue.fold(self.queue.end());
        expect.retain(|key, _| start <= key.2 && key.2 <= end && !self.may_be_gone(key));
        let range = millrace_model::TimeRange::new(start, end);
        let got = dump_range(self.shard(), &["one", "two"], range).unwrap();
        let (old, got): (Model, Model) =
            got.into_iter().partition(|(key, _)| self.may_be_gone(key));
        assert_eq!(got, expect, "{start}..={end}");
        if !old.is_empty() {
            let possible = self.queue.possible(self.queue.end());
            let strange = old.into_iter().find(|sample| !possible.contains(sample));
            assert_eq!(
                strange, None,
                "a value that the sample never had, or that was deleted"
            );
        }
        let settled = self.retained.iter().map(|(cutoff, _)| *cutoff).max();
        views::expect_recomputed(self.shard(), settled).unwrap();
    }
}

/// Small enough that some cases seal by themselves.
fn small() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 48 << 10,
        manifest_edit_bytes_max: 2_000,
        ..options()
    }
}

#[test]
fn a_shard_equals_a_map() {
    let (mut runner, count) = (TestRunner::new(config()), Cell::new(0));
    let ops = proptest::collection::vec(arb_op(), 1..=OPS_PER_CASE_MAX as usize);
    let outcome = runner.run(&ops, |ops| {
        count.set(count.get() + ops.len());
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.check((i64::MIN, i64::MAX));
        world.reopen();
        world.check((i64::MIN, i64::MAX));
        world.shard().seal().unwrap();
        upkeep(world.shard()).unwrap();
        views::derive_all(world.shard());
        world.check((i64::MIN, i64::MAX));
        prop_assert!(world.shard().dead_letters().read_all().is_ok());
        Ok(())
    });
    println!("store, model: {} operations", count.get());
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(),
        source_file: Some(file!()),
        test_name: Some("a_shard_equals_a_map"),
        ..ProptestConfig::default()
    }
}
