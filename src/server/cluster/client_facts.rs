//! The facts of a client for the node of its device.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::core::peer::{Grant, Peer, Role};

/// The greatest length of the identity of a client between nodes, in bytes. A longer one is left out: it is for lists, and
/// for the share of an identity in the clients of a device.
const MAX_IDENTITY: usize = 4096;

/// The greatest length of the facts, in bytes. The certificate has a bound of TLS, the rest is short.
const MAX_FACTS: usize = 12 * 1024;

/// The facts of a client. Its headers stay on its own node, and so does its grant, unless the other node has to apply it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientFacts {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    /// The subject of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Its identity, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// The devices of its grant, as patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    /// Whether its grant gives it a device for itself, which the node of the device keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exclusive: bool,
    /// The seconds until its grant expires, which end the connection that the other node serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_for: Option<f64>,
}

impl ClientFacts {
    /// The facts of a client of this node.
    pub fn of(peer: &Peer) -> Self {
        Self {
            address: peer.address,
            certificate: peer.certificate.as_deref().map(str::to_owned),
            identity: peer.grant.identity.as_deref().filter(|json| json.len() <= MAX_IDENTITY).map(str::to_owned),
            devices: None,
            exclusive: peer.grant.exclusive,
            valid_for: None,
        }
    }

    /// The facts and the grant of the sender of a request that another node answers. `None` if its identity is too long.
    ///
    /// The clocks of both nodes need not agree, so the time that is left is passed on.
    pub fn with_grant(peer: &Peer, now: Instant) -> Option<Self> {
        let facts = Self::of(peer);
        let is_whole = facts.identity.is_some() == peer.grant.identity.is_some();
        let patterns = peer.grant.devices.as_ref();
        let devices = patterns.map(|patterns| patterns.iter().map(ToString::to_string).collect());
        let valid_for = peer.expires.map(|expires| expires.saturating_duration_since(now).as_secs_f64());
        is_whole.then_some(Self { devices, valid_for, ..facts })
    }

    /// Writes the facts as a header. `None` if the other node would refuse it as too long.
    pub fn to_whole_header(&self) -> Option<HeaderValue> {
        Some(self.to_header()).filter(|header| header.len() <= MAX_FACTS)
    }

    /// Reads the facts of a client of another node. `None` if they are invalid.
    pub fn parse(header: &str) -> Option<Self> {
        let facts: Self = (header.len() <= MAX_FACTS).then(|| serde_json::from_str(header).ok())??;
        let is_json = |text: &String| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        facts.identity.as_ref().is_none_or(is_json).then_some(facts)
    }

    /// Writes the facts as a header.
    pub fn to_header(&self) -> HeaderValue {
        let json = ascii(&serde_json::to_string(self).unwrap_or_default());
        HeaderValue::try_from(json).unwrap_or(HeaderValue::from_static("{}"))
    }

    /// The client, as the node of its device knows it.
    pub fn into_peer(self) -> Peer {
        let identity = self.identity.map(Into::into);
        let grant = match self.devices {
            Some(patterns) => Grant::of(identity, &patterns),
            None => Grant { identity, ..Grant::default() },
        };
        Peer {
            address: self.address,
            certificate: self.certificate.map(Into::into),
            grant: Grant {
                exclusive: self.exclusive,
                valid_for: self.valid_for.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                ..grant
            },
            ..Peer::anonymous(Role::Client)
        }
    }
}

/// Writes JSON in ASCII, as a header needs it.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _written = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_client_are_a_header_and_are_read_back() {
        let mut peer = Peer::anonymous(Role::Client);
        peer.address = Some(([10, 0, 0, 9], 4321).into());
        peer.certificate = Some("CN=Zoë 𝄞\u{7f}\n".into());
        peer.grant.identity = Some(r#"{"user":"ß"}"#.into());
        for exclusive in [false, true] {
            peer.grant.exclusive = exclusive;
            let header = ClientFacts::of(&peer).to_header();
            let read = ClientFacts::parse(header.to_str().unwrap()).unwrap().into_peer();
            assert_eq!((read.address, &read.certificate), (peer.address, &peer.certificate));
            assert_eq!((&read.grant.identity, read.grant.exclusive), (&peer.grant.identity, exclusive));
        }
    }

    #[test]
    fn identity_that_is_too_long_is_left_out() {
        let mut peer = Peer::anonymous(Role::Client);
        peer.grant.identity = Some(format!("\"{}\"", "x".repeat(MAX_IDENTITY)).into());
        assert_eq!(ClientFacts::of(&peer).to_header(), "{}");
    }

    #[test]
    fn grant_is_passed_on_as_a_whole_or_not_at_all() {
        let (id, now) = (|id: &str| crate::protocol::DeviceId::new(id), Instant::now());
        let mut peer = Peer::anonymous(Role::Client);
        peer.grant = Grant::of(Some(r#""ann""#.into()), &["cvd-?", "*\u{e9}*"]);
        peer.expires = Some(now + Duration::from_millis(1500));
        let header = ClientFacts::with_grant(&peer, now).unwrap().to_whole_header().unwrap();
        let read = ClientFacts::parse(header.to_str().unwrap()).unwrap().into_peer();
        assert_eq!(read.grant.identity.as_deref(), Some(r#""ann""#));
        assert_eq!(read.grant.valid_for, Some(Duration::from_millis(1500)));
        assert!(
            read.grant.covers(&id("cvd-1")) && read.grant.covers(&id("x\u{e9}")) && !read.grant.covers(&id("cvd-12"))
        );
        let sees_all = ClientFacts::with_grant(&Peer::anonymous(Role::Client), now).unwrap().into_peer();
        assert!(sees_all.grant.covers(&id("any")));
        peer.grant = Grant::of(None, &[] as &[&str]);
        assert!(!ClientFacts::with_grant(&peer, now).unwrap().into_peer().grant.covers(&id("any")));
        peer.grant = Grant::of(None, &["x".repeat(MAX_FACTS)]);
        assert_eq!(ClientFacts::with_grant(&peer, now).unwrap().to_whole_header(), None);
        peer.grant.identity = Some(format!("\"{}\"", "x".repeat(MAX_IDENTITY)).into());
        assert_eq!(ClientFacts::with_grant(&peer, now), None);
    }

    #[test]
    fn invalid_facts_are_refused() {
        let long = format!(r#"{{"certificate":"{}"}}"#, "x".repeat(MAX_FACTS));
        for wrong in ["", "7", r#"{"address":"here"}"#, r#"{"identity":"{"}"#, r#"{"certificate":7}"#, &long] {
            assert_eq!(ClientFacts::parse(wrong), None, "{wrong:.40}");
        }
        assert_eq!(ClientFacts::parse(r#"{"later":[1]}"#), Some(ClientFacts::default()));
    }
}
