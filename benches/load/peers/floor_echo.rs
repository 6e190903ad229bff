//! The floor's WebSocket: turns masked client frames into unmasked echoes where they lie. RFC 6455
//! §5.2.
//!
//! Beside `floor.rs`. A frame is never collected and hardly ever copied: its payload is unmasked in
//! place, and the echo's header, four bytes shorter, is written right before it. Only when one read
//! brought several frames do the later ones move up, to close those gaps of four. Control frames
//! would be echoed like any other, for the generator sends none.
//!
//! Invariants
//! - The echo does not depend on how the input is cut.
//! - At most one incomplete header (13 bytes) is kept between calls.
//! - Output never overtakes input: an echo is shorter than its frame, and [`HEADROOM`] makes up for
//!   a header kept earlier.
//!
//! Not here: checks of any kind; the floor believes its client.

use std::ops::Range;

/// The longest client header: two bytes, eight of length, four of mask.
const HEADER_LEN_MAX: usize = 14;

/// Bytes that must be free before the input.
pub(super) const HEADROOM: usize = 16;

/// Where in a frame the stream stands.
#[derive(Debug, Default)]
pub(super) struct EchoStream {
    header: [u8; HEADER_LEN_MAX],
    /// Bytes of `header` that have come; 0 while a payload is under way.
    header_len: usize,
    mask: [u8; 4],
    payload_left: usize,
}

impl EchoStream {
    /// Turns the input at `area[HEADROOM..end]` into its echo, and says where in `area` that is.
    pub(super) fn echo(&mut self, area: &mut [u8], end: usize) -> Range<usize> {
        let mut at = HEADROOM;
        let mut echo = at..at;
        loop {
            let part = at..end.min(at + self.payload_left);
            at = part.end;
            self.unmask(&mut area[part.clone()]);
            if part.start != echo.end {
                area.copy_within(part.clone(), echo.end);
            }
            echo.end += part.len();
            if at == end {
                return echo;
            }
            at += self.take_header(&area[at..end]);
            if self.header_len > 0 {
                return echo;
            }
            let (header, len) = self.echo_header();
            if echo.is_empty() {
                echo = at - len..at - len;
            }
            area[echo.end..echo.end + len].copy_from_slice(&header[..len]);
            echo.end += len;
        }
    }

    fn unmask(&mut self, payload: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, tail) = payload.as_chunks_mut();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        for (byte, mask) in tail.iter_mut().zip(key.to_ne_bytes()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(payload.len() % 4);
        self.payload_left -= payload.len();
    }

    /// Takes header bytes from the front and returns how many; `header_len` is 0 once the header is
    /// whole.
    fn take_header(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(HEADER_LEN_MAX - self.header_len);
        self.header[self.header_len..self.header_len + taken].copy_from_slice(&input[..taken]);
        let have = self.header_len + taken;
        let whole = 2 + self.length_len() + 4;
        if have < whole {
            self.header_len = have;
            return taken;
        }
        let (length, mask) = self.header[2..whole].split_at(self.length_len());
        self.payload_left = match length {
            [] => usize::from(self.header[1] & 0x7f),
            length => length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        self.mask = mask.try_into().unwrap_or_default();
        let used = whole - self.header_len;
        self.header_len = 0;
        used
    }

    /// Bytes of the extended payload length in `header`.
    fn length_len(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    /// The header that answers the one in `header`: the same without mask.
    fn echo_header(&self) -> ([u8; HEADER_LEN_MAX], usize) {
        let mut header = self.header;
        header[1] &= 0x7f;
        (header, 2 + self.length_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_does_not_depend_on_how_the_input_is_cut() {
        let mut input = Vec::new();
        let mut expected = Vec::new();
        for len in [0_usize, 1, 7, 8, 125, 126, 200, 65_536] {
            let (short, long) = match len {
                0..126 => (u8::try_from(len).unwrap(), Vec::new()),
                126..65_536 => (126, u16::try_from(len).unwrap().to_be_bytes().to_vec()),
                _ => (127, (len as u64).to_be_bytes().to_vec()),
            };
            input.extend([0x82, 0x80 | short]);
            input.extend(&long);
            input.extend([1, 2, 3, 4]);
            input.extend((0..len).map(|at| b'x' ^ [1, 2, 3, 4][at % 4]));
            expected.extend([0x82, short]);
            expected.extend(&long);
            expected.extend(std::iter::repeat_n(b'x', len));
        }
        for piece in [1, 2, 3, 5, 13, 14, 1000, input.len()] {
            let mut stream = EchoStream::default();
            let mut out = Vec::new();
            for part in input.chunks(piece) {
                let mut area = [vec![0; HEADROOM], part.to_vec()].concat();
                let end = area.len();
                let echo = stream.echo(&mut area, end);
                out.extend_from_slice(&area[echo]);
            }
            assert_eq!(out.len(), expected.len(), "pieces of {piece}");
            assert!(out == expected, "pieces of {piece}");
        }
    }
}
