//! Byte classes of HTTP and of URIs, and strict digits. RFC 9110 §5.5, §5.6.2; RFC 3986 §2, §3.2.
//!
//! Sits at the bottom of `http1`: the scanner, the parser, framing and the writer all ask here, so
//! a byte cannot be a token to one of them and none to another.
//!
//! Invariants
//! - One table of 256 bytes, computed by the compiler; a class is one bit of it.
//! - Digits are digits: no sign, no space, no separator is ever skipped (`str::parse` takes `+5`).
//!
//! Not here: the vector versions (`simd.rs`), which are tested against these for every byte.

/// `tchar`: what methods, field names and list members are made of. RFC 9110 §5.6.2.
const TOKEN: u8 = 1;
/// What a request-target may hold.
const TARGET: u8 = 2;
/// `unreserved` or `sub-delims`, which with percent-escapes make up a `reg-name`. RFC 3986 §3.2.2.
const REG_NAME: u8 = 4;
/// `unreserved`. RFC 3986 §2.3.
const UNRESERVED: u8 = 8;
/// SP, HTAB, VCHAR and obs-text: what field values are made of. RFC 9110 §5.5.
const VALUE: u8 = 16;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = class_of(byte.to_le_bytes()[0]);
        byte += 1;
    }
    classes
};

const fn class_of(byte: u8) -> u8 {
    let alphanumeric = byte.is_ascii_alphanumeric();
    let unreserved = alphanumeric || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let sub_delim = matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    );
    let token = alphanumeric
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
    let mut class = 0;
    if token {
        class |= TOKEN;
    }
    if matches!(byte, 0x21..=0x7e) && byte != b'#' {
        class |= TARGET;
    }
    if unreserved || sub_delim {
        class |= REG_NAME;
    }
    if unreserved {
        class |= UNRESERVED;
    }
    if matches!(byte, b'\t' | 0x20..=0x7e | 0x80..) {
        class |= VALUE;
    }
    class
}

/// Whether `byte` is a `tchar`. RFC 9110 §5.6.2.
pub const fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Whether a request-target may hold `byte`: visible ASCII other than `#`.
///
/// That is more than RFC 3986 §2 lists: browsers send `|`, `^`, `{` and others as they are in
/// queries, after the WHATWG URL standard. `#` would begin a fragment, which never travels.
pub const fn is_target_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TARGET != 0
}

/// Whether `byte` is `unreserved` or one of `sub-delims`. RFC 3986 §2.2, §2.3.
pub const fn is_reg_name_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & REG_NAME != 0
}

/// Whether `byte` is a `tchar` and one of a `reg-name` at once, as nearly all bytes of field names
/// and of hosts are.
pub(super) const fn is_plain_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & (TOKEN | REG_NAME) == TOKEN | REG_NAME
}

/// Whether `byte` is `unreserved`, so that escaping it changes nothing. RFC 3986 §2.3.
pub const fn is_unreserved(byte: u8) -> bool {
    CLASSES[byte as usize] & UNRESERVED != 0
}

/// Whether a field value may hold `byte`: SP, HTAB, visible ASCII, obs-text. RFC 9110 §5.5.
pub const fn is_value_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// Whether `name` is a field name, or any other token. RFC 9110 §5.1, §5.6.2.
pub fn is_field_name(name: &[u8]) -> bool {
    // No early exit: names that are checked here are written by programs, and are good.
    let all = name
        .iter()
        .fold(TOKEN, |all, byte| all & CLASSES[*byte as usize]);
    !name.is_empty() && all & TOKEN != 0
}

/// Whether `value` may be sent as a field value: no control byte but HTAB. RFC 9110 §5.5.
pub fn is_field_value(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks();
    let clean = |word: &[u8; 8]| !has_control(u64::from_ne_bytes(*word));
    // A word with an HTAB in it is looked at byte by byte; so is the rest.
    let good = |bytes: &[u8]| bytes.iter().all(|byte| is_value_byte(*byte));
    words.iter().all(|word| clean(word) || good(word)) && good(rest)
}

/// Whether some byte of `word` is below SP or DEL.
const fn has_control(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES * 0x80;
    // A byte is below SP exactly if taking SP from it borrows and it has no top bit of its own;
    // likewise for what is left of DEL, which then is below one.
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let del = word ^ (ONES * 0x7f);
    let is_del = del.wrapping_sub(ONES) & !del;
    (below_space | is_del) & TOPS != 0
}

/// Whether `byte` is optional white space, SP or HTAB. RFC 9110 §5.6.3.
pub const fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `bytes` without the white space around them. RFC 9110 §5.6.3.
pub const fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The number that `1*DIGIT` spells, or `None` if that is not what `digits` are, or if it does not
/// fit in 63 bits. Leading zeros are digits like others.
pub const fn decimal(mut digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    const MAX: u64 = i64::MAX as u64;
    let mut value: u64 = 0;
    while let [digit @ b'0'..=b'9', rest @ ..] = digits {
        // So neither step leaves 64 bits.
        if value > MAX / 10 {
            return None;
        }
        value = value * 10 + (*digit - b'0') as u64;
        digits = rest;
    }
    if value > MAX {
        return None;
    }
    if digits.is_empty() { Some(value) } else { None }
}

/// The value of one hexadecimal digit, either case. RFC 9112 §7.1; RFC 3986 §2.1.
pub const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_6_2_tokens_are_these_77_bytes() {
        let punctuation = b"!#$%&'*+-.^_`|~";
        for byte in 0..=u8::MAX {
            let want = byte.is_ascii_alphanumeric() || punctuation.contains(&byte);
            assert_eq!(is_token_byte(byte), want, "byte {byte:#04x}");
        }
    }

    #[test]
    fn rfc9110_5_5_values_hold_no_control_byte_but_tab() {
        for byte in 0..=u8::MAX {
            let want = byte == b'\t' || !byte.is_ascii_control();
            assert_eq!(is_value_byte(byte), want, "byte {byte:#04x}");
            for at in 0..40 {
                let mut value = [b'v'; 40];
                value[at] = byte;
                assert_eq!(is_field_value(&value), want, "byte {byte:#04x} at {at}");
            }
        }
    }

    #[test]
    fn targets_hold_visible_ascii_but_no_fragment() {
        for byte in 0..=u8::MAX {
            assert_eq!(
                is_target_byte(byte),
                byte.is_ascii_graphic() && byte != b'#',
                "byte {byte:#04x}"
            );
        }
    }

    #[test]
    fn rfc3986_2_classes_of_host_names() {
        for byte in 0..=u8::MAX {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            assert_eq!(is_unreserved(byte), unreserved, "byte {byte:#04x}");
            let want = unreserved || b"!$&'()*+,;=".contains(&byte);
            assert_eq!(is_reg_name_byte(byte), want, "byte {byte:#04x}");
        }
    }

    #[test]
    fn decimal_takes_digits_and_nothing_else() {
        let table: &[(&[u8], Option<u64>)] = &[
            (b"0", Some(0)),
            (b"10", Some(10)),
            (b"00000000000000000000000000000005", Some(5)),
            (b"9223372036854775807", Some(i64::MAX as u64)),
            (b"9223372036854775808", None),
            (b"18446744073709551616", None),
            (b"99999999999999999999999999", None),
            (b"", None),
            (b"+5", None),
            (b"-5", None),
            (b" 5", None),
            (b"5 ", None),
            (b"5,5", None),
            (b"0x5", None),
            (b"5_0", None),
        ];
        for (digits, want) in table {
            assert_eq!(decimal(digits), *want, "{digits:?}");
        }
    }
}
