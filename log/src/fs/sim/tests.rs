use super::*;
use crate::fs::{DirEntry, Fs, create_dir_durable, publish, read_all};

fn read(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    read_all(fs, Path::new(path), 1 << 20).ok()
}

/// The distinct disks after a crash at the end of `workload`, as (path, content) lists.
fn disks(workload: impl FnOnce(&SimFs)) -> Vec<Vec<(String, String)>> {
    let fs = SimFs::new();
    workload(&fs);
    fs.record();
    let mut disks = Vec::new();
    let ledger: Ledger<()> = Ledger::new(&fs);
    let plan = CrashPlan {
        random_subsets: 0,
        ..CrashPlan::default()
    };
    let show = |(path, content): (PathBuf, Vec<u8>)| {
        (
            path.display().to_string(),
            String::from_utf8_lossy(&content).into_owned(),
        )
    };
    enumerate(&fs, &ledger, &plan, |case| {
        disks.push(case.fs.files().into_iter().map(show).collect());
        Ok(())
    })
    .unwrap();
    disks.sort();
    disks
}

fn disk(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files
        .iter()
        .map(|(path, content)| ((*path).into(), (*content).into()))
        .collect()
}

#[test]
fn data_and_name_of_a_new_file_settle_apart() {
    let a = Path::new("/a");
    let unsynced = disks(|fs| {
        fs.create_new(a).unwrap().write_all_at(b"xy", 0).unwrap();
    });
    assert_eq!(
        unsynced,
        [
            disk(&[]),
            disk(&[("/a", "")]),
            disk(&[("/a", "\0\0")]),
            disk(&[("/a", "x")]),
            disk(&[("/a", "x\0")]),
            disk(&[("/a", "xy")])
        ]
    );
    let synced = disks(|fs| {
        let file = fs.create_new(a).unwrap();
        file.write_all_at(b"xy", 0).unwrap();
        file.sync_data().unwrap();
    });
    assert_eq!(synced, [disk(&[]), disk(&[("/a", "xy")])]);
    let named = disks(|fs| {
        fs.create_new(a).unwrap().write_all_at(b"x", 0).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
    });
    assert_eq!(
        named,
        [
            disk(&[("/a", "")]),
            disk(&[("/a", "\0")]),
            disk(&[("/a", "x")])
        ]
    );
}

#[test]
fn renames_and_removals_can_be_undone_until_the_directory_is_synced() {
    let setup = |fs: &SimFs| {
        publish(fs, Path::new("/a"), b"1").unwrap();
        publish(fs, Path::new("/b"), b"2").unwrap();
    };
    let renamed = disks(|fs| {
        setup(fs);
        fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    });
    assert_eq!(
        renamed,
        [disk(&[("/a", "1"), ("/b", "2")]), disk(&[("/b", "1")])]
    );
    let removed = disks(|fs| {
        setup(fs);
        fs.unlink(Path::new("/a")).unwrap();
        fs.unlink(Path::new("/b")).unwrap();
    });
    assert_eq!(removed.len(), 4);
    let settled = disks(|fs| {
        setup(fs);
        fs.unlink(Path::new("/a")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
    });
    assert_eq!(settled, [disk(&[("/b", "2")])]);
}

#[test]
fn publish_leaves_the_old_file_or_the_new_one() {
    let states = disks(|fs| {
        publish(fs, Path::new("/a"), b"old").unwrap();
        publish(fs, Path::new("/a"), b"new").unwrap();
    });
    assert_eq!(states, [disk(&[("/a", "new")])]);
    let fs = SimFs::new();
    publish(&fs, Path::new("/a"), b"old").unwrap();
    fs.record();
    publish(&fs, Path::new("/a"), b"new").unwrap();
    let ledger: Ledger<()> = Ledger::new(&fs);
    let tally = enumerate(&fs, &ledger, &CrashPlan::default(), |case| {
        match read(&case.fs, "/a").as_deref() {
            Some(b"old" | b"new") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    assert!(tally.distinct > 5, "{tally}");
    assert_eq!(fs.violations(), []);
}

#[test]
fn enumeration_names_the_crash_that_fails() {
    let fs = SimFs::new();
    fs.record();
    let mut ledger = Ledger::new(&fs);
    let file = fs.create_new(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    ledger.note("acknowledged"); // before its sync
    file.sync_data().unwrap();
    let failure = enumerate(&fs, &ledger, &CrashPlan::default(), |case| {
        let lost = case.events().count() > 0 && read(&case.fs, "/a").unwrap() != b"x";
        if lost { Err("lost".into()) } else { Ok(()) }
    })
    .unwrap_err();
    assert_eq!(failure.crashes, [(3, Variant::NothingPending)]);
    assert!(failure.to_string().contains("Write"), "{failure}");
}

#[test]
fn nested_crashes_strike_recovery_and_not_what_comes_after() {
    let fs = SimFs::new();
    fs.record();
    publish(&fs, Path::new("/a"), b"x").unwrap();
    let ledger: Ledger<()> = Ledger::new(&fs);
    let plan = CrashPlan {
        nested_every: 1,
        ..CrashPlan::default()
    };
    let tally = enumerate(&fs, &ledger, &plan, |case| {
        if !case.fs.exists(Path::new("/r")).unwrap() {
            publish(&case.fs, Path::new("/r"), b"recovered").unwrap();
        }
        case.recovery_done();
        if read(&case.fs, "/later").is_some() {
            return Err("a nested crash after recovery".into());
        }
        publish(&case.fs, Path::new("/later"), b"x").unwrap();
        Ok(())
    })
    .unwrap();
    assert!(tally.nested > tally.distinct / 2, "{tally}");
}

#[test]
fn a_lost_sync_shows_the_bytes_until_they_are_evicted_and_never_settles_them() {
    let fs = SimFs::new();
    let file = fs.create_new(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    fs.inject(Some(Fault {
        call: fs.call_count() + 1,
        kind: FaultKind::SyncLost,
        for_ever: false,
    }));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().expect("the next sync finds nothing to do");
    assert_eq!(read(&fs, "/a").unwrap(), b"lost");
    file.write_all_at(b"kept", 4).unwrap();
    file.sync_data().unwrap();
    fs.evict();
    assert_eq!(read(&fs, "/a").unwrap(), b"\0\0\0\0kept");
}

#[test]
fn faults_strike_the_call_they_were_planned_for() {
    let run = |kind, for_ever| {
        let fs = SimFs::new();
        let file = fs.create_new(Path::new("/a")).unwrap();
        fs.inject(Some(Fault {
            call: 3,
            kind,
            for_ever,
        }));
        let kind = |r: io::Result<usize>| {
            r.map_err(|e| e.raw_os_error().map_or(e.kind(), |_| io::ErrorKind::Other))
        };
        let writes: Vec<_> = (0..4).map(|_| kind(file.write_at(b"1234", 0))).collect();
        (writes, read(&fs, "/a").unwrap_or_default().len())
    };
    let other = || Err(io::ErrorKind::Other);
    assert_eq!(
        run(FaultKind::Io, false),
        (vec![Ok(4), other(), Ok(4), Ok(4)], 4)
    );
    assert_eq!(
        run(FaultKind::Io, true),
        (vec![Ok(4), other(), other(), other()], 0)
    );
    assert_eq!(
        run(FaultKind::NoSpace, false).0,
        [Ok(4), other(), Ok(4), Ok(4)]
    );
    assert_eq!(run(FaultKind::Short, false).0, [Ok(4), Ok(2), Ok(4), Ok(4)]);
    let interrupted = || Err(io::ErrorKind::Interrupted);
    assert_eq!(
        run(FaultKind::Interrupted, true).0,
        [Ok(4), interrupted(), Ok(4), interrupted()]
    );
    assert_eq!(
        run(FaultKind::SyncLost, true).0,
        [Ok(4), Ok(4), Ok(4), Ok(4)]
    );
}

#[test]
fn a_full_disk_takes_part_of_a_write() {
    let fs = SimFs::new();
    fs.set_capacity(10);
    let file = fs.create_new(Path::new("/a")).unwrap();
    file.write_all_at(&[1; 8], 0).unwrap();
    assert_eq!(fs.space(Path::new("/")).unwrap().available_bytes, 2);
    assert_eq!(
        file.write_all_at(&[2; 8], 8).unwrap_err().raw_os_error(),
        Some(28)
    );
    fs.set_capacity(100);
    assert_eq!(file.len().unwrap(), 12);
    fs.set_capacity(12);
    assert!(publish(&fs, Path::new("/b"), b"x").is_err());
    fs.unlink(Path::new("/a")).unwrap();
    publish(&fs, Path::new("/b"), b"x").unwrap();
}

#[test]
fn the_lint_knows_wrong_orders() {
    let broken = |workload: &dyn Fn(&SimFs)| {
        let fs = SimFs::new();
        workload(&fs);
        let violations = fs.violations();
        violations.into_iter().map(|v| v.rule).collect::<Vec<_>>()
    };
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    assert_eq!(broken(&|fs| publish(fs, a, b"x").unwrap()), []);
    let renamed = |fs: &SimFs| {
        fs.create_new(a).unwrap().write_all_at(b"x", 0).unwrap();
        fs.rename(a, b).unwrap();
    };
    assert_eq!(broken(&renamed), [Rule::NameAfterSync]);
    let unsettled_dir = |fs: &SimFs| {
        fs.mkdir(Path::new("/d")).unwrap();
        fs.create_new(Path::new("/d/f"))
            .unwrap()
            .write_all_at(b"x", 0)
            .unwrap();
    };
    assert_eq!(broken(&unsettled_dir), [Rule::DirectorySettledFirst]);
    let settled_dir = |fs: &SimFs| {
        create_dir_durable(fs, Path::new("/d/e")).unwrap();
        fs.create_new(Path::new("/d/e/f"))
            .unwrap()
            .write_all_at(b"x", 0)
            .unwrap();
    };
    assert_eq!(broken(&settled_dir), []);
    let old = |fs: &SimFs| {
        publish(fs, a, b"x").unwrap();
        fs.kill();
        let file = fs.open_rw(a).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(b"y", 0).unwrap();
    };
    assert_eq!(broken(&old), [Rule::OldFilesAreNotWritten]);
    let early = |fs: &SimFs| {
        let file = fs.create_new(a).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        fs.acknowledge(&[a]).unwrap(); // neither bytes nor name
        file.sync_data().unwrap();
        fs.acknowledge(&[Path::new("/")]).unwrap(); // not the name
        fs.sync_dir(Path::new("/")).unwrap();
        fs.acknowledge(&[Path::new("/"), a]).unwrap();
    };
    assert_eq!(broken(&early), [Rule::AcknowledgeAfterSync; 3]);
    let unlinked = |fs: &SimFs| {
        fs.forbid_unlink_before(a, b);
        publish(fs, a, b"x").unwrap();
        let file = fs.create_new(b).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        fs.unlink(a).unwrap();
    };
    assert_eq!(broken(&unlinked), [Rule::UnlinkAfterSync]);
}

#[test]
fn a_fork_shares_nothing_and_killing_frees_locks() {
    let fs = SimFs::new();
    let a = Path::new("/a");
    let lock = fs.lock(a).unwrap();
    assert_eq!(fs.lock(a).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let fork = fs.fork();
    fork.open_rw(a).unwrap().write_all_at(b"x", 0).unwrap();
    assert_eq!(
        (read(&fork, "/a").unwrap(), read(&fs, "/a").unwrap()),
        (b"x".to_vec(), vec![])
    );
    fs.kill();
    let again = fs.lock(a).unwrap();
    drop(lock);
    assert!(
        fs.lock(a).is_err(),
        "a dead process's guard gives back nothing"
    );
    drop(again);
    fs.lock(a).unwrap();
    assert_ne!(fs.unique_id().unwrap(), fs.unique_id().unwrap());
}

#[test]
fn names_are_checked_as_a_real_file_system_does() {
    let fs = SimFs::new();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    fs.mkdir(Path::new("d")).unwrap();
    fs.create_new(Path::new("d/f")).unwrap();
    assert_eq!(
        kind(fs.mkdir(Path::new("/d"))),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(fs.create_new(Path::new("/d/f")).map(drop)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(fs.create_new(Path::new("/e/f")).map(drop)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.rmdir(Path::new("/d"))),
        io::ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        kind(fs.open(Path::new("/d")).map(drop)),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(fs.open(Path::new("/d/f/g")).map(drop)),
        io::ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(fs.link(Path::new("/d/f"), Path::new("/d/f"))),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(fs.open(Path::new("/d/f")).unwrap().set_len(1)),
        io::ErrorKind::PermissionDenied
    );
    let names: Vec<_> = fs.list(Path::new(".")).unwrap();
    assert_eq!(
        names,
        [DirEntry {
            name: "d".into(),
            is_dir: true
        }]
    );
    fs.unlink(Path::new("/d/f")).unwrap();
    fs.rmdir(Path::new("/d")).unwrap();
    assert_eq!(fs.trace().last().unwrap().what, Op::Rmdir);
}
