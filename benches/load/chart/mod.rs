//! Pictures of a run, as SVG: bars for a workload, lines for latency and scale.
//!
//! A picture brings its own background, and both it and the text change with the reader's light or dark
//! scheme: so it is legible on any page, also where page and system disagree. Our own servers are in colour,
//! the others in greys and blues. Fonts are the reader's.
//!
//! Invariants
//! - What stands in a picture is text, never an outline of one: it can be searched and read aloud.
//! - The same figures make the same bytes.
//!
//! Not here: which pictures there are (`picture.rs`).

mod bars;
mod lines;

pub(crate) use bars::{Bar, Bars};
pub(crate) use lines::{Line, Lines};

use std::fmt::Write as _;

use crate::peers::PEERS;

/// Width of every picture, in its own units.
const WIDTH: f64 = 760.0;

/// Left and right of everything.
const MARGIN: f64 = 24.0;

/// The upper edge of what stands below title and subtitle.
const TOP: f64 = 74.0;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px;fill:#1f2933}\
.card{fill:#ffffff;stroke:#d9dee5}.title{font-size:17px;font-weight:600}.soft{fill:#5c6773;font-size:12px}\
.own{font-weight:600}.grid{stroke:#e4e8ed;stroke-width:1}.whisker{stroke:#1f2933;stroke-width:1.3;opacity:.75}\
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}\
@media(prefers-color-scheme:dark){text{fill:#e6e9ed}.card{fill:#14191f;stroke:#333c47}.soft{fill:#9aa5b1}\
.grid{stroke:#2a323c}.whisker{stroke:#e6e9ed}}";

/// Whose figures they are; decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// hukilau with a script.
    Huki,
    /// hukilau without one.
    Core,
    /// The kernel alone.
    Floor,
    /// Somebody else, by a number of its own.
    Other(usize),
}

impl Tone {
    /// The same for a peer in every picture.
    pub(crate) fn of(peer: &str) -> Self {
        match peer {
            "huki" => Self::Huki,
            "core" => Self::Core,
            "floor" => Self::Floor,
            _ => {
                let others = PEERS.iter().skip(3);
                Self::Other(others.take_while(|other| other.name != peer).count())
            }
        }
    }

    fn is_own(self) -> bool {
        matches!(self, Self::Huki | Self::Core)
    }

    /// Legible on white and on near-black.
    fn colour(self) -> &'static str {
        const OTHERS: [&str; 8] = [
            "#4f7fc4", "#7aa5dc", "#8d7fc2", "#b59bd6", "#7f8fa6", "#3f9aa8", "#6a9c78", "#a58a6f",
        ];
        match self {
            Self::Huki => "#e4572e",
            Self::Core => "#f2a541",
            Self::Floor => "#a3acb8",
            Self::Other(nth) => OTHERS[nth % OTHERS.len()],
        }
    }
}

/// A picture under way.
struct Svg {
    text: String,
}

impl Svg {
    /// Begins with the card, the title and what it shows.
    fn new(height: f64, title: &str, subtitle: &str) -> Self {
        let mut svg = Self {
            text: String::new(),
        };
        let _ = write!(
            svg.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
            WIDTH - 1.0,
            height - 1.0,
            title = escaped(title),
        );
        svg.words(MARGIN, 32.0, "start", "title", title);
        svg.words(MARGIN, 52.0, "start", "soft", subtitle);
        svg
    }

    /// Text at its baseline; `anchor` is `start`, `middle` or `end`.
    fn words(&mut self, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            escaped(words)
        );
    }

    fn rect(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        colour: &str,
        opacity: f64,
    ) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{colour}\" opacity=\"{opacity}\"/>",
            width.max(0.0)
        );
    }

    fn stroke(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// Text as it may stand between tags and in quotes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// Round numbers from 0 to at least `most`, four to eight of them.
fn ticks(most: f64) -> Vec<f64> {
    if !(most.is_finite() && most > 0.0) {
        return vec![0.0, 1.0];
    }
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| most / step <= 7.0)
        .unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < most) {
        ticks.push(step * ticks.len() as f64);
    }
    ticks
}

/// A figure with three digits or so, thousands apart.
pub(crate) fn figure(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        grouped(value.round())
    }
}

/// Microseconds, as milliseconds from one on.
pub(crate) fn microseconds(value: f64) -> String {
    let (value, unit) = if value < 1000.0 {
        (value, "µs")
    } else {
        (value / 1000.0, "ms")
    };
    let shown = if value.fract() == 0.0 {
        grouped(value)
    } else {
        figure(value)
    };
    format!("{shown} {unit}")
}

/// A whole number with a comma before each three digits.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_most() {
        assert_eq!(ticks(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for most in [0.001, 0.7, 3.0, 19.9, 101.0, 134_873.0] {
            let ticks = ticks(most);
            assert!((3..=9).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(ticks.last().unwrap() >= &most, "{most}");
        }
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        assert_eq!(ticks(f64::NAN), [0.0, 1.0]);
    }

    #[test]
    fn figures_have_three_digits_and_thousands_apart() {
        let shown: Vec<_> = [0.0, 0.123, 9.876, 45.67, 483.2, 134_873.0]
            .map(figure)
            .into();
        assert_eq!(shown, ["0", "0.12", "9.88", "45.7", "483", "134,873"]);
    }

    #[test]
    fn microseconds_become_milliseconds() {
        let shown = [10.0, 0.5, 999.4, 1000.0, 58_720.0].map(microseconds);
        assert_eq!(shown, ["10 µs", "0.50 µs", "999 µs", "1 ms", "58.7 ms"]);
    }

    #[test]
    fn marks_of_xml_are_escaped() {
        assert_eq!(escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
