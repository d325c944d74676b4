//! Why the server behind a proxy has given no answer that can be passed on.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Bytes of an answer that is not HTTP which are shown.
const SHOWN: usize = 32;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection: the name is unknown, nothing listens, or there is no way.
    Unreachable(io::Error),
    /// The TLS handshake has failed.
    Tls(io::Error),
    /// It takes longer than this.
    Silent(Duration),
    /// It answers something else than HTTP/1.1: the error, and the first bytes.
    NoHttp(hyper::Error, Vec<u8>),
    /// It redirects an upgrade, which no peer follows.
    Redirects(String),
    /// The request has passed this proxy before.
    Loop,
    /// The request cannot be passed on.
    Request(String),
}

impl Failure {
    /// The status of the answer to the peer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Tls(error) => f.write_str(&tls(error)),
            Self::Silent(limit) => {
                write!(
                    f,
                    "does not answer within {} s; Upstream.timeout (--upstream-timeout) sets the time",
                    limit.as_secs_f64()
                )
            }
            Self::NoHttp(error, first) => f.write_str(&no_http(error, first)),
            Self::Redirects(place) => write!(f, "redirects to {place}; give that as upstream"),
            Self::Loop => f.write_str("is this proxy itself; give the server behind it as upstream"),
            Self::Request(why) => write!(f, "cannot be sent this request: {why}"),
        }
    }
}

/// Tells why a TLS handshake has failed, and the setting that helps.
fn tls(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => {
            let what = match cause {
                CertificateError::UnknownIssuer => {
                    "is signed by an authority that is not trusted; Upstream.ca (--upstream-ca) names one".into()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "is for another name than that of upstream".into()
                }
                other => format!("is invalid: {other:?}"),
            };
            format!("has a certificate that {what}")
        }
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "does not speak HTTP/1.1 over TLS, which WebSocket needs (HTTP/2 only?)".into()
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "does not speak TLS: write ws:// in the place of wss://".into()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "closes the connection in the TLS handshake".into(),
        _ => format!("fails in the TLS handshake: {error}"),
    }
}

/// Tells what the server speaks in the place of HTTP/1.1.
fn no_http(error: &hyper::Error, first: &[u8]) -> String {
    match first {
        [] => format!("closes the connection without an answer: {error}"),
        // An alert or a handshake of TLS.
        [0x15 | 0x16, 3, ..] => "speaks TLS: write wss:// in the place of ws://".into(),
        // A frame SETTINGS on stream 0 (RFC 9113, 3.4).
        [0, _, _, 4, _, 0, 0, 0, 0, ..] => "speaks HTTP/2 only, and WebSocket needs HTTP/1.1".into(),
        _ if first.starts_with(b"HTTP/1.") => format!("answers with invalid HTTP: {error}"),
        _ => format!("answers with something else than HTTP: {}", first[..first.len().min(SHOWN)].escape_ascii()),
    }
}
