//! Every call of a workload failing in every way.

use millrace_log::fs::sim::{Fault, FaultKind, Ledger, SimFs, Sweep, fault_sweep};

use crate::support::{Event, Expected, lint, open, recover_and_check, workload};

/// A workload with a fault. Its caller is a naive one that goes on after errors, so a log that
/// does so, too, is found out.
fn run(fs: &SimFs, fault: Option<Fault>, seed: u64, steps: u64) -> Result<(), String> {
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

pub fn sweep(seed: u64, steps: u64) -> Result<Sweep, String> {
    fault_sweep(&SimFs::new(), |fs, fault| run(fs, fault, seed, steps))
}

#[test]
fn every_failing_call_is_told_and_loses_nothing_that_was_durable() {
    for seed in 1..=3 {
        let sweep = sweep(seed, 80).unwrap();
        println!(
            "seed {seed}: {} calls, {} runs with a fault",
            sweep.calls, sweep.runs
        );
        assert!(sweep.runs > 500, "{sweep:?}");
    }
}
