//! Unmasking: `hukilau_core::ws` beside fastwebsockets, a plain loop over 32-bit words, and memcpy.
//!
//! tungstenite keeps its function private; it is a loop over aligned 32-bit words, and so is the
//! one here. memcpy is the floor: the same bytes moved, nothing computed. Each at an
//! aligned address and one byte beside it.
//!
//! Not here: masks that continue in the middle of a payload; they cost one rotation of the key.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use hukilau_core::ws::mask::apply_mask;

/// A masking key.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Payload bytes: chat, a small document, a frame of a file.
const SIZES: [usize; 4] = [32, 128, 1024, 64 * 1024];

/// What vectors like: a cache line.
const ALIGNMENT: usize = 64;

/// A function that unmasks with [`KEY`].
pub(crate) type Unmask = fn(&mut [u8]);

/// One group per alignment, one line per function and size.
pub(crate) fn bench(criterion: &mut Criterion) {
    for offset in [0, 1] {
        let mut group = criterion.benchmark_group(format!("unmask, {offset} B off alignment"));
        for size in SIZES {
            let mut area = vec![0; size + 2 * ALIGNMENT];
            let start = area.as_ptr().align_offset(ALIGNMENT) + offset;
            let payload = &mut area[start..start + size];
            let subjects: [(&str, Unmask); 3] = [
                ("hukilau", |payload| apply_mask(payload, KEY, 0)),
                ("fastwebsockets", |payload| {
                    fastwebsockets::unmask(payload, KEY)
                }),
                ("32-bit words", words_of_32_bits),
            ];
            group.throughput(Throughput::Bytes(size as u64));
            for (name, unmask) in subjects {
                assert_right(name, unmask, size);
                group.bench_with_input(BenchmarkId::new(name, size), &size, |bencher, _| {
                    bencher.iter(|| unmask(black_box(&mut *payload)));
                });
            }
            let source = vec![0_u8; size];
            group.bench_with_input(BenchmarkId::new("memcpy", size), &size, |bencher, _| {
                bencher.iter(|| black_box(&mut *payload).copy_from_slice(black_box(&source)));
            });
        }
        group.finish();
    }
}

/// What tungstenite does: bytes up to an aligned address, words of 32 bits, bytes.
pub(crate) fn words_of_32_bits(payload: &mut [u8]) {
    let unaligned = payload.as_ptr().align_offset(4).min(payload.len());
    let (head, rest) = payload.split_at_mut(unaligned);
    for (byte, key) in head.iter_mut().zip(KEY) {
        *byte ^= key;
    }
    let mut key = KEY;
    key.rotate_left(unaligned % 4);
    let word_key = u32::from_ne_bytes(key);
    let (words, tail) = rest.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_key).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Every subject must do what RFC 6455 §5.3 says before its speed matters.
fn assert_right(name: &str, unmask: Unmask, size: usize) {
    let mut payload = vec![0; size];
    unmask(&mut payload);
    let expected: Vec<u8> = KEY.iter().copied().cycle().take(size).collect();
    assert!(payload == expected, "{name} unmasks {size} bytes wrongly");
}
