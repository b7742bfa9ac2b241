//! Curves as SVG, to be put into a page.
//!
//! Scales are bent here and not by the library: a logarithmic one is a plain one of logarithms, whose
//! labels say what they stand for.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A line with a name.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How an axis is bent, and what its labels say.
#[derive(Clone, Copy)]
struct Axis<'a> {
    title: &'a str,
    bend: fn(f64) -> f64,
    label: fn(f64) -> String,
}

/// Over a number of which each doubling takes the same room; the values on a logarithmic scale where
/// that says more.
pub(super) fn against(
    number: &str,
    curves: &[Curve],
    unit: &str,
    logarithmic: bool,
) -> Result<String> {
    let x = Axis {
        title: number,
        bend: f64::log2,
        label: |power| match power.fract() {
            0.0 => format!("{}", power.exp2()),
            _ => String::new(),
        },
    };
    let y = if logarithmic {
        powers_of_ten(unit)
    } else {
        Axis {
            title: unit,
            bend: |value| value,
            label: |value| format!("{value}"),
        }
    };
    draw(curves, x, y, !logarithmic)
}

/// Over quantiles, of which each further nine takes the same room.
pub(super) fn quantiles(curves: &[Curve], unit: &str) -> Result<String> {
    let x = Axis {
        title: "of the calls were answered within",
        bend: |quantile| -(1.0 - quantile).log10(),
        label: |nines| match nines {
            0.0 => "0 %".to_owned(),
            1.0 => "90 %".to_owned(),
            2.0 => "99 %".to_owned(),
            nines if nines.fract() == 0.0 => format!("99.{} %", "9".repeat(nines as usize - 2)),
            _ => String::new(),
        },
    };
    draw(curves, x, powers_of_ten(unit), false)
}

fn powers_of_ten(title: &str) -> Axis<'_> {
    Axis {
        title,
        bend: f64::log10,
        label: |power| match 10_f64.powf(power) {
            small if small < 10.0 => format!("{small:.1}"),
            large => format!("{large:.0}"),
        },
    }
}

/// Draws all of them, the values from zero on if asked for.
fn draw(curves: &[Curve], x: Axis<'_>, y: Axis<'_>, from_zero: bool) -> Result<String> {
    let bent: Vec<(&str, Vec<(f64, f64)>)> = curves
        .iter()
        .map(|curve| {
            let points = curve.points.iter();
            let points = points.map(|(at, value)| ((x.bend)(*at), (y.bend)(*value)));
            (
                &*curve.name,
                points
                    .filter(|(at, value)| at.is_finite() && value.is_finite())
                    .collect(),
            )
        })
        .collect();
    let points = || bent.iter().flat_map(|(_, points)| points.iter());
    if points().next().is_none() {
        return Ok("<p>Nothing was measured for this.</p>".to_owned());
    }
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(f64::MIN, f64::max);
    let bottom = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let room = (top - bottom).abs().max(0.1) * 0.08;
    let bottom = if from_zero { 0.0 } else { bottom - room };
    let mut text = String::new();
    svg(&mut text, &bent, (0.0..right, bottom..top + room), x, y)
        .map_err(|error| anyhow!("cannot draw a plot: {error}"))?;
    let names = curves.iter().map(|Curve { name, .. }| {
        let RGBColor(red, green, blue) = colour(name);
        let class = if is_ours(name) { " class=ours" } else { "" };
        format!("<span{class}><i style='background:rgb({red},{green},{blue})'></i>{name}</span>")
    });
    Ok(format!(
        "{text}<div class=key>{}</div>",
        names.collect::<String>()
    ))
}

/// The same for the same name in all plots.
fn colour(name: &str) -> RGBColor {
    let known = COLOURS.iter().find(|(known, _)| *known == name);
    known.map_or(BLACK, |(_, colour)| *colour)
}

fn is_ours(name: &str) -> bool {
    name.starts_with("ours")
}

type Ranges = (std::ops::Range<f64>, std::ops::Range<f64>);

fn svg(
    text: &mut String,
    curves: &[(&str, Vec<(f64, f64)>)],
    (across, up): Ranges,
    x: Axis<'_>,
    y: Axis<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(227, 231, 236))
        .axis_style(RGBColor(150, 160, 172))
        .label_style(("sans-serif", 14).into_font().color(&GREY))
        .axis_desc_style(("sans-serif", 14).into_font().color(&GREY))
        .x_desc(x.title)
        .y_desc(y.title)
        .x_labels(8)
        .y_labels(7)
        .x_label_formatter(&|value| (x.label)(*value))
        .y_label_formatter(&|value| (y.label)(*value))
        .draw()?;
    for (name, points) in curves {
        let colour = colour(name);
        // Ours stand out.
        let width = if is_ours(name) { 3 } else { 2 };
        let style = ShapeStyle::from(colour).stroke_width(width);
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, width, colour.filled()));
        chart.draw_series(dots)?;
    }
    root.present()?;
    Ok(())
}

const SIZE: (u32, u32) = (640, 400);

const GREY: RGBColor = RGBColor(101, 112, 127);

/// Told apart also by those who see few colours; one of ours is darker than what it stands on.
const COLOURS: [(&str, RGBColor); 11] = [
    ("floor", RGBColor(120, 128, 138)),
    ("lapin", RGBColor(240, 180, 60)),
    ("ours-lapin", RGBColor(200, 90, 0)),
    ("ours-lapin-blocking", RGBColor(140, 60, 20)),
    ("amiquip", RGBColor(110, 190, 235)),
    ("ours-amiquip", RGBColor(0, 90, 170)),
    ("ours-amiquip-async", RGBColor(20, 50, 110)),
    ("ours-amiquip-threads", RGBColor(90, 120, 200)),
    ("amqprs", RGBColor(110, 180, 120)),
    ("lapin-task", RGBColor(215, 170, 200)),
    ("lapin-steps", RGBColor(190, 120, 170)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_with_their_names() {
        let curve = Curve {
            name: "ours".to_owned(),
            points: vec![(1.0, 2.0), (64.0, 20.0)],
        };
        let svg = against("calls in flight", &[curve], "calls/s", false).expect("a plot");
        assert!(svg.starts_with("<svg") && svg.contains("ours") && svg.contains("calls in flight"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let nothing = quantiles(&[], "ms").expect("a text");
        assert!(!nothing.contains("<svg"), "{nothing}");
    }
}
