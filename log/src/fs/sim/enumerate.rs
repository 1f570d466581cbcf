//! Running a workload once, and recovering from every crash that could have struck it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use super::crash::{CrashPlan, CrashPoint, Variant, mix};
use super::tree::Tree;
use super::{Fault, FaultKind, SimFs};

/// What a workload promised and when: events (acknowledgements, attempts) with the number of
/// operations that were done before them.
#[derive(Debug)]
pub struct Ledger<E> {
    fs: SimFs,
    events: Vec<(u64, E)>,
}

impl<E> Ledger<E> {
    /// An empty one, for a workload on `fs`.
    #[must_use]
    pub fn new(fs: &SimFs) -> Self {
        Self {
            fs: fs.clone(),
            events: Vec::new(),
        }
    }

    /// Notes an event that happens now.
    pub fn note(&mut self, event: E) {
        self.events.push((self.fs.op_count(), event));
    }

    /// All events, in order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.events.iter().map(|(_, event)| event)
    }

    /// What had happened when `op` operations were done. What came after the last of them and
    /// before the next counts as happened.
    fn until(&self, op: u64) -> &[(u64, E)] {
        &self.events[..self.events.partition_point(|(tag, _)| *tag <= op)]
    }
}

/// A disk after a power cut, for a check to recover from.
#[derive(Debug)]
pub struct CrashCase<'a, E> {
    /// The disk.
    pub fs: SimFs,
    /// As in [`CrashFailure::crashes`].
    pub crashes: Vec<(u64, Variant)>,
    events: &'a [(u64, E)],
    recovered: RefCell<Option<(u64, Option<E>)>>,
}

impl<'a, E> CrashCase<'a, E> {
    /// What had happened before the crash, in order.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &'a E> + use<'a, E> {
        self.events.iter().map(|(_, event)| event)
    }

    /// To be called by the check when recovery is done and before it does more with the disk: a
    /// nested crash strikes recovery only.
    pub fn recovery_done(&self) {
        *self.recovered.borrow_mut() = Some((self.fs.op_count(), None));
    }

    /// As [`recovery_done`](Self::recovery_done). A crash right behind it finds `event` to have
    /// happened: that what recovery found counts as durable from now on, say.
    pub fn recovery_done_with(&self, event: E) {
        *self.recovered.borrow_mut() = Some((self.fs.op_count(), Some(event)));
    }
}

/// What an enumeration looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations of the workload.
    pub ops: u64,
    /// States that were made.
    pub images: u64,
    /// States that differed, in bytes, names or in what had happened, and were checked.
    pub distinct: u64,
    /// Of those the ones after a crash of recovery.
    pub nested: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ops,
            images,
            distinct,
            nested,
        } = self;
        write!(
            f,
            "{ops} operations, {images} images, {distinct} distinct crash states checked, "
        )?;
        write!(f, "{nested} of them nested")
    }
}

/// A crash that a check did not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("crash after {}, the last of them {last}: {message}", crashes_text(.crashes))]
pub struct CrashFailure {
    /// After how many operations, and what became of the pending ones: of the workload, then, if
    /// recovery was crashed in turn, of that.
    pub crashes: Vec<(u64, Variant)>,
    /// The last operation of the workload.
    pub last: String,
    /// What the check said.
    pub message: String,
}

fn crashes_text(crashes: &[(u64, Variant)]) -> String {
    let texts: Vec<_> = crashes
        .iter()
        .map(|(op, variant)| format!("{op} operations ({variant:?})"))
        .collect();
    texts.join(", in recovery after ")
}

/// Hands to `check` every distinct state that a crash may leave after each operation that `fs`
/// recorded ([`SimFs::record`]), with what `ledger` says had happened by then.
///
/// # Errors
///
/// The first state that `check` does not accept.
///
/// # Panics
///
/// If nothing was recorded.
pub fn enumerate<E: Clone>(
    fs: &SimFs,
    ledger: &Ledger<E>,
    plan: &CrashPlan,
    mut check: impl FnMut(&CrashCase<'_, E>) -> Result<(), String>,
) -> Result<Tally, CrashFailure> {
    let (journal, start) = recorded(fs);
    let trace = fs.trace();
    let mut run = Run {
        plan,
        seen: HashSet::new(),
        tally: Tally::default(),
        check: &mut check,
    };
    run.tally.ops = journal.len() as u64 - 1;
    for (op, tree) in (start..).zip(&journal) {
        let events = ledger.until(op);
        let mut outcome = run.crash(tree, op, events, &mut Vec::new());
        if outcome.is_ok() && plan.kills_every > 0 && op.is_multiple_of(plan.kills_every) {
            let killed = SimFs::from_tree(tree.clone());
            killed.kill();
            run.tally.images += 1;
            outcome = run.recover(killed, events, &mut vec![(op, Variant::Killed)], true);
        }
        outcome.map_err(|(crashes, message)| {
            let last = op
                .checked_sub(1)
                .and_then(|i| trace.get(usize::try_from(i).ok()?));
            let last = last.map_or("none".into(), |e| format!("{:?} {:?}", e.what, e.path));
            CrashFailure {
                crashes,
                last,
                message,
            }
        })?;
    }
    Ok(run.tally)
}

/// The disk after each operation, and the number of the operation before the first of them.
fn recorded(fs: &SimFs) -> (Vec<Tree>, u64) {
    let mut state = fs.state.lock();
    let journal = state
        .journal
        .take()
        .expect("SimFs::record was called before the workload");
    (journal, state.journal_start)
}

struct Run<'a, E> {
    plan: &'a CrashPlan,
    seen: HashSet<(u64, usize)>,
    tally: Tally,
    check: &'a mut dyn FnMut(&CrashCase<'_, E>) -> Result<(), String>,
}

type Refusal = (Vec<(u64, Variant)>, String);

impl<E: Clone> Run<'_, E> {
    /// All crashes of one moment; `outer` are the crashes before it, if this one is nested.
    fn crash(
        &mut self,
        tree: &Tree,
        op: u64,
        events: &[(u64, E)],
        outer: &mut Vec<(u64, Variant)>,
    ) -> Result<(), Refusal> {
        let point = CrashPoint::new(tree);
        for variant in point.variants(self.plan) {
            let image = point.image(variant, mix(self.plan.seed) ^ mix(op));
            self.tally.images += 1;
            if !self.seen.insert((image.hash(), events.len())) {
                continue;
            }
            self.tally.distinct += 1;
            self.tally.nested += u64::from(!outer.is_empty());
            let every = self.plan.nested_every;
            let nest = outer.is_empty() && every > 0 && self.tally.distinct.is_multiple_of(every);
            outer.push((op, variant));
            self.recover(SimFs::from_tree(image.into_tree(tree)), events, outer, nest)?;
            outer.pop();
        }
        Ok(())
    }

    /// Recovers from one state, and with `nest` from every crash of that recovery.
    fn recover(
        &mut self,
        fs: SimFs,
        events: &[(u64, E)],
        crashes: &mut Vec<(u64, Variant)>,
        nest: bool,
    ) -> Result<(), Refusal> {
        if nest {
            fs.record();
        }
        let recovered = RefCell::new(None);
        let case = CrashCase {
            fs,
            crashes: crashes.clone(),
            events,
            recovered,
        };
        (self.check)(&case).map_err(|message| (crashes.clone(), message))?;
        if nest {
            let op_count = case.fs.op_count();
            let (done, event) = case.recovered.take().unwrap_or((op_count, None));
            let (journal, _) = recorded(&case.fs);
            // Before the first operation it is the state that was just checked.
            for (at, tree) in (0..=done).zip(&journal).skip(1) {
                if at == done && event.is_some() {
                    let last = event.clone().map(|event| (done, event));
                    let events: Vec<_> = events.iter().cloned().chain(last).collect();
                    self.crash(tree, at, &events, crashes)?;
                } else {
                    self.crash(tree, at, events, crashes)?;
                }
            }
        }
        Ok(())
    }
}

/// What a fault sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Calls of the run without faults.
    pub calls: u64,
    /// Runs in which a fault struck: each call in each way that it can fail.
    pub runs: u64,
}

/// Runs `run` without faults, then again and again on a copy of `start`, with each of its calls
/// failing in each way, once and from there on for ever. `run` is told the fault, which it may have
/// to lift ([`SimFs::inject`]) before it opens again.
///
/// # Errors
///
/// What the first run that fails says, with its fault.
pub fn fault_sweep(
    start: &SimFs,
    mut run: impl FnMut(&SimFs, Option<Fault>) -> Result<(), String>,
) -> Result<Sweep, String> {
    let clean = start.fork();
    run(&clean, None).map_err(|message| format!("without a fault: {message}"))?;
    let fallible = std::mem::take(&mut clean.state.lock().fallible);
    let mut sweep = Sweep {
        calls: fallible.len() as u64,
        runs: 0,
    };
    for kind in FaultKind::ALL {
        for (call, able) in (1..).zip(&fallible) {
            for for_ever in [false, true] {
                if !for_ever && !able.contains(&kind) {
                    continue;
                }
                let fault = Fault {
                    call,
                    kind,
                    for_ever,
                };
                let fs = start.fork();
                fs.inject(Some(fault));
                run(&fs, Some(fault)).map_err(|message| format!("{fault:?}: {message}"))?;
                sweep.runs += u64::from(fs.faults_fired() > 0);
            }
        }
    }
    Ok(sweep)
}
