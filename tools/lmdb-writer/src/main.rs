// SPDX-License-Identifier: GPL-2.0

//! Load on an LMDB database for the demo of mmops, and a check of the result.

#![forbid(unsafe_code)]

mod database;
mod load;
mod model;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};

use database::{Database, Mode};
use load::{Load, Shape};
use model::Content;

/// Puts load on an LMDB database, and checks databases
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a database, fill it, and then change it in many transactions
    ///
    /// Prints "loaded" when it is filled, "done" when the last transaction is committed, and what
    /// was done when the database is closed, each on a line of its own.
    Run(Run),
    /// Read all entries of a database, and print their number and checksum as JSON
    Check(Check),
}

#[derive(Debug, Args)]
struct Run {
    /// Database to create: a single file, without a directory of its own
    database: PathBuf,
    /// How the file is written
    #[arg(long, value_enum, default_value_t = Mode::WriteMap)]
    mode: Mode,
    /// Size of the map in MiB; with a write map also the size of the file
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    map_size: usize,
    /// Number of different keys
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    /// Number of keys that are put in order before the load begins
    #[arg(long, default_value_t = 50_000)]
    fill: u32,
    /// Number of puts and deletes
    #[arg(long, default_value_t = 250_000)]
    operations: u64,
    /// Puts and deletes in a transaction
    #[arg(long, default_value_t = 1000)]
    batch: u64,
    /// Puts and deletes per second, at most [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Seed of the random numbers: the same seed makes the same entries
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Wait for a line on standard input before the load begins, and for the end of standard
    /// input before the database is closed
    #[arg(long)]
    wait: bool,
    /// Write the number and checksum of the entries that the database must hold to this file
    #[arg(long, value_name = "JSON")]
    summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    /// Database to read: a single file
    database: PathBuf,
    /// Fail unless the entries are those of this summary, which `run --summary` wrote
    #[arg(long, value_name = "JSON")]
    expect: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lmdb-writer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Run) -> Result<()> {
    let database = Database::create(&args.database, args.map_size << 20, args.mode)?;
    let shape = Shape {
        keys: args.keys,
        batch: args.batch,
        rate: args.rate,
    };
    let mut load = Load::new(&database, shape, args.seed);
    load.fill(args.fill)?;
    say("loaded")?;
    let mut input = io::stdin().lock();
    if args.wait {
        let mut line = String::new();
        ensure!(
            input.read_line(&mut line)? != 0,
            "standard input ended before the load began"
        );
    }
    load.run(args.operations)?;
    let summary = load.summary();
    if let Some(path) = &args.summary {
        let context = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(path).with_context(context)?);
        serde_json::to_writer(&mut file, &summary)?;
        file.flush().with_context(context)?;
    }
    let held = database.content()?;
    if held != summary.content {
        bail!(
            "the database holds {held}, and not {} as was put",
            summary.content
        );
    }
    say("done")?;
    if args.wait {
        io::copy(&mut input, &mut io::sink())?;
    }
    drop(database);
    println!(
        "{} puts and {} deletes in {} transactions and {:.1} s; {held}",
        summary.puts, summary.deletes, summary.transactions, summary.seconds
    );
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn check(args: &Check) -> Result<()> {
    let content = Database::open(&args.database)?.content()?;
    println!("{}", serde_json::to_string(&content)?);
    if let Some(path) = &args.expect {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        // The members that are not about the content are not looked at.
        let expected: Content = serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{name} is no summary"))?;
        ensure!(
            content == expected,
            "{} holds {content}, and not {expected} as {name} says",
            args.database.display()
        );
    }
    Ok(())
}
