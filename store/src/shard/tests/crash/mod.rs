//! Every crash of a workload, and every failing call.
//!
//! Oracle: the shard opens; W is not beyond the queue's end, not below what the WAL had synced or
//! the queue was allowed to forget; the content is the fold of the queue below W, but for what retention
//! may take; feeding the rest gives what a run without a crash gives; a second open gives the same; no
//! file is left over. A backup is whole or is refused; a restored directory is whole or is not there.
//!
//! CI looks at a share. The whole enumeration is
//! `MILLRACE_CRASH_STATES=150000 cargo test -p millrace-store --lib all_crashes -- --nocapture`.

mod backups;
mod scenario;

use millrace_log::fs::sim::{
    CrashCase, CrashFailure, CrashPlan, Fault, Ledger, Tally, enumerate, fault_sweep,
};

use super::views;
use super::*;
use crate::paths::{is_temporary, parse_block, parse_manifest, parse_sheet};
use scenario::{Promise, Scenario, open_on, workload};

const TENANTS: [&str; 2] = ["one", "two"];

/// Recovers, and holds the shard against its promises and the queue.
fn check(
    fs: &SimFs,
    scenario: &Scenario,
    promises: &[Promise],
    recovered: impl FnOnce(Offset),
) -> Result<(), String> {
    let queue = &scenario.queue;
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
        match *promise {
            Promise::Synced(least) | Promise::Released(least) => {
                if applied < least {
                    return Err(format!("W is {applied} after {promise:?}"));
                }
            }
            Promise::Retained(sealed) => expect_gone(&shard, scenario, sealed)?,
            Promise::BackedUp(..) | Promise::Restored(_) => {}
        }
    }
    expect_content(&shard, scenario, applied)?;
    views::expect_recomputed(&shard, scenario.settled())?;
    backups::check(fs, scenario, promises)?;
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
    expect_content(&shard, scenario, queue.end())?;
    shard.seal().map_err(text)?;
    expect_content(&shard, scenario, queue.end())?;
    if !queue.has_dead_letters() {
        upkeep(&mut shard).map_err(text)?;
        expect_content(&shard, scenario, queue.end())?;
        no_leftovers(fs, &shard)?;
    }
    let settled = scenario.settled();
    views::expect_recomputed(&shard, settled)?;
    if !shard.context.views.all().is_empty() {
        while views::try_derive(&shard).map_err(text)? {}
        views::expect_recomputed(&shard, settled)?;
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

/// What retention has had its way with: of what was sealed then, nothing is left that nobody sent again.
fn expect_gone(shard: &Shard, scenario: &Scenario, sealed: Offset) -> Result<(), String> {
    let got = dump(shard, &TENANTS).map_err(|error| error.to_string())?;
    let again: std::collections::BTreeSet<Key> = scenario.queue.sent_from(sealed);
    let back = got
        .keys()
        .find(|key| scenario.may_be_gone(key) && !again.contains(*key));
    match back {
        Some(key) => Err(format!("{key:?} is back")),
        None => Ok(()),
    }
}

/// What retention may take is there with a value that it had, or not there; all else is as in the fold.
fn expect_content(shard: &Shard, scenario: &Scenario, applied: Offset) -> Result<(), String> {
    let all = dump(shard, &TENANTS).map_err(|error| error.to_string())?;
    let (old, got): (Model, Model) = all
        .into_iter()
        .partition(|(key, _)| scenario.may_be_gone(key));
    let mut expect = scenario.queue.fold(applied);
    expect.retain(|key, _| !scenario.may_be_gone(key));
    if !old.is_empty() {
        let possible = scenario.queue.possible(applied);
        if let Some(strange) = old.into_iter().find(|sample| !possible.contains(sample)) {
            return Err(format!("below {applied}: {strange:?} was not sent"));
        }
    }
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
        // A backup that was not finished stays until somebody removes it.
        if !path.starts_with("/store") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        manifests += usize::from(parse_manifest(name).is_some());
        let orphan = parse_block(name).is_some_and(|id| !live.contains_key(&id));
        let sheet = parse_sheet(name).is_some_and(|(view, cell, generation)| {
            let cover = shard.shared.views.cover(view);
            cover.sheets.get(&cell).map(|sheet| sheet.generation) != Some(generation)
        });
        if orphan || sheet || is_temporary(name) {
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
    crash(plan, &Scenario::seals())
}

/// Crashes merges and deletes after each operation.
pub(super) fn crash_upkeep(plan: &CrashPlan) -> Result<Tally, CrashFailure> {
    crash(plan, &Scenario::upkeep())
}

/// Crashes retention, backups and restores after each operation.
pub(super) fn crash_backups(plan: &CrashPlan) -> Result<Tally, CrashFailure> {
    crash(plan, &Scenario::backups())
}

/// Crashes views after each operation.
pub(super) fn crash_views(plan: &CrashPlan) -> Result<Tally, CrashFailure> {
    crash(plan, &Scenario::views())
}

fn crash(plan: &CrashPlan, scenario: &Scenario) -> Result<Tally, CrashFailure> {
    let fs = SimFs::new();
    fs.record();
    fs.forbid_unlink_before("store/0/wal".as_ref(), "store/0/blocks".as_ref());
    let mut ledger = Ledger::new(&fs);
    workload(&fs, scenario, &mut |promise| ledger.note(promise)).expect("no fault was injected");
    let violations = fs.violations();
    assert!(violations.is_empty(), "{violations:?}");
    enumerate(&fs, &ledger, plan, |case: &CrashCase<'_, Promise>| {
        let promises: Vec<_> = case.events().copied().collect();
        check(&case.fs, scenario, &promises, |applied| {
            case.recovery_done_with(Promise::Synced(applied));
        })
    })
}

fn plan(nested_every: u64) -> CrashPlan {
    CrashPlan {
        nested_every,
        random_subsets: 32,
        ..CrashPlan::default()
    }
}

/// Crashes a scenario, and wants so many states in all and so many of them nested.
fn expect_states(scenario: &Scenario, nested_every: u64, (least, nested): (u64, u64)) {
    let tally = crash(&plan(nested_every), scenario);
    let tally = tally.unwrap_or_else(|failure| panic!("{}: {failure}", scenario.name));
    println!("store, {}: {tally}", scenario.name);
    assert!(tally.distinct >= least, "{tally}");
    assert!(tally.nested >= nested, "{tally}");
}

#[test]
fn every_crash_recovers_to_a_prefix_of_the_queue() {
    expect_states(&Scenario::seals(), 64, (11_000, 1_000));
}

#[test]
fn every_crash_leaves_views_equal_to_a_recomputation() {
    let few = CrashPlan {
        random_subsets: 2,
        ..plan(1_024)
    };
    let tally = crash_views(&few).unwrap_or_else(|failure| panic!("{failure}"));
    println!("store, views: {tally}");
    assert!(tally.distinct >= 1_000 && tally.nested > 0, "{tally}");
}

#[test]
fn every_crash_of_a_merge_or_a_delete_recovers() {
    expect_states(&Scenario::upkeep(), 64, (5_000, 500));
}

#[test]
fn every_crash_of_retention_a_backup_or_a_restore_leaves_all_or_nothing() {
    // A state of it costs several times as much as one of the others.
    expect_states(&Scenario::backups(), 256, (8_000, 1_000));
}

/// States of random workloads in CI; the environment says how many of all kinds there are to be.
const RANDOM_STATES: u64 = 3_000;

#[test]
fn all_crashes_of_random_workloads_recover() {
    let wanted = std::env::var("MILLRACE_CRASH_STATES").ok();
    let whole = wanted.map(|text| text.parse::<u64>().expect("a number of states"));
    let fixed = [Scenario::seals(), Scenario::upkeep(), Scenario::backups()];
    let fixed = fixed.into_iter().filter(|_| whole.is_some());
    let wanted = whole.unwrap_or(RANDOM_STATES);
    let mut sum = Tally::default();
    // Those of recovery come on top.
    let first = |sum: &Tally| sum.distinct - sum.nested;
    for scenario in fixed.chain((1..).map(Scenario::random)) {
        let tally = crash(&plan(256), &scenario);
        let tally = tally.unwrap_or_else(|failure| panic!("{}: {failure}", scenario.name));
        sum.ops += tally.ops;
        sum.images += tally.images;
        sum.distinct += tally.distinct;
        sum.nested += tally.nested;
        if first(&sum) >= wanted {
            break;
        }
    }
    println!("store, all: {sum}, {} of the work itself", first(&sum));
    assert!(sum.nested > 0, "{sum}");
}

/// Whatever fails, the shard stops or the step is undone, it loses nothing that it promised, and the
/// next start is right.
fn sweep(scenario: &Scenario, least: u64) {
    let sweep = fault_sweep(&SimFs::new(), |fs, fault: Option<Fault>| {
        let mut promises = Vec::new();
        let result = workload(fs, scenario, &mut |promise| promises.push(promise));
        if let (Err(error), None) = (&result, fault) {
            return Err(error.to_string());
        }
        fs.inject(None);
        // What the kernel still shows after a failed sync, the disk does not have.
        fs.evict();
        fs.kill();
        check(fs, scenario, &promises, |_| ())
    });
    let sweep = sweep.unwrap_or_else(|failure| panic!("{failure}"));
    println!("store, {}: {sweep:?}", scenario.name);
    assert!(sweep.runs >= least, "{sweep:?}");
}

#[test]
fn every_failing_call_stops_the_shard_and_loses_nothing() {
    sweep(&Scenario::seals(), 1_000);
}

#[test]
fn every_failing_call_of_a_merge_or_a_delete_loses_nothing() {
    sweep(&Scenario::upkeep(), 1_000);
}

#[test]
fn every_failing_call_leaves_views_equal_to_a_recomputation() {
    sweep(&Scenario::one_view(), 200);
}

#[test]
fn every_failing_call_of_retention_a_backup_or_a_restore_loses_nothing() {
    sweep(&Scenario::one_backup(), 500);
}

#[test]
fn after_a_failed_sync_every_call_says_why() {
    use millrace_log::fs::sim::FaultKind;
    let (fs, queue) = (SimFs::new(), scenario::queue());
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
