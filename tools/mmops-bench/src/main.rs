// SPDX-License-Identifier: GPL-2.0

//! Measures mmops against what the kernel has for the same work, in one boot.
//!
//! Needs root and the modules `mmops`, `mmops_test` and `mmops_ref`. Writes `bench.json` and
//! `bench.svg`. A ratio below the wanted one is reported and is no failure; a wrong result is.

#![forbid(unsafe_code)]

mod age;
mod bench;
mod cases;
mod dirty;
mod exclusive;
mod foreign_uffd;
mod layout;
mod machine;
mod neighbour;
mod pagemap;
mod plot;
mod progress;
mod protect;
mod redis;
mod redis_server;
mod reference;
mod region;
mod report;
mod scan;
mod settle;
mod soft_dirty;
mod stats;
mod track;
mod track_cost;
mod watch;
mod zap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use clap::Parser;
use glob::Pattern;

use crate::bench::Missing;
use crate::cases::{Case, CASES};
use crate::progress::Progress;
use crate::report::Record;

/// Measure mmops against what the kernel has for the same work
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Only cases whose name matches, such as 'dirty/clean/*'; may be given again
    #[arg(long, value_name = "GLOB")]
    case: Vec<Pattern>,

    /// Pairs of samples for each case [default: 21, or fewer where a sample takes long]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,

    /// Directory for bench.json and bench.svg
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// List the cases and the wanted ratios, and measure nothing
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let cases = select(&args.case)?;
    if args.list {
        for case in cases {
            println!("{:<44} {:.1} {}", case.name, case.wanted, case.reference);
        }
        return Ok(ExitCode::SUCCESS);
    }
    machine::check_memory(cases.iter().copied())?;
    // Pinned to one CPU, the program would see no other.
    let machine = machine::describe()?;
    machine::pin()?;
    let (records, skipped) = measure(&cases, args.runs, |records| {
        write(&args.out, records, &machine)
    })?;
    println!("{}", report::table(&records));
    let met = records.iter().filter(|record| record.met).count();
    let missed = records.len() - met;
    let failed = cases.len() - records.len() - skipped;
    println!("\n{met} met, {missed} missed, {skipped} skipped, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn select(patterns: &[Pattern]) -> Result<Vec<&'static Case>> {
    let wanted =
        |case: &&Case| patterns.is_empty() || patterns.iter().any(|p| p.matches(case.name));
    let cases: Vec<_> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        bail!("no case has such a name; --list names them all");
    }
    Ok(cases)
}

/// Measures each case; returns the results and how many cases were left out.
///
/// `save` gets all results so far after each case, so that an end by the guest's time limit loses
/// one case only.
fn measure(
    cases: &[&Case],
    runs: Option<u32>,
    save: impl Fn(&[Record]) -> Result<()>,
) -> Result<(Vec<Record>, usize)> {
    let total = cases.iter().map(|case| case.cost(case.runs(runs))).sum();
    let number = cases.iter().map(|case| u64::from(case.runs(runs)) + 1);
    let mut progress = Progress::new(number.sum(), total);
    let (mut records, mut skipped) = (Vec::new(), 0);
    for case in cases {
        let runs = case.runs(runs);
        progress.begin(case.name);
        // What a case was set up with, or the one before has left, is no part of it.
        let samples = case.setup().and_then(|mut bench| {
            settle::let_tlb_shrink()?;
            bench::interleave(&mut *bench, runs, || progress.run_done())
        });
        let result = match samples {
            Ok(samples) => {
                let record = Record::new(case, &samples);
                let line = record.line();
                records.push(record);
                save(&records)?;
                line
            }
            Err(error) if error.is::<Missing>() => {
                skipped += 1;
                format!("skipped: {error:#}")
            }
            Err(error) => format!("FAILED: {error:#}"),
        };
        progress.end(case.cost(runs), case.name, &result);
    }
    progress.finish();
    Ok((records, skipped))
}

fn write(out: &Path, records: &[Record], machine: &str) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = out.join("bench.json");
    let json = serde_json::to_string_pretty(records)? + "\n";
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    let path = out.join("bench.svg");
    let runs = records.iter().map(|record| record.runs).max().unwrap_or(0);
    let measured = format!("{machine}, {runs} interleaved pairs");
    plot::draw(&path, records, &measured)?;
    Ok(())
}
