//! Plots as inline SVG: lines over linear or logarithmic axes, drawn by nothing but what is here.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// One axis: its range in the units of the data, and the places that have a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub label: &'static str,
    min: f64,
    max: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to `max`, with four to eight ticks at round distances.
    pub fn linear(label: &'static str, max: f64, text: impl Fn(f64) -> String) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let rough = max / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|&step| step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let count = (max / step).floor() as u32;
        let ticks = (0..=count).map(|index| f64::from(index) * step).map(|at| (at, text(at))).collect();
        Self { label, min: 0.0, max, logarithmic: false, ticks }
    }

    /// Whole decades around the values, which are positive.
    pub fn logarithmic(label: &'static str, values: impl Iterator<Item = f64>, text: impl Fn(f64) -> String) -> Self {
        let (low, high) =
            values.filter(|&value| value > 0.0).fold((f64::MAX, 0f64), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let last = last.max(first + 1);
        let ticks = (first..=last).map(|power| 10f64.powi(power)).map(|at| (at, text(at))).collect();
        Self { label, min: 10f64.powi(first), max: 10f64.powi(last), logarithmic: true, ticks }
    }

    /// With given places.
    pub fn with_ticks(label: &'static str, max: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { label, min: 0.0, max: if max > 0.0 { max } else { 1.0 }, logarithmic: false, ticks }
    }

    /// Where a value lies on the axis, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.min).log10() - self.min.log10()) / (self.max.log10() - self.min.log10())
        } else {
            (value - self.min) / (self.max - self.min)
        };
        share.clamp(0.0, 1.0)
    }
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub name: String,
    pub color: &'static str,
    pub dashed: bool,
    pub points: Vec<(f64, f64)>,
}

/// Draws the lines, with a legend above them.
pub fn plot(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = draw(&mut out, title, x, y, lines);
    out
}

fn draw(out: &mut String, title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> std::fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let at_x = |value: f64| LEFT + x.share(value) * (right - LEFT);
    let at_y = |value: f64| bottom - y.share(value) * (bottom - TOP);
    out.push_str("<div class=\"legend\">");
    for line in lines {
        let dash = if line.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        write!(
            out,
            "<span><svg width=\"22\" height=\"8\" aria-hidden=\"true\"><path d=\"M0 4H22\" stroke=\"{}\" stroke-width=\"2\"{dash}/></svg> {}</span>",
            line.color, line.name
        )?;
    }
    writeln!(out, "</div>")?;
    writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">")?;
    for (value, text) in &x.ticks {
        let at = at_x(*value);
        writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>")?;
        writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", bottom + 16.0)?;
    }
    for (value, text) in &y.ticks {
        let at = at_y(*value);
        writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
        writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0)?;
    }
    let middle = (LEFT + right) / 2.0;
    writeln!(
        out,
        "<text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 6.0,
        x.label
    )?;
    writeln!(
        out,
        "<text class=\"axis\" transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (TOP + bottom) / 2.0,
        y.label
    )?;
    for line in lines {
        let points: Vec<String> = line.points.iter().map(|&(a, b)| format!("{:.1},{:.1}", at_x(a), at_y(b))).collect();
        let dash = if line.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        writeln!(out, "<polyline points=\"{}\" stroke=\"{}\"{dash}/>", points.join(" "), line.color)?;
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let ticks =
            |max: f64| Axis::linear("", max, |v| format!("{v}")).ticks.into_iter().map(|(_, t)| t).collect::<Vec<_>>();
        assert_eq!(ticks(10.0), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(ticks(1_234.0), ["0", "500", "1000"]);
        assert_eq!(ticks(0.0).len(), 6);
        let axis = Axis::logarithmic("", [0.0, 3.0, 450.0].into_iter(), |v| format!("{v}"));
        assert_eq!(axis.ticks.iter().map(|(v, _)| *v).collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!((axis.share(1.0), axis.share(1_000.0)), (0.0, 1.0));
        assert!((axis.share(31.622_776_6) - 0.5).abs() < 1e-6);
        assert_eq!(Axis::logarithmic("", std::iter::empty(), |_| String::new()).ticks.len(), 2);
        assert_eq!(Axis::logarithmic("", std::iter::once(10.0), |_| String::new()).ticks.len(), 2);
    }

    #[test]
    fn points_lie_in_the_frame() {
        let (x, y) = (Axis::linear("x", 10.0, |v| format!("{v}")), Axis::linear("y", 5.0, |v| format!("{v}")));
        let line =
            Line { name: "a".into(), color: "#000", dashed: true, points: vec![(0.0, 0.0), (10.0, 5.0), (99.0, -1.0)] };
        let text = plot("t", &x, &y, &[line]);
        assert!(text.contains("points=\"74.0,240.0 846.0,12.0 846.0,240.0\""), "{text}");
    }
}
