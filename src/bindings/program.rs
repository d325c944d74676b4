//! `_native.ProgramRequest`: a request of the control API that Python answers.

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::access::hooks::ProgramAnswer;

/// A request. Without an answer, it is dropped with the object.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct ProgramRequest {
    /// `reload`, `errors` or `transcript`.
    #[pyo3(get)]
    pub(super) name: &'static str,
    /// The arguments, as a JSON object.
    #[pyo3(get)]
    pub(super) arguments: String,
    pub(super) reply: Mutex<Option<oneshot::Sender<ProgramAnswer>>>,
}

#[pymethods]
impl ProgramRequest {
    /// Answers with an HTTP status, and with JSON or plain text. Only the first call has an effect.
    #[pyo3(signature = (status, body, *, is_text = false))]
    fn answer(&self, status: u16, body: String, is_text: bool) {
        if let Some(reply) = self.reply.lock().take() {
            let _not_awaited = reply.send(ProgramAnswer { status, is_text, body });
        }
    }
}
