//! The header of a WebSocket frame (RFC 6455, 5.2), read and written without tungstenite.
//!
//! It is the fast lane's part of the codec: see [`stream`](super::stream) for the reason and the figures. The parser
//! finds the end of a frame, and whether the frame is a whole text message. It checks no rule of RFC 6455: tungstenite
//! does that, for every frame that is not a single-frame text.

use std::ops::Range;

/// The first byte of a single-frame text: FIN, no extension, opcode 1.
const FINAL_TEXT: u8 = 0x81;

/// FIN bit of the first byte: the last frame of its message.
const FINAL: u8 = 0x80;

/// Opcode bits of the first byte.
const OPCODE: u8 = 0x0f;

/// MASK bit of the second byte: a masking key follows.
const MASKED: u8 = 0x80;

/// Length code of the second byte: the length is in the next two bytes.
const TWO_BYTES: u8 = 126;

/// Length code of the second byte: the length is in the next eight bytes.
const EIGHT_BYTES: u8 = 127;

/// A parsed frame header.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct FrameHeader {
    /// The first byte: FIN, extension bits, opcode.
    first: u8,
    /// The length of the header in bytes.
    header_len: usize,
    /// The length of the payload in bytes.
    length: u64,
    /// The masking key. Frames of a client have one.
    mask: Option<[u8; 4]>,
}

impl FrameHeader {
    /// Parses a header. `None` if it is not complete.
    pub(in crate::server) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (length, rest) = match second & !MASKED {
            TWO_BYTES => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
            EIGHT_BYTES => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (length.into(), rest),
        };
        let (mask, rest) = match second & MASKED {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?,
        };
        Some(Self { first, header_len: bytes.len() - rest.len(), length, mask })
    }

    /// The masking key and the range of the payload, if the frame is a masked single-frame text of at most `max_length`
    /// bytes.
    pub(in crate::server) fn single_frame_text(&self, max_length: usize) -> Option<([u8; 4], Range<usize>)> {
        let length = usize::try_from(self.length).ok().filter(|&length| length <= max_length)?;
        let mask = self.mask.filter(|_| self.first == FINAL_TEXT)?;
        Some((mask, self.header_len..self.header_len + length))
    }

    /// The range of the payload, if the frame is a single-frame text without a mask, of at most `max_length` bytes, as a
    /// server sends it.
    pub(in crate::server) fn unmasked_text(&self, max_length: usize) -> Option<Range<usize>> {
        let length = usize::try_from(self.length).ok().filter(|&length| length <= max_length)?;
        (self.mask.is_none() && self.first == FINAL_TEXT).then(|| self.header_len..self.header_len + length)
    }

    /// Whether more frames of the same message follow. `None` for frames that are no part of a fragmented message.
    pub(in crate::server) fn more_fragments_follow(&self) -> Option<bool> {
        match (self.first & OPCODE, self.first & FINAL) {
            (0, FINAL) => Some(false),
            (0..=2, 0) => Some(true),
            _ => None,
        }
    }

    /// The opcode.
    pub(in crate::server) fn opcode(&self) -> u8 {
        self.first & OPCODE
    }

    /// Whether the frame is the last one of its message.
    pub(in crate::server) fn is_final(&self) -> bool {
        self.first & FINAL != 0
    }

    /// Whether an extension has given the frame a meaning of its own.
    pub(in crate::server) fn is_extended(&self) -> bool {
        self.first & !(FINAL | OPCODE) != 0
    }

    /// Returns the payload of a whole frame, unmasked.
    pub(in crate::server) fn payload_of(&self, frame: &[u8]) -> Vec<u8> {
        let mut payload = frame.get(self.header_len..).unwrap_or_default().to_vec();
        if let Some(key) = self.mask {
            mask(&mut payload, key);
        }
        payload
    }

    /// The length of the whole frame in bytes.
    pub(in crate::server) fn frame_len(&self) -> u64 {
        self.length.saturating_add(self.header_len as u64)
    }
}

/// Writes the header of an unmasked single-frame text, as servers send it.
pub(in crate::server) fn write_text(out: &mut Vec<u8>, length: usize) {
    write_header(out, length, 0);
}

/// Writes a masked single-frame text, as clients send it.
pub(in crate::server) fn write_masked_text(out: &mut Vec<u8>, text: &[u8], key: [u8; 4]) {
    write_header(out, text.len(), MASKED);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(text);
    mask(&mut out[start..], key);
}

#[inline]
fn write_header(out: &mut Vec<u8>, length: usize, masked: u8) {
    out.push(FINAL_TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..TWO_BYTES), _) => out.push(length | masked),
        (_, Ok(length)) => {
            out.push(TWO_BYTES | masked);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(EIGHT_BYTES | masked);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Returns a whole frame. It is masked if it goes to a server.
pub(in crate::server) fn whole(opcode: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Vec::new();
    if let Some(key) = key {
        write_masked_text(&mut frame, payload, key);
    } else {
        write_text(&mut frame, payload.len());
        frame.extend_from_slice(payload);
    }
    frame[0] = FINAL | opcode;
    frame
}

/// Masks or unmasks a payload (RFC 6455, 5.3), eight bytes at a time.
pub(in crate::server) fn mask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask, mask].as_flattened().try_into().unwrap_or_default());
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
