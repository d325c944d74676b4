//! A connection before its upgrade: the input of a refused request is read out.

use cuttlefish_signaling::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{block_on, serve, with_timeout};

/// Closing a socket with unread input resets the connection: the client's next write fails, and the client may lose the
/// answer.
#[test]
fn refused_request_is_read_out_before_the_connection_closes() {
    block_on(async {
        let server = serve(Config::default());
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(b"GET /devices HTTP/1.1\r\nno header\r\n\r\n").await.unwrap();
        let mut answer = [0; 13];
        with_timeout("the answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400 ");
        for _ in 0..64 {
            let sent = with_timeout("a write", stream.write_all(&[b'x'; 16 * 1024])).await;
            assert!(sent.is_ok(), "the connection was reset: {sent:?}");
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
        let end = with_timeout("the end", stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "the connection was reset: {end:?}");
    });
}
