//! The order of label sets, on their canonical bytes.
//!
//! Blocks keep series in the order of [`Labels`](millrace_model::Labels), pair by pair; a seal sorts
//! a million of them, twenty million comparisons of sets that share most of their bytes. Here the
//! first byte that differs is looked for eight at a time, and only the lengths before it are read.

use std::cmp::Ordering;

use millrace_model::read_varint;

/// Compares two label sets by their canonical bytes, in the order of `Labels`.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let differs = common_prefix(a, b);
    let (mut pos, mut text) = (0, 0);
    // All that ends before the difference is the same in both.
    while pos < differs {
        text = pos;
        let Some(len) = read_len(a, &mut pos) else {
            break;
        };
        if pos > differs {
            // Inside of a length.
            break;
        }
        pos = pos.saturating_add(len);
        if pos > differs {
            break;
        }
        text = pos;
    }
    texts(a, text).cmp(&texts(b, text))
}

/// The text that begins at `pos`, behind its length; `None`, which is the least, where the set ends.
fn texts(bytes: &[u8], mut pos: usize) -> Option<&[u8]> {
    if pos >= bytes.len() {
        return None;
    }
    let len = read_len(bytes, &mut pos)?;
    bytes.get(pos..pos.checked_add(len)?)
}

fn read_len(bytes: &[u8], pos: &mut usize) -> Option<usize> {
    usize::try_from(read_varint(bytes, pos)?).ok()
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut len = 0;
    for (x, y) in words {
        if x != y {
            break;
        }
        len += 8;
    }
    let rest = a[len..].iter().zip(&b[len..]);
    len + rest.take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use millrace_model::Labels;
    use proptest::prelude::*;

    use super::*;

    fn arb_labels() -> impl Strategy<Value = Labels> {
        let name = "[a-c]{1,3}";
        let value = prop_oneof![4 => "[x-z]{1,12}", 1 => "[x-z\0é]{120,140}"];
        proptest::collection::btree_map(name, value, 0..5)
            .prop_map(|m| Labels::from_pairs(m.iter().map(|(n, v)| (&**n, &**v))).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]
        #[test]
        fn equals_the_order_of_label_sets(a in arb_labels(), b in arb_labels()) {
            prop_assert_eq!(compare(a.canonical(), b.canonical()), a.cmp(&b), "{} {}", a, b);
            prop_assert_eq!(compare(a.canonical(), a.canonical()), Ordering::Equal);
        }
    }
}
