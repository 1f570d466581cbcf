//! Every call of a workload failing in every way.

use millrace_log::fs::sim::{
    CrashCase, CrashPlan, Fault, FaultKind, Ledger, SimFs, Sweep, enumerate, fault_sweep,
};

use crate::support::{Event, Expected, lint, open, recover_and_check, workload};

/// A workload with a fault. Its caller is a naive one that goes on after errors, so a log that
/// does so, too, is found out.
fn run(
    fs: &SimFs,
    fault: Option<Fault>,
    seed: u64,
    steps: u64,
    then_crash: bool,
) -> Result<(), String> {
    let mut ledger = Ledger::new(fs);
    let mut fired = 0;
    let mut poisoned = false;
    // Short and interrupted calls are gone on with; the others must be told.
    let absorbed =
        fault.is_none_or(|fault| matches!(fault.kind, FaultKind::Short | FaultKind::Interrupted));
    workload(fs, &mut ledger, seed, steps, |outcome| {
        let struck = fs.faults_fired() > fired;
        fired = fs.faults_fired();
        match outcome {
            Ok(()) if struck && !absorbed => Err("a failed call went unnoticed".into()),
            Ok(()) => Ok(()),
            Err(error) if absorbed => Err(format!("not gone on with: {error}")),
            Err(_) => {
                poisoned = true;
                Ok(())
            }
        }
    })?;
    if poisoned != (fired > 0 && !absorbed) {
        return Err(format!("{fired} faults, poisoned: {poisoned}"));
    }
    lint(fs)?;
    fs.inject(None);
    if then_crash {
        power_cut(fs, &ledger)?;
    }
    fs.kill();
    // The next process reads what the page cache shows, and says that it is durable...
    let (log, _) = open(fs).map_err(|e| format!("after the fault: {e}"))?;
    Expected::from(ledger.events()).check(&log)?;
    ledger.note(Event::Opened(log.next_lsn()));
    ledger.note(Event::Removing(log.first_lsn()));
    ledger.note(Event::Removed(log.first_lsn()));
    // ...so it must be there after a power cut.
    recover_and_check(&fs.power_cut(), &Expected::from(ledger.events()), |_| {})
}

/// Recovers from every state that a power cut may leave now.
fn power_cut(fs: &SimFs, ledger: &Ledger<Event>) -> Result<(), String> {
    let fs = fs.fork();
    fs.record();
    let mut happened = Ledger::new(&fs);
    ledger.events().for_each(|event| happened.note(*event));
    let plan = CrashPlan {
        random_subsets: 2,
        singles_max: 4,
        ..CrashPlan::default()
    };
    let check = |case: &CrashCase<'_, Event>| {
        recover_and_check(&case.fs, &Expected::from(case.events()), |_| {})
    };
    enumerate(&fs, &happened, &plan, check)
        .map(drop)
        .map_err(|failure| failure.to_string())
}

pub fn sweep(seed: u64, steps: u64, then_crash: bool) -> Result<Sweep, String> {
    fault_sweep(&SimFs::new(), |fs, fault| {
        run(fs, fault, seed, steps, then_crash)
    })
}

#[test]
fn a_power_cut_after_a_failing_call_loses_nothing_that_was_durable() {
    let sweep = sweep(4, 40, true).unwrap();
    assert!(sweep.runs > 500, "{sweep:?}");
}

#[test]
fn every_failing_call_is_told_and_loses_nothing_that_was_durable() {
    for seed in 1..=3 {
        let sweep = sweep(seed, 80, false).unwrap();
        println!(
            "seed {seed}: {} calls, {} runs with a fault",
            sweep.calls, sweep.runs
        );
        assert!(sweep.runs > 500, "{sweep:?}");
    }
}
