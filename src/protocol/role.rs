//! Which side of a conversation a peer is on.

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `/register_device`
    Device,
    /// `/connect_client`
    Client,
    /// Any other request.
    Http,
}

impl Role {
    /// `device`, `client` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Client => "client",
            Self::Http => "http",
        }
    }
}
