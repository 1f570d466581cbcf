//! The two parts of a token: `mr_<id>_<secret>`. The id names it in lists and logs; the secret proves it.
//!
//! A secret is 192 random bits, so nobody finds it by trying, whatever hash it is kept by: a plain SHA-256
//! is enough, and costs less than a microsecond per request. (Slow hashes are for passwords, which people
//! choose.) Hashes are compared in constant time.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::AuthError;

/// Begins every token, so that scanners for leaked secrets can know it.
const PREFIX: &str = "mr_";
/// Bytes of an id.
const ID_BYTES: usize = 6;
/// Bytes of a secret.
const SECRET_BYTES: usize = 24;

/// The part of a token by which it is named: 12 hexadecimal digits. No secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

impl TokenId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenId {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        if is_hex(text, ID_BYTES) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AuthError::Invalid(format!(
                "a token's id is {} hexadecimal digits",
                2 * ID_BYTES
            )))
        }
    }
}

/// A whole token, as it is shown to its owner and sent by clients. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    id: TokenId,
    text: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ***)", self.id)
    }
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoRandomness`].
    pub fn generate() -> Result<Self, AuthError> {
        let random = SystemRandom::new();
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        random
            .fill(&mut bytes)
            .map_err(|_| AuthError::NoRandomness)?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        let id = TokenId(hex(id));
        let text = format!("{PREFIX}{id}_{}", hex(secret));
        Ok(Self { id, text })
    }

    /// Reads what a client sent; `None` if it is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if !is_hex(secret, SECRET_BYTES) {
            return None;
        }
        let id = id.parse().ok()?;
        let text = text.to_owned();
        Some(Self { id, text })
    }

    /// Which token it claims to be.
    #[must_use]
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The token as it is sent. For its owner, not for messages.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.text.as_bytes()).as_ref());
        SecretHash(hash)
    }
}

/// SHA-256 of a whole token.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(***)")
    }
}

impl SecretHash {
    /// Whether both are the same; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let differing = pairs.fold(0, |all, (a, b)| all | std::hint::black_box(a ^ b));
        std::hint::black_box(differing) == 0
    }

    /// As it stands in the file.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// From the file; `None` for other text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if !is_hex(text, 32) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str, bytes: usize) -> bool {
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 2 * bytes && text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_read_back_and_matches_only_itself() {
        let (a, b) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let again = Secret::parse(a.reveal()).unwrap();
        assert_eq!(again.id(), a.id());
        assert!(again.hash().matches(&a.hash()));
        assert!(!b.hash().matches(&a.hash()));
        let hash = SecretHash::from_hex(&a.hash().to_hex()).unwrap();
        assert!(hash.matches(&a.hash()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret::generate().unwrap();
        let shown = format!("{secret:?} {:?}", secret.hash());
        let hidden = secret.reveal().rsplit('_').next().unwrap();
        assert!(!shown.contains(hidden), "{shown}");
        assert!(!shown.contains(&secret.hash().to_hex()), "{shown}");
        assert!(shown.contains(secret.id().as_str()), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_none() {
        let good = Secret::generate().unwrap();
        let good = good.reveal();
        for text in [
            "",
            "mr_",
            "mr__",
            "password",
            &good[1..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &format!("{good}0"),
            &good.replace("mr_", "mr_é"),
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_another_token(at in 0usize..64, by in 1u8..=255) {
            let secret = Secret::generate().unwrap();
            let mut bytes = secret.reveal().as_bytes().to_vec();
            prop_assert_eq!(bytes.len(), 64);
            bytes[at] ^= by;
            let other = String::from_utf8(bytes).ok().and_then(|text| Secret::parse(&text));
            if let Some(other) = other {
                prop_assert!(!other.hash().matches(&secret.hash()));
            }
        }
    }
}
