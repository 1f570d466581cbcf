//! The bytes of a backup's list: `docs/formats/backup.md`.
//!
//! Invariant: one backup has one spelling. What is decoded is written again and must be the same bytes,
//! so that every byte is covered by the checksum or fixed.

use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};

use super::{Backup, BackupProblem, SavedChecksum, SavedFile, SavedShard};

/// The only version there is.
pub(super) const VERSION: u32 = 1;
const FIRST_LINE: &str = "millrace backup, version ";
const CRC_LINE: &str = "\ncrc32c = ";

pub(super) fn encode(backup: &Backup) -> Vec<u8> {
    let Backup {
        id,
        taken_at,
        queue,
        partitions,
        shards,
        records,
        files,
    } = backup;
    let mut out = format!(
        "{FIRST_LINE}{VERSION}\nid = {id:032x}\ntaken_at = {}\nqueue = {queue}\npartitions = \
         {partitions}\n",
        taken_at.0
    );
    for shard in shards {
        let SavedShard {
            partition,
            queue,
            applied,
            sealed,
            blocks,
            samples,
            wal_records,
        } = shard;
        out.push_str(&format!(
            "shard = {partition} {queue} {applied} {sealed} {blocks} {samples} {wal_records}\n"
        ));
    }
    for (partition, range) in records {
        out.push_str(&format!(
            "records = {partition} {} {}\n",
            range.start, range.end
        ));
    }
    for SavedFile {
        name,
        bytes,
        checksum,
    } in files
    {
        let (kind, crc) = match checksum {
            SavedChecksum::Content(crc) => ("content", crc),
            SavedChecksum::Footer(crc) => ("footer", crc),
        };
        out.push_str(&format!("file = {bytes} {kind} {crc:08x} {name}\n"));
    }
    let crc = crc32c::crc32c(out.as_bytes());
    out.push_str(&format!("crc32c = {crc:08x}\n"));
    out.into_bytes()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
///
/// Another version, a wrong checksum, or not these lines.
pub(super) fn decode(bytes: &[u8]) -> Result<Backup, BackupProblem> {
    let line = |line, expected| BackupProblem::Line { line, expected };
    // The version first: what follows may look different in another one.
    let text = std::str::from_utf8(bytes).map_err(|_| line(1, "UTF-8"))?;
    let found: u32 = text
        .strip_prefix(FIRST_LINE)
        .and_then(|rest| rest.split('\n').next()?.parse().ok())
        .ok_or_else(|| line(1, "`millrace backup, version <number>`"))?;
    let last = text.lines().count();
    let (covered, stored) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once(CRC_LINE))
        .and_then(|(covered, crc)| Some((covered, u32::from_str_radix(crc, 16).ok()?)))
        .ok_or_else(|| line(last, "`crc32c = <8 hexadecimal digits>`"))?;
    let got = crc32c::crc32c(&text.as_bytes()[..covered.len() + 1]);
    if got != stored {
        return Err(BackupProblem::ListChecksum { got, stored });
    }
    if found != VERSION {
        return Err(BackupProblem::Version {
            found,
            supported: VERSION,
        });
    }
    let backup = Lines::new(covered).backup()?;
    if encode(&backup) != bytes {
        return Err(line(1, "spelled as this version spells it"));
    }
    Ok(backup)
}

/// The lines behind the first, with their numbers.
struct Lines<'a> {
    lines: std::iter::Peekable<std::iter::Enumerate<std::str::Lines<'a>>>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let mut lines = text.lines().enumerate().peekable();
        lines.next();
        Self { lines }
    }

    fn backup(mut self) -> Result<Backup, BackupProblem> {
        let id = self.one("id = ", |text| u128::from_str_radix(text, 16).ok())?;
        let taken_at = self.one("taken_at = ", |text| text.parse().ok().map(TimestampMs))?;
        let queue = self.one("queue = ", |text| text.parse::<QueueId>().ok())?;
        let partitions = self.one("partitions = ", |text| text.parse().ok())?;
        let shards = self.many("shard = ", shard)?;
        let records = self.many("records = ", |text| {
            let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
            let mut next = || words.next().flatten();
            let partition = PartitionId(u32::try_from(next()?).ok()?);
            Some((partition, Offset(next()?)..Offset(next()?)))
        })?;
        let files = self.many("file = ", file)?;
        if let Some((at, _)) = self.lines.next() {
            return Err(BackupProblem::Line {
                line: at + 1,
                expected: "`file = <bytes> content|footer <checksum> <name>`",
            });
        }
        Ok(Backup {
            id,
            taken_at,
            queue,
            partitions,
            shards,
            records,
            files,
        })
    }

    fn one<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BackupProblem> {
        let found = self.lines.next();
        let line = found.map_or(0, |(at, _)| at + 1);
        let value = found.and_then(|(_, text)| read(text.strip_prefix(key)?));
        value.ok_or(BackupProblem::Line {
            line,
            expected: key,
        })
    }

    fn many<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, BackupProblem> {
        let mut found = Vec::new();
        while self.lines.peek().is_some_and(|(_, l)| l.starts_with(key)) {
            found.push(self.one(key, &read)?);
        }
        Ok(found)
    }
}

fn shard(text: &str) -> Option<SavedShard> {
    let mut words = text.split(' ');
    let partition = PartitionId(words.next()?.parse().ok()?);
    let queue = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    Some(SavedShard {
        partition,
        queue,
        applied: Offset(number()?),
        sealed: Offset(number()?),
        blocks: number()?,
        samples: number()?,
        wal_records: number()?,
    })
}

fn file(text: &str) -> Option<SavedFile> {
    let mut words = text.splitn(4, ' ');
    let bytes = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let crc = u32::from_str_radix(words.next()?, 16).ok()?;
    let name = words.next()?;
    // It is joined to a directory, and must stay in it.
    let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !name.split('/').all(inside) {
        return None;
    }
    Some(SavedFile {
        name: name.to_owned(),
        bytes,
        checksum: match kind {
            "content" => SavedChecksum::Content(crc),
            "footer" => SavedChecksum::Footer(crc),
            _ => return None,
        },
    })
}
