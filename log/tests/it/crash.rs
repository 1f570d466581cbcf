//! Every crash of a workload, and of the recoveries from it.

use millrace_log::fs::sim::{CrashPlan, Ledger, SimFs, Tally, enumerate};

use crate::support::{Expected, lint, recover_and_check, workload};

/// Runs a workload, then recovers from every crash that could have struck it.
pub fn check(seed: u64, steps: u64, plan: &CrashPlan, with_lint: bool) -> Result<Tally, String> {
    let fs = SimFs::new();
    fs.record();
    let mut ledger = Ledger::new(&fs);
    workload(&fs, &mut ledger, seed, steps, |outcome| {
        outcome.map_err(|e| e.to_string())
    })?;
    let linted = |fs: &SimFs| if with_lint { lint(fs) } else { Ok(()) };
    linted(&fs)?;
    enumerate(&fs, &ledger, plan, |case| {
        let expected = Expected::from(case.events());
        recover_and_check(&case.fs, &expected, |found| case.recovery_done_with(found))?;
        linted(&case.fs)
    })
    .map_err(|failure| failure.to_string())
}

/// For the tests of planted bugs: crashes alone, some tenths of a second of them.
pub fn by_oracle() -> Result<Tally, String> {
    let plan = CrashPlan {
        kills_every: 10,
        ..CrashPlan::default()
    };
    check(7, 120, &plan, false)
}

/// For the tests of planted bugs: the order of operations alone, without a crash.
pub fn by_lint() -> Result<(), String> {
    let fs = SimFs::new();
    let mut ledger = Ledger::new(&fs);
    workload(&fs, &mut ledger, 7, 120, |outcome| {
        outcome.map_err(|e| e.to_string())
    })?;
    lint(&fs)
}

#[test]
fn every_crash_of_a_workload_is_recovered_from() {
    let mut distinct = 0;
    for seed in 1..=4 {
        let plan = CrashPlan {
            seed,
            ..CrashPlan::default()
        };
        let tally = check(seed, 300, &plan, true).unwrap();
        println!("seed {seed}: {tally}");
        distinct += tally.distinct;
    }
    println!("{distinct} crash states in all");
    assert!(
        distinct >= 10_000,
        "only {distinct} crash states: the workload has become too small"
    );
}

#[test]
fn every_crash_of_a_recovery_is_recovered_from() {
    let plan = CrashPlan {
        nested_every: 10,
        random_subsets: 2,
        ..CrashPlan::default()
    };
    let tally = check(5, 200, &plan, true).unwrap();
    println!("{tally}");
    assert!(tally.nested >= 5_000, "{tally}");
}

#[test]
fn a_power_cut_after_a_killed_process_and_its_recovery_loses_nothing() {
    let plan = CrashPlan {
        kills_every: 3,
        random_subsets: 2,
        ..CrashPlan::default()
    };
    let tally = check(6, 200, &plan, true).unwrap();
    println!("{tally}");
    assert!(tally.nested >= 5_000, "{tally}");
}
