//! Bodies that are small on the wire and would not be in memory.

use std::io::Write;

use axum::http::StatusCode;

use crate::rig::{Answer, Rig};

const PATHS: [&str; 4] = ["/api/v1/push", "/write", "/api/v2/write", "/api/v1/write"];

async fn post(rig: &Rig, path: &str, encoding: &str, body: &[u8]) -> Answer {
    let headers = [("content-encoding", encoding)];
    rig.post(path, &headers, body.to_vec()).await
}

fn check_nothing_left(rig: &Rig) {
    assert_eq!(rig.metric("millrace_ingest_decode_memory_bytes", &[]), 0.0);
    assert_eq!(rig.metric("millrace_ingest_in_flight_requests", &[]), 0.0);
    assert!(rig.stored().is_empty());
}

#[tokio::test]
async fn a_snappy_header_that_claims_four_gibibytes() {
    let rig = Rig::new();
    for path in PATHS {
        let answer = post(&rig, path, "snappy", &[0xff, 0xff, 0xff, 0xff, 0x0f]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(
            answer.text().contains("4294967295 bytes"),
            "{}",
            answer.text()
        );
    }
    check_nothing_left(&rig);
}

#[tokio::test]
async fn compressed_zeros() {
    let zeros = vec![0u8; 256 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::stream::encode_all(zeros.as_slice(), 1).unwrap();
    drop(zeros);
    let rig = Rig::new();
    for path in PATHS {
        for (encoding, body) in [("gzip", &gzip), ("zstd", &zstd)] {
            let answer = post(&rig, path, encoding, body).await;
            assert_eq!(
                answer.status,
                StatusCode::PAYLOAD_TOO_LARGE,
                "{path} {encoding}"
            );
            assert!(answer.text().contains("ingest.limits.decoded_bytes"));
        }
    }
    check_nothing_left(&rig);
}

#[tokio::test]
async fn zstd_frames_that_hold_nothing() {
    let frame = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let body = frame.repeat((10 << 20) / frame.len());
    let rig = Rig::new();
    let answer = post(&rig, "/write", "zstd", &body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    check_nothing_left(&rig);
}

#[tokio::test]
async fn lines_and_items_of_endless_fields() {
    let rig = Rig::new();
    let mut lines = b"m ".to_vec();
    lines.extend_from_slice(&b"a=1,".repeat(2 << 20));
    let answer = rig.post("/write", &[], lines).await;
    assert_eq!(
        answer.status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        answer.text()
    );
    let mut item = b"{\"device\":\"d\",\"fields\":{".to_vec();
    item.extend_from_slice(&b"\"\":1,".repeat(1 << 20));
    let answer = rig.post("/api/v1/push", &[], item).await;
    assert_eq!(
        answer.status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        answer.text()
    );
    let deep = rig.post("/api/v1/push", &[], "[".repeat(10 << 20)).await;
    assert_eq!(deep.status, StatusCode::BAD_REQUEST);
    assert!(deep.text().contains("nested too deeply"));
    check_nothing_left(&rig);
}
