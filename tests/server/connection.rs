//! A connection before its upgrade: the answer to an invalid request reaches the client.

use cuttlefish_signaling::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{block_on, serve, with_timeout};

/// More than the server reads of a request's head, so that input is left unread when it answers.
const UNREAD: usize = 256 * 1024;

/// A socket that is closed with unread input resets the connection, and the client may lose the answer.
#[test]
fn refused_request_is_read_out_before_the_connection_closes() {
    block_on(async {
        let server = serve(Config::default());
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let mut request = b"GET /devices HTTP/1.1\r\nno header\r\n\r\n".to_vec();
        request.resize(UNREAD, b'x');
        with_timeout("the request", stream.write_all(&request)).await.expect("the request is read to its end");
        let mut answer = [0; 13];
        with_timeout("the answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400 ");
        stream.shutdown().await.unwrap();
        let end = with_timeout("the end", stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "the connection was reset: {end:?}");
    });
}
