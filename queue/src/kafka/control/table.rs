//! What the control topic says, as far as it was read. Pure: times are given to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::records::{Announcement, Claimed, Subject, decode_announcement, decode_claim};

/// A record, as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came<'a> {
    pub(super) offset: i64,
    /// The brokers' time, in milliseconds.
    pub(super) at: i64,
    pub(super) key: &'a [u8],
    /// `None`: what the key is about is taken back.
    pub(super) payload: Option<&'a [u8]>,
}

#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) key: Vec<u8>,
    pub(super) says: Result<Claimed, String>,
}

#[derive(Debug)]
struct Store {
    announcement: Announcement,
    /// When it was announced last, on the table's clock.
    heard: i64,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By offset. The first one holds.
    claims: BTreeMap<i64, Claim>,
    stores: BTreeMap<String, Store>,
    /// The table's clock, in milliseconds. While old records are read it is the brokers' time of
    /// the newest one; then it goes on with the time for which the topic could be read.
    now: i64,
    /// Old records have been read.
    live: bool,
}

impl Table {
    /// Takes the next record.
    ///
    /// # Errors
    ///
    /// In words, why it was passed over.
    pub(super) fn take(&mut self, came: Came<'_>) -> Result<(), String> {
        if !self.live {
            self.now = self.now.max(came.at);
        }
        match Subject::of(came.key).ok_or("its key is none of ours")? {
            Subject::Claim => self.take_claim(came),
            Subject::Store(address) => {
                let Some(payload) = came.payload else {
                    self.stores.remove(&address);
                    return Ok(());
                };
                let store = Store {
                    announcement: decode_announcement(&address, payload)?,
                    heard: if self.live { self.now } else { came.at },
                };
                self.stores.insert(address, store);
            }
        }
        Ok(())
    }

    fn take_claim(&mut self, came: Came<'_>) {
        let known = self.claims.iter().find(|(_, claim)| claim.key == came.key);
        match (known.map(|(offset, _)| *offset), came.payload) {
            (Some(offset), None) => {
                self.claims.remove(&offset);
            }
            (None, Some(payload)) => {
                let claim = Claim {
                    key: came.key.to_owned(),
                    says: decode_claim(payload),
                };
                self.claims.insert(came.offset, claim);
            }
            // A claim is written once; read twice it says the same.
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// What is there was read: from now on announcements come as they are made.
    pub(super) fn caught_up(&mut self) {
        self.live = true;
        self.forget();
    }

    /// The topic could be read for so much longer.
    pub(super) fn advance(&mut self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.now = self.now.saturating_add(by);
        self.forget();
    }

    fn forget(&mut self) {
        let now = self.now;
        self.stores.retain(|address, store| {
            let life = i64::try_from(store.announcement.life.as_millis()).unwrap_or(i64::MAX);
            let lives = now.saturating_sub(store.heard) <= life;
            if !lives {
                tracing::info!(store = address, "a store announces itself no longer");
            }
            lives
        });
    }

    /// The claim that holds.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claims.values().next()
    }

    pub(super) fn has_claim(&self, key: &str) -> bool {
        self.claims
            .values()
            .any(|claim| claim.key == key.as_bytes())
    }

    /// The keys of all claims, in their order.
    pub(super) fn claim_keys(&self) -> Vec<String> {
        let keys = self.claims.values();
        keys.map(|claim| String::from_utf8_lossy(&claim.key).into_owned())
            .collect()
    }

    /// The stores whose announcements hold.
    pub(super) fn stores(&self) -> impl Iterator<Item = &Announcement> {
        self.stores.values().map(|store| &store.announcement)
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{announcement, claimed};
    use super::super::records::{claim_key, encode_announcement, encode_claim, store_key};
    use super::*;

    fn take(table: &mut Table, offset: i64, at: i64, key: &str, payload: Option<&str>) {
        let came = Came {
            offset,
            at,
            key: key.as_bytes(),
            payload: payload.map(str::as_bytes),
        };
        table.take(came).unwrap();
    }

    fn announce(table: &mut Table, at: i64, address: &str) {
        let value = encode_announcement(&announcement(address));
        take(table, at, at, &store_key(address), Some(&value));
    }

    fn addresses(table: &Table) -> Vec<&str> {
        table.stores().map(|store| store.address.as_str()).collect()
    }

    #[test]
    fn the_earliest_claim_that_was_not_taken_back_holds() {
        let mut table = Table::default();
        assert!(table.claim().is_none());
        for (offset, partitions) in [(3, 4), (5, 9)] {
            let mut claimed = claimed();
            claimed.identity.partitions = partitions;
            let key = claim_key(u128::from(partitions));
            take(&mut table, offset, 0, &key, Some(&encode_claim(&claimed)));
        }
        let partitions = |table: &Table| {
            let claim = table.claim().unwrap();
            claim.says.as_ref().unwrap().identity.partitions
        };
        assert_eq!(partitions(&table), 4);
        assert_eq!(table.claim_keys(), [claim_key(4), claim_key(9)]);
        take(&mut table, 6, 0, &claim_key(4), None);
        take(&mut table, 7, 0, &claim_key(1), None);
        assert_eq!(partitions(&table), 9);
        assert!(table.has_claim(&claim_key(9)) && !table.has_claim(&claim_key(4)));
        // One that cannot be read holds too: nobody may pass over it.
        let mut table = Table::default();
        take(&mut table, 0, 0, &claim_key(1), Some("{\"version\":2}"));
        assert!(table.claim().unwrap().says.is_err());
    }

    #[test]
    fn old_announcements_are_as_old_as_the_brokers_say() {
        let mut table = Table::default();
        announce(&mut table, 1_000, "old:1");
        announce(&mut table, 90_000, "new:1");
        take(&mut table, 3, 100_000, &claim_key(1), Some("{}"));
        assert_eq!(addresses(&table), ["new:1", "old:1"]);
        table.caught_up();
        assert_eq!(addresses(&table), ["new:1"]);
        table.advance(Duration::from_secs(25));
        assert_eq!(addresses(&table), ["new:1"]);
        table.advance(Duration::from_millis(1));
        assert!(addresses(&table).is_empty());
    }

    #[test]
    fn who_is_announced_again_lives_on_and_who_is_taken_back_is_gone() {
        let mut table = Table::default();
        table.caught_up();
        // The brokers' clock is of no importance any more.
        announce(&mut table, 5_000_000, "a:1");
        announce(&mut table, 5_000_000, "b:1");
        table.advance(Duration::from_secs(30));
        announce(&mut table, 1, "a:1");
        table.advance(Duration::from_secs(30));
        assert_eq!(addresses(&table), ["a:1"]);
        take(&mut table, 9, 9, &store_key("a:1"), None);
        assert!(addresses(&table).is_empty());
    }

    #[test]
    fn foreign_records_are_passed_over() {
        let mut table = Table::default();
        for (key, payload) in [
            ("x", "{}"),
            ("store/a:1", "{"),
            ("store/a:1", "{\"version\":2}"),
        ] {
            let came = Came {
                offset: 0,
                at: 0,
                key: key.as_bytes(),
                payload: Some(payload.as_bytes()),
            };
            assert!(table.take(came).is_err(), "{key} {payload}");
        }
        assert!(addresses(&table).is_empty());
    }
}
