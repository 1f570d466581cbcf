//! The recovery table of `docs/formats/log.md`, one test a row.
//!
//! Every row begins with the same disk, of which the table speaks: segment `a` (records 100 and
//! 101), then segment `b` (102 to 105), of which 102 and 103 were synced before 104 and 105 were
//! written.

use std::path::{Path, PathBuf};

use millrace_log::fs::sim::SimFs;
use millrace_log::{Damage, LogError, LogRecord, Lsn, Recovery};

use crate::support::{FIRST, append, content, dir, open, read_all};

const HEADER: usize = 40;

pub struct Disk {
    fs: SimFs,
    a: (PathBuf, Vec<u8>),
    b: (PathBuf, Vec<u8>),
}

/// Where the frames of `b` begin, and where the last ends.
struct Frames([usize; 5]);

impl Disk {
    pub fn new() -> Result<Self, LogError> {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs)?;
        append(&mut log, 2, 0)?;
        log.roll()?;
        append(&mut log, 2, 0)?;
        log.sync()?;
        append(&mut log, 2, 0)?;
        log.sync()?;
        drop(log);
        fs.kill();
        let mut files = fs.files();
        let b = files.remove(1);
        Ok(Self {
            fs,
            a: files.remove(0),
            b,
        })
    }

    fn frames(&self) -> Frames {
        let mut ends = [HEADER; 5];
        for i in 0..4 {
            let (_, payload) = content(FIRST.0 + 2 + i as u64, 0);
            ends[i + 1] = ends[i] + (HEADER + payload.len()).next_multiple_of(8);
        }
        assert_eq!(ends[4], self.b.1.len());
        Frames(ends)
    }

    /// Opens after the damage; tells how many records there are, and what was done.
    fn open(&self) -> Result<(Vec<LogRecord>, Recovery), LogError> {
        let (log, report) = open(&self.fs)?;
        Ok((read_all(&log)?, report))
    }

    fn damage_a(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.a.1.clone();
        change(&mut bytes);
        self.fs.damage(&self.a.0, &bytes).unwrap();
    }

    fn damage_b(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.b.1.clone();
        change(&mut bytes);
        self.fs.damage(&self.b.0, &bytes).unwrap();
    }

    /// Expects the first `count` records, and that opening cut `torn` bytes.
    fn expect_cut(&self, count: usize, torn: usize) -> Result<(), String> {
        let (records, report) = self.open().map_err(|e| e.to_string())?;
        if (records.len(), report.torn_bytes) != (count, torn as u64) {
            return Err(format!("{} records, {report:?}", records.len()));
        }
        for (lsn, record) in (FIRST.0..).zip(&records) {
            if content(lsn, 0) != (record.time, record.payload.to_vec()) {
                return Err(format!("{record:?} is not what was appended"));
            }
        }
        Ok(())
    }

    fn expect_corrupt(&self, path: &Path, offset: usize) -> Result<Damage, String> {
        match self.open() {
            Err(LogError::Corrupt {
                path: named,
                offset: at,
                damage,
            }) if named == path && at == offset as u64 => Ok(damage),
            other => Err(format!(
                "{other:?} instead of damage at {offset} of {path:?}"
            )),
        }
    }
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident($disk:ident) $body:block)*) => {
        $($(#[$doc])* pub fn $name() -> Result<(), String> {
            let $disk = Disk::new().map_err(|e| e.to_string())?;
            $body
        })*

        /// All rows, by name.
        pub const ALL: &[(&str, fn() -> Result<(), String>)] = &[$((stringify!($name), $name)),*];

        mod tests {
            $(#[test]
            fn $name() {
                super::$name().unwrap();
            })*
        }
    };
}

rows! {
    undamaged_log_is_read_whole(disk) {
        disk.expect_cut(6, 0)
    }

    // The header of any segment.

    empty_segment_file_is_corrupt(disk) {
        disk.damage_b(Vec::clear);
        let damage = disk.expect_corrupt(&disk.b.0, 0)?;
        expect(damage, Damage::CutShort { need: 40, have: 0 })
    }
    cut_header_is_corrupt(disk) {
        disk.damage_b(|b| b.truncate(39));
        let damage = disk.expect_corrupt(&disk.b.0, 0)?;
        expect(damage, Damage::CutShort { need: 40, have: 39 })
    }
    zeroed_header_is_corrupt(disk) {
        disk.damage_a(|a| a[..HEADER].fill(0));
        let damage = disk.expect_corrupt(&disk.a.0, 0)?;
        expect(damage, Damage::Magic)
    }
    changed_header_is_corrupt(disk) {
        disk.damage_b(|b| b[9] ^= 1);
        match disk.expect_corrupt(&disk.b.0, 0)? {
            Damage::HeaderChecksum { .. } => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
    unknown_version_is_refused(disk) {
        disk.damage_a(|a| a[4] = 2);
        match disk.open() {
            Err(LogError::Version { path, found: 2, supported: 1 }) if path == disk.a.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
    segment_under_another_name_is_corrupt(disk) {
        let (a, b) = (disk.a.1.clone(), disk.b.1.clone());
        disk.damage_a(|bytes| *bytes = b);
        disk.damage_b(|bytes| *bytes = a);
        let damage = disk.expect_corrupt(&disk.a.0, 0)?;
        expect(damage, Damage::Order { expected: FIRST, found: Lsn(102) })
    }

    // The newest segment, behind what is proven to be synced.

    unproven_tail_is_written_again(disk) {
        let (_, report) = disk.open().map_err(|e| e.to_string())?;
        let (kept, carried) = (disk.frames().0[2], report.carried_records);
        let cut = disk.fs.files()[1].1.len();
        expect((report.segments, carried, cut), (3, 2, kept))
    }
    torn_last_record_is_cut(disk) {
        let Frames(f) = disk.frames();
        for len in f[3] + 1..f[4] {
            disk.damage_b(|b| b.truncate(len));
            disk.restart_with(|fs| fs.expect_cut(5, len - f[3]))?;
        }
        Ok(())
    }
    cut_between_records_is_no_damage(disk) {
        disk.damage_b(|b| b.truncate(disk.frames().0[3]));
        disk.expect_cut(5, 0)
    }
    zeros_at_the_end_are_cut(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| b.extend([0; 1000]));
        disk.restart_with(|disk| disk.expect_cut(6, 1000))?;
        disk.damage_b(|b| b[f[3]..].fill(0));
        disk.expect_cut(5, f[4] - f[3])
    }
    garbage_at_the_end_is_cut(disk) {
        disk.damage_b(|b| b.extend((0..777).map(|i| (i * 31 % 251) as u8)));
        disk.expect_cut(6, 777)
    }
    damaged_payload_at_the_end_is_cut(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| b[f[3] + HEADER] ^= 1);
        disk.expect_cut(5, f[4] - f[3])
    }
    records_behind_a_hole_in_the_tail_are_cut(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| b[f[2]..f[3]].fill(0));
        disk.expect_cut(4, f[4] - f[2])
    }
    frame_of_another_place_is_cut(disk) {
        let Frames(f) = disk.frames();
        // A copy of the whole tail behind itself: right file, right order of bytes, wrong place.
        disk.damage_b(|b| b.extend_from_within(f[3]..f[4]));
        disk.restart_with(|disk| disk.expect_cut(6, f[4] - f[3]))?;
        // The next record, but of another file.
        let other = Disk::new().map_err(|e| e.to_string())?;
        let (mut log, _) = open(&other.fs).map_err(|e| e.to_string())?;
        append(&mut log, 1, 5).and_then(|_| log.sync()).map_err(|e| e.to_string())?;
        let newest = other.fs.files().pop().unwrap().1;
        let (_, payload) = content(106, 5);
        let frame = newest[newest.len() - (HEADER + payload.len()).next_multiple_of(8)..].to_vec();
        disk.damage_b(|b| b.extend(&frame));
        disk.expect_cut(6, frame.len())
    }
    frame_moved_within_its_segment_does_not_pass(disk) {
        // Records 104 and 105 behind other bytes than those that they were written behind: whole,
        // in order, of the right file.
        let Frames(f) = disk.frames();
        let position = f[2];
        disk.damage_b(|b| {
            let frame = b[f[2]..f[3]].to_vec();
            b.truncate(position);
            b.extend([0; 8]);
            b.extend(frame);
        });
        disk.expect_cut(4, 8 + f[3] - f[2])
    }
    empty_newest_segment_stays_until_it_is_needed(disk) {
        let (mut log, _) = open(&disk.fs).map_err(|e| e.to_string())?;
        log.roll().map_err(|e| e.to_string())?;
        drop(log);
        disk.fs.kill();
        let before = disk.fs.files().len();
        let (mut log, report) = open(&disk.fs).map_err(|e| e.to_string())?;
        expect((report.torn_bytes, report.carried_records), (0, 0))?;
        append(&mut log, 1, 0).and_then(|_| log.sync()).map_err(|e| e.to_string())?;
        expect((read_all(&log).map_err(|e| e.to_string())?.len(), disk.fs.files().len()), (7, before))
    }
    garbage_in_an_empty_segment_is_cut(disk) {
        let (mut log, _) = open(&disk.fs).map_err(|e| e.to_string())?;
        log.roll().map_err(|e| e.to_string())?;
        drop(log);
        disk.fs.kill();
        let (path, mut bytes) = disk.fs.files().pop().unwrap();
        bytes.extend([7; 100]);
        disk.fs.damage(&path, &bytes).unwrap();
        disk.restart_with(|disk| disk.expect_cut(6, 100))?;
        disk.expect_cut(6, 100)?;
        disk.expect_cut(6, 0)
    }

    // The newest segment, before what is proven to be synced.

    damage_before_a_mark_is_corrupt(disk) {
        let Frames(f) = disk.frames();
        for at in f[0]..f[2] {
            disk.damage_b(|b| b[at] ^= 0x10);
            let frame = if at < f[1] { f[0] } else { f[1] };
            disk.expect_corrupt(&disk.b.0, frame)?;
        }
        Ok(())
    }
    damaged_length_before_a_mark_is_corrupt(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| b[f[1] + 4..f[1] + 8].fill(0xff));
        disk.expect_corrupt(&disk.b.0, f[1]).map(drop)
    }
    zeros_before_a_mark_are_corrupt(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| b[f[1]..f[2]].fill(0));
        disk.expect_corrupt(&disk.b.0, f[1]).map(drop)
    }
    a_mark_behind_a_second_damage_still_proves(disk) {
        let Frames(f) = disk.frames();
        disk.damage_b(|b| {
            b[f[1]..f[2]].fill(0);
            b[f[2]..f[3]].fill(0xee);
            // Its header alone is enough.
            b[f[3] + HEADER] ^= 1;
        });
        disk.expect_corrupt(&disk.b.0, f[1]).map(drop)
    }
    damage_in_carried_records_is_corrupt(disk) {
        disk.open().map_err(|e| e.to_string())?;
        disk.fs.kill();
        let (path, mut bytes) = disk.fs.files().pop().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        disk.fs.damage(&path, &bytes).unwrap();
        let last = disk.frames().0[3] - disk.frames().0[2] + HEADER;
        disk.expect_corrupt(&path, last).map(drop)
    }
    carried_records_cut_short_are_corrupt(disk) {
        disk.open().map_err(|e| e.to_string())?;
        disk.fs.kill();
        let (path, mut bytes) = disk.fs.files().pop().unwrap();
        let (need, len) = (bytes.len() as u64, disk.frames().0[3] - disk.frames().0[2] + HEADER);
        bytes.truncate(len);
        disk.fs.damage(&path, &bytes).unwrap();
        let damage = disk.expect_corrupt(&path, len)?;
        expect(damage, Damage::CutShort { need, have: len as u64 })
    }

    // Older segments.

    damage_in_an_older_segment_is_corrupt(disk) {
        disk.damage_a(|a| *a.last_mut().unwrap() ^= 1);
        let (_, payload) = content(FIRST.0, 0);
        let second = HEADER + (HEADER + payload.len()).next_multiple_of(8);
        disk.expect_corrupt(&disk.a.0, second).map(drop)
    }
    older_segment_cut_inside_a_record_is_corrupt(disk) {
        disk.damage_a(|a| a.truncate(a.len() - 1));
        let (_, payload) = content(FIRST.0, 0);
        let second = HEADER + (HEADER + payload.len()).next_multiple_of(8);
        disk.expect_corrupt(&disk.a.0, second).map(drop)
    }
    older_segment_cut_between_records_is_missing_records(disk) {
        disk.damage_a(|a| a.truncate(HEADER));
        match disk.open() {
            Err(LogError::Missing { path, expected: FIRST, found: Lsn(102) })
                if path == disk.b.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
    segment_missing_in_the_middle_is_missing_records(disk) {
        disk.open().map_err(|e| e.to_string())?;
        millrace_log::fs::Fs::unlink(&disk.fs, &disk.b.0).unwrap();
        match disk.open() {
            Err(LogError::Missing { expected: Lsn(102), found: Lsn(104), .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
    leftovers_behind_an_older_segment_are_cut(disk) {
        // As if recovery had been stopped between writing the tail again and cutting it.
        disk.open().map_err(|e| e.to_string())?;
        let whole = disk.b.1.clone();
        disk.damage_b(|b| *b = whole);
        let (records, report) = disk.open().map_err(|e| e.to_string())?;
        let Frames(f) = disk.frames();
        expect((records.len(), report.leftover_bytes), (6, (f[4] - f[2]) as u64))
    }
    leftovers_stay_while_the_next_segment_is_damaged(disk) {
        disk.open().map_err(|e| e.to_string())?;
        let whole = disk.b.1.clone();
        disk.damage_b(|b| *b = whole);
        let (path, mut bytes) = disk.fs.files().pop().unwrap();
        bytes[HEADER] ^= 1;
        disk.fs.damage(&path, &bytes).unwrap();
        disk.expect_corrupt(&path, HEADER)?;
        expect(&disk.fs.files()[1].1, &disk.b.1)
    }

    // The directory.

    unfinished_segment_is_removed(disk) {
        let path = dir().join("00000000000000000106.log.tmp");
        disk.fs.damage(&path, b"half").unwrap();
        let (records, report) = disk.open().map_err(|e| e.to_string())?;
        let left = disk.fs.files().iter().any(|(p, _)| *p == path);
        expect((records.len(), report.removed_files, left), (6, 1, false))
    }
    foreign_files_are_left_alone(disk) {
        let path = dir().join("notes.txt");
        disk.fs.damage(&path, b"mine").unwrap();
        disk.expect_cut(6, 0)?;
        expect(disk.fs.files().iter().any(|(p, _)| *p == path), true)
    }
    missing_oldest_segment_looks_like_retention(disk) {
        millrace_log::fs::Fs::unlink(&disk.fs, &disk.a.0).unwrap();
        let (records, _) = disk.open().map_err(|e| e.to_string())?;
        expect((records.len(), records[0].lsn), (4, Lsn(102)))
    }
}

impl Disk {
    /// Tries something on a copy of the disk as it is now.
    fn restart_with(&self, check: impl FnOnce(&Self) -> Result<(), String>) -> Result<(), String> {
        check(&Self {
            fs: self.fs.fork(),
            a: self.a.clone(),
            b: self.b.clone(),
        })
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{found:?} instead of {wanted:?}"))
    }
}

/// The page lists every row under its test's name, so that it cannot drift from the tests.
#[test]
fn format_page_lists_every_row() {
    let page = include_str!("../../../docs/formats/log.md");
    for (name, _) in ALL {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/formats/log.md lacks the row {name}"
        );
    }
}
