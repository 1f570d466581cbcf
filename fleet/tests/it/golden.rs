//! The format's golden stream: `testdata/fleet-v1.bin`, which `docs/formats/fleet.md` shows.

use std::fmt::Write as _;

use millrace_fleet::wire::WireError;
use millrace_fleet::wire::frame::{End, ErrorCode, FrameKind, FrameReader, Hello, StreamError};
use millrace_fleet::wire::series::{SeriesWriter, decode_series};
use millrace_model::{Labels, Offset, PartitionId, QueueId, stale_nan};
use millrace_queue::Position;

fn stream() -> Vec<u8> {
    let mut applied = Position::new(QueueId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    applied.advance(PartitionId(0), Offset(42));
    applied.advance(PartitionId(2), Offset(1_000));
    let hello = Hello {
        store: "store-0".into(),
        applied,
    };
    let labels = |site: &str| {
        Labels::from_pairs([("__name__", "temp"), ("device", "p7"), ("site", site)]).unwrap()
    };
    let regular: Vec<i64> = (0..4).map(|i| 1_795_233_600_000 + i * 15_000).collect();
    let odd = [1_795_233_600_000, 1_795_233_615_003, 1_795_233_630_001];
    let mut writer = SeriesWriter::default();
    writer.piece(Some(&labels("north")), &regular, &[21.5, 21.7, 21.4, 21.9]);
    writer.piece(None, &[1_795_233_660_000], &[22.0]);
    writer.piece(Some(&labels("south")), &odd, &[1e300, -0.0, stale_nan()]);
    writer.piece(Some(&labels("west")), &odd, &[7.0, 7.0, 7.0]);
    let end = End {
        frames: 1,
        items: 3,
        samples: 11,
    };
    let error = StreamError {
        code: ErrorCode::DataUnavailable,
        message: "block damaged".into(),
    };
    [
        hello.encode(),
        writer.finish(),
        end.encode(),
        error.encode(),
    ]
    .concat()
}

fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        write!(out, "{:04x} ", i * 16).unwrap();
        for byte in line {
            write!(out, " {byte:02x}").unwrap();
        }
        let pad = 3 * (16 - line.len()) + 2;
        let text: String = line
            .iter()
            .map(|b| {
                if (0x20..0x7f).contains(b) {
                    char::from(*b)
                } else {
                    '.'
                }
            })
            .collect();
        writeln!(out, "{:pad$}{text}", "").unwrap();
    }
    out
}

#[test]
fn the_golden_stream_is_reproduced_and_shown_on_the_page() {
    let golden = include_bytes!("../../testdata/fleet-v1.bin");
    assert_eq!(
        stream(),
        golden,
        "the stream is now\n{}",
        hex_dump(&stream())
    );
    let page = include_str!("../../../docs/formats/fleet.md");
    assert!(page.contains(&hex_dump(golden)), "\n{}", hex_dump(golden));
}

#[test]
fn the_golden_stream_is_read() {
    let mut reader = FrameReader::default();
    reader.push(include_bytes!("../../testdata/fleet-v1.bin"));
    let mut next = || reader.next_frame().unwrap().unwrap();
    let hello = Hello::decode(&next().body).unwrap();
    assert_eq!(hello.store, "store-0");
    assert_eq!(hello.applied.next[&PartitionId(2)], Offset(1_000));
    let frame = next();
    assert_eq!(frame.kind, FrameKind::Series);
    let mut found = Vec::new();
    decode_series::<WireError>(&frame.body, |labels, piece| {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        piece.read(&frame.body, &mut timestamps, &mut values)?;
        let site = labels.map(|labels| labels.get("site").unwrap().to_owned());
        found.push((site, timestamps.len(), values[0]));
        Ok(())
    })
    .unwrap();
    let expect = [
        (Some("north".to_owned()), 4, 21.5),
        (None, 1, 22.0),
        (Some("south".to_owned()), 3, 1e300),
        (Some("west".to_owned()), 3, 7.0),
    ];
    assert_eq!(found, expect);
    assert_eq!(End::decode(&next().body).unwrap().samples, 11);
    assert_eq!(
        StreamError::decode(&next().body).unwrap().message,
        "block damaged"
    );
}
