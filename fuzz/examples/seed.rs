//! Turns the transcripts of `core/testdata` into first inputs for the fuzz targets.
//!
//! `cargo +nightly run --example seed -- DIRECTORY` writes `DIRECTORY/TARGET/NUMBER`. What of it is
//! worth keeping, `corpus.sh` finds out. The notation of the transcripts is read by the code that
//! reads it for their tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[expect(unused, reason = "their tests also write transcripts back")]
#[path = "../../core/tests/transcripts/frames.rs"]
mod frames;
#[expect(unused, reason = "their tests also write transcripts back")]
#[path = "../../core/tests/transcripts/markdown.rs"]
mod markdown;
#[expect(unused, reason = "their tests also write transcripts back")]
#[path = "../../core/tests/transcripts/notation.rs"]
mod notation;
#[expect(unused, reason = "their tests also play the transcripts")]
#[path = "../../core/tests/transcripts/settings.rs"]
mod settings;

use hukilau_core::ws::Role;
use markdown::Document;
use notation::Step;
use settings::Settings;

/// Longer cases say nothing that shorter ones do not, and make every run slower.
const INPUT_BYTES_MAX: usize = 2048;

/// Inputs by target.
#[derive(Default)]
struct Seeds(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Seeds {
    /// Adds an input of `target`: the bytes in front that choose how it is played, then `bytes`.
    fn add(&mut self, target: &'static str, front: &[u8], bytes: &[u8]) {
        if bytes.len() > INPUT_BYTES_MAX {
            return;
        }
        // The first byte chooses the cuts; any will do that differs from case to case.
        let sum = bytes
            .iter()
            .fold(bytes.len() as u8, |sum, byte| sum.wrapping_add(*byte));
        self.0
            .entry(target)
            .or_default()
            .push([&[sum], front, bytes].concat());
    }

    fn add_http(&mut self, bytes: &[u8]) {
        self.add("conn_server", &[], bytes);
        self.add("http1_head", &[], bytes);
        // Every input is a plan; text of the protocol makes for telling ones.
        for flags in [0xe0, 0xff, 0x03] {
            self.add("conn_pair", &[flags], bytes);
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            self.add("http1_chunked", &[], &bytes[end + 4..]);
        }
    }

    fn add_response(&mut self, bytes: &[u8]) {
        self.add("conn_client", &[], bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            self.add("http1_chunked", &[], &bytes[end + 4..]);
        }
    }

    fn add_websocket(&mut self, settings: &Settings, bytes: &[u8]) {
        if settings.deflate.is_none() {
            for target in ["ws_frames", "conn_websocket", "ws_tungstenite"] {
                self.add(target, &[], bytes);
            }
        }
        // Any peer; the contexts taken over or not; the sender is the other end.
        let contexts = if settings.context_takeover { 0x1e } else { 0 };
        let sender = if settings.role == Role::Client {
            0x80
        } else {
            0
        };
        self.add("ws_messages", &[1 | contexts | sender], bytes);
        // And as messages of our own.
        self.add("ws_messages", &[contexts | 0x60], bytes);
        self.add("conn_pair", &[0xe0], bytes);
    }
}

fn main() {
    let Some(into) = std::env::args_os().nth(1) else {
        eprintln!("usage: seed DIRECTORY");
        std::process::exit(2);
    };
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/testdata");
    let mut seeds = Seeds::default();
    for folder in ["http1", "ws"] {
        for path in markdown::files(&testdata.join(folder)) {
            let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
            let mut document = Document::parse(&text).expect("transcripts are well-formed");
            for case in document.cases_mut() {
                let settings = Settings::parse(&case.language, &case.info);
                let settings = settings.expect("a case says how it is played");
                let steps = settings
                    .parse_input(&case.input)
                    .expect("its input is read");
                let bytes: Vec<u8> = steps
                    .into_iter()
                    .filter_map(|step| match step {
                        Step::Bytes(bytes) => Some(bytes),
                        Step::Act(_) => None,
                    })
                    .flatten()
                    .collect();
                match case.language.as_str() {
                    "http" => seeds.add_http(&bytes),
                    "response" | "client" => seeds.add_response(&bytes),
                    _ => seeds.add_websocket(&settings, &bytes),
                }
            }
        }
    }
    let into = PathBuf::from(into);
    for (target, inputs) in &seeds.0 {
        let folder = into.join(target);
        fs::create_dir_all(&folder).expect("the directory can be made");
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(number.to_string()), input).expect("a seed can be written");
        }
        println!("{target}: {} seeds", inputs.len());
    }
}
