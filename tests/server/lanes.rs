//! However a peer's texts are framed, and wherever what it sends is cut: they come out whole and in order, and so do the
//! answers to its pings, between what it is sent. Devices and clients speak in bytes, through pipes that may be narrow.

use cuttlefish_signaling::{Config, Running};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::dial::{block_on, serve, with_timeout};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

/// Forwards of the client in the meantime.
const ANSWERS: usize = 30;

/// What a device sends.
#[derive(Debug, Clone)]
enum Sent {
    /// A forward with so much in it, in one frame.
    Whole(usize),
    /// One in frames that are cut at these shares of it, with a ping between them or not.
    InParts(usize, Vec<u8>, bool),
    Ping(Vec<u8>),
}

fn size() -> impl Strategy<Value = usize> {
    // Around the lengths at which heads change, what is kept of a frame, and what a page has room for.
    const EDGES: [usize; 10] = [0, 50, 60, 70, 4_000, 4_060, 65_400, 65_470, 65_480, 67_500];
    prop_oneof![8 => 0..600usize, 2 => select(&EDGES[..]), 1 => 0..120_000usize]
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        6 => size().prop_map(Sent::Whole),
        2 => (size(), vec(any::<u8>(), 1..4), any::<bool>()).prop_map(|(size, cuts, ping)| Sent::InParts(size, cuts, ping)),
        1 => vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
    ]
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn forward(number: usize, size: usize) -> (String, String) {
    let payload = format!("[{number},\"{}ü\"]", "x".repeat(size));
    let text = format!(r#"{{"message_type":"forward","client_id":1,"payload":{payload}}}"#);
    (text, format!(r#"{{"message_type":"device_msg","payload":{payload}}}"#))
}

/// The bytes of it all, what the client is to hear, and what the device's pings are to be answered with.
fn spell(all: &[Sent], mask: [u8; 4]) -> (Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut bytes, mut texts, mut pongs) = (Vec::new(), Vec::new(), Vec::new());
    for (number, sent) in all.iter().enumerate() {
        match sent {
            Sent::Whole(size) => {
                let (text, heard) = forward(number, *size);
                bytes.extend(frame(FINAL | TEXT, text.as_bytes(), mask));
                texts.push(heard.into_bytes());
            }
            Sent::InParts(size, cuts, ping) => {
                let (text, heard) = forward(number, *size);
                let mut at: Vec<_> = cuts.iter().map(|&cut| usize::from(cut) * text.len() / 255).collect();
                at.sort_unstable();
                let (mut opcode, mut start) = (TEXT, 0);
                for end in at {
                    bytes.extend(frame(opcode, &text.as_bytes()[start..end], mask));
                    if *ping {
                        bytes.extend(frame(FINAL | PING, &[opcode], mask));
                        pongs.push(vec![opcode]);
                    }
                    (opcode, start) = (0, end);
                }
                bytes.extend(frame(FINAL | opcode, &text.as_bytes()[start..], mask));
                texts.push(heard.into_bytes());
            }
            Sent::Ping(payload) => {
                bytes.extend(frame(FINAL | PING, payload, mask));
                pongs.push(payload.clone());
            }
        }
    }
    (bytes, texts, pongs)
}

/// A pipe to the server, which says WebSocket by hand.
struct Pipe(DuplexStream);

impl Pipe {
    async fn open(server: &Running, path: &str, width: usize, first: &str) -> Self {
        let (mut ours, theirs) = tokio::io::duplex(width);
        drop(server.serve_in_memory(theirs));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(ours.read_u8().await.unwrap());
        }
        ours.write_all(&frame(FINAL | TEXT, first.as_bytes(), [1, 2, 3, 4])).await.unwrap();
        Self(ours)
    }

    async fn hears(&mut self) -> (u8, Vec<u8>) {
        next(&mut self.0).await
    }
}

/// The opcode and payload of the next frame, which is to be whole and not masked (docs/protocol.md 2.8).
async fn next(stream: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    assert_eq!(first & !0x0f, FINAL);
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => usize::try_from(stream.read_u64().await.unwrap()).unwrap(),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (first & 0x0f, payload)
}

async fn converse(server: &Running, all: &[Sent], mask: [u8; 4], chunks: &[usize], width: usize) {
    let (bytes, texts, pongs) = spell(all, mask);
    let register = r#"{"message_type":"register","device_id":"cvd-1"}"#;
    let mut device = Pipe::open(server, "/register_device", width, register).await;
    device.hears().await;
    let connect = r#"{"message_type":"connect","device_id":"cvd-1"}"#;
    let mut client = Pipe::open(server, "/connect_client", width, connect).await;
    client.hears().await;
    client.hears().await;
    let (mut from_server, mut to_server) = tokio::io::split(device.0);
    let (mut from_house, mut to_house) = tokio::io::split(client.0);
    let sending = async {
        let mut sizes = chunks.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            to_server.write_all(now).await.unwrap();
            // Let the server come to what there is.
            tokio::task::yield_now().await;
            rest = later;
        }
    };
    let answering = async {
        for number in 0..ANSWERS {
            let text = format!(r#"{{"message_type":"forward","payload":{number}}}"#);
            to_house.write_all(&frame(FINAL | TEXT, text.as_bytes(), mask)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let device_hears = async {
        let (mut pongs, mut answers) = (pongs.into_iter(), 0);
        while pongs.len() > 0 || answers < ANSWERS {
            let (opcode, payload) = next(&mut from_server).await;
            if opcode == PONG {
                assert_eq!(Some(payload), pongs.next());
            } else {
                let answer = format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{answers}}}"#);
                assert_eq!((opcode, payload), (TEXT, answer.into_bytes()));
                answers += 1;
            }
        }
    };
    let client_hears = async {
        for text in &texts {
            let (opcode, payload) = next(&mut from_house).await;
            assert!((opcode, &payload) == (TEXT, text), "{} bytes instead of {}", payload.len(), text.len());
        }
    };
    with_timeout("all of it", async { tokio::join!(sending, answering, device_hears, client_hears) }).await;
}

#[test]
fn text_frame_within_a_fragmented_message_is_closed_with_1002() {
    for between in [vec![], frame(FINAL | PING, b"", [0; 4])] {
        block_on(async {
            let server = serve(Config::default());
            let register = r#"{"message_type":"register","device_id":"cvd-1"}"#;
            let mut device = Pipe::open(&server, "/register_device", 1 << 16, register).await;
            device.hears().await;
            let (text, _) = forward(0, 10);
            let parts = [frame(TEXT, b"{", [0; 4]), between, frame(FINAL | TEXT, text.as_bytes(), [0; 4])].concat();
            device.0.write_all(&parts).await.unwrap();
            let heard = loop {
                match with_timeout("a goodbye", device.hears()).await {
                    (PONG, _) => {}
                    heard => break heard,
                }
            };
            assert_eq!((heard.0, &heard.1[..2]), (CLOSE, &1002u16.to_be_bytes()[..]));
        });
    }
}

proptest! {
    // Where something is wrong, what is wrong may be to wait for ever: it is not made smaller for long.
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 4, ..ProptestConfig::default() })]

    #[test]
    fn texts_stay_whole_and_in_order_under_any_framing(
        all in vec(sent(), 1..12),
        mask in any::<[u8; 4]>(),
        chunks in prop_oneof![vec(1..40usize, 1..4), vec(1..9_000usize, 1..4), Just(vec![1 << 20])],
        width in select(vec![64usize, 700, 5_000, 1 << 17]),
    ) {
        block_on(async {
            let server = serve(Config::default());
            converse(&server, &all, mask, &chunks, width).await;
        });
    }
}
