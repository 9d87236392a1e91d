// SPDX-License-Identifier: GPL-2.0

//! How many pages a process changes in each interval: as a table, as JSON, or as a picture.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{anyhow, Context, Result};
use plotters::prelude::*;
use procfs::process::{MMapPath, MemoryMap};
use serde::Serialize;
use serde_json::json;

use crate::output::{output, Output};
use crate::units;

/// A mapping that was stored to.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Touched {
    start: String,
    end: String,
    name: String,
    pages: u64,
}

impl Touched {
    /// A mapping of which so many pages were stored to; none if none was.
    pub fn new(map: &MemoryMap, pages: u64) -> Option<Self> {
        (pages != 0).then(|| Self {
            start: format!("{:x}", map.address.0),
            end: format!("{:x}", map.address.1),
            name: name_of(&map.pathname),
            pages,
        })
    }
}

fn name_of(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".into(),
        MMapPath::Stack => "[stack]".into(),
        MMapPath::Anonymous => String::new(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// What was seen at the end of an interval; `T` is what a command tells besides the pages.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Interval<T> {
    interval: u64,
    seconds: f64,
    pages: u64,
    bytes: u64,
    #[serde(flatten)]
    more: T,
    mappings: Vec<Touched>,
}

impl<T> Interval<T> {
    pub fn new(
        interval: u64,
        seconds: f64,
        page_size: u64,
        more: T,
        mappings: Vec<Touched>,
    ) -> Self {
        let pages = mappings.iter().map(|mapping| mapping.pages).sum();
        Self {
            interval,
            seconds,
            pages,
            bytes: pages * page_size,
            more,
            mappings,
        }
    }

    /// A line of the table.
    fn row(&self) -> String {
        let most = self.mappings.iter().max_by_key(|mapping| mapping.pages);
        let most = most.map_or(String::new(), |most| {
            let name = if most.name.is_empty() {
                "anonymous"
            } else {
                &most.name
            };
            format!("{}-{} {name}", most.start, most.end)
        });
        let line = format!(
            "{:>10.2}  {:>12}  {:>12}  {most}",
            self.seconds,
            self.pages,
            units::bytes(self.bytes),
        );
        line.trim_end().to_owned()
    }
}

/// The intervals, and how they are told.
pub struct Report<T> {
    out: Output,
    json: bool,
    picture: Option<PathBuf>,
    page_size: u64,
    intervals: Vec<Interval<T>>,
}

impl<T: Serialize> Report<T> {
    pub fn new(json: bool, picture: Option<&Path>, page_size: u64) -> Result<Self> {
        let mut report = Self {
            out: output(),
            json,
            picture: picture.map(Path::to_owned),
            page_size,
            intervals: Vec::new(),
        };
        if report.is_table() {
            let (seconds, pages, bytes) = ("seconds", "pages", "bytes");
            let out = &mut report.out;
            writeln!(out, "{seconds:>10}  {pages:>12}  {bytes:>12}  most in")?;
        }
        Ok(report)
    }

    fn is_table(&self) -> bool {
        !self.json && self.picture.is_none()
    }

    /// Number of the interval that is to be added next.
    pub fn next_number(&self) -> u64 {
        self.intervals.len() as u64 + 1
    }

    pub fn add(&mut self, seen: Interval<T>) -> Result<()> {
        if self.json {
            writeln!(self.out, "{}", serde_json::to_string(&seen)?)?;
        } else if self.is_table() {
            writeln!(self.out, "{}", seen.row())?;
        }
        self.intervals.push(seen);
        Ok(())
    }

    /// Tells the sums, and draws the picture: of `name`, whose pages were `what`. `status` is that
    /// of a program that was run.
    pub fn end(mut self, name: &str, what: &str, status: Option<ExitStatus>) -> Result<()> {
        let intervals = self.intervals.len() as u64;
        let pages: u64 = self.intervals.iter().map(|seen| seen.pages).sum();
        if self.json {
            let object = json!({
                "intervals": intervals,
                "pages": pages,
                "bytes": pages * self.page_size,
                "status": status.and_then(|status| status.code()),
            });
            writeln!(self.out, "{object}")?;
        } else if self.is_table() {
            let n = units::count(intervals, "interval");
            writeln!(self.out, "{} in {n}", units::pages(pages, self.page_size))?;
        }
        if let Some(path) = &self.picture {
            draw(&self.intervals, name, what, path)
                .map_err(|error| anyhow!("{error}"))
                .with_context(|| format!("cannot draw {}", path.display()))?;
            if !self.json {
                writeln!(self.out, "{}", path.display())?;
            }
        }
        Ok(())
    }
}

fn draw<T>(
    intervals: &[Interval<T>],
    name: &str,
    what: &str,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    const BAR: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
    let root = SVGBackend::new(path, (1000, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = intervals.last().map_or(1.0, |seen| seen.seconds);
    let most = intervals.iter().map(|seen| seen.pages).max();
    let most = most.unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(15)
        .caption(
            format!("{name}: pages {what} in each interval"),
            ("sans-serif", 20),
        )
        .x_label_area_size(45)
        .y_label_area_size(85)
        .build_cartesian_2d(0.0..last, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("seconds")
        .y_desc("pages")
        .draw()?;
    let starts = std::iter::once(0.0).chain(intervals.iter().map(|seen| seen.seconds));
    chart.draw_series(intervals.iter().zip(starts).map(|(seen, start)| {
        Rectangle::new(
            [(start, 0.0), (seen.seconds, seen.pages as f64)],
            BAR.filled(),
        )
    }))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct More {
        kept: u64,
    }

    fn interval(pages: u64) -> Interval<More> {
        let touched = Touched {
            start: "1000".into(),
            end: "9000".into(),
            name: "[heap]".into(),
            pages,
        };
        Interval::new(1, 0.5, 4096, More { kept: 7 }, vec![touched])
    }

    #[test]
    fn table_and_json() {
        let row = interval(3).row();
        assert!(row.contains("12.00 KiB") && row.ends_with("1000-9000 [heap]"));
        let json = serde_json::to_value(interval(3)).unwrap();
        assert_eq!(json["mappings"][0]["pages"], 3);
        assert_eq!(json["kept"], 7);
    }

    #[test]
    fn picture() {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-sd.svg", std::process::id()));
        draw(&[interval(3), interval(0)], "sleep", "stored to", &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("sleep: pages stored to in each interval"));
    }
}
