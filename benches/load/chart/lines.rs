//! Lines over a row of places, such as numbers of connections or percentiles, which stand at equal distances.
//!
//! The vertical axis is linear from 0, or logarithmic where the values span powers of ten. Names stand at the
//! ends of the lines, pushed apart where they would touch.
//!
//! Not here: what is drawn (`picture.rs`).

use std::fmt::Write as _;

use super::{MARGIN, Svg, TOP, Tone, WIDTH, ticks};

/// One peer's: a value for each place, or none.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) tone: Tone,
    pub(crate) values: Vec<Option<f64>>,
}

/// A whole picture.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// What stands below the places.
    pub(crate) places: Vec<String>,
    pub(crate) is_logarithmic: bool,
    /// How a value is written.
    pub(crate) written: fn(f64) -> String,
    pub(crate) lines: Vec<Line>,
}

const HEIGHT: f64 = 380.0;
const LEFT: f64 = 74.0;

/// What the names at the right take.
const NAMES: f64 = 120.0;

/// Distance that two names keep.
const APART: f64 = 16.0;

/// Where a value stands on the vertical axis.
struct Axis {
    ticks: Vec<f64>,
    is_logarithmic: bool,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, is_logarithmic: bool) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        if !is_logarithmic {
            return Self {
                ticks: ticks(most),
                is_logarithmic,
            };
        }
        let least = values.filter(|value| *value > 0.0).fold(most, f64::min);
        let mut tick = 10_f64.powf(least.max(1e-9).log10().floor());
        let mut ticks = vec![tick];
        while tick < most {
            tick *= 10.0;
            ticks.push(tick);
        }
        Self {
            ticks,
            is_logarithmic,
        }
    }

    /// From 0 at the lowest tick to 1 at the highest.
    fn share(&self, value: f64) -> f64 {
        let (Some(low), Some(high)) = (self.ticks.first(), self.ticks.last()) else {
            return 0.0;
        };
        let share = if self.is_logarithmic {
            (value / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

impl Lines {
    /// Draws it.
    pub(crate) fn svg(&self) -> String {
        let mut svg = Svg::new(HEIGHT, &self.title, &self.subtitle);
        let values = self
            .lines
            .iter()
            .flat_map(|line| line.values.iter().flatten());
        let axis = Axis::of(values.copied(), self.is_logarithmic);
        let (foot, right) = (HEIGHT - 42.0, WIDTH - NAMES - MARGIN);
        let y = |value: f64| foot - (foot - TOP) * axis.share(value);
        let gaps = self.places.len().saturating_sub(1).max(1) as f64;
        let x = |place: usize| LEFT + (right - LEFT) * place as f64 / gaps;
        for tick in &axis.ticks {
            svg.stroke("grid", (LEFT, y(*tick)), (right, y(*tick)));
            let shown = if self.is_logarithmic {
                (self.written)(*tick)
            } else {
                trimmed(*tick)
            };
            svg.words(LEFT - 10.0, y(*tick) + 4.0, "end", "soft", &shown);
        }
        for (place, words) in self.places.iter().enumerate() {
            svg.words(x(place), foot + 22.0, "middle", "soft", words);
        }
        for line in &self.lines {
            let points: Vec<(f64, f64)> = line
                .values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| value.map(|value| (x(place), y(value))))
                .collect();
            path(&mut svg, line.tone, &points);
        }
        for (line, at) in self.name_places(&y) {
            let class = if line.tone.is_own() { "own" } else { "" };
            let last = line.values.iter().flatten().last().copied();
            svg.rect(
                (right + 12.0, at - 5.0),
                (10.0, 10.0),
                line.tone.colour(),
                1.0,
            );
            let words = format!("{} {}", line.name, (self.written)(last.unwrap_or_default()));
            svg.words(right + 28.0, at + 4.5, "start", class, &words);
        }
        svg.finish()
    }

    /// Each line with the height at which its name stands, from the top, none closer than [`APART`].
    fn name_places(&self, y: &dyn Fn(f64) -> f64) -> Vec<(&Line, f64)> {
        let mut places: Vec<(&Line, f64)> = self
            .lines
            .iter()
            .filter_map(|line| {
                let last = line.values.iter().flatten().last()?;
                Some((line, y(*last)))
            })
            .collect();
        places.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let mut lowest = HEIGHT - 42.0;
        for (_, at) in places.iter_mut().rev() {
            *at = at.min(lowest);
            lowest = *at - APART;
        }
        places
    }
}

fn path(svg: &mut Svg, tone: Tone, points: &[(f64, f64)]) {
    let joined: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let colour = tone.colour();
    let _ = writeln!(
        svg.text,
        "<polyline class=\"line\" stroke=\"{colour}\" points=\"{}\"/>",
        joined.join(" ")
    );
    for (x, y) in points {
        let _ = writeln!(
            svg.text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"/>"
        );
    }
}

/// A tick without zeros that say nothing.
fn trimmed(tick: f64) -> String {
    if tick >= 1.0 || tick == 0.0 {
        let text = format!("{tick:.1}");
        match text.strip_suffix(".0") {
            Some(_) => super::grouped(tick),
            None => text,
        }
    } else {
        let text = format!("{tick:.3}");
        text.trim_end_matches('0').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_gives_each_power_of_ten_the_same_room() {
        let axis = Axis::of([2.0, 900.0].into_iter(), true);
        assert_eq!(axis.ticks.len(), 4);
        for (value, share) in [
            (1.0, 0.0),
            (10.0, 1.0 / 3.0),
            (100.0, 2.0 / 3.0),
            (1000.0, 1.0),
        ] {
            assert!((axis.share(value) - share).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn names_at_the_same_height_are_pushed_apart() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            tone: Tone::Other(0),
            values: vec![Some(1.0), Some(2.0)],
        };
        let lines = Lines {
            title: String::new(),
            subtitle: String::new(),
            places: vec!["1".to_owned(), "2".to_owned()],
            is_logarithmic: false,
            written: crate::chart::figure,
            lines: vec![line("a"), line("b"), line("c")],
        };
        let places = lines.name_places(&|_| 330.0);
        for pair in places.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= APART, "{}", pair[0].1);
        }
        assert_eq!(lines.svg().matches("<polyline").count(), 3);
    }

    #[test]
    fn ticks_are_shown_without_idle_zeros() {
        let shown = [0.0, 0.5, 0.25, 2.0, 2.5, 20_000.0].map(trimmed);
        assert_eq!(shown, ["0", "0.5", "0.25", "2", "2.5", "20,000"]);
    }
}
