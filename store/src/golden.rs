//! What the tests of the formats share: the golden files and the pages that show them.

use std::fmt::Write;

/// Bytes as the pages show them: offset, sixteen bytes in hex, the printable ones as text.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        write!(out, "{:04x} ", i * 16).expect("writing to a string");
        for byte in line {
            write!(out, " {byte:02x}").expect("writing to a string");
        }
        let pad = 3 * (16 - line.len()) + 2;
        let printable = |b: u8| {
            if (0x20..0x7f).contains(&b) {
                char::from(b)
            } else {
                '.'
            }
        };
        let text: String = line.iter().copied().map(printable).collect();
        writeln!(out, "{:pad$}{text}", "").expect("writing to a string");
    }
    out
}
