//! The golden block, whose dump is on the page: it must never change.

use millrace_log::fs::read_all;

use super::*;
use crate::golden::hex_dump;

fn model() -> Model {
    let tenant = TenantId::anonymous();
    let series = |pairs: &[(&str, &str)], samples: &[(i64, f64)]| {
        let samples = samples.iter().map(|&(t, v)| (t, v.to_bits()));
        ((tenant.clone(), labels(pairs)), samples.collect())
    };
    let cpu: Vec<_> = (0..20)
        .map(|i| {
            let host = format!("h{i:02}");
            let start = 1_795_233_600_000;
            let samples = [(start, f64::from(i)), (start + 15_000, f64::from(i) + 0.5)];
            series(&[("__name__", "cpu"), ("host", &host)], &samples)
        })
        .collect();
    let up = series(
        &[("__name__", "up"), ("job", "node")],
        &[(1_795_240_799_999, f64::NAN)],
    );
    // Sampled together, and not on a grid: the second one refers to the first one's timestamps.
    let flow = ["a", "b"].map(|pump| {
        let start = 1_795_233_600_000;
        let samples: Vec<_> = (0..16)
            .map(|i| (start + i * 60_000 + i * i * 37 % 1_001, (i / 5) as f64))
            .collect();
        series(&[("__name__", "flow"), ("pump", pump)], &samples)
    });
    cpu.into_iter().chain([up]).chain(flow).collect()
}

#[test]
fn golden_block_is_reproduced() {
    let fs = fs();
    let window = TimeRange::new(1_795_233_600_000, 1_795_240_799_999);
    let written = write(&fs, &model(), window);
    let bytes = read_all(&fs, Path::new(PATH), 1 << 20).unwrap();
    let golden: &[u8] = include_bytes!("../../../testdata/block-v1.bin");
    assert!(bytes == golden, "the block is now:\n{}", hex_dump(&bytes));
    let page = include_str!("../../../../docs/formats/block.md");
    assert!(
        page.contains(&hex_dump(golden)),
        "docs/formats/block.md lacks the dump of the golden block"
    );
    assert_eq!(
        (written.series, written.chunks, written.samples),
        (23, 23, 73)
    );
}

#[test]
fn golden_block_is_read() {
    let fs = fs();
    let file = fs.create_new(Path::new(PATH)).unwrap();
    file.write_all_at(include_bytes!("../../../testdata/block-v1.bin"), 0)
        .unwrap();
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    assert!(block.verify().is_ok());
    let tenant = TenantId::anonymous();
    let got = answer(&block, &tenant, &[], TimeRange::ALL).unwrap();
    assert_eq!(
        got,
        expected(&model(), &tenant, &[], TimeRange::ALL, &[300_000])
    );
}

/// The numbers on the page are those of the code.
#[test]
fn constants_of_the_page_are_those_of_the_code() {
    let page = include_str!("../../../../docs/formats/block.md");
    for fact in [
        format!("header, {HEADER_BYTES} bytes"),
        format!("footer, {} bytes", super::super::footer::FOOTER_BYTES),
        format!("tail, {} bytes", super::super::footer::TAIL_BYTES),
        format!("{SERIES_PER_PAGE} series a page"),
        format!("{LABEL_PAGE_BYTES} bytes or more"),
        format!("at most {SAMPLES_PER_CHUNK} samples"),
    ] {
        assert!(page.contains(&fact), "docs/formats/block.md lacks {fact:?}");
    }
}
