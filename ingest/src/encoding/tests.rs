use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::memory::{DECODING, MemoryBudget};

const ALL: [Encoding; 5] = [
    Encoding::Identity,
    Encoding::Gzip,
    Encoding::Deflate,
    Encoding::Zstd,
    Encoding::Snappy,
];

fn encode(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
    let fast = flate2::Compression::fast();
    match encoding {
        Encoding::Identity => plain.to_vec(),
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Zstd => zstd::stream::encode_all(plain, 1).unwrap(),
        Encoding::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
    }
}

fn memory(budget: usize) -> Reservation {
    let budget = MemoryBudget::new(budget, Arc::default(), DECODING, None);
    budget.reserve_none(&Arc::default())
}

fn decode_within(
    encoding: Encoding,
    body: &[u8],
    limit: usize,
    budget: usize,
) -> Result<Vec<u8>, &'static str> {
    let mut memory = memory(budget);
    let mut buffer = Vec::new();
    let result = encoding.decode(body, limit, &mut buffer, &mut memory);
    let result = result.map(<[u8]>::to_vec).map_err(|error| error.reason());
    assert!(
        buffer.len() <= limit + 1,
        "{encoding:?} took {}",
        buffer.len()
    );
    result
}

fn decode(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>, &'static str> {
    decode_within(encoding, body, 4 << 20, 64 << 20)
}

#[test]
fn what_was_encoded_is_decoded() {
    for len in [
        0,
        1,
        1000,
        STEP_BYTES - 1,
        STEP_BYTES,
        STEP_BYTES + 1,
        1 << 20,
    ] {
        let plain: Vec<u8> = (0..len).map(|i| (i * i / 7) as u8).collect();
        for encoding in ALL {
            let body = encode(encoding, &plain);
            assert!(
                decode(encoding, &body).as_ref() == Ok(&plain),
                "{encoding:?} {len}"
            );
        }
    }
}

#[test]
fn the_limit_is_met_and_not_passed() {
    for limit in [1, 100, STEP_BYTES, 300_000] {
        for encoding in ALL {
            let run = |len: usize| {
                let body = encode(encoding, &vec![b'x'; len]);
                decode_within(encoding, &body, limit, 64 << 20).map(|plain| plain.len())
            };
            assert_eq!(run(limit - 1), Ok(limit - 1), "{encoding:?}");
            assert_eq!(run(limit), Ok(limit), "{encoding:?}");
            assert_eq!(run(limit + 1), Err("decoded_too_large"), "{encoding:?}");
        }
    }
}

#[test]
fn bodies_in_several_parts_are_joined() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let parts = [
            encode(encoding, b"one "),
            encode(encoding, b""),
            encode(encoding, b"two"),
        ];
        assert_eq!(decode(encoding, &parts.concat()).unwrap(), b"one two");
    }
}

#[test]
fn damaged_bodies_are_refused() {
    let plain: Vec<u8> = (0..5000u32).map(|i| (i * i / 7) as u8).collect();
    for encoding in [
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Zstd,
        Encoding::Snappy,
    ] {
        let body = encode(encoding, &plain);
        for bad in [
            plain.clone(),
            body[..body.len() - 1].to_vec(),
            body[..body.len() / 2].to_vec(),
            [&body[..], b"trailing"].concat(),
        ] {
            assert_eq!(
                decode(encoding, &bad),
                Err("malformed_encoding"),
                "{encoding:?}"
            );
        }
    }
}

#[test]
fn a_snappy_header_is_not_believed() {
    // 4 GiB less one, in five bytes.
    let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(decode(Encoding::Snappy, &bomb), Err("decoded_too_large"));
    // Within the limit, but more than so few bytes can hold.
    let claim = |claimed: usize, len: usize| {
        let mut body = Vec::new();
        millrace_model::write_varint(&mut body, claimed as u64);
        body.resize(len, 0);
        decode(Encoding::Snappy, &body)
    };
    assert_eq!(claim(1 << 20, 100), Err("malformed_encoding"));
    let mut body = Vec::new();
    millrace_model::write_varint(&mut body, 22 * 100 + 65);
    assert_eq!(body.len(), 2);
    let mut memory = memory(0);
    body.resize(100, 0);
    // Refused before any memory is asked for; one byte less asks for it.
    let mut buffer = Vec::new();
    let error = Encoding::Snappy.decode(&body, 4 << 20, &mut buffer, &mut memory);
    assert_eq!(error.unwrap_err().reason(), "malformed_encoding");
    body[0] -= 1;
    let error = Encoding::Snappy.decode(&body, 4 << 20, &mut buffer, &mut memory);
    assert_eq!(error.unwrap_err().reason(), "overloaded");
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
        let bomb = encode(encoding, &zeros);
        assert!(bomb.len() < 1 << 20, "{encoding:?}: {}", bomb.len());
        assert_eq!(
            decode(encoding, &bomb),
            Err("decoded_too_large"),
            "{encoding:?}"
        );
    }
}

#[test]
fn zstd_frames_that_hold_nothing_decode_to_nothing() {
    let mut body = Vec::new();
    for _ in 0..10_000 {
        body.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
    }
    assert_eq!(decode(Encoding::Zstd, &body), Ok(vec![]));
    body.extend_from_slice(&encode(Encoding::Zstd, b"text"));
    assert_eq!(decode(Encoding::Zstd, &body).unwrap(), b"text");
}

#[test]
fn zstd_windows_are_bounded() {
    let with_window = |log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"text").unwrap();
        decode(Encoding::Zstd, &encoder.finish().unwrap())
    };
    assert_eq!(with_window(23).unwrap(), b"text");
    assert_eq!(with_window(24), Err("malformed_encoding"));
}

#[test]
fn no_memory_means_overload() {
    let body = vec![b'x'; 100_000];
    for encoding in [
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Zstd,
        Encoding::Snappy,
    ] {
        let result = decode_within(encoding, &encode(encoding, &body), 4 << 20, 50_000);
        assert_eq!(result, Err("overloaded"), "{encoding:?}");
    }
}

#[test]
fn headers_are_read_leniently_and_lists_refused() {
    for (header, encoding) in [
        (&b"gzip"[..], Encoding::Gzip),
        (b" X-GZIP ", Encoding::Gzip),
        (b"Snappy", Encoding::Snappy),
        (b"zstd", Encoding::Zstd),
        (b"deflate", Encoding::Deflate),
        (b"identity", Encoding::Identity),
        (b"", Encoding::Identity),
    ] {
        assert_eq!(Encoding::parse(Some(header)).unwrap(), Some(encoding));
    }
    assert_eq!(Encoding::parse(None).unwrap(), None);
    for header in [&b"br"[..], b"gzip, gzip", b"\xff"] {
        let error = Encoding::parse(Some(header)).unwrap_err();
        assert_eq!(error.reason(), "unsupported_encoding");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        for encoding in ALL {
            drop(decode(encoding, &bytes));
        }
    }
}
