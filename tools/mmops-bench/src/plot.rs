// SPDX-License-Identifier: GPL-2.0

//! `bench.svg`: a bar for each case, as long as mmops is faster, and a mark where it should be.

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{duration, Record};

const WIDTH: u32 = 1100;
const ROW: u32 = 34;
const MET: RGBColor = RGBColor(0x2a, 0x7f, 0xb8);
const MISSED: RGBColor = RGBColor(0xd9, 0x6b, 0x27);
const WANTED: RGBColor = RGBColor(0x20, 0x20, 0x20);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const FONT: &str = "sans-serif";

/// Draws `records` to the file `path`; `machine` says where they were measured.
pub fn draw(path: &Path, records: &[Record], machine: &str) -> Result<()> {
    let height = ROW * records.len() as u32 + 200;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    draw_on(&root, records, machine)
        .and_then(|()| root.present().map_err(Into::into))
        .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn text(size: i32, align: HPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font());
    style.color(&BLACK).pos(Pos::new(align, VPos::Center))
}

fn quartile_style() -> ShapeStyle {
    BLACK.mix(0.55).stroke_width(2)
}

fn draw_on(root: &Area<'_>, records: &[Record], machine: &str) -> Drawn {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(104);
    let title = "How many times faster mmops is than what the kernel has";
    head.draw_text(title, &text(22, HPos::Left), (20, 24))?;
    let grey = BLACK.mix(0.65);
    let subtitle = text(14, HPos::Left).color(&grey);
    head.draw_text(machine, &subtitle, (20, 48))?;
    legend(&head, (20, 74))?;

    let rows = records.len() as f64;
    let mut chart = ChartBuilder::on(&body)
        .margin_right(30)
        .margin_bottom(10)
        .x_label_area_size(52)
        .y_label_area_size(360)
        // Room for the figures behind the longest bar; the first case is at the top.
        .build_cartesian_2d(0.0..longest(records) * 1.32, rows..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(10)
        .x_label_formatter(&|x| format!("{x}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .x_desc("ratio of medians: time of the reference / time of mmops")
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .draw()?;

    let rows = || records.iter().enumerate().map(|(row, r)| (row as f64, r));
    chart.draw_series(rows().map(|(top, r)| {
        let color = if r.met { MET } else { MISSED };
        Rectangle::new([(0.0, top + 0.2), (r.ratio, top + 0.8)], color.filled())
    }))?;
    chart.draw_series(rows().map(|(top, r)| {
        let [lower, upper] = r.ratio_quartiles;
        PathElement::new([(lower, top + 0.5), (upper, top + 0.5)], quartile_style())
    }))?;
    chart.draw_series(rows().map(|(top, r)| {
        let ends = [(r.wanted, top + 0.08), (r.wanted, top + 0.92)];
        PathElement::new(ends, WANTED.stroke_width(3))
    }))?;
    let as_fast = [(1.0, 0.0), (1.0, records.len() as f64)];
    chart.draw_series([PathElement::new(as_fast, BLACK.mix(0.35))])?;

    // The axis of the cases has names and no numbers, so they are written by hand.
    let pixel = |x, y| chart.plotting_area().map_coordinate(&(x, y));
    let (x, y) = pixel(0.0, 0.0);
    root.draw_text("case", &text(15, HPos::Right), (x - 10, y - 8))?;
    for (top, record) in rows() {
        let (x, y) = pixel(0.0, top + 0.5);
        root.draw_text(&record.case, &text(14, HPos::Right), (x - 10, y))?;
        let (x, y) = pixel(extent(record), top + 0.5);
        let times = [record.reference_ns, record.mmops_ns].map(duration);
        let figures = format!("{:.2} ({} : {})", record.ratio, times[0], times[1]);
        root.draw_text(&figures, &text(13, HPos::Left), (x + 8, y))?;
    }
    Ok(())
}

/// Where the last mark of a row is.
fn extent(record: &Record) -> f64 {
    let [_, upper] = record.ratio_quartiles;
    record.ratio.max(record.wanted).max(upper)
}

fn longest(records: &[Record]) -> f64 {
    records.iter().map(extent).fold(1.0, f64::max)
}

/// Explains the marks, in one line that begins at `(x, y)`.
fn legend(area: &Area<'_>, (x, y): (i32, i32)) -> Drawn {
    let entry = |x, name| area.draw_text(name, &text(13, HPos::Left), (x + 26, y));
    let bar = |x| [(x, y - 6), (x + 18, y + 6)];
    area.draw(&Rectangle::new(bar(x), MET.filled()))?;
    entry(x, "wanted ratio met")?;
    area.draw(&Rectangle::new(bar(x + 180), MISSED.filled()))?;
    entry(x + 180, "wanted ratio missed")?;
    let mark = [(x + 369, y - 8), (x + 369, y + 8)];
    area.draw(&PathElement::new(mark, WANTED.stroke_width(3)))?;
    entry(x + 360, "wanted ratio")?;
    let line = [(x + 500, y), (x + 518, y)];
    area.draw(&PathElement::new(line, quartile_style()))?;
    entry(x + 500, "middle half of the pairs")?;
    area.draw(&PathElement::new(
        [(x + 709, y - 8), (x + 709, y + 8)],
        BLACK.mix(0.35),
    ))?;
    entry(
        x + 700,
        "as fast as the reference; in brackets the two times",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Samples;
    use crate::cases::CASES;

    #[test]
    fn every_case_has_its_bar() {
        let records: Vec<_> = CASES
            .iter()
            .enumerate()
            .map(|(i, case)| {
                let samples = Samples {
                    reference: vec![50e6, 52e6, 48e6],
                    mmops: vec![(10 + 4 * i) as f64 * 1e6; 3],
                    ioctl: Vec::new(),
                };
                Record::new(case, &samples)
            })
            .collect();
        let path = std::env::temp_dir().join(format!("mmops-bench-{}.svg", std::process::id()));
        draw(&path, &records, "machine of the test").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for case in CASES {
            assert!(svg.contains(case.name), "{}", case.name);
        }
        for text in [
            "machine of the test",
            "ratio of medians",
            "wanted ratio met",
            "5.00 (",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        // As many bars in each colour as there are cases, and one in the legend.
        let bars = |color: &str| svg.matches(&format!("fill=\"{color}\"")).count();
        let met = records.iter().filter(|record| record.met).count();
        assert_eq!(bars("#2A7FB8"), met + 1);
        assert_eq!(bars("#D96B27"), records.len() - met + 1);
    }

    #[test]
    fn an_impossible_path_is_named() {
        let error = draw(Path::new("/nonexistent/bench.svg"), &[], "").unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/bench.svg"),
            "{error}"
        );
    }
}
