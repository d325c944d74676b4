//! The head of a frame, as RFC 6455, 5.2 has it: enough to see where a frame ends, and whether it is a text by itself.
//! Whether it obeys the rules is for the library to say.

use std::ops::Range;

/// A final frame of opcode 1, without extensions.
const FINAL_TEXT: u8 = 0x81;

/// Of the first byte: the last frame of its message.
const FINAL: u8 = 0x80;

/// Of the first byte.
const OPCODE: u8 = 0x0f;

/// Of the second byte: a mask follows.
const MASKED: u8 = 0x80;

/// Of the second byte: the length is in the next two.
const TWO_BYTES: u8 = 126;

/// Of the second byte: the length is in the next eight.
const EIGHT_BYTES: u8 = 127;

/// What the first bytes of a frame tell.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct FrameHeader {
    first: u8,
    header_len: usize,
    length: u64,
    /// What the payload is masked with. A client's is.
    mask: Option<[u8; 4]>,
}

impl FrameHeader {
    /// `None` where not all of it has come.
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

    /// The mask and the place of the payload, where this is a client's text in one frame, of at most so many bytes.
    pub(in crate::server) fn single_frame_text(&self, max_length: usize) -> Option<([u8; 4], Range<usize>)> {
        let length = usize::try_from(self.length).ok().filter(|&length| length <= max_length)?;
        let mask = self.mask.filter(|_| self.first == FINAL_TEXT)?;
        Some((mask, self.header_len..self.header_len + length))
    }

    /// Whether more frames of its message follow, or were to; `None` where it does not say, being no part of one.
    pub(in crate::server) fn more_fragments_follow(&self) -> Option<bool> {
        match (self.first & OPCODE, self.first & FINAL) {
            (0, FINAL) => Some(false),
            (0..=2, 0) => Some(true),
            _ => None,
        }
    }

    /// Bytes of the whole frame.
    pub(in crate::server) fn frame_len(&self) -> u64 {
        self.length.saturating_add(self.header_len as u64)
    }
}

/// Writes the head of a text in one frame, which is not masked: the server's.
pub(in crate::server) fn write_text(out: &mut Vec<u8>, length: usize) {
    out.push(FINAL_TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..TWO_BYTES), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(TWO_BYTES);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(EIGHT_BYTES);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off, or puts it on (RFC 6455, 5.3).
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
