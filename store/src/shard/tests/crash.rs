//! Every crash of a workload, and every failing call.
//!
//! Oracle: the shard opens; W is not beyond the queue's end, not below what the WAL had synced or
//! the queue was allowed to forget; the content is the fold of the queue below W; feeding the rest
//! gives what a run without a crash gives; a second open gives the same; no file is left over.

use millrace_log::fs::sim::{
    CrashCase, CrashFailure, CrashPlan, Fault, Ledger, Tally, enumerate, fault_sweep,
};

use millrace_model::QueueId;

use millrace_model::DeleteId;

use super::*;
use crate::manifest::GapCause;
use crate::paths::{is_temporary, parse_block, parse_manifest};

const TENANTS: [&str; 2] = ["one", "two"];

/// What the shard has promised.
#[derive(Clone, Copy, Debug)]
pub(super) enum Promise {
    /// Everything below survives a crash without the queue.
    Synced(Offset),
    /// The queue may forget everything below.
    Released(Offset),
}

/// What is done to the shard between records.
#[derive(Clone, Copy)]
enum Step {
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

/// Samples, deletes of all kinds, and revocations.
pub(super) fn upkeep_queue() -> VecQueue {
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

pub(super) fn queue() -> VecQueue {
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

fn crash_options() -> StoreOptions {
    StoreOptions {
        // Some seals rotate the manifest.
        manifest_edit_bytes_max: 500,
        wal_segment_bytes: 1_500,
        ..options()
    }
}

fn open_on(fs: &SimFs) -> Result<Shard, StoreError> {
    open(Arc::new(fs.clone()), crash_options())
}

/// Runs the steps until an error.
fn workload(
    fs: &SimFs,
    queue: &VecQueue,
    steps: &[Step],
    note: &mut dyn FnMut(Promise),
) -> Result<(), StoreError> {
    let mut shard = open_on(fs)?;
    fn take<'a>(shard: &Shard, queue: &'a VecQueue, count: usize) -> &'a [Record] {
        let rest = queue.from(shard.applied());
        &rest[..count.min(rest.len())]
    }
    for step in steps {
        match *step {
            Step::Apply(count) => shard.apply(take(&shard, queue, count))?,
            Step::Sync => {
                shard.sync_wal()?;
                note(Promise::Synced(shard.applied()));
            }
            Step::Seal => {
                shard.seal()?;
            }
            Step::SealAround(count) => {
                let job = shard.begin_seal()?;
                shard.apply(take(&shard, queue, count))?;
                if let Some(job) = job {
                    note(Promise::Released(shard.releasable()));
                    drop(shard.finish_seal(job.run())?);
                }
            }
            Step::Gap => {
                // The same records under another queue's name: what takes effect stays the same.
                let to = (QueueId(8), shard.applied());
                shard.set_position(to, GapCause::Operator)?;
                note(Promise::Synced(to.1));
            }
            Step::Upkeep => {
                upkeep(&mut shard)?;
            }
            Step::MergeAround(count) => {
                let of = shard.upkeep();
                let job = of.next_merge(&of.context.fs, true);
                shard.apply(take(&shard, queue, count))?;
                shard.seal()?;
                if let Some(job) = job {
                    run_job(&mut shard, job)?;
                    of.remove_obsolete()?;
                }
            }
            Step::Reopen => {
                drop(shard);
                fs.kill();
                shard = open_on(fs)?;
            }
        }
        note(Promise::Released(shard.releasable()));
        // What the runtime would commit now.
        note(Promise::Synced(shard.durable()));
    }
    shard.apply(queue.from(shard.applied()))?;
    Ok(())
}

/// Recovers, and holds the shard against its promises and the queue.
fn check(
    fs: &SimFs,
    queue: &VecQueue,
    promises: &[Promise],
    recovered: impl FnOnce(Offset),
) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    let mut shard = open_on(fs).map_err(text)?;
    let applied = shard.applied();
    // What is found on open is durable from then on.
    recovered(applied);
    expect_mark(&shard, queue)?;
    if applied > queue.end() {
        return Err(format!("W is {applied}, the queue ends at {}", queue.end()));
    }
    for promise in promises {
        let (Promise::Synced(least) | Promise::Released(least)) = *promise;
        if applied < least {
            return Err(format!("W is {applied} after {promise:?}"));
        }
    }
    expect_content(&shard, queue, applied)?;
    let digest = dump(&shard, &TENANTS).map_err(text)?;
    drop(shard);
    shard = open_on(fs).map_err(text)?;
    if shard.applied() != applied || dump(&shard, &TENANTS).map_err(text)? != digest {
        return Err("a second open gives something else".into());
    }
    no_leftovers(fs, &shard)?;
    // Redelivery is ordinary.
    let from = Offset(applied.0.saturating_sub(2));
    shard.apply(&queue.records[..1]).map_err(text)?;
    shard.apply(queue.from(from)).map_err(text)?;
    expect_content(&shard, queue, queue.end())?;
    shard.seal().map_err(text)?;
    expect_content(&shard, queue, queue.end())?;
    if !queue.has_dead_letters() {
        upkeep(&mut shard).map_err(text)?;
        expect_content(&shard, queue, queue.end())?;
        no_leftovers(fs, &shard)?;
    }
    expect_dead_letters(&shard, queue)
}

/// The fingerprint that would be compared on resume is that of the record before W.
fn expect_mark(shard: &Shard, queue: &VecQueue) -> Result<(), String> {
    let point = shard.resume_point();
    let before = queue.records.iter().filter(|r| r.offset < point.next);
    let expect = before.last().map(Fingerprint::of);
    let after_gap = shard
        .manifest
        .state()
        .gaps
        .iter()
        .any(|gap| gap.to == (point.queue, point.next));
    if point.last == expect.filter(|_| !after_gap) {
        return Ok(());
    }
    Err(format!("{point:?}, expected {expect:?}"))
}

fn expect_content(shard: &Shard, queue: &VecQueue, applied: Offset) -> Result<(), String> {
    let got = dump(shard, &TENANTS).map_err(|error| error.to_string())?;
    let expect = queue.fold(applied);
    if got == expect {
        return Ok(());
    }
    let missing: Vec<_> = expect
        .iter()
        .filter(|(k, v)| got.get(*k) != Some(v))
        .collect();
    let strange: Vec<_> = got
        .iter()
        .filter(|(k, v)| expect.get(*k) != Some(v))
        .collect();
    Err(format!(
        "below {applied}: missing {missing:?}, not sent {strange:?}"
    ))
}

fn expect_dead_letters(shard: &Shard, queue: &VecQueue) -> Result<(), String> {
    let letters = shard.dead_letters().written().map_err(|e| e.to_string())?;
    let got: Vec<_> = letters.iter().map(|origin| origin.offset).collect();
    let bad = queue
        .records
        .iter()
        .filter(|r| !r.payload.starts_with(b"MRBT"));
    let expect: Vec<_> = bad.map(|r| r.offset).collect();
    if got == expect {
        Ok(())
    } else {
        Err(format!("dead letters {got:?}, expected {expect:?}"))
    }
}

fn no_leftovers(fs: &SimFs, shard: &Shard) -> Result<(), String> {
    let (mut manifests, live) = (0, &shard.manifest.state().blocks);
    for (path, _) in fs.files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        manifests += usize::from(parse_manifest(name).is_some());
        let orphan = parse_block(name).is_some_and(|id| !live.contains_key(&id));
        if orphan || is_temporary(name) {
            return Err(format!("{path:?} is left over"));
        }
    }
    if manifests > 2 {
        return Err(format!("{manifests} manifests"));
    }
    Ok(())
}

/// Crashes the workload after each operation.
pub(super) fn crash_everywhere(plan: &CrashPlan) -> Result<Tally, CrashFailure> {
    crash(plan, &queue(), &STEPS)
}

/// Crashes merges and deletes after each operation.
pub(super) fn crash_upkeep(plan: &CrashPlan) -> Result<Tally, CrashFailure> {
    crash(plan, &upkeep_queue(), &UPKEEP_STEPS)
}

fn crash(plan: &CrashPlan, queue: &VecQueue, steps: &[Step]) -> Result<Tally, CrashFailure> {
    let fs = SimFs::new();
    fs.record();
    fs.forbid_unlink_before("store/0/wal".as_ref(), "store/0/blocks".as_ref());
    let mut ledger = Ledger::new(&fs);
    workload(&fs, queue, steps, &mut |promise| ledger.note(promise))
        .expect("no fault was injected");
    let violations = fs.violations();
    assert!(violations.is_empty(), "{violations:?}");
    enumerate(&fs, &ledger, plan, |case: &CrashCase<'_, Promise>| {
        let promises: Vec<_> = case.events().copied().collect();
        check(&case.fs, queue, &promises, |applied| {
            case.recovery_done_with(Promise::Synced(applied));
        })
    })
}

#[test]
fn every_crash_recovers_to_a_prefix_of_the_queue() {
    let plan = CrashPlan {
        nested_every: 64,
        random_subsets: 32,
        ..CrashPlan::default()
    };
    let tally = crash_everywhere(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    println!("store: {tally}");
    assert!(tally.distinct >= 11_000, "{tally}");
    assert!(tally.nested >= 1_000, "{tally}");
}

#[test]
fn every_crash_of_a_merge_or_a_delete_recovers() {
    let plan = CrashPlan {
        nested_every: 32,
        random_subsets: 32,
        ..CrashPlan::default()
    };
    let tally = crash_upkeep(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    println!("store, upkeep: {tally}");
    assert!(tally.distinct >= 5_000, "{tally}");
    assert!(tally.nested >= 500, "{tally}");
}

/// Whatever fails, the shard stops or the step is undone, it loses nothing that it promised, and the
/// next start is right.
fn sweep(queue: &VecQueue, steps: &[Step], least: u64) {
    let sweep = fault_sweep(&SimFs::new(), |fs, fault: Option<Fault>| {
        let mut promises = Vec::new();
        let result = workload(fs, queue, steps, &mut |promise| promises.push(promise));
        if let (Err(error), None) = (&result, fault) {
            return Err(error.to_string());
        }
        fs.inject(None);
        // What the kernel still shows after a failed sync, the disk does not have.
        fs.evict();
        fs.kill();
        check(fs, queue, &promises, |_| ())
    });
    let sweep = sweep.unwrap_or_else(|failure| panic!("{failure}"));
    println!("store: {sweep:?}");
    assert!(sweep.runs >= least, "{sweep:?}");
}

#[test]
fn every_failing_call_stops_the_shard_and_loses_nothing() {
    sweep(&queue(), &STEPS, 1_000);
}

#[test]
fn every_failing_call_of_a_merge_or_a_delete_loses_nothing() {
    sweep(&upkeep_queue(), &UPKEEP_STEPS, 1_000);
}

#[test]
fn after_a_failed_sync_every_call_says_why() {
    use millrace_log::fs::sim::FaultKind;
    let (fs, queue) = (SimFs::new(), queue());
    let mut shard = open_on(&fs).unwrap();
    shard.apply(&queue.records[..3]).unwrap();
    let fault = Fault {
        call: fs.call_count() + 1,
        kind: FaultKind::SyncLost,
        for_ever: false,
    };
    fs.inject(Some(fault));
    shard.sync_wal().unwrap_err();
    for error in [
        shard.apply(&queue.records[3..]).unwrap_err(),
        shard.sync_wal().unwrap_err(),
        shard.seal().unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
    }
    let ShardState::Stopped { code, reason } = shard.status().state else {
        panic!("{:?}", shard.status())
    };
    assert_eq!(code, StopCode::Storage);
    assert!(reason.contains("WAL"), "{reason}");
    assert_eq!(shard.shared.metrics.stopped.get(), 1);
    // What it has can still be read.
    assert_eq!(dump(&shard, &TENANTS).unwrap(), queue.fold(Offset(3)));
}
