//! Every state in which a power cut may leave the queue's directory, and every way in which a call
//! may fail.

use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::sim::{
    CrashFailure, CrashPlan, Fault, Ledger, SimFs, Tally, enumerate, fault_sweep,
};
use millrace_log::planted::{self, Bug};
use millrace_model::{Clock, ManualClock, Offset, PartitionId, TimestampMs};
use millrace_queue::planted::{ACK_BEFORE_SYNC, IDENTITY_NOT_SYNCED, RETENTION_PASSES_RELEASE};
use parking_lot::Mutex;

use crate::world::{self, Event, PARTITIONS, SharedLedger};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

/// Creates a queue, fills some segments, releases, lets retention run, restarts in between.
/// Stops early where the disk fails.
fn workload(fs: &SimFs, ledger: &SharedLedger) {
    let clock = Arc::new(ManualClock::new(TimestampMs(1_000)));
    let mut next = [0u64; PARTITIONS as usize];
    for round in 0..3u64 {
        let Ok(queue) = world::open_with(Arc::new(fs.clone()), Arc::clone(&clock) as _) else {
            return;
        };
        ledger.lock().note(Event::Opened(queue.identity().id));
        for step in 0..5 {
            for partition in [P0, P1] {
                let count = 1 + (step + round + u64::from(partition.0)) % 3;
                let at = &mut next[partition.index()];
                if world::append(&queue, ledger, partition, *at, count) {
                    *at += count;
                } else {
                    return;
                }
            }
            clock.advance(Duration::from_secs(1));
        }
        // All but the last two of one partition, half of the other.
        for (partition, sealed) in [(P0, next[0] - 2), (P1, next[1] / 2)] {
            let sealed = Offset(sealed);
            ledger.lock().note(Event::Released(partition, sealed));
            let mut consumer = queue
                .consumer(partition, Offset(next[partition.index()]))
                .expect("it is the end");
            consumer.release(sealed).expect("it is in the queue");
        }
        if queue.enforce_retention(clock.now()).is_err() {
            return;
        }
        queue.close();
    }
}

fn run(plan: &CrashPlan, bug: Option<Bug>) -> Result<Tally, CrashFailure> {
    let fs = SimFs::new();
    fs.record();
    let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::new(&fs)));
    match bug {
        Some(bug) => planted::with(bug, || workload(&fs, &ledger)),
        None => workload(&fs, &ledger),
    }
    let ledger = ledger.lock();
    enumerate(&fs, &ledger, plan, |case| {
        let queue = world::open(&case.fs).map_err(|error| error.to_string())?;
        case.recovery_done();
        world::check(&queue, case.events())?;
        // It goes on, and the second restart changes nothing.
        let id = queue.identity().id;
        let after: SharedLedger = Arc::new(Mutex::new(Ledger::new(&case.fs)));
        for partition in [P0, P1] {
            let (_, end) = world::read_all(&queue, partition)?;
            if !world::append(&queue, &after, partition, end.0, 1) {
                return Err(format!("partition {partition} takes no append"));
            }
        }
        let before: Vec<_> = [P0, P1].map(|p| world::read_all(&queue, p)).into();
        queue.close();
        let queue = world::open(&case.fs).map_err(|error| error.to_string())?;
        let again: Vec<_> = [P0, P1].map(|p| world::read_all(&queue, p)).into();
        if before != again || queue.identity().id != id {
            return Err("the second restart changed the queue".to_owned());
        }
        Ok(())
    })
}

#[test]
fn every_acknowledged_append_survives_every_crash() {
    let plan = CrashPlan {
        nested_every: 40,
        ..CrashPlan::default()
    };
    let tally = run(&plan, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally}");
    assert!(tally.distinct > 3_000, "{tally}");
    assert!(tally.nested > 300, "{tally}");
}

fn quick_plan() -> CrashPlan {
    CrashPlan {
        random_subsets: 0,
        ..CrashPlan::default()
    }
}

#[test]
fn planted_ack_before_sync_is_noticed() {
    let failure = run(&quick_plan(), Some(ACK_BEFORE_SYNC)).unwrap_err();
    assert!(failure.message.contains("were acknowledged"), "{failure}");
}

#[test]
fn planted_retention_past_the_released_offset_is_noticed() {
    let failure = run(&quick_plan(), Some(RETENTION_PASSES_RELEASE)).unwrap_err();
    assert!(failure.message.contains("was released"), "{failure}");
}

#[test]
fn planted_unsynced_identity_is_noticed() {
    run(&quick_plan(), Some(IDENTITY_NOT_SYNCED)).unwrap_err();
}

#[test]
fn planted_bugs_of_the_log_are_noticed_through_the_queue() {
    for bug in [
        Bug::SYNC_LEFT_OUT,
        Bug::SYNC_BEFORE_WRITE,
        Bug::PUBLISH_WITHOUT_DIR_SYNC,
        Bug::REMOVED_NEWEST_FIRST,
    ] {
        let result = run(&quick_plan(), Some(bug));
        assert!(result.is_err(), "{bug:?} went unnoticed");
    }
}

#[test]
fn the_order_of_operations_is_clean() {
    let fs = SimFs::new();
    let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::new(&fs)));
    workload(&fs, &ledger);
    assert!(fs.violations().is_empty(), "{:#?}", fs.violations());
}

/// Whatever call fails, and however: nothing acknowledged is lost, and what was not acknowledged
/// is there as a whole or not at all.
#[test]
fn a_failing_call_loses_nothing_acknowledged() {
    let sweep = fault_sweep(&SimFs::new(), |fs, _: Option<Fault>| {
        let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::new(fs)));
        workload(fs, &ledger);
        fs.inject(None);
        // The process dies, and with it what the disk had lost unnoticed.
        fs.kill();
        fs.evict();
        let queue = world::open(fs).map_err(|error| error.to_string())?;
        let ledger = ledger.lock();
        world::check(&queue, ledger.events())
    });
    let sweep = sweep.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{} calls, {} runs with a fault", sweep.calls, sweep.runs);
    assert!(sweep.runs > 1_000, "{} runs", sweep.runs);
}
