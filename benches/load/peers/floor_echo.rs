//! The floor's WebSocket: turns masked client frames into unmasked echoes as their bytes arrive. RFC 6455 §5.2.
//!
//! Beside `floor.rs`. A frame is never collected: its header becomes the echo's header, and each part of its payload is unmasked
//! into the output at once. Control frames would be echoed like any other, for the generator sends none.
//!
//! Invariants
//! - The echo does not depend on how the input is cut.
//! - At most one incomplete header (13 bytes) is kept between calls.
//!
//! Not here: checks of any kind; the floor believes its client.

/// The longest client header: two bytes, eight of length, four of mask.
const HEADER_LEN_MAX: usize = 14;

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
    /// Appends the echo of `input` to `out`.
    pub(super) fn echo(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        loop {
            let now = self.payload_left.min(input.len());
            self.unmask(&input[..now], out);
            input = &input[now..];
            if input.is_empty() {
                return;
            }
            input = self.take_header(input, out);
        }
    }

    fn unmask(&mut self, masked: &[u8], out: &mut Vec<u8>) {
        let key = u64::from_ne_bytes(
            [self.mask, self.mask]
                .concat()
                .try_into()
                .unwrap_or_default(),
        );
        let (words, tail) = masked.as_chunks::<8>();
        out.reserve(masked.len());
        for word in words {
            out.extend_from_slice(&(u64::from_ne_bytes(*word) ^ key).to_ne_bytes());
        }
        out.extend(
            tail.iter()
                .zip(self.mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.mask.rotate_left(masked.len() % 4);
        self.payload_left -= masked.len();
    }

    /// Takes header bytes from the front; once the header is whole, writes the echo's and returns what follows.
    fn take_header<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let taken = input.len().min(HEADER_LEN_MAX - self.header_len);
        self.header[self.header_len..self.header_len + taken].copy_from_slice(&input[..taken]);
        let have = self.header_len + taken;
        let length_len = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let whole = 2 + length_len + 4;
        if have < whole {
            self.header_len = have;
            return &input[taken..];
        }
        let (length, mask) = self.header[2..whole].split_at(length_len);
        self.payload_left = match length_len {
            0 => usize::from(self.header[1] & 0x7f),
            _ => length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        self.mask = mask.try_into().unwrap_or_default();
        out.extend_from_slice(&[self.header[0], self.header[1] & 0x7f]);
        out.extend_from_slice(length);
        let used = whole - self.header_len;
        self.header_len = 0;
        &input[used..]
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
                stream.echo(part, &mut out);
            }
            assert_eq!(out.len(), expected.len(), "pieces of {piece}");
            assert!(out == expected, "pieces of {piece}");
        }
    }
}
