//! How many times the speed of others: heads by input and set of instructions, unmasking by size.
//! `cargo bench -p hukilau-benches --bench micro -- ratios`.
//!
//! The machine is not ours alone and its clock wanders, so nothing is compared with what was
//! measured earlier: all subjects run in every round, some microseconds each, and the ratio is
//! taken within the round. What is printed is the median over the rounds.
//!
//! httparse and simdutf8-like libraries choose instructions for themselves; picohttpparser is
//! compiled for SSE4.2.
//!
//! Not here: absolute times to quote (`request_head.rs`, `mask.rs`).

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;

use hukilau_core::http1::Method;
use hukilau_core::http1::parse::{HeadProgress, parse_request, parse_response, use_instructions};
use hukilau_core::limits::Limits;
use hukilau_core::ws::mask::apply_mask;

use crate::inputs::{self, Input};
use crate::mask::{KEY, Unmask, words_of_32_bits};
use crate::request_head::{FIELDS_MAX, Found, httparse};

/// Sets of instructions that some machine has, the least first.
const SETS: [&str; 5] = ["words", "sse4.2", "avx2", "avx512", "neon"];

/// Rounds; the median of so many ratios moves by a percent or two from run to run.
const ROUNDS: usize = 1001;

/// Nanoseconds that a subject has in a round.
const TURN_NS: f64 = 15_000.0;

/// Addresses that are tried, from a cache line's first byte on.
const ALIGNMENTS: usize = 8;

/// Payloads are taken in turn from so many bytes, within the first-level cache: one that was written
/// a moment ago is slow to read in words of another size, which no payload from a socket is.
const SLOTS_BYTES: usize = 8 * 1024;

/// Does its work so many times.
type Subject<'a> = (String, Box<dyn FnMut(u32) + 'a>);

/// Prints all tables.
pub(crate) fn print() {
    println!("\nTimes our speed, median of {ROUNDS} rounds: above 1 we are faster.\n");
    println!("| head | set | ns | x httparse | x picohttpparser |");
    println!("| --- | --- | --- | --- | --- |");
    for input in inputs::all() {
        requests(&input);
    }
    for input in inputs::responses() {
        responses(&input);
    }
    println!("\n| unmask | ns | x 32-bit words | x fastwebsockets | worst of 8 alignments |");
    println!("| --- | --- | --- | --- | --- |");
    for size in [
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        12,
        15,
        16,
        24,
        31,
        32,
        64,
        100,
        125,
        128,
        200,
        256,
        512,
        1024,
        4096,
        16_384,
        65_536,
        1 << 20,
    ] {
        unmasking(size);
    }
}

fn requests(input: &Input) {
    let head = input.head.as_slice();
    let limits = Limits::default();
    let expected = Some((head.len(), input.fields));
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for set in SETS.into_iter().filter(|set| use_instructions(set)) {
        let (limits, mut fields) = (&limits, Vec::with_capacity(FIELDS_MAX));
        let mut parse = move |head: &[u8]| -> Found {
            fields.clear();
            let parsed = parse_request(head, &mut HeadProgress::default(), limits, &mut fields);
            let len = parsed.ok().flatten()?.len;
            Some((usize::try_from(len).ok()?, fields.len()))
        };
        assert_eq!(parse(head), expected, "{set}, {}", input.name);
        subjects.push((
            set.to_owned(),
            Box::new(move |times| {
                use_instructions(set);
                repeat(times, || parse(black_box(head)));
            }),
        ));
    }
    subjects.push((
        "httparse".to_owned(),
        Box::new(|times| repeat(times, || httparse(black_box(head)))),
    ));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let mut pico = crate::pico::Parser::new();
        subjects.push((
            "picohttpparser".to_owned(),
            Box::new(move |times| repeat(times, || pico.parse(black_box(head)))),
        ));
    }
    print_heads(&format!("request, {}", input.name), &mut subjects);
}

fn responses(input: &Input) {
    let head = input.head.as_slice();
    let limits = Limits::default();
    let expected = Some((head.len(), input.fields));
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for set in SETS.into_iter().filter(|set| use_instructions(set)) {
        let (limits, mut fields) = (&limits, Vec::with_capacity(FIELDS_MAX));
        let mut parse = move |head: &[u8]| -> Found {
            fields.clear();
            let mut progress = HeadProgress::default();
            let parsed = parse_response(head, &mut progress, Method::Get, limits, &mut fields);
            let len = parsed.ok().flatten()?.len;
            Some((usize::try_from(len).ok()?, fields.len()))
        };
        assert_eq!(parse(head), expected, "{set}, {}", input.name);
        subjects.push((
            set.to_owned(),
            Box::new(move |times| {
                use_instructions(set);
                repeat(times, || parse(black_box(head)));
            }),
        ));
    }
    assert_eq!(
        httparse_response(head),
        expected,
        "httparse, {}",
        input.name
    );
    subjects.push((
        "httparse".to_owned(),
        Box::new(|times| repeat(times, || httparse_response(black_box(head)))),
    ));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let mut pico = crate::pico::Parser::new();
        assert_eq!(pico.parse_response(head), expected, "{}", input.name);
        subjects.push((
            "picohttpparser".to_owned(),
            Box::new(move |times| repeat(times, || pico.parse_response(black_box(head)))),
        ));
    }
    print_heads(&format!("response, {}", input.name), &mut subjects);
}

fn httparse_response(head: &[u8]) -> Found {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, head, &mut fields) {
        Ok(httparse::Status::Complete(len)) => Some((len, response.headers.len())),
        _ => None,
    }
}

/// One row for each set, against the subjects that are no sets.
fn print_heads(name: &str, subjects: &mut [Subject<'_>]) {
    let rounds = measure(subjects);
    let at = |wanted: &str| subjects.iter().position(|(name, _)| name == wanted);
    let against = |ours: usize, theirs: Option<usize>| match theirs {
        Some(theirs) => format!("{:.2}", ratio(&rounds, ours, theirs)),
        None => "-".to_owned(),
    };
    for (ours, (set, _)) in subjects.iter().enumerate() {
        if SETS.contains(&set.as_str()) {
            println!(
                "| {name} | {set} | {:.1} | {} | {} |",
                median(rounds.iter().map(|round| round[ours])),
                against(ours, at("httparse")),
                against(ours, at("picohttpparser")),
            );
        }
    }
}

/// One row: at an aligned address, and the least ratio to the words of 32 bits over alignments.
fn unmasking(size: usize) {
    let mut worst = f64::INFINITY;
    let mut first = None;
    let slot = (size + ALIGNMENTS).next_multiple_of(64);
    let slots = (SLOTS_BYTES / slot).max(1).next_power_of_two();
    for offset in 0..ALIGNMENTS {
        let mut areas = [(); 3].map(|()| vec![0_u8; slot * slots + 64]);
        let mut subjects: Vec<Subject<'_>> = Vec::new();
        let unmask: [(&str, Unmask); 3] = [
            ("hukilau", |payload| apply_mask(payload, KEY, 0)),
            ("32-bit words", words_of_32_bits),
            ("fastwebsockets", |payload| {
                fastwebsockets::unmask(payload, KEY)
            }),
        ];
        for ((name, unmask), area) in unmask.into_iter().zip(&mut areas) {
            let start = area.as_ptr().align_offset(64);
            let area = &mut area[start..start + slot * slots];
            subjects.push((
                name.to_owned(),
                Box::new(move |times| {
                    for number in 0..times as usize {
                        let at = number % slots * slot + offset;
                        unmask(black_box(&mut area[at..at + size]));
                    }
                }),
            ));
        }
        let rounds = measure(&mut subjects);
        worst = worst.min(ratio(&rounds, 0, 1));
        let ns = median(rounds.iter().map(|round| round[0]));
        first.get_or_insert((ns, ratio(&rounds, 0, 1), ratio(&rounds, 0, 2)));
    }
    if let Some((ns, words, fast)) = first {
        println!("| {size} B | {ns:.2} | {words:.2} | {fast:.2} | {worst:.2} |");
    }
}

fn repeat<R>(times: u32, mut work: impl FnMut() -> R) {
    for _ in 0..times {
        black_box(work());
    }
}

/// Nanoseconds of each subject in each round.
fn measure(subjects: &mut [Subject<'_>]) -> Vec<Vec<f64>> {
    let mut times: Vec<u32> = Vec::new();
    for (_, run) in subjects.iter_mut() {
        let mut count = 1;
        while count < 1 << 20 && timed(run, count) * f64::from(count) < TURN_NS {
            count *= 2;
        }
        times.push(count);
    }
    let mut round = || {
        let turns = subjects.iter_mut().zip(&times);
        turns.map(|((_, run), times)| timed(run, *times)).collect()
    };
    (0..ROUNDS).map(|_| round()).collect()
}

/// Nanoseconds of one time.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn timed(run: &mut dyn FnMut(u32), times: u32) -> f64 {
    let start = Instant::now();
    run(times);
    start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}

/// How many times as long `theirs` takes as `ours`.
fn ratio(rounds: &[Vec<f64>], ours: usize, theirs: usize) -> f64 {
    median(rounds.iter().map(|round| round[theirs] / round[ours]))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
