//! WebSocket frames, byte by byte: under any framing and any split of the input, texts and pongs stay whole and in
//! order. Peers are in memory, behind pipes that may be narrow.

use cuttlefish_signaling::{Config, Running};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::dial::{block_on, serve, with_timeout};
use crate::raw_peer::{CLOSE, CONTINUATION, FINAL, PING, PONG, RawPeer, TEXT, frame, next};

/// Forwards of the client in the meantime.
const ANSWERS: usize = 30;

/// A message of the device.
#[derive(Debug, Clone)]
enum Sent {
    /// A forward with this size of payload, in one frame.
    Whole(usize),
    /// A forward in fragments, split at these shares of its length, with or without pings between them.
    InParts(usize, Vec<u8>, bool),
    Ping(Vec<u8>),
}

fn size() -> impl Strategy<Value = usize> {
    // Around the limits of frame headers, of kept input, and of the I/O buffer.
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

fn forward(number: usize, size: usize) -> (String, String) {
    let payload = format!("[{number},\"{}ü\"]", "x".repeat(size));
    let text = format!(r#"{{"message_type":"forward","client_id":1,"payload":{payload}}}"#);
    (text, format!(r#"{{"message_type":"device_msg","payload":{payload}}}"#))
}

/// The bytes of all messages, the texts that the client must get, and the payloads of the pongs.
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
                    (opcode, start) = (CONTINUATION, end);
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

/// A peer in memory that has sent its first message.
async fn open(server: &Running, path: &str, width: usize, first: &str) -> RawPeer<DuplexStream> {
    let mut peer = RawPeer::in_memory(server, path, width).await;
    peer.send(&frame(FINAL | TEXT, first.as_bytes(), [1, 2, 3, 4])).await;
    peer
}

async fn converse(server: &Running, all: &[Sent], mask: [u8; 4], chunks: &[usize], width: usize) {
    let (bytes, texts, pongs) = spell(all, mask);
    let register = r#"{"message_type":"register","device_id":"cvd-1"}"#;
    let mut device = open(server, "/register_device", width, register).await;
    device.next().await;
    let connect = r#"{"message_type":"connect","device_id":"cvd-1"}"#;
    let mut client = open(server, "/connect_client", width, connect).await;
    client.next().await;
    client.next().await;
    let (mut device_reader, mut device_writer) = tokio::io::split(device.0);
    let (mut client_reader, mut client_writer) = tokio::io::split(client.0);
    let sending = async {
        let mut sizes = chunks.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            device_writer.write_all(now).await.unwrap();
            // Let the server read.
            tokio::task::yield_now().await;
            rest = later;
        }
    };
    let answering = async {
        for number in 0..ANSWERS {
            let text = format!(r#"{{"message_type":"forward","payload":{number}}}"#);
            client_writer.write_all(&frame(FINAL | TEXT, text.as_bytes(), mask)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let device_hears = async {
        let (mut pongs, mut answers) = (pongs.into_iter(), 0);
        while pongs.len() > 0 || answers < ANSWERS {
            let (opcode, payload) = next(&mut device_reader).await;
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
            let (opcode, payload) = next(&mut client_reader).await;
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
            let mut device = open(&server, "/register_device", 1 << 16, register).await;
            device.next().await;
            let (text, _) = forward(0, 10);
            let parts = [frame(TEXT, b"{", [0; 4]), between, frame(FINAL | TEXT, text.as_bytes(), [0; 4])].concat();
            device.send(&parts).await;
            let heard = loop {
                match device.next().await {
                    (PONG, _) => {}
                    heard => break heard,
                }
            };
            assert_eq!((heard.0, &heard.1[..2]), (CLOSE, &1002u16.to_be_bytes()[..]));
        });
    }
}

proptest! {
    // A failure may be an endless wait, so shrinking is kept short.
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
