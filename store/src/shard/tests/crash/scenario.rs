//! What is done to the shard while it is crashed: some fixed workloads, and random ones.

use std::path::PathBuf;

use millrace_model::{DeleteId, MatchOp, Matcher, QueueId};

use super::super::views;
use super::super::*;
use super::TENANTS;
use crate::backup::restore;
use crate::backup::tests::save;
use crate::manifest::GapCause;
use crate::retain::{RetentionOptions, RetentionRule};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// What the shard has promised.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Promise {
    /// Everything below survives a crash without the queue.
    Synced(Offset),
    /// The queue may forget everything below.
    Released(Offset),
    /// What of the records below is too old is gone for good.
    Retained(Offset),
    /// The backup of this number is whole, and stands there.
    BackedUp(usize, Offset),
    /// That backup is restored.
    Restored(usize),
}

/// What is done to the shard between records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Apply(usize),
    Sync,
    Seal,
    /// A seal, and records while it runs.
    SealAround(usize),
    /// The position is set by hand.
    Gap,
    Reopen,
    /// All that upkeep can do: merges by force, deletes as far as they have come.
    Upkeep,
    /// A merge, and records and a seal while it runs.
    MergeAround(usize),
    /// Lets go what has had its time.
    Retain,
    /// A backup.
    Backup,
    /// A backup whose files are written while records come, a seal, and a merge.
    BackupAround(usize),
    /// The last backup is restored.
    Restore,
    /// Some views are defined, or dropped if they are.
    Redefine,
    /// A turn of the thread that derives views.
    Derive,
}

/// A workload.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) queue: VecQueue,
    steps: Vec<Step>,
    /// What retention takes: what is older than a moment, but for one series.
    retain: Option<(i64, &'static str)>,
}

impl Scenario {
    /// Appends, seals, restarts, another queue.
    pub(super) fn seals() -> Self {
        Self {
            name: "seals".to_owned(),
            queue: queue(),
            steps: STEPS.to_vec(),
            retain: None,
        }
    }

    /// Merges and deletes.
    pub(super) fn upkeep() -> Self {
        Self {
            name: "merges and deletes".to_owned(),
            queue: upkeep_queue(),
            steps: UPKEEP_STEPS.to_vec(),
            retain: None,
        }
    }

    /// Retention, backups, restores.
    pub(super) fn backups() -> Self {
        Self {
            name: "retention, backups and restores".to_owned(),
            queue: days_queue(),
            steps: BACKUP_STEPS.to_vec(),
            retain: Some((2 * DAY, "c")),
        }
    }

    /// A backup, a restore and retention, once each.
    pub(super) fn one_backup() -> Self {
        Self {
            name: "one backup".to_owned(),
            queue: days_queue(),
            steps: ONE_BACKUP_STEPS.to_vec(),
            retain: Some((2 * DAY, "c")),
        }
    }

    /// Views, and all that changes what they are derived from.
    pub(super) fn views() -> Self {
        Self {
            name: "views".to_owned(),
            queue: days_queue(),
            steps: VIEW_STEPS.to_vec(),
            retain: Some((2 * DAY, "c")),
        }
    }

    /// A view, derived twice.
    pub(super) fn one_view() -> Self {
        Self {
            name: "one view".to_owned(),
            steps: VIEW_STEPS[..6].to_vec(),
            ..Self::views()
        }
    }

    /// Of everything something, and little of it.
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = 8 + rng.below(8);
        let mut steps: Vec<Step> = (0..count).map(|_| rng.step()).collect();
        // Something to do for the first of them.
        steps.insert(0, Step::Apply(3));
        Self {
            name: format!("random {seed}"),
            queue: rng.queue(),
            steps,
            retain: Some((2 * DAY, "c")),
        }
    }

    /// Before it, samples may have expired.
    pub(super) fn settled(&self) -> Option<i64> {
        self.retain.map(|(before, _)| before)
    }

    /// Whether retention is free to take the sample.
    pub(super) fn may_be_gone(&self, (_, series, timestamp): &Key) -> bool {
        self.retain
            .is_some_and(|(before, spared)| *timestamp < before && series != spared)
    }
}

const STEPS: [Step; 33] = [
    Step::Apply(2),
    Step::Sync,
    Step::Apply(3),
    Step::Seal,
    Step::Apply(2),
    Step::Apply(1),
    Step::Sync,
    Step::SealAround(2),
    Step::Apply(1),
    Step::Reopen,
    Step::Apply(3),
    Step::Sync,
    Step::Reopen,
    Step::Apply(2),
    Step::Seal,
    Step::Apply(2),
    Step::Gap,
    Step::Apply(1),
    Step::Reopen,
    Step::Apply(2),
    Step::SealAround(1),
    Step::Apply(3),
    Step::Apply(1),
    Step::SealAround(3),
    Step::Apply(2),
    Step::Sync,
    Step::Apply(4),
    Step::SealAround(2),
    Step::Reopen,
    Step::Apply(2),
    Step::Apply(1),
    Step::Seal,
    Step::Apply(3),
];

/// Merges and deletes, beside what keeps them company.
const UPKEEP_STEPS: [Step; 23] = [
    Step::Apply(3),
    Step::Seal,
    Step::Apply(3),
    Step::Seal,
    Step::Upkeep,
    Step::Apply(4),
    Step::Sync,
    Step::Seal,
    Step::MergeAround(2),
    Step::Upkeep,
    Step::Apply(2),
    Step::Reopen,
    Step::Apply(2),
    Step::SealAround(2),
    Step::Upkeep,
    Step::Apply(1),
    Step::Seal,
    Step::MergeAround(1),
    Step::Apply(3),
    Step::Seal,
    Step::Reopen,
    Step::Upkeep,
    Step::Apply(1),
];

/// Retention, backups and restores, with seals and merges between them.
const BACKUP_STEPS: [Step; 15] = [
    Step::Apply(4),
    Step::Seal,
    Step::Apply(2),
    Step::Backup,
    Step::Restore,
    Step::Apply(3),
    Step::Seal,
    Step::Retain,
    Step::Apply(2),
    Step::BackupAround(2),
    Step::Reopen,
    Step::Upkeep,
    Step::Retain,
    Step::Restore,
    Step::Apply(1),
];

/// Views are defined, derived and dropped among seals, deletes, merges and retention.
const VIEW_STEPS: [Step; 14] = [
    Step::Redefine,
    Step::Apply(6),
    Step::Seal,
    Step::Derive,
    Step::Apply(6),
    Step::Seal,
    Step::Derive,
    Step::Derive,
    Step::Reopen,
    Step::Retain,
    Step::Backup,
    Step::Apply(4),
    Step::Derive,
    Step::Redefine,
];

/// Short, since each of its calls fails in many ways.
const ONE_BACKUP_STEPS: [Step; 8] = [
    Step::Apply(4),
    Step::Seal,
    Step::Apply(2),
    Step::Backup,
    Step::Restore,
    Step::Seal,
    Step::Retain,
    Step::Apply(1),
];

/// Samples, deletes of all kinds, and revocations.
pub(in super::super) fn upkeep_queue() -> VecQueue {
    let mut queue = VecQueue::default();
    let hour = 3_600_000;
    for i in 0..24i64 {
        queue.push_rows(
            TENANTS[(i % 5 == 4) as usize],
            rows(&[
                ("a", (i / 2) * 1_000, i as u64),
                ("b", (i * 7) % 5 * 1_000, 100 + i as u64),
                ("c", (i % 3) * 9 * hour, 300 + i as u64),
            ]),
        );
        if i < 4 {
            // Nothing comes behind it that would stand in for it.
            queue.push_rows("one", rows(&[("d", i * 1_000, 500 + i as u64)]));
        }
        let far = i64::MAX;
        match i {
            // Revoked below; soon final; for good and for everything of a tenant.
            4 => queue.push_delete("one", delete(1, "d|b", (0, 3_000), far)),
            6 => queue.push_delete("one", delete(2, "a", (1_000, 2_000), queue.now() + 1)),
            9 => queue.push_revoke("one", DeleteId(1)),
            11 => queue.push_delete("two", delete(3, ".*", (i64::MIN, far), far)),
            14 => queue.push_delete("one", delete(4, "c", (0, 10 * hour), queue.now())),
            // Too late.
            17 => queue.push_revoke("one", DeleteId(4)),
            _ => {}
        }
    }
    queue
}

pub(in super::super) fn queue() -> VecQueue {
    let mut queue = VecQueue::default();
    let hour = 3_600_000;
    for i in 0..44i64 {
        let tenant = TENANTS[(i % 5 == 4) as usize];
        let late = (i * 7) % 5 * 1_000;
        queue.push_rows(
            tenant,
            rows(&[
                ("a", i * 1_000, i as u64),
                ("b", late, 100 + i as u64),
                // Conflicts with the record before, and with blocks.
                ("a", (i / 2) * 1_000, 200 + i as u64),
                ("c", (i % 3) * 3 * hour, 300 + i as u64),
            ]),
        );
        if i % 6 == 3 {
            // Conflicts with records before and behind it, and fills gaps.
            let seconds = |of: i64| of * 1_000;
            queue.push_requeued(
                tenant,
                rows(&[
                    ("a", seconds(i - 2), 500 + i as u64),
                    ("a", seconds(i + 3), 600 + i as u64),
                    ("b", seconds(900 + i), 700 + i as u64),
                    ("b", seconds(900 + i / 12), 800 + i as u64),
                ]),
            );
        }
        if i == 5 || i == 11 {
            queue.push_payload(b"no batch at all".as_slice().into(), 2);
        }
    }
    queue
}

/// Samples of five days, each day's late ones among them.
fn days_queue() -> VecQueue {
    let mut queue = VecQueue::default();
    for i in 0..20i64 {
        let at = i * 6 * HOUR;
        queue.push_rows(
            TENANTS[(i % 4 == 3) as usize],
            rows(&[
                ("a", at, i as u64),
                ("b", (i * 7) % 5 * DAY, 100 + i as u64),
                ("c", at + 1, 200 + i as u64),
            ]),
        );
        if i == 8 {
            queue.push_delete("one", delete(1, "b", (0, 3 * DAY), queue.now() + 1));
        }
    }
    queue
}

/// A small generator (xorshift64*).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }

    fn step(&mut self) -> Step {
        let few = 1 + self.below(3);
        match self.below(16) {
            0..=3 => Step::Apply(few),
            4 => Step::Sync,
            5 | 6 => Step::Seal,
            7 => Step::SealAround(few),
            8 => Step::Reopen,
            9 => Step::Upkeep,
            10 => Step::MergeAround(few),
            11 => Step::Retain,
            12 => Step::Backup,
            13 => Step::BackupAround(few),
            _ => Step::Restore,
        }
    }

    fn queue(&mut self) -> VecQueue {
        let mut queue = VecQueue::default();
        let mut deletes = 0;
        for i in 0..14u64 {
            let tenant = TENANTS[usize::from(self.below(4) == 0)];
            let count = 1 + self.below(4);
            let some: Vec<_> = (0..count)
                .map(|at| {
                    let series = ["a", "b", "c"][self.below(3)];
                    let time = self.below(5) as i64 * DAY + self.below(3) as i64 * 5 * HOUR;
                    (series.to_owned(), time, i * 100 + at as u64)
                })
                .collect();
            match self.below(8) {
                0 => {
                    deletes += 1;
                    let undo = queue.now() + self.below(6) as i64 - 1;
                    let series = ["a", "b|c", ".*"][self.below(3)];
                    let start = self.below(4) as i64 * DAY;
                    let of = delete(deletes, series, (start, start + DAY), undo);
                    queue.push_delete(tenant, of);
                }
                1 if deletes > 0 => queue.push_revoke(tenant, DeleteId(deletes)),
                2 => queue.push_requeued(tenant, some),
                _ => queue.push_rows(tenant, some),
            }
        }
        queue
    }
}

fn crash_options() -> StoreOptions {
    StoreOptions {
        // Some seals rotate the manifest.
        manifest_edit_bytes_max: 500,
        wal_segment_bytes: 1_500,
        ..options()
    }
}

pub(super) fn open_on(fs: &SimFs) -> Result<Shard, StoreError> {
    open(Arc::new(fs.clone()), crash_options())
}

/// Where the backup of a number is.
pub(super) fn backup_dir(number: usize) -> PathBuf {
    PathBuf::from(format!("backups/{number}"))
}

/// Where it was restored to.
pub(super) fn restored_dir(number: usize) -> PathBuf {
    PathBuf::from(format!("restored/{number}"))
}

/// Runs the steps until an error.
pub(super) fn workload(
    fs: &SimFs,
    scenario: &Scenario,
    note: &mut dyn FnMut(Promise),
) -> Result<(), StoreError> {
    let mut work = Work {
        fs,
        scenario,
        shard: open_on(fs)?,
        backups: 0,
        restored: 0,
    };
    for step in &scenario.steps {
        work.run(*step, note)?;
        note(Promise::Released(work.shard.releasable()));
        // What the runtime would commit now.
        note(Promise::Synced(work.shard.durable()));
    }
    work.apply(usize::MAX)
}

struct Work<'a> {
    fs: &'a SimFs,
    scenario: &'a Scenario,
    shard: Shard,
    /// How many were taken.
    backups: usize,
    /// The newest that was restored.
    restored: usize,
}

impl Work<'_> {
    fn apply(&mut self, count: usize) -> Result<(), StoreError> {
        let rest = self.scenario.queue.from(self.shard.applied());
        self.shard.apply(&rest[..count.min(rest.len())])
    }

    fn run(&mut self, step: Step, note: &mut dyn FnMut(Promise)) -> Result<(), StoreError> {
        match step {
            Step::Apply(count) => self.apply(count)?,
            Step::Sync => {
                self.shard.sync_wal()?;
                note(Promise::Synced(self.shard.applied()));
            }
            Step::Seal => {
                self.shard.seal()?;
            }
            Step::SealAround(count) => {
                let job = self.shard.begin_seal()?;
                self.apply(count)?;
                if let Some(job) = job {
                    note(Promise::Released(self.shard.releasable()));
                    drop(self.shard.finish_seal(job.run())?);
                }
            }
            Step::Gap => {
                // The same records under another queue's name: what takes effect stays the same.
                let to = (QueueId(8), self.shard.applied());
                self.shard.set_position(to, GapCause::Operator)?;
                note(Promise::Synced(to.1));
            }
            Step::Upkeep => {
                upkeep(&mut self.shard)?;
            }
            Step::MergeAround(count) => {
                let of = self.shard.upkeep();
                let job = of.next_merge(&of.context.fs, true);
                self.apply(count)?;
                self.shard.seal()?;
                if let Some(job) = job {
                    run_job(&mut self.shard, job)?;
                    of.remove_obsolete()?;
                }
            }
            Step::Retain => self.retain(note)?,
            Step::Backup => {
                let list = save(self.fs, &mut self.shard, &backup_dir(self.backups + 1))?;
                self.backed_up(list.shards[0].applied, note);
            }
            Step::BackupAround(count) => self.backup_around(count, note)?,
            Step::Restore => {
                if self.backups > self.restored {
                    let (from, to) = (backup_dir(self.backups), restored_dir(self.backups));
                    restore(self.fs, &from, &to, &mut |_| ())?;
                    self.restored = self.backups;
                    note(Promise::Restored(self.restored));
                }
            }
            Step::Redefine => {
                for number in 0..2 {
                    views::try_redefine(&self.shard, number)?;
                }
            }
            Step::Derive => {
                views::try_derive(&self.shard)?;
            }
            Step::Reopen => {
                self.fs.kill();
                self.shard = open_on(self.fs)?;
            }
        }
        Ok(())
    }

    fn backed_up(&mut self, applied: Offset, note: &mut dyn FnMut(Promise)) {
        self.backups += 1;
        note(Promise::BackedUp(self.backups, applied));
    }

    fn backup_around(
        &mut self,
        count: usize,
        note: &mut dyn FnMut(Promise),
    ) -> Result<(), StoreError> {
        let snapshot = crate::backup::tests::snapshot(&mut self.shard, true)?;
        self.apply(count)?;
        self.shard.seal()?;
        upkeep(&mut self.shard)?;
        let dir = backup_dir(self.backups + 1);
        let at = TimestampMs(1);
        let list = crate::backup::write(
            self.fs,
            &store_dir(),
            &dir,
            &snapshot,
            None,
            at,
            &mut |_| (),
        )?;
        drop(snapshot);
        self.backed_up(list.shards[0].applied, note);
        self.shard.upkeep().remove_obsolete()?;
        Ok(())
    }

    fn retain(&mut self, note: &mut dyn FnMut(Promise)) -> Result<(), StoreError> {
        let Some((before, spared)) = self.scenario.retain else {
            return Ok(());
        };
        let rule = RetentionRule {
            tenant: None,
            matchers: vec![Matcher::new("series", MatchOp::Equal, spared).unwrap()],
            age: None,
        };
        let options = RetentionOptions {
            age: Some(Duration::ZERO),
            rules: vec![rule],
            ..RetentionOptions::default()
        };
        let sealed = self.shard.sealed();
        retain(&mut self.shard, &options, before)?;
        note(Promise::Retained(sealed));
        Ok(())
    }
}
