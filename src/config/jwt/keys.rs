//! Keys that verify signatures (RFC 7518). A key has one algorithm: a token cannot choose another one for it.

use std::fmt;

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
}

impl Algorithm {
    /// Reads the name that a header has.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            "HS256" => Self::Hs256,
            _ => return None,
        })
    }
}

/// A key.
#[derive(PartialEq)]
pub struct Key {
    /// Its id, which a token names. A key of a PEM file has none, and is tried for each token of its algorithm.
    pub id: Option<String>,
    material: Material,
}

#[derive(PartialEq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

impl fmt::Debug for Key {
    /// Leaves out the key: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

impl Key {
    /// Makes an RSA key.
    ///
    /// # Errors
    /// The size or the exponent is not allowed.
    pub fn rsa(id: Option<String>, modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(format!("is an RSA key of {bits} bits; 2048 to 8192 are allowed"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !is_odd(&modulus) || !is_odd(&exponent) || exponent == [1] || exponent.len() > 4 {
            return Err("is no RSA key: modulus and exponent have to be odd, and the exponent from 3 to 2^32".into());
        }
        Ok(Self { id, material: Material::Rsa { modulus, exponent } })
    }

    /// Makes a key on P-256 of its uncompressed point.
    ///
    /// # Errors
    /// It is no such point.
    pub fn p256(id: Option<String>, point: &[u8]) -> Result<Self, String> {
        if point.len() != 65 || point[0] != 4 {
            return Err("is no point on P-256 of 2 * 32 bytes".into());
        }
        Ok(Self { id, material: Material::P256(point.to_vec()) })
    }

    /// Makes an Ed25519 key.
    ///
    /// # Errors
    /// It has another length.
    pub fn ed25519(id: Option<String>, key: &[u8]) -> Result<Self, String> {
        if key.len() != 32 {
            return Err("is no Ed25519 key of 32 bytes".into());
        }
        Ok(Self { id, material: Material::Ed25519(key.to_vec()) })
    }

    /// Makes an HMAC key.
    ///
    /// # Errors
    /// It is shorter than the hash (RFC 7518, 3.2), or longer than any that is in use.
    pub fn secret(id: Option<String>, secret: &[u8]) -> Result<Self, String> {
        if !(32..=4096).contains(&secret.len()) {
            return Err(format!("is an HMAC key of {} bytes; 32 to 4096 are allowed", secret.len()));
        }
        Ok(Self { id, material: Material::Secret(secret.to_vec()) })
    }

    /// The algorithm of its signatures.
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::Secret(_) => Algorithm::Hs256,
        }
    }

    /// Whether a signature of a message is of this key. HMACs are compared in constant time.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Material::Secret(secret) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature).is_ok()
            }
        }
    }
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}
