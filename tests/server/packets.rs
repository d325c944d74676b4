//! A peer on a local socket: each packet is one text.

use std::net::Shutdown;
use std::path::Path;

use tokio_seqpacket::UnixSeqpacket;

use crate::dial::{Received, with_timeout};

pub struct Packets(UnixSeqpacket);

impl Packets {
    pub async fn open(path: &Path) -> Self {
        Self(with_timeout("a local connection", UnixSeqpacket::connect(path)).await.unwrap())
    }

    /// A device that has registered.
    pub async fn device(path: &Path, id: &str) -> Self {
        let device = Self::open(path).await;
        device.says(&format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#)).await;
        assert_eq!(device.next().await, Received::Text(r#"{"message_type":"config","ice_servers":[]}"#.into()));
        device
    }

    pub async fn says(&self, text: &str) {
        // The server may have closed; its last packets can still be read.
        let _sent = self.0.send(text.as_bytes()).await;
    }

    /// The next packet, or `Lost` at the end.
    pub async fn next(&self) -> Received {
        let mut buffer = vec![0; 1 << 20];
        match with_timeout("a packet", self.0.recv(&mut buffer)).await {
            Ok(packet) if packet.bytes_read() > 0 => {
                Received::Text(String::from_utf8(buffer[..packet.bytes_read()].to_vec()).unwrap())
            }
            _ => Received::Lost,
        }
    }

    /// Closes; true if no unexpected packet came.
    pub async fn leaves(self) -> bool {
        let _gone = self.0.shutdown(Shutdown::Write);
        self.next().await == Received::Lost
    }
}
