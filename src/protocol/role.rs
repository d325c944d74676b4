//! The role of a peer.

/// Role of a peer, by the endpoint that it connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `/register_device`, or the device socket.
    Device,
    /// `/connect_client`, `/devices/{id}/connect`, or a polled connection.
    Client,
    /// The control socket, or any other HTTP request.
    Http,
}

impl Role {
    /// Returns `device`, `client` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Client => "client",
            Self::Http => "http",
        }
    }
}
