//! Pages of the dashboard, which read events beside the load.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::Stream;

/// Reads the events of a page that is open until the server ends the connection. The page shows the first device.
pub async fn read(mut stream: Box<dyn Stream>) {
    let request = "GET /dashboard/events?device=device-0 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut input = vec![0; 1 << 16];
    let head = stream.read(&mut input).await.unwrap();
    assert!(input[..head].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&input[..head]));
    while stream.read(&mut input).await.is_ok_and(|read| read > 0) {}
    panic!("the server has ended the events of a page");
}
