//! Decoders are total functions: any bytes at all are decoded or refused, within bounds, and never
//! panic. The corpus in `tests/corpus/` is replayed first: one folder per format, one file per input.

use std::path::{Path, PathBuf};

use millrace_ingest::IngestOptions;
use millrace_ingest::probe::{Probe, ProbeEncoding, ProbeFormat};
use millrace_model::TimestampMs;

use crate::rig::NOW;

const ENCODINGS: [ProbeEncoding; 5] = [
    ProbeEncoding::Identity,
    ProbeEncoding::Gzip,
    ProbeEncoding::Deflate,
    ProbeEncoding::Zstd,
    ProbeEncoding::Snappy,
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// What must hold for every input, whatever it is.
fn holds(format: ProbeFormat, body: &[u8]) -> Result<(), String> {
    let mut probe = Probe::new(IngestOptions::default(), 2);
    let run = |probe: &mut Probe| {
        let outcome = probe.decode(format, ProbeEncoding::Identity, body, TimestampMs(NOW));
        outcome.map(|o| (o.accepted, o.report.items(), o.report.by_reason().count()))
    };
    let (first, again) = (run(&mut probe), run(&mut probe));
    match (first, again) {
        // Series that are known now must not change what an input means.
        (Ok(a), Ok(b)) if a == b => {
            let (_, items, reasons) = a;
            if (items == 0) == (reasons == 0) {
                Ok(())
            } else {
                Err(format!("{items} items refused for {reasons} reasons"))
            }
        }
        (Err(a), Err(b)) if a.reason() == b.reason() => {
            // What is wrong with bytes is never the server's fault.
            if a.status().is_client_error() {
                Ok(())
            } else {
                Err(a.to_string())
            }
        }
        (a, b) => Err(format!("first {a:?}, then {b:?}")),
    }
}

/// A pseudo-random sequence, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    /// Bytes turned, taken out, doubled, cut, replaced by what formats care for.
    fn mutate(&mut self, body: &mut Vec<u8>) {
        const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t \"\\{}[],:=#.-+e09";
        for _ in 0..=self.below(4) {
            let at = self.below(body.len());
            let byte = TELLING[self.below(TELLING.len())];
            match (self.below(6), body.is_empty()) {
                (0, false) => body[at] ^= 1 << self.below(8),
                (1, false) => body[at] = byte,
                (2, false) => drop(body.remove(at)),
                (3, false) => body.truncate(at),
                (4, false) => {
                    let end = (at + self.below(40)).min(body.len());
                    let piece = body[at..end].to_vec();
                    let to = self.below(body.len());
                    body.splice(to..to, piece);
                }
                _ => body.insert(at, byte),
            }
        }
    }
}

fn inputs(format: ProbeFormat) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = corpus().join(format!("{format:?}"));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let body = std::fs::read(&path).unwrap();
            (path, body)
        })
        .collect()
}

#[test]
fn the_corpus_and_what_can_become_of_it_is_decoded_or_refused() {
    let mut random = Random(7);
    for format in ProbeFormat::ALL {
        let inputs = inputs(format);
        assert!(inputs.len() >= 2, "{format:?}: the corpus is lost");
        let mut stored = 0;
        for (path, body) in &inputs {
            holds(format, body).unwrap_or_else(|what| panic!("{}: {what}", path.display()));
            let mut probe = Probe::new(IngestOptions::default(), 2);
            let outcome = probe.decode(format, ProbeEncoding::Identity, body, TimestampMs(NOW));
            stored += outcome.map_or(0, |outcome| outcome.accepted);
            for _ in 0..300 {
                let mut body = body.clone();
                random.mutate(&mut body);
                holds(format, &body).unwrap_or_else(|what| {
                    panic!("{format:?}: {what}: {:?}", body.escape_ascii().to_string())
                });
            }
        }
        assert!(stored > 0, "{format:?}: nothing in the corpus is good");
    }
}

#[test]
fn bytes_of_any_encoding_are_decoded_or_refused() {
    let mut random = Random(11);
    for encoding in ENCODINGS {
        for len in 0..400 {
            let body: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            let mut probe = Probe::new(IngestOptions::default(), 2);
            if let Err(error) = probe.decode(ProbeFormat::Line, encoding, &body, TimestampMs(NOW)) {
                assert!(error.status().is_client_error(), "{encoding:?}: {error}");
            }
        }
    }
}

/// The canary: were the harness blind, it would pass a decoder that fails on one byte.
#[test]
fn the_harness_finds_a_planted_fault() {
    let planted = |body: &[u8]| -> Result<(), String> {
        if body.contains(&0xff) {
            return Err("planted".to_owned());
        }
        Ok(())
    };
    let mut random = Random(7);
    let found = (0..5_000).any(|_| {
        let mut body = b"m v=1".to_vec();
        random.mutate(&mut body);
        planted(&body).is_err()
    });
    assert!(found, "5,000 mutations without the byte that is asked for");
}
