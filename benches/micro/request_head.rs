//! Request heads: `hukilau_core::http1` beside httparse and picohttpparser.
//!
//! All get the whole head at once and room for 100 fields that is not cleared between calls, the
//! fastest way to call each. They do not do the same: hukilau also judges framing, Host and
//! Connection, and recognises the names that matter to a server; the others leave that to whoever
//! calls them.
//!
//! Not here: heads that arrive in pieces.

use std::hint::black_box;
use std::mem::MaybeUninit;

use criterion::{Criterion, Throughput};
use hukilau_core::http1::parse::{HeadProgress, parse_request};
use hukilau_core::limits::Limits;

use crate::inputs;

/// Room for fields; hukilau's default limit.
pub(crate) const FIELDS_MAX: usize = 100;

/// Head length and number of fields, what each parser must find.
pub(crate) type Found = Option<(usize, usize)>;

/// One group per head, one line per parser.
pub(crate) fn bench(criterion: &mut Criterion) {
    for input in inputs::all() {
        let head = input.head.as_slice();
        let expected = Some((head.len(), input.fields));
        let mut group = criterion.benchmark_group(format!("request head, {}", input.name));
        group.throughput(Throughput::Bytes(head.len() as u64));

        let limits = Limits::default();
        let mut fields = Vec::with_capacity(FIELDS_MAX);
        let mut hukilau = |head: &[u8]| -> Found {
            fields.clear();
            let parsed = parse_request(head, &mut HeadProgress::default(), &limits, &mut fields);
            let len = parsed.ok().flatten()?.len;
            Some((usize::try_from(len).ok()?, fields.len()))
        };
        assert_eq!(hukilau(head), expected, "hukilau, {}", input.name);
        group.bench_function("hukilau", |bencher| {
            bencher.iter(|| hukilau(black_box(head)))
        });

        assert_eq!(httparse(head), expected, "httparse, {}", input.name);
        group.bench_function("httparse", |bencher| {
            bencher.iter(|| httparse(black_box(head)))
        });

        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        {
            let mut pico = crate::pico::Parser::new();
            assert_eq!(pico.parse(head), expected, "picohttpparser, {}", input.name);
            group.bench_function("picohttpparser", |bencher| {
                bencher.iter(|| pico.parse(black_box(head)))
            });
        }
        group.finish();
    }
}

/// httparse, asked in its fastest way.
pub(crate) fn httparse(head: &[u8]) -> Found {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(len)) => Some((len, request.headers.len())),
        _ => None,
    }
}
