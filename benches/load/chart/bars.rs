//! Bars from left to right, one to a peer: in full colour user time, pale the kernel's.
//!
//! A thin line across the end is the distance between the quartiles over the rounds. The longest bar is as
//! long as the picture allows, but a bar that would dwarf the others is cut, with its figure beside it.
//!
//! Not here: what is drawn (`picture.rs`).

use super::{MARGIN, Svg, TOP, Tone, WIDTH, ticks};

/// One peer's.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) tone: Tone,
    pub(crate) value: f64,
    /// How much of it is drawn in full colour.
    pub(crate) dark: f64,
    /// The quartiles of the value.
    pub(crate) quartiles: Option<(f64, f64)>,
    /// What stands behind the bar.
    pub(crate) label: String,
}

/// A whole picture.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) bars: Vec<Bar>,
}

/// Height of a row, and of the bar in it.
const ROW: f64 = 30.0;
const THICK: f64 = 18.0;

/// Where bars begin, and how much is left for their labels.
const LEFT: f64 = 160.0;
const LABELS: f64 = 150.0;

/// A bar more than this times the median is cut.
const CUT_AT: f64 = 6.0;

impl Bars {
    /// Draws it.
    pub(crate) fn svg(&self) -> String {
        let height = TOP + ROW * self.bars.len() as f64 + 40.0;
        let mut svg = Svg::new(height, &self.title, &self.subtitle);
        let longest = self.longest();
        let scale = ticks(longest);
        let most = scale.last().copied().unwrap_or(1.0);
        let x = |value: f64| LEFT + (WIDTH - LEFT - LABELS - MARGIN) * (value / most).min(1.0);
        let foot = TOP + ROW * self.bars.len() as f64;
        for tick in &scale {
            svg.stroke("grid", (x(*tick), TOP - 6.0), (x(*tick), foot + 2.0));
            let shown = if most < 1.0 {
                format!("{tick:.2}")
            } else if most < 8.0 && scale.iter().any(|tick| tick.fract() > 0.0) {
                format!("{tick:.1}")
            } else {
                super::grouped(*tick)
            };
            svg.words(x(*tick), foot + 18.0, "middle", "soft", &shown);
        }
        for (row, bar) in self.bars.iter().enumerate() {
            let y = TOP + ROW * row as f64 + (ROW - THICK) / 2.0;
            let class = if bar.tone.is_own() { "own" } else { "" };
            svg.words(LEFT - 12.0, y + 13.5, "end", class, &bar.name);
            let (end, dark) = (x(bar.value), x(bar.dark.min(bar.value)));
            svg.rect((LEFT, y), (end - LEFT, THICK), bar.tone.colour(), 0.55);
            if bar.dark > 0.0 {
                svg.rect((LEFT, y), (dark - LEFT, THICK), bar.tone.colour(), 1.0);
            }
            let mut label_at = end;
            if bar.value > most {
                svg.words(end - 6.0, y + 13.5, "end", "own", "»");
            } else if let Some((low, high)) = bar.quartiles {
                let middle = y + THICK / 2.0;
                svg.stroke("whisker", (x(low), middle), (x(high), middle));
                for end in [low, high] {
                    svg.stroke("whisker", (x(end), middle - 4.0), (x(end), middle + 4.0));
                }
                label_at = end.max(x(high));
            }
            svg.words(label_at + 9.0, y + 13.5, "start", class, &bar.label);
        }
        svg.finish()
    }

    /// What the picture has to hold: the largest value that is not cut.
    fn longest(&self) -> f64 {
        let middle = crate::report::median(self.bars.iter().map(|bar| bar.value));
        let ends = self.bars.iter().map(|bar| match bar.quartiles {
            Some((_, high)) => bar.value.max(high.min(bar.value * 1.5)),
            None => bar.value,
        });
        ends.filter(|end| *end <= middle * CUT_AT)
            .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(values: &[f64]) -> Bars {
        let bar = |value: &f64| Bar {
            name: "a <peer>".to_owned(),
            tone: Tone::Other(0),
            value: *value,
            dark: value / 2.0,
            quartiles: Some((value * 0.9, value * 1.1)),
            label: "x".to_owned(),
        };
        Bars {
            title: "T".to_owned(),
            subtitle: "S".to_owned(),
            bars: values.iter().map(bar).collect(),
        }
    }

    /// Widths of the light bars.
    fn widths(svg: &str) -> Vec<f64> {
        svg.lines()
            .filter(|line| line.contains("opacity=\"0.55\""))
            .map(|line| {
                let width = line.split("width=\"").nth(1).unwrap();
                width.split('"').next().unwrap().parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn lengths_are_as_the_values() {
        let widths = widths(&picture(&[1.0, 2.0, 4.0]).svg());
        assert!((widths[1] / widths[0] - 2.0).abs() < 0.01, "{widths:?}");
        assert!((widths[2] / widths[0] - 4.0).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn a_giant_is_cut_and_does_not_press_the_others_flat() {
        let svg = picture(&[1.0, 2.0, 3.0, 500.0]).svg();
        let widths = widths(&svg);
        assert!(widths[2] > widths[3] * 0.5, "{widths:?}");
        assert!(svg.contains('»'));
    }

    #[test]
    fn every_tag_is_closed_and_names_are_escaped() {
        let svg = picture(&[1.0, 2.0]).svg();
        assert!(svg.contains("a &lt;peer&gt;"));
        for tag in ["svg", "text", "title", "style"] {
            let opened = svg.matches(&format!("<{tag}")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
