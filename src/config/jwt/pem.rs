//! Keys in PEM: public keys, and certificates of which the key counts.

use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::keys::Key;

/// Reads the keys of a file, in its order.
pub(super) fn parse(bytes: &[u8], most: usize) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for (index, block) in Pem::iter_from_buffer(bytes).enumerate() {
        let number = index + 1;
        if number > most {
            return Err(format!("there are more than {most} keys (Jwt.max_keys)"));
        }
        let block = block.map_err(|_| format!("block {number} is no valid PEM"))?;
        let key = match block.label.as_str() {
            "PUBLIC KEY" => {
                let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents)
                    .map_err(|_| format!("block {number} is no public key"))?;
                of_info(&info)
            }
            "CERTIFICATE" => {
                let certificate = block.parse_x509().map_err(|_| format!("block {number} is no certificate"))?;
                of_info(certificate.public_key())
            }
            label if label.contains("PRIVATE KEY") => Err("is a private key: give the public one".into()),
            _ => Err("is neither a PUBLIC KEY nor a CERTIFICATE".into()),
        };
        keys.push(key.map_err(|what| format!("block {number} {what}"))?);
    }
    if keys.is_empty() {
        return Err("has no key: neither PEM (`-----BEGIN PUBLIC KEY-----`) nor a JSON Web Key Set".into());
    }
    Ok(keys)
}

fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, String> {
    let bytes = &info.subject_public_key.data;
    match info.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => match info.parsed() {
            Ok(PublicKey::RSA(key)) => Key::rsa(None, key.modulus, key.exponent),
            _ => Err("is no valid RSA key".into()),
        },
        "1.2.840.10045.2.1" if curve_of(info).as_deref() == Some(P256) => Key::p256(None, bytes),
        "1.3.101.112" => Key::ed25519(None, bytes),
        other => Err(format!("has a key of the kind {other}; RSA, P-256 and Ed25519 are allowed")),
    }
}

const P256: &str = "1.2.840.10045.3.1.7";

fn curve_of(info: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let parameters = info.algorithm.parameters.as_ref()?;
    parameters.as_oid().ok().map(|curve| curve.to_id_string())
}
