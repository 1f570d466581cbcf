//! Who a series is, and where it lives.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

use crate::{Labels, PartitionId, TenantId};

/// The 128-bit identity of one label set of one tenant.
///
/// It is `XXH3_128bits_withSeed(canonical label bytes, XXH3_64bits(tenant))`; the canonical bytes
/// are those of [`Labels::canonical`]. With a billion series the odds that any two share an
/// identity are about 1 in 7·10²⁰; XXH3 is not a cryptographic hash, so a client that *wants* a
/// collision among its own series may make one, and hurts only its own tenant's series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl SeriesId {
    /// Size on the wire and on disk, little-endian.
    pub const BYTES: usize = 16;
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Computes the [`SeriesId`]s of one tenant. Cheap to make, meant to be kept per request.
#[derive(Clone, Copy, Debug)]
pub struct SeriesHasher {
    seed: u64,
}

impl SeriesHasher {
    /// A hasher for the series of `tenant`.
    #[must_use]
    pub fn new(tenant: &TenantId) -> Self {
        Self {
            seed: xxh3_64(tenant.as_str().as_bytes()),
        }
    }

    /// The identity of the series with these labels.
    #[must_use]
    pub fn id(&self, labels: &Labels) -> SeriesId {
        self.id_of_canonical(labels.canonical())
    }

    /// The identity of the series whose labels have these canonical bytes.
    #[must_use]
    pub fn id_of_canonical(self, canonical: &[u8]) -> SeriesId {
        SeriesId(xxh3_128_with_seed(canonical, self.seed))
    }
}

/// Names the way in which [`ShardKey::partition`] picks partitions: the hash, its seed and what goes
/// into it. It changes whenever one of them does, since series would change their partitions.
pub const PARTITIONING: u32 = 1;

/// Decides the partition of a series: a hash of the tenant and of the first present of a list of
/// label names, so that everything that one scrape target or one device sends stays together;
/// of the whole label set where none is present.
///
/// Part of a queue's identity: with another list, or another partition count, series would change
/// their partition and two partitions would write one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardKey {
    names: Vec<String>,
}

impl Default for ShardKey {
    fn default() -> Self {
        Self::new(["instance", "host", "hostname", "device", "device_id"].map(str::to_owned))
    }
}

impl ShardKey {
    /// A shard key that looks for `names` in this order.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }

    /// The label names in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The partition, out of `partitions`, of the series with these labels.
    ///
    /// # Panics
    ///
    /// If `partitions` is 0.
    #[must_use]
    pub fn partition(&self, tenant: &TenantId, labels: &Labels, partitions: u32) -> PartitionId {
        assert!(partitions > 0, "a queue without partitions");
        let present = self
            .names
            .iter()
            .find_map(|name| Some((name, labels.get(name)?)));
        let hash = match present {
            Some((name, value)) => {
                let mut hasher = Xxh3::with_seed(xxh3_64(tenant.as_str().as_bytes()));
                // 0xff is no UTF-8 byte, so name and value cannot run into one another.
                hasher.update(name.as_bytes());
                hasher.update(&[0xff]);
                hasher.update(value.as_bytes());
                hasher.digest()
            }
            None => xxh3_64_with_seed(labels.canonical(), xxh3_64(tenant.as_str().as_bytes())),
        };
        PartitionId((hash % u64::from(partitions)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    /// The identity is on disk for ever: these figures must never change.
    #[test]
    fn identity_is_pinned() {
        let up = labels(&[("__name__", "up"), ("instance", "a:9100")]);
        let id = SeriesHasher::new(&TenantId::anonymous()).id(&up);
        assert_eq!(id.to_string(), PINNED_UP);
        let other = SeriesHasher::new(&"other".parse().unwrap()).id(&up);
        assert_ne!(id, other);
    }

    const PINNED_UP: &str = "4566d42cccff8972f4c905d8ba31c69e";

    #[test]
    fn one_device_stays_in_one_partition() {
        let key = ShardKey::default();
        let tenant = TenantId::anonymous();
        let of = |pairs: &[(&str, &str)]| key.partition(&tenant, &labels(pairs), 16);
        let a = of(&[("__name__", "a"), ("device", "p1"), ("site", "x")]);
        assert_eq!(a, of(&[("__name__", "b"), ("device", "p1")]));
        // `instance` comes before `device` in the list.
        let b = of(&[("__name__", "a"), ("device", "p1"), ("instance", "i")]);
        assert_eq!(
            b,
            of(&[("__name__", "zz"), ("device", "p2"), ("instance", "i")])
        );
        let spread: std::collections::BTreeSet<_> = (0..200)
            .map(|i| of(&[("__name__", "m"), ("k", &i.to_string())]))
            .collect();
        assert_eq!(spread.len(), 16);
    }
}
