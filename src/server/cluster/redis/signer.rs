//! Signatures of records: another user of the engine can delete a record, and cannot make one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA256, Key, Tag};

/// Signature of a record where nodes share no secret.
const NONE: &str = "-";

/// Record that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed<'a> {
    /// Kind of the record.
    pub(super) kind: &'static str,
    /// Key of the record: a node or the id of a device.
    pub(super) key: &'a str,
    /// Registration of a device.
    pub(super) owner: &'a str,
    /// Content of the record.
    pub(super) details: &'a str,
}

/// Signs and verifies records with the secrets of the cluster.
pub(super) struct Signer {
    prefix: String,
    /// The first signs, all verify.
    keys: Vec<Key>,
}

impl Signer {
    /// Creates a signer for the keys that begin with `prefix`. Without a secret it verifies all records.
    pub(super) fn new(prefix: &str, secrets: &[String]) -> Self {
        let keys = secrets.iter().map(|secret| Key::new(HMAC_SHA256, secret.as_bytes())).collect();
        Self { prefix: prefix.to_owned(), keys }
    }

    /// Returns the signature of a record. It has no spaces.
    pub(super) fn sign(&self, record: Signed<'_>) -> String {
        match self.keys.first() {
            Some(key) => URL_SAFE_NO_PAD.encode(self.tag(key, record)),
            None => NONE.to_owned(),
        }
    }

    /// Returns whether a node that has one of the secrets has made this record.
    pub(super) fn verify(&self, record: Signed<'_>, signature: &str) -> bool {
        let Ok(given) = URL_SAFE_NO_PAD.decode(signature) else { return self.keys.is_empty() };
        // `ring` compares in constant time.
        self.keys.is_empty() || self.keys.iter().any(|key| hmac::verify(key, &self.message(record), &given).is_ok())
    }

    fn tag(&self, key: &Key, record: Signed<'_>) -> Tag {
        hmac::sign(key, &self.message(record))
    }

    /// Returns the text that is signed. Each part has its length before it, so that no two records have the same text.
    fn message(&self, Signed { kind, key, owner, details }: Signed<'_>) -> Vec<u8> {
        let parts = ["cuttlefish-signaling registry", &self.prefix, kind, key, owner, details];
        parts.iter().flat_map(|part| format!("{}:{part}", part.len()).into_bytes()).collect()
    }
}
