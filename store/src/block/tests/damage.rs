//! Damaged blocks: the same answers, or an error that says where. Never a panic, never another
//! answer.

use millrace_log::fs::read_all;
use millrace_model::MatchOp;

use super::*;

/// Listed postings and bitmaps, two tenants, a series of several chunks.
fn model() -> Model {
    let mut model = Model::new();
    for (tenant, hosts) in [("a", 18), ("b", 2)] {
        let tenant: TenantId = tenant.parse().unwrap();
        for host in 0..hosts {
            let host_name = format!("h{host}");
            let labels = labels(&[("__name__", "m"), ("host", &host_name)]);
            let count = if host == 1 { 1_030 } else { 3 };
            let samples = (0..count).map(|i| (i * 1_000, 42 + i as u64 / 1_000));
            model.insert((tenant.clone(), labels), samples.collect());
        }
    }
    model
}

fn undamaged() -> Vec<u8> {
    let fs = fs();
    write(&fs, &model(), TimeRange::new(0, 2_000_000));
    read_all(&fs, Path::new(PATH), 1 << 20).unwrap()
}

fn fs_with(bytes: &[u8]) -> SimFs {
    let fs = fs();
    let file = fs.create_new(Path::new(PATH)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    fs
}

fn questions() -> Vec<(TenantId, Vec<Matcher>)> {
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
    let all = |tenant: &str, matchers| (tenant.parse().unwrap(), matchers);
    vec![
        all("a", vec![]),
        all("b", vec![]),
        all("c", vec![]),
        all("a", vec![Matcher::equal("host", "h1")]),
        all(
            "a",
            vec![
                matcher("host", MatchOp::Regex, "h1.*"),
                Matcher::equal("__name__", "m"),
            ],
        ),
        all("a", vec![matcher("host", MatchOp::NotRegex, "h.?")]),
    ]
}

/// All answers of a block, or the first error.
fn ask(bytes: &[u8]) -> Result<Vec<Answer>, BlockError> {
    let block = BlockReader::open(&fs_with(bytes), Path::new(PATH))?;
    let questions = questions();
    let answers = questions
        .iter()
        .map(|(tenant, m)| answer(&block, tenant, m, TimeRange::ALL));
    answers.collect()
}

fn verify(bytes: &[u8]) -> Result<Verified, BlockError> {
    BlockReader::open(&fs_with(bytes), Path::new(PATH))?.verify()
}

#[test]
fn every_flipped_bit_is_found() {
    let mut bytes = undamaged();
    assert!(bytes.len() <= 4_096, "{} bytes", bytes.len());
    let right = ask(&bytes).unwrap();
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            match ask(&bytes) {
                Ok(answers) => {
                    assert!(answers == right, "bit {bit} of byte {at} changes answers");
                    harmless += 1;
                }
                Err(error) => assert_names_damage(&error, at),
            }
            let error = verify(&bytes).expect_err("a scrub misses nothing");
            assert_names_damage(&error, at);
            bytes[at] ^= 1 << bit;
        }
    }
    // The questions touch everything but what only a scrub needs: nothing.
    assert_eq!(harmless, 0);
    assert_eq!(ask(&bytes).unwrap(), right);
}

/// The error is about damage (or a version that is none), says which file, and a place at or before
/// the damaged byte.
#[track_caller]
fn assert_names_damage(error: &BlockError, at: usize) {
    let text = error.to_string();
    assert!(text.contains(PATH), "{text}");
    match error {
        BlockError::Checksum { offset, bytes, .. } => {
            // The checksum itself may be what was damaged; that of a chunk stands in its entry.
            let end = offset + bytes + 4;
            let stored_elsewhere = matches!(
                error,
                BlockError::Checksum {
                    section: Section::Footer,
                    ..
                }
            );
            assert!(
                stored_elsewhere || (*offset <= at as u64 && (at as u64) < end),
                "{at}: {text}"
            );
        }
        BlockError::Malformed { section, .. } => {
            // Magic bytes are told apart from checksums: a file may simply be something else.
            assert!(
                matches!(section, Section::Header | Section::Tail),
                "{at}: {text}"
            );
        }
        BlockError::Io { .. }
        | BlockError::Unsupported { .. }
        | BlockError::NoRollup { .. }
        | BlockError::Chunk { .. } => {
            panic!("{at}: {text}")
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = undamaged();
    for end in 0..bytes.len() {
        let error = verify(&bytes[..end]).expect_err("a block cut short");
        assert!(error.is_damage(), "{end}: {error}");
        assert!(ask(&bytes[..end]).is_err());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(verify(&longer).is_err());
    // With the end of a block behind it, it is none all the same.
    longer.pop();
    let tail = bytes[bytes.len() - 16..].to_vec();
    longer.extend(tail);
    assert!(verify(&longer).is_err());
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = undamaged();
    bytes[4] = 2;
    let crc = crc32c::crc32c(&bytes[..8]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    let error = ask(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::Unsupported {
                got: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(!error.is_damage());
}

/// A chunk of a later codec is told apart from a damaged one, and spoils no other series.
#[test]
fn a_later_codec_is_named() {
    let good = undamaged();
    let block = BlockReader::open(&fs_with(&good), Path::new(PATH)).unwrap();
    let entry = block.footer.section(Section::Series);
    let mut named = 0;
    for at in entry.offset as usize..(entry.offset + entry.bytes) as usize {
        let mut bytes = good.clone();
        bytes[at] = 9;
        reseal(&mut bytes, &block, 1);
        if let Err(BlockError::Unsupported {
            what,
            got: 9,
            supported: 2,
            ..
        }) = ask(&bytes)
        {
            assert_eq!(what, "chunk codec");
            named += 1;
            let one = BlockReader::open(&fs_with(&bytes), Path::new(PATH)).unwrap();
            assert_eq!(one.iter().filter(Result::is_ok).count(), model().len());
        }
    }
    // Each chunk has such a byte; those of the tenant's series that are asked for meet it.
    assert_eq!(named, block.summary().chunks);
}

/// Bytes whose every checksum has been made right again: decoders must not trust them.
#[test]
fn forged_bytes_never_panic() {
    let good = undamaged();
    let summary = BlockReader::open(&fs_with(&good), Path::new(PATH)).unwrap();
    let sections = summary.footer.sections;
    let mut tried = 0;
    for (i, entry) in sections.iter().enumerate().skip(1) {
        let (start, len) = (entry.offset as usize, entry.bytes as usize);
        for at in start..start + len {
            for byte in [0, 1, 0x7f, 0x80, 0xff, good[at].wrapping_add(1)] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                reseal(&mut bytes, &summary, i);
                // Any answer or error will do: the bytes say that they are right.
                let _either = (ask(&bytes).is_ok(), verify(&bytes).is_ok());
                tried += 1;
            }
        }
    }
    assert!(tried > 3_000, "{tried}");
}

/// Makes all checksums of a section, its pages included, and of footer and tail right.
fn reseal(bytes: &mut [u8], block: &BlockReader, section: usize) {
    let put = |bytes: &mut [u8], from: usize, to: usize, at: usize| {
        let crc = crc32c::crc32c(&bytes[from..to]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    let directory = block.directory().unwrap();
    let entry = block.footer.sections[section];
    let start = entry.offset as usize;
    let label_pages = directory
        .tenants
        .iter()
        .flat_map(|t| &t.names)
        .flat_map(|n| &n.pages);
    let pages: Vec<_> = match section {
        1 => directory.series_pages.clone(),
        2 => label_pages.map(|p| p.page).collect(),
        _ => Vec::new(),
    };
    for page in pages {
        let from = start + page.offset as usize;
        let to = from + page.bytes as usize - 4;
        put(bytes, from, to, to);
    }
    let mut footer = block.footer.clone();
    let section_bytes = &bytes[start..start + entry.bytes as usize];
    footer.sections[section].crc = crc32c::crc32c(section_bytes);
    let encoded = footer.encode();
    let at = bytes.len() - super::super::footer::TAIL_BYTES - encoded.len();
    bytes[at..at + encoded.len()].copy_from_slice(&encoded);
    let tail = super::super::footer::encode_tail(&encoded);
    let at = at + encoded.len();
    bytes[at..].copy_from_slice(&tail);
}

#[test]
fn a_read_that_fails_is_an_error_and_no_damage() {
    let fs = fs_with(&undamaged());
    let missing = BlockReader::open(&fs, Path::new("none.block")).unwrap_err();
    assert!(
        matches!(missing, BlockError::Io { what: "open", .. }),
        "{missing}"
    );
    assert!(!missing.is_damage());
}
