//! The oracle of backups and restores.

use std::path::PathBuf;

use super::scenario::{Promise, Scenario, backup_dir, restored_dir};
use super::*;
use crate::backup::tests::open_restored;
use crate::backup::{self, Backup, BackupProblem, restore};

/// More than any workload takes.
const MOST: usize = 16;

/// Every backup that was begun restores to what was there at its position, or is refused as unfinished;
/// one that was promised restores. The same of every directory that a restore was to fill.
pub(super) fn check(fs: &SimFs, scenario: &Scenario, promises: &[Promise]) -> Result<(), String> {
    for number in 1..=MOST {
        let dir = backup_dir(number);
        if !fs.exists(&dir).map_err(|e| e.to_string())? && number > 1 {
            // They are taken one after the other, but the names of directories settle apart.
            continue;
        }
        let promised = promises.iter().find_map(|promise| match promise {
            Promise::BackedUp(of, applied) if *of == number => Some(*applied),
            _ => None,
        });
        let newer = |promise: &Promise| matches!(promise, Promise::BackedUp(of, _) if *of > number);
        if promised.is_some() && promises.iter().any(newer) {
            // It was restored when it was the newest. Nothing may touch it since.
            let checked = backup::check(fs, &dir, &mut |_| ()).map_err(|e| e.to_string())?;
            if !checked.damages.is_empty() {
                return Err(format!("backup {number}: {:?}", checked.damages));
            }
            continue;
        }
        let to = PathBuf::from(format!("checked/{number}"));
        match restore(fs, &dir, &to, &mut |_| ()) {
            Ok(list) => {
                let applied = list.shards[0].applied;
                if promised.is_some_and(|promised| promised != applied) {
                    return Err(format!(
                        "backup {number} stands at {applied}, not {promised:?}"
                    ));
                }
                expect_restored(fs, scenario, &to, applied)?;
            }
            Err(StoreError::Backup {
                problem: BackupProblem::Unfinished,
                ..
            }) if promised.is_none() => continue,
            Err(error) => return Err(format!("backup {number}, {promised:?}: {error}")),
        }
        check_restored(fs, scenario, promises, number)?;
    }
    Ok(())
}

fn check_restored(
    fs: &SimFs,
    scenario: &Scenario,
    promises: &[Promise],
    number: usize,
) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    let (from, to) = (backup_dir(number), restored_dir(number));
    let promised = promises
        .iter()
        .any(|promise| matches!(promise, Promise::Restored(of) if *of == number));
    let applied = Backup::read(fs, &from).map_err(text)?.shards[0].applied;
    let there = fs.exists(&to).map_err(|e| e.to_string())?
        && !fs.list(&to).map_err(|e| e.to_string())?.is_empty();
    if !there {
        if promised {
            return Err(format!("restored backup {number} is not there"));
        }
        // What the interrupted one has left is no hindrance.
        restore(fs, &from, &to, &mut |_| ()).map_err(text)?;
    }
    expect_restored(fs, scenario, &to, applied)
}

fn expect_restored(
    fs: &SimFs,
    scenario: &Scenario,
    dir: &Path,
    applied: Offset,
) -> Result<(), String> {
    let mut shard = open_restored(fs, dir).map_err(|error| format!("{dir:?}: {error}"))?;
    if shard.applied() != applied {
        return Err(format!(
            "{dir:?} stands at {}, not {applied}",
            shard.applied()
        ));
    }
    expect_content(&shard, scenario, applied)?;
    let queue = &scenario.queue;
    shard
        .apply(queue.from(applied))
        .map_err(|error| format!("{dir:?}: {error}"))?;
    expect_content(&shard, scenario, queue.end())
}
