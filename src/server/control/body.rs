//! JSON bodies: read within the bounds, with the place of a fault.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::Request;
use futures_util::StreamExt;
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{self, HeaderMap};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Control;
use super::problem::Problem;
use crate::protocol::ClientId;

/// Types of bodies that a page can send without asking (Fetch, "CORS-safelisted request-header").
const OF_PAGES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// Reads a body of the type `application/json`.
pub(super) async fn read<T: DeserializeOwned>(control: &Arc<Control>, request: Request) -> Result<T, Problem> {
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Problem::bad_request("?", "This request has no parameters in its query"));
    }
    check_type(request.headers())?;
    let settings = control.shared.settings();
    let most = settings.control.max_body;
    // From the head, before the body is asked for: a client that expects `100 Continue` need not send it.
    if request.body().size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    let whole = control.shared.timers.timeout(settings.limits.request_head_timeout, collect(request, most)).await;
    let body =
        whole.ok_or_else(|| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "The body took too long"))??;
    parse(&body)
}

/// Parses a body. An error has the place of the fault.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string() {
            place if place == "." || place == "?" => "$".to_owned(),
            place => format!("$.{}", place.trim_end_matches(".?")),
        };
        Problem::bad_request(&place, error.into_inner().to_string())
    })?;
    json.end().map_err(|error| Problem::bad_request("$", error.to_string()))?;
    Ok(value)
}

/// A value that is written as a JSON object. Serde also takes an array of the fields for a struct.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A whole number, 0 or more, in any notation: `1.0` is one (JSON Schema, 6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Whole(pub(super) u64);

impl Whole {
    /// The id of a client.
    pub(super) fn client(self) -> Option<ClientId> {
        ClientId::new(self.0.try_into().ok()?)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Digits)
    }
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 0 or more")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number in the range")]
        if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number) {
            return Ok(Whole(number as u64));
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let kind = given.as_deref().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" {
        return Ok(());
    }
    let error = "The body must be JSON, with Content-Type: application/json";
    Err(if kind.is_empty() || OF_PAGES.contains(&&*kind) {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("{error}: a page can send one without it"))
    } else {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", error)
    })
}

async fn collect(request: Request, most: usize) -> Result<Vec<u8>, Problem> {
    let (mut stream, mut whole) = (request.into_body().into_data_stream(), Vec::new());
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| Problem::bad_request("$", "The body broke off"))?;
        if whole.len() + part.len() > most {
            return Err(too_large(most));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

fn too_large(most: usize) -> Problem {
    let error = format!("Body too large: at most {most} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error)
}
