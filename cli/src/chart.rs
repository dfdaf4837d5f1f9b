//! Draws figures as bars: in a terminal, and as an SVG file.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use plotters::prelude::*;

/// A measured call.
pub(crate) struct Figure {
    pub(crate) case: &'static str,
    pub(crate) vocab: usize,
    pub(crate) microseconds: f64,
    /// The time of computing the maximum of the same rows, in microseconds.
    pub(crate) maximum: f64,
}

impl Figure {
    pub(crate) fn ratio(&self) -> f64 {
        self.microseconds / self.maximum
    }
}

/// The length of the longest bar in a terminal, in columns.
const COLUMNS: f64 = 40.0;
/// A full block, and the blocks of one to seven eighths.
const BLOCKS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// The lines of the chart for a terminal. The bars show times. The longest bar has the full length. The caller must
/// remove the colours if the output is not a terminal.
pub(crate) fn lines(figures: &[Figure]) -> Vec<String> {
    let longest = figures.iter().map(|figure| figure.microseconds).fold(0.0, f64::max);
    let width = figures.iter().map(|figure| figure.case.len()).max().unwrap_or(0);
    let bold = Style::new().bold();
    let colour = AnsiColor::Blue.on_default();
    let mut lines = Vec::new();
    let mut vocab = None;
    for figure in figures {
        if vocab != Some(figure.vocab) {
            vocab = Some(figure.vocab);
            lines.push(format!(
                "{bold}vocab {}{bold:#}  (maximum of each row: {:.1} µs)",
                figure.vocab, figure.maximum
            ));
        }
        lines.push(format!(
            "  {:<width$}  {:>9.1} µs  {:>5.1}×  {colour}{}{colour:#}",
            figure.case,
            figure.microseconds,
            figure.ratio(),
            bar(figure.microseconds / longest),
        ));
    }
    lines
}

/// A bar of `fraction` of the largest length.
fn bar(fraction: f64) -> String {
    let eighths = (fraction * COLUMNS * 8.0).round() as usize;
    "█".repeat(eighths / 8) + BLOCKS[eighths % 8]
}

/// Draws the chart into a file: one group of bars per vocabulary.
pub(crate) fn write_svg(path: &Path, title: &str, figures: &[Figure]) -> Result<(), String> {
    let mut cases: Vec<&str> = Vec::new();
    let mut vocabs: Vec<usize> = Vec::new();
    for figure in figures {
        if !cases.contains(&figure.case) {
            cases.push(figure.case);
        }
        if !vocabs.contains(&figure.vocab) {
            vocabs.push(figure.vocab);
        }
    }
    let highest = figures.iter().map(|figure| figure.microseconds).fold(0.0, f64::max) * 1.15;
    // One unit of the horizontal axis is a group of bars.
    let groups = vocabs.len() as f64;
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (960, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..groups, 0.0..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * vocabs.len() + 1)
            .x_label_formatter(&|x| {
                let is_middle = (x.fract() - 0.5).abs() < 1e-6;
                let vocab = is_middle.then(|| vocabs.get(*x as usize)).flatten();
                vocab.map_or_else(String::new, |vocab| format!("vocab {vocab}"))
            })
            .y_desc("µs per call")
            .draw()?;
        let width = 0.84 / cases.len() as f64;
        for (index, &case) in cases.iter().enumerate() {
            let colour = Palette99::pick(index).to_rgba();
            let bars = figures.iter().filter(|figure| figure.case == case).map(|figure| {
                let group = vocabs.iter().position(|&vocab| vocab == figure.vocab).unwrap_or(0) as f64;
                let left = group + 0.08 + index as f64 * width;
                Rectangle::new([(left, 0.0), (left + 0.9 * width, figure.microseconds)], colour.filled())
            });
            chart
                .draw_series(bars)?
                .label(case)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .label_font(("sans-serif", 14))
            .draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_a_resolution_of_eighths() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0), "█".repeat(40));
        assert_eq!(bar(1.5 / 40.0), "█▌");
        assert_eq!(bar(0.125 / 40.0), "▏");
    }
}
