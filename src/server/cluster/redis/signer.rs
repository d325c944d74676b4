//! Signatures and seals: another user of the engine can delete a record, and cannot make one or read passwords.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
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
    keys: RwLock<Vec<Key>>,
}

impl Signer {
    /// Creates a signer for the keys that begin with `prefix`. Without a secret it verifies all records.
    pub(super) fn new(prefix: &str, secrets: &[String]) -> Self {
        let signer = Self { prefix: prefix.to_owned(), keys: RwLock::default() };
        signer.replace(secrets);
        signer
    }

    /// Replaces the secrets. All connections sign and verify with these from now on.
    pub(super) fn replace(&self, secrets: &[String]) {
        *self.keys.write() = secrets.iter().map(|secret| Key::new(HMAC_SHA256, secret.as_bytes())).collect();
    }

    /// Returns the signature of a record. It has no spaces.
    pub(super) fn sign(&self, record: Signed<'_>) -> String {
        match self.keys.read().first() {
            Some(key) => URL_SAFE_NO_PAD.encode(self.tag(key, record)),
            None => NONE.to_owned(),
        }
    }

    /// Returns whether a node that has one of the secrets has made this record.
    pub(super) fn verify(&self, record: Signed<'_>, signature: &str) -> bool {
        let keys = self.keys.read();
        let Ok(given) = URL_SAFE_NO_PAD.decode(signature) else { return keys.is_empty() };
        // `ring` compares in constant time.
        keys.is_empty() || keys.iter().any(|key| hmac::verify(key, &self.message(record), &given).is_ok())
    }

    /// Encrypts a text, which is of this kind. The same text gives the same bytes, so that setting it again is no change.
    pub(super) fn seal(&self, kind: &str, text: &str) -> String {
        let keys = self.keys.read();
        let Some(key) = keys.first() else { return format!("{NONE} {text}") };
        // The nonce is a function of key, kind and text: no two texts share one, but for a collision of 96 bits.
        let nonce = self.derive(key, &["nonce", kind, text]);
        let nonce: [u8; NONCE_LEN] = std::array::from_fn(|at| nonce.as_ref().get(at).copied().unwrap_or_default());
        let mut sealed = text.as_bytes().to_vec();
        let sealing = self.sealing_key(key, kind);
        let tag = sealing.and_then(|sealing| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            sealing.seal_in_place_append_tag(nonce, Aad::from(kind.as_bytes()), &mut sealed).ok()
        });
        // Neither a key of 32 bytes nor a text of this length is refused.
        debug_assert!(tag.is_some());
        URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts a text of this kind; `None` if no node that has one of the secrets has sealed it.
    pub(super) fn open(&self, kind: &str, sealed: &str) -> Option<String> {
        let keys = self.keys.read();
        if keys.is_empty() {
            return sealed.strip_prefix(NONE)?.strip_prefix(' ').map(str::to_owned);
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        keys.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let text =
                self.sealing_key(key, kind)?.open_in_place(nonce, Aad::from(kind.as_bytes()), &mut sealed).ok()?;
            String::from_utf8(text.to_vec()).ok()
        })
    }

    fn sealing_key(&self, key: &Key, kind: &str) -> Option<LessSafeKey> {
        let bytes = self.derive(key, &["seal", kind]);
        UnboundKey::new(&CHACHA20_POLY1305, bytes.as_ref()).ok().map(LessSafeKey::new)
    }

    /// Derives 32 bytes for one use of a secret.
    fn derive(&self, key: &Key, parts: &[&str]) -> Tag {
        let head = ["cuttlefish-signaling derived", &self.prefix];
        let parts = head.iter().chain(parts);
        let message: Vec<u8> = parts.flat_map(|part| format!("{}:{part}", part.len()).into_bytes()).collect();
        hmac::sign(key, &message)
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
