//! An error histogram as a drawing: both axes logarithmic, so that few large errors are seen beside many small ones.

use std::fmt::Write;

use super::html::{Markup, escape};
use crate::proof::{Bin, Difference};

/// Bins per factor of ten.
const PER_DECADE: usize = 5;
/// Size of the drawing and of the axes' margins, in pixels.
const SIZE: (f64, f64) = (640.0, 260.0);
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 44.0;

/// A histogram of the errors of up to two `series`, each with its name; `limit` is the error that counts as equal.
/// Nothing where no element has an error.
#[must_use]
pub fn histogram(series: &[(&str, &Difference)], limit: Option<f64>) -> Option<Markup> {
    let binned: Vec<(&str, Vec<Bin>)> =
        series.iter().map(|&(name, difference)| (name, difference.bins(PER_DECADE).1)).collect();
    let bins = || binned.iter().flat_map(|(_, bins)| bins);
    let least = bins().map(|bin| bin.from).chain(limit).fold(f64::INFINITY, f64::min).log10();
    let greatest = bins().map(|bin| bin.to).chain(limit).fold(0.0, f64::max).log10();
    let most = bins().map(|bin| bin.count).max()?;
    // Whole decades, with a little room.
    let axis = Axis {
        from: (least + 1e-9).floor(),
        to: (greatest - 1e-9).ceil(),
        most: (most as f64).log10().max(1.0),
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" aria-label=\"Histogram of errors\">",
        SIZE.0, SIZE.1
    );
    axis.draw(&mut svg);
    for ((name, bins), class) in binned.iter().zip(["before", "after"]) {
        axis.bars(&mut svg, name, bins, class);
    }
    if let Some(limit) = limit {
        let x = axis.x(limit.log10());
        // Writing to a string does not fail, here and below.
        let _ = write!(svg, "<path class=\"limit\" d=\"M{x:.1} {TOP}V{:.1}\"/>", SIZE.1 - BOTTOM);
        let (anchor, x) = if x > SIZE.0 / 2.0 { ("end", x - 5.0) } else { ("start", x + 5.0) };
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">counts as equal</text>",
            TOP + 10.0
        );
    }
    svg.push_str("</svg>");
    Some(Markup(svg))
}

/// The range of the axes: log₁₀ of errors, and of the greatest count.
struct Axis {
    from: f64,
    to: f64,
    most: f64,
}

impl Axis {
    fn x(&self, order: f64) -> f64 {
        let share = (order - self.from) / (self.to - self.from).max(1.0);
        LEFT + share.clamp(0.0, 1.0) * (SIZE.0 - LEFT - RIGHT)
    }

    /// One element stands a little above none.
    fn y(&self, count: u64) -> f64 {
        let height = if count == 0 { 0.0 } else { ((count as f64).log10() + 0.3) / (self.most + 0.3) };
        SIZE.1 - BOTTOM - height * (SIZE.1 - TOP - BOTTOM)
    }

    fn draw(&self, svg: &mut String) {
        let (right, bottom) = (SIZE.0 - RIGHT, SIZE.1 - BOTTOM);
        // Labels at every decade where they have room.
        let step = ((self.to - self.from) / 10.0).ceil().max(1.0);
        let mut order = self.from;
        while order <= self.to {
            let x = self.x(order);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{:.1}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">1e{order}</text>",
                bottom + 4.0,
                bottom + 18.0
            );
            order += step;
        }
        for power in (0..=self.most.floor() as u32).step_by((self.most / 4.0).ceil() as usize) {
            let y = self.y(10_u64.pow(power));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right:.1}\"/><text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">1e{power}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">error, as a share of the greatest \
             value</text><text class=\"soft\" x=\"4\" y=\"12\">elements</text>",
            f64::midpoint(LEFT, right),
            SIZE.1 - 8.0
        );
    }

    /// The outline of a series, closed along the axis.
    fn bars(&self, svg: &mut String, name: &str, bins: &[Bin], class: &str) {
        let (Some(first), Some(_)) = (bins.first(), bins.last()) else { return };
        let bottom = SIZE.1 - BOTTOM;
        let mut path = format!("M{:.1} {bottom:.1}", self.x(first.from.log10()));
        for bin in bins {
            let _ = write!(path, "V{:.1}H{:.1}", self.y(bin.count), self.x(bin.to.log10()));
        }
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"{path}V{bottom:.1}Z\"><title>{}</title></path>",
            escape(name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{ElementType, Tensor};

    #[test]
    fn everything_is_inside_the_drawing() {
        let tensor = |values: &[f64]| Tensor::from_f64(ElementType::F64, &[values.len()], values);
        let (mut one, mut other) = (Difference::new(), Difference::new());
        one.add(&tensor(&[1.0; 4]), &tensor(&[1.0, 1.0 + 1e-7, 1.0 - 3e-6, 1.0 + 2e-13]), "");
        other.add(&tensor(&[1.0; 3]), &tensor(&[1e30, 1.0, 1.5]), "");
        let svg = histogram(&[("<b>", &one), ("after", &other)], Some(1e-4)).unwrap().0;
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let numbers = svg.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
        assert!(numbers.filter_map(|number| number.parse::<f64>().ok()).all(|number| number <= SIZE.0));
    }

    #[test]
    fn without_errors_there_is_nothing_to_draw() {
        assert_eq!(histogram(&[("one", &Difference::new())], Some(1e-4)), None);
    }
}
