//! The symbol table of one request, and keys of series made of its symbols.

use crate::IngestError;
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::series::{Key, KeyHasher};

/// The symbols: where each stands in the body, and its keyed hash.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    spans: Vec<(usize, usize)>,
    hashes: Vec<Key>,
    /// Of a symbol that is a metric's name the hash of the metadata that it was last seen with.
    metadata: Vec<u64>,
}

/// Odd, so that multiplying is a bijection; its powers differ in their low bits soon.
const FACTOR: Key = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const FACTORS: [Key; 5] = {
    let mut powers = [1; 5];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = FACTOR.wrapping_mul(powers[i - 1]);
        i += 1;
    }
    powers
};

impl Symbols {
    /// Reads the symbols of a request. They may stand anywhere in it.
    ///
    /// # Errors
    ///
    /// A body that is no message; more than `max` symbols.
    pub(super) fn read(
        &mut self,
        body: &[u8],
        hasher: &KeyHasher,
        max: usize,
    ) -> Result<(), IngestError> {
        self.spans.clear();
        self.hashes.clear();
        self.metadata.clear();
        let mut request = Fields::new(body, 0, body.len());
        loop {
            let at = request.pos;
            match request.next().map_err(super::malformed)? {
                Some((4, Value::Bytes(start, end))) => {
                    if self.spans.len() == max {
                        return Err(IngestError::TooLarge {
                            what: "symbols of the request (four times ingest.limits.series)",
                            reason: "too_many_series",
                            got: None,
                            limit: max as u64,
                            unit: "",
                        });
                    }
                    self.spans.push((start, end));
                    self.hashes.push(hasher.hash(&body[start..end]));
                }
                Some((4, _)) => {
                    let what = "wire type of a symbol";
                    return Err(super::malformed(Malformed { at, what }));
                }
                Some(_) => {}
                None => break,
            }
        }
        self.metadata.resize(self.spans.len(), 0);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn has(&self, symbol: u32) -> bool {
        (symbol as usize) < self.spans.len()
    }

    /// The text of a symbol that there is; nothing otherwise.
    pub(super) fn text<'b>(&self, symbol: u32, body: &'b [u8]) -> &'b [u8] {
        let span = self.spans.get(symbol as usize);
        span.map_or(&[], |(start, end)| &body[*start..*end])
    }

    /// The key of a sequence of symbols; `None` if one of them does not exist.
    #[inline]
    pub(super) fn key(&self, refs: &[u32]) -> Option<Key> {
        // Horner's rule, four steps at once: the products do not wait for each other.
        let mut key: Key = refs.len() as Key;
        let mut fours = refs.chunks_exact(4);
        for four in &mut fours {
            let hash = |i: usize| self.hashes.get(four[i] as usize);
            let [a, b, c, d] = [*hash(0)?, *hash(1)?, *hash(2)?, *hash(3)?];
            key = key
                .wrapping_mul(FACTORS[4])
                .wrapping_add(a.wrapping_mul(FACTORS[3]))
                .wrapping_add(b.wrapping_mul(FACTORS[2]))
                .wrapping_add(c.wrapping_mul(FACTORS[1]))
                .wrapping_add(d);
        }
        for symbol in fours.remainder() {
            let hash = *self.hashes.get(*symbol as usize)?;
            key = key.wrapping_mul(FACTORS[1]).wrapping_add(hash);
        }
        Some(key)
    }

    /// Whether this metadata message was not the last that came with this metric.
    pub(super) fn first_metadata(&mut self, metric: u32, message: &[u8]) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64(message) | 1;
        match self.metadata.get_mut(metric as usize) {
            Some(seen) => std::mem::replace(seen, hash) != hash,
            None => true,
        }
    }
}
