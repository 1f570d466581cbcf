//! The names in a log's directory: built and parsed here and nowhere else.
//!
//! A segment is named after its first record, in 20 digits so that names sort as numbers do.

use std::path::{Path, PathBuf};

use crate::Lsn;
use crate::fs::TEMPORARY_SUFFIX;

const SUFFIX: &str = ".log";
/// Digits of `u64::MAX`.
const DIGITS: usize = 20;

/// What a name in a log's directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A segment that begins with this record.
    Segment(Lsn),
    /// A segment that was not complete when the process ended.
    Temporary,
    /// Not ours.
    Foreign,
}

pub(crate) fn segment(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:0DIGITS$}{SUFFIX}", first.0))
}

pub(crate) fn parse(name: &str) -> Name {
    let segment = |name: &str| {
        let digits = name.strip_suffix(SUFFIX)?;
        let all_digits = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        all_digits.then(|| digits.parse().ok()).flatten().map(Lsn)
    };
    match name.strip_suffix(TEMPORARY_SUFFIX) {
        Some(rest) if segment(rest).is_some() => Name::Temporary,
        Some(_) => Name::Foreign,
        None => segment(name).map_or(Name::Foreign, Name::Segment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_built_and_nothing_else_is() {
        for lsn in [0, 7, u64::MAX] {
            let path = segment(Path::new("d"), Lsn(lsn));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(parse(name), Name::Segment(Lsn(lsn)));
            assert_eq!(parse(&format!("{name}.tmp")), Name::Temporary);
        }
        for foreign in [
            "",
            ".log",
            "1.log",
            "00000000000000000001.lo",
            "+0000000000000000001.log",
            "x.tmp",
            "99999999999999999999.log",
            "000000000000000000001.log",
            "identity",
        ] {
            assert_eq!(parse(foreign), Name::Foreign, "{foreign}");
        }
    }
}
