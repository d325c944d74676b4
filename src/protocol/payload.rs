//! What observers read of a payload, if they ask: its `"type"`. Relaying never does.

use std::borrow::Cow;

use serde::Deserialize;

/// The `"type"` of a payload (PROTOCOL.md 6: `offer`, `answer`, `ice-candidate`, …): `payload` is JSON text. `None` where
/// it is no object, or has no such string.
pub fn type_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        name: Cow<'a, str>,
    }
    serde_json::from_str::<Typed<'_>>(payload).ok().map(|typed| typed.name.into_owned())
}
