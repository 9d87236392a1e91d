// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl plot`

use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::cli::Plot;
use crate::log::{Log, Round};
use crate::units;

const WIDTH: u32 = 1000;
/// Height of a diagram.
const HEIGHT: u32 = 400;
/// Height of the axis over the highest value: room for the legend.
const HEADROOM: f64 = 1.35;
const FONT: &str = "sans-serif";
const BAR: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const LINE: RGBColor = RGBColor(0xd6, 0x27, 0x28);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const TEXT: RGBColor = RGBColor(0x33, 0x33, 0x33);

pub fn run(args: &Plot) -> Result<()> {
    let logs = args
        .logs
        .iter()
        .map(|path| Log::read(path))
        .collect::<Result<Vec<_>>>()?;
    for (log, path) in logs.iter().zip(&args.logs) {
        ensure!(
            !log.rounds.is_empty(),
            "{} has no round to draw",
            path.display()
        );
    }
    draw(&logs, &args.output)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("cannot draw {}", args.output.display()))?;
    say!("{}", args.output.display())?;
    Ok(())
}

fn draw(logs: &[Log], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (WIDTH, HEIGHT * logs.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, log) in root.split_evenly((logs.len(), 1)).iter().zip(logs) {
        diagram(area, log)?;
    }
    root.present()?;
    Ok(())
}

/// What stands below the title.
fn summary(log: &Log) -> String {
    let total = |value: fn(&Round) -> u64| log.rounds.iter().map(value).sum::<u64>();
    let (copied, full) = (total(|round| round.pages), total(|round| round.data_pages));
    let times = match copied {
        0 => String::new(),
        copied => format!(", {:.1} times as much", full as f64 / copied as f64),
    };
    let compare = match log.verify {
        Some(verify) if verify.differed != 0 => {
            format!(
                "; compare at the end: {} more",
                units::count(verify.differed, "page")
            )
        }
        _ => String::new(),
    };
    format!(
        "{}: {} copied; full copies would have been {}{times}{compare}",
        units::count(log.rounds.len() as u64, "round"),
        units::pages(copied, log.start.page_size),
        units::pages(full, log.start.page_size),
    )
}

fn interval(log: &Log) -> impl std::fmt::Display {
    let interval = Duration::try_from_secs_f64(log.start.interval).unwrap_or_default();
    humantime::format_duration(interval)
}

fn diagram<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    log: &Log,
) -> Result<(), Box<dyn std::error::Error>>
where
    B::ErrorType: 'static,
{
    let style = |size: i32| (FONT, size).into_font().color(&TEXT);
    let name = Path::new(&log.start.file)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let title = format!(
        "{} on {}: pages copied in each round",
        name, log.start.file_system
    );
    let middle = Pos::new(HPos::Center, VPos::Top);
    area.draw(&Text::new(
        title,
        (WIDTH as i32 / 2, 12),
        style(20).pos(middle),
    ))?;
    area.draw(&Text::new(
        summary(log),
        (WIDTH as i32 / 2, 38),
        style(14).pos(middle),
    ))?;

    let rounds = log.rounds.len() as f64;
    let highest = log
        .rounds
        .iter()
        .map(|round| round.pages.max(round.data_pages))
        .max();
    let highest = highest.unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(15)
        .margin_top(60)
        .margin_right(30)
        .x_label_area_size(45)
        .y_label_area_size(85)
        .build_cartesian_2d(0.5..rounds + 0.5, 0.0..highest * HEADROOM)?;
    let round_label = |x: &f64| format!("{x:.0}");
    let page_label = |y: &f64| indicatif::HumanCount(*y as u64).to_string();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .axis_style(TEXT)
        .label_style(style(13))
        .axis_desc_style(style(15))
        .x_labels(log.rounds.len().min(12))
        .y_labels(6)
        .x_label_formatter(&round_label)
        .y_label_formatter(&page_label)
        .x_desc(format!("round (one every {})", interval(log)))
        .y_desc(format!("pages of {}", units::bytes(log.start.page_size)))
        .draw()?;

    let half = if rounds > 300.0 { 0.5 } else { 0.4 };
    let bars = log.rounds.iter().map(|round| {
        let x = round.round as f64;
        Rectangle::new(
            [(x - half, 0.0), (x + half, round.pages as f64)],
            BAR.filled(),
        )
    });
    chart
        .draw_series(bars)?
        .label("pages that changed, and were copied")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], BAR.filled()));
    let first = log.rounds[0].data_pages as f64;
    let last = log.rounds[log.rounds.len() - 1].data_pages as f64;
    let line = std::iter::once((0.5, first))
        .chain(
            log.rounds
                .iter()
                .map(|round| (round.round as f64, round.data_pages as f64)),
        )
        .chain(std::iter::once((rounds + 0.5, last)));
    chart
        .draw_series(LineSeries::new(line, LINE.stroke_width(2)))?
        .label("a full copy of the data instead")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], LINE.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(8)
        .legend_area_size(28)
        .label_font(style(13))
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{self, tests::sample};

    #[test]
    fn picture_has_titles_axes_and_numbers() {
        let path =
            |name| std::env::temp_dir().join(format!("mmopsctl-{}-{name}", std::process::id()));
        let (log_path, svg_path) = (path("plot-log"), path("plot.svg"));
        let file = std::fs::File::create(&log_path).unwrap();
        for step in sample(&[700, 650, 0, 800]) {
            log::write(&file, &step).unwrap();
        }
        let args = Plot {
            logs: vec![log_path.clone(), log_path.clone()],
            output: svg_path.clone(),
        };
        run(&args).unwrap();
        let svg = std::fs::read_to_string(&svg_path).unwrap();
        std::fs::remove_file(&log_path).unwrap();
        std::fs::remove_file(&svg_path).unwrap();
        for text in [
            "db on tmpfs: pages copied in each round",
            "4 rounds: 2,150 pages (8.40 MiB) copied",
            "36,300 pages",
            "16.9 times as much; compare at the end: 17 pages more",
            "round (one every 100ms)",
            "pages of 4.00 KiB",
        ] {
            assert_eq!(svg.matches(text).count(), 2, "{text}");
        }
    }
}
