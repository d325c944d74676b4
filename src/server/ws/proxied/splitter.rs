//! Splits the bytes of one direction into messages and control frames, without changing one of them.
//!
//! It judges nothing: a frame that breaks RFC 6455 goes on, and the receiver answers it. A text is put together from its
//! fragments up to a limit. Everything else passes in parts, as it comes.

use bytes::{Bytes, BytesMut};

use crate::protocol::Text;
use crate::server::ws::frame_header::FrameHeader;

/// The opcode of a text.
const TEXT: u8 = 1;

/// The opcode of a close frame.
pub(super) const CLOSE: u8 = 8;

/// The longest control frame, with its header (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125 + 6;

/// The longest header of a frame.
const MAX_HEADER: u64 = 14;

/// A piece of a direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole text, and its frames.
    Text(Text, Bytes),
    /// A close frame with its payload.
    Close(Vec<u8>, Bytes),
    /// A ping, a pong, or a control frame that is not defined.
    Control(Bytes),
    /// A part of a message: whether its frame and the message end with it.
    Part(Bytes, bool, bool),
}

/// The state of one direction.
pub(super) struct Splitter {
    /// The longest text that is put together, in bytes.
    max_text: usize,
    unread: BytesMut,
    /// The frames of a text whose last fragment has not come.
    frames: BytesMut,
    /// Their payload.
    text: Vec<u8>,
    /// The first fragment of a text has come.
    is_collecting: bool,
    /// A message passes in parts: its last frame has not come.
    is_passing: bool,
    /// The rest of a frame that passes in parts, and whether the message ends with it.
    rest: Option<(u64, bool)>,
}

impl Splitter {
    /// Begins a direction.
    pub(super) fn new(max_text: usize) -> Self {
        Self {
            max_text,
            unread: BytesMut::new(),
            frames: BytesMut::new(),
            text: Vec::new(),
            is_collecting: false,
            is_passing: false,
            rest: None,
        }
    }

    /// Adds bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Returns the next piece. `None`: it has not come yet.
    pub(super) fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some((rest, ends_message)) = self.rest {
                return self.part(rest, ends_message);
            }
            let Some(header) = FrameHeader::parse(&self.unread) else {
                // An idle connection keeps no buffer.
                if self.unread.is_empty() {
                    self.unread = BytesMut::new();
                }
                return None;
            };
            let length = header.frame_len();
            if header.opcode() >= CLOSE && length <= MAX_CONTROL {
                return self.control(&header, length);
            }
            let is_text = !header.is_extended() && header.opcode() == if self.is_collecting { 0 } else { TEXT };
            let collected = self.frames.len() as u64 + length;
            if is_text && !self.is_passing && collected <= self.max_text as u64 + MAX_HEADER {
                match self.fragment(&header, length)? {
                    Some(piece) => return Some(piece),
                    None => continue,
                }
            }
            if let Some(before) = self.pass(&header, length) {
                return Some(before);
            }
        }
    }

    /// Lets a frame pass in parts. Returns the fragments before it, if there are some.
    fn pass(&mut self, header: &FrameHeader, length: u64) -> Option<Piece> {
        let is_control = header.opcode() >= CLOSE;
        let ends_message = if is_control { !self.is_passing } else { header.is_final() };
        self.is_passing = !ends_message;
        self.rest = Some((length, ends_message));
        std::mem::take(&mut self.is_collecting).then(|| {
            self.text = Vec::new();
            Piece::Part(self.frames.split().freeze(), true, false)
        })
    }

    /// Takes a fragment of a text, or a whole one. The outer `None`: it has not come yet; the inner: more follow.
    #[allow(clippy::option_option, reason = "the two mean different things, and end here")]
    fn fragment(&mut self, header: &FrameHeader, length: u64) -> Option<Option<Piece>> {
        let frame = self.take(length)?;
        let mut payload = header.payload_of(&frame);
        if !self.is_collecting && header.is_final() {
            return Some(Some(whole(payload, frame)));
        }
        self.is_collecting = !header.is_final();
        self.frames.extend_from_slice(&frame);
        self.text.append(&mut payload);
        let is_whole = !self.is_collecting;
        Some(is_whole.then(|| whole(std::mem::take(&mut self.text), std::mem::take(&mut self.frames).freeze())))
    }

    fn control(&mut self, header: &FrameHeader, length: u64) -> Option<Piece> {
        let frame = self.take(length)?;
        Some(if header.opcode() == CLOSE {
            Piece::Close(header.payload_of(&frame), frame)
        } else {
            Piece::Control(frame)
        })
    }

    /// Takes the next part of a frame.
    fn part(&mut self, rest: u64, ends_message: bool) -> Option<Piece> {
        let length = rest.min(self.unread.len() as u64);
        let part = self.take(length).filter(|part| !part.is_empty())?;
        self.rest = (length < rest).then_some((rest - length, ends_message));
        let ends_frame = self.rest.is_none();
        Some(Piece::Part(part, ends_frame, ends_frame && ends_message))
    }

    fn take(&mut self, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.unread.len())?;
        Some(self.unread.split_to(length).freeze())
    }
}

/// A text, unless it is not UTF-8: then the receiver judges it.
fn whole(payload: Vec<u8>, frames: Bytes) -> Piece {
    match String::from_utf8(payload) {
        Ok(text) => Piece::Text(text.into(), frames),
        Err(_) => Piece::Part(frames, true, true),
    }
}

#[cfg(test)]
mod tests {
    use crate::server::ws::frame_header::whole;
    use crate::server::ws::proxied::splitter::{Piece, Splitter};

    const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

    /// A frame with another first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = whole(0, payload, KEY);
        frame[0] = first;
        frame
    }

    fn split(chunks: &[&[u8]], max_text: usize) -> (Vec<u8>, Vec<String>, Vec<Piece>) {
        let mut splitter = Splitter::new(max_text);
        let (mut bytes, mut texts, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in chunks {
            splitter.put(chunk);
            while let Some(piece) = splitter.next() {
                let (Piece::Text(_, raw) | Piece::Close(_, raw) | Piece::Control(raw) | Piece::Part(raw, ..)) = &piece;
                bytes.extend_from_slice(raw);
                if let Piece::Text(text, _) = &piece {
                    texts.push(text.as_str().to_owned());
                }
                pieces.push(piece);
            }
        }
        (bytes, texts, pieces)
    }

    fn stream() -> Vec<u8> {
        [
            whole(1, "{\"a\":\"ä\"}".as_bytes(), KEY),
            whole(1, b"unmasked", None),
            frame(0x01, b"in "),
            frame(0x80, b"fragments"),
            frame(0x82, &[7; 300]),
            frame(0x02, b"binary "),
            frame(0x89, b"ping"),
            frame(0x80, b"in fragments"),
            frame(0xc1, b"compressed"),
            frame(0x81, &[0xff]),
            frame(0x8f, &[0; 200]),
            whole(1, &vec![b'x'; 70_000], KEY),
            frame(0x01, &[b'y'; 900]),
            frame(0x00, &[b'y'; 900]),
            frame(0x80, b"too long together"),
            frame(0x80, b"a continuation of nothing"),
            whole(1, b"last", KEY),
            frame(0x88, &[3, 0xe8]),
        ]
        .concat()
    }

    #[test]
    fn no_byte_is_changed_or_lost_however_they_arrive() {
        let stream = stream();
        for size in [1, 2, 3, 7, 64, 1000, stream.len()] {
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            let (bytes, texts, pieces) = split(&chunks, 1024);
            assert!(bytes == stream, "chunks of {size} bytes come out changed");
            assert_eq!(texts, ["{\"a\":\"ä\"}", "unmasked", "in fragments", "last"], "in chunks of {size}");
            assert!(matches!(pieces.last(), Some(Piece::Close(payload, _)) if payload == &[3, 0xe8]));
        }
    }

    #[test]
    fn messages_that_pass_in_parts_say_where_frame_and_message_end() {
        let bytes = [frame(0x02, b"one"), frame(0x89, b""), frame(0x80, b"two")].concat();
        let ends = |pieces: Vec<Piece>| {
            let ends = |piece| match piece {
                Piece::Part(_, frame, message) => Some((frame, message)),
                _ => None,
            };
            pieces.into_iter().map(ends).collect::<Vec<_>>()
        };
        assert_eq!(ends(split(&[&bytes], 64).2), [Some((true, false)), None, Some((true, true))]);
        let parts = ends(split(&[&bytes[..7], &bytes[7..]], 64).2);
        assert_eq!(parts, [Some((false, false)), Some((true, false)), None, Some((true, true))]);
    }

    #[test]
    fn incomplete_frames_wait_and_an_idle_direction_keeps_no_buffer() {
        let frame = whole(1, b"text", KEY);
        let mut splitter = Splitter::new(64);
        splitter.put(&frame[..frame.len() - 1]);
        assert_eq!(splitter.next(), None);
        splitter.put(&frame[frame.len() - 1..]);
        assert!(matches!(splitter.next(), Some(Piece::Text(..))));
        assert_eq!((splitter.next(), splitter.unread.capacity()), (None, 0));
    }
}
