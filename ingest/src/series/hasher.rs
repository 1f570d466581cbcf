//! Keys of the cache of known series.

use std::hash::{BuildHasher, RandomState};

use millrace_model::TenantId;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_secret};

/// The 128-bit keyed hash of a series' raw bytes; two different series of this process share one
/// with odds of about n²/2¹²⁹.
pub(crate) type Key = u128;

const SECRET_BYTES: usize = 192;

/// Hashes raw label bytes of one tenant and one way of writing them.
///
/// Keyed with randomness of this process, so that nobody can prepare raw bytes that meet those of
/// another series; tenant and protocol go into the key, because the same bytes mean another
/// series there.
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher {
    secret: [u8; SECRET_BYTES],
}

impl KeyHasher {
    pub(crate) fn new(process_seed: u64, tenant: &TenantId, scope: &[&str]) -> Self {
        let mut seed = xxh3_64_with_seed(tenant.as_str().as_bytes(), process_seed);
        for part in scope {
            seed = xxh3_64_with_seed(part.as_bytes(), seed.rotate_left(17));
        }
        let mut secret = [0; SECRET_BYTES];
        for (i, bytes) in secret.chunks_exact_mut(8).enumerate() {
            let word = xxh3_64_with_seed(&(i as u64).to_le_bytes(), seed);
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self { secret }
    }

    #[inline]
    pub(crate) fn hash(&self, raw: &[u8]) -> Key {
        xxh3_128_with_secret(raw, &self.secret)
    }
}

/// The key of a series that is told by two parts, each with its own hash (the tags of a line, and
/// the name of one of its fields). Not symmetric.
#[inline]
pub(crate) fn combine(outer: Key, inner: Key) -> Key {
    // An odd factor is a bijection, so a sum of independent uniform values stays uniform.
    outer
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        .wrapping_add(inner)
}

/// 64 bits that differ from process to process.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one("millrace ingest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_scope_and_process_are_part_of_the_key() {
        let anonymous = TenantId::anonymous();
        let base = KeyHasher::new(1, &anonymous, &["line", "db"]).hash(b"cpu,host=a");
        let others = [
            KeyHasher::new(2, &anonymous, &["line", "db"]),
            KeyHasher::new(1, &"other".parse().unwrap(), &["line", "db"]),
            KeyHasher::new(1, &anonymous, &["json", "db"]),
            KeyHasher::new(1, &anonymous, &["line", "other"]),
            KeyHasher::new(1, &anonymous, &["line"]),
        ];
        for other in &others {
            assert_ne!(base, other.hash(b"cpu,host=a"));
        }
        let again = KeyHasher::new(1, &anonymous, &["line", "db"]);
        assert_eq!(base, again.hash(b"cpu,host=a"));
    }

    #[test]
    fn combining_is_not_symmetric() {
        assert_ne!(combine(1, 2), combine(2, 1));
    }
}
