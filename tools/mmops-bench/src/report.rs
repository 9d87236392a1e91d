// SPDX-License-Identifier: GPL-2.0

//! What is reported of a case: an object of `bench.json`, a row of the table at the end.

use comfy_table::{presets, CellAlignment, Table};
use serde::Serialize;

use crate::bench::Samples;
use crate::cases::Case;
use crate::stats::{Ratio, Summary};

/// The result of one case. Times are medians in nanoseconds for one call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Name of the case.
    pub case: String,
    /// What mmops is compared with.
    pub reference: String,
    /// Time of the reference.
    pub reference_ns: f64,
    /// Time of mmops, measured in the same way.
    pub mmops_ns: f64,
    /// `reference_ns / mmops_ns`.
    pub ratio: f64,
    /// Number of pairs.
    pub runs: usize,
    /// The wanted ratio.
    pub wanted: f64,
    /// Whether `ratio` reaches `wanted`.
    pub met: bool,
    /// Whole ioctl of mmops, as userspace sees it.
    pub ioctl_ns: f64,
    /// Base pages in the range.
    pub pages: u32,
    /// Ratio of the least times: what is left where other load on the machine lengthened most runs.
    pub ratio_of_least: f64,
    /// Quartiles of the reference's times.
    pub reference_quartiles_ns: [f64; 2],
    /// Quartiles of mmops's times.
    pub mmops_quartiles_ns: [f64; 2],
    /// Quartiles of the ratios within each pair.
    pub ratio_quartiles: [f64; 2],
}

impl Record {
    /// Evaluates the samples of a case.
    pub fn new(case: &Case, samples: &Samples) -> Self {
        let reference = Summary::of(&samples.reference);
        let mmops = Summary::of(&samples.mmops);
        let ratio = Ratio::of(&samples.reference, &samples.mmops);
        // Where the ioctl is not timed apart, the whole of it is what was compared.
        let ioctl = match samples.ioctl.as_slice() {
            [] => mmops,
            ioctl => Summary::of(ioctl),
        };
        Self {
            case: case.name.into(),
            reference: case.reference.into(),
            reference_ns: reference.median,
            mmops_ns: mmops.median,
            ratio: ratio.of_medians,
            runs: samples.reference.len(),
            wanted: case.wanted,
            met: ratio.of_medians >= case.wanted,
            ioctl_ns: ioctl.median,
            pages: case.pages,
            ratio_of_least: reference.least / mmops.least,
            reference_quartiles_ns: [reference.lower, reference.upper],
            mmops_quartiles_ns: [mmops.lower, mmops.upper],
            ratio_quartiles: [ratio.pairs.lower, ratio.pairs.upper],
        }
    }

    /// All that matters in one line.
    pub fn line(&self) -> String {
        let [reference, mmops] = [self.reference_ns, self.mmops_ns].map(duration);
        let verdict = self.verdict();
        format!("{:.2} ({reference} : {mmops}, {verdict})", self.ratio)
    }

    /// `met` or `missed`.
    pub fn verdict(&self) -> &'static str {
        if self.met {
            "met"
        } else {
            "missed"
        }
    }
}

/// Writes a time with three digits that count.
pub fn duration(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// The table at the end.
pub fn table(records: &[Record]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "case",
        "reference",
        "mmops",
        "whole ioctl",
        "ns/page",
        "ratio",
        "quartiles",
        "of least",
        "wanted",
        "result",
    ]);
    for record in records {
        let per_page = |ns| ns / f64::from(record.pages);
        let [lower, upper] = record.ratio_quartiles;
        table.add_row([
            record.case.clone(),
            duration(record.reference_ns),
            duration(record.mmops_ns),
            duration(record.ioctl_ns),
            format!(
                "{:.1} : {:.1}",
                per_page(record.reference_ns),
                per_page(record.mmops_ns)
            ),
            format!("{:.2}", record.ratio),
            format!("{lower:.2}-{upper:.2}"),
            format!("{:.2}", record.ratio_of_least),
            format!("{:.1}", record.wanted),
            record.verdict().into(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CASES;

    fn samples() -> Samples {
        Samples {
            reference: vec![50e6, 52e6, 51e6],
            mmops: vec![20e6, 20.4e6, 20.4e6],
            ioctl: vec![21e6, 21e6, 22e6],
        }
    }

    #[test]
    fn a_record_holds_medians() {
        let record = Record::new(&CASES[0], &samples());
        assert_eq!(record.case, "dirty/clean/sparse/4GiB");
        assert_eq!((record.reference_ns, record.mmops_ns), (51e6, 20.4e6));
        assert_eq!((record.ratio, record.runs), (2.5, 3));
        assert_eq!(record.ioctl_ns, 21e6);
        assert_eq!(record.ratio_of_least, 2.5);
        assert_eq!(record.verdict(), "met");
        assert_eq!(record.line(), "2.50 (51.0 ms : 20.4 ms, met)");
    }

    #[test]
    fn a_missed_ratio_is_only_reported() {
        let mut samples = samples();
        samples.mmops = vec![21e6; 3];
        let record = Record::new(&CASES[0], &samples);
        assert!(!record.met);
        assert_eq!(record.verdict(), "missed");
    }

    #[test]
    fn without_an_ioctl_side_the_whole_was_compared() {
        let mut samples = samples();
        samples.ioctl.clear();
        assert_eq!(Record::new(&CASES[0], &samples).ioctl_ns, 20.4e6);
    }

    #[test]
    fn json_has_the_promised_fields() {
        let json = serde_json::to_value([Record::new(&CASES[0], &samples())]).unwrap();
        let object = &json[0];
        assert_eq!(object["case"], "dirty/clean/sparse/4GiB");
        assert_eq!(object["reference"], "clean_record_shared_mapping_range");
        assert_eq!(object["reference_ns"], 51e6);
        assert_eq!(object["mmops_ns"], 20.4e6);
        assert_eq!(object["ratio"], 2.5);
        assert_eq!(object["runs"], 3);
    }

    #[test]
    fn durations_have_three_digits() {
        assert_eq!(duration(812.4), "812 ns");
        assert_eq!(duration(1234.0), "1.23 µs");
        assert_eq!(duration(52_430_000.0), "52.4 ms");
        assert_eq!(duration(3.5e9), "3.50 s");
    }

    #[test]
    fn table_has_a_row_per_case() {
        let text = table(&[Record::new(&CASES[0], &samples())]).to_string();
        assert_eq!(text.lines().count(), 3);
        let row = text.lines().last().unwrap();
        for cell in ["51.0 ms", "20.4 ms", "48.6 : 19.5", "2.50", "2.5", "met"] {
            assert!(row.contains(cell), "{cell} in {row}");
        }
    }
}
