// SPDX-License-Identifier: GPL-2.0

//! Fuzzer of `/dev/mmops` and of the other devices of this tree.
//!
//! Programs of calls of the devices, and of others that change mappings at the same time, run in
//! several threads of this process, on a range of addresses of their own. With KCOV, a program that
//! reached a place of the modules that none had reached before is kept, and others are made of it.

#![forbid(unsafe_code)]

mod action;
mod check;
mod corpus;
mod coverage;
mod decode;
mod mutate;
mod print;
mod program;
mod progress;
mod report;
mod request;
mod runner;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::corpus::Corpus;
use crate::coverage::{Coverage, Modules, Wanted};
use crate::program::Program;
use crate::progress::Progress;
use crate::report::{Last, Log};
use crate::runner::Runner;
use crate::world::Machine;

/// Fuzz /dev/mmops, in a guest that may break
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run programs until there were enough calls
    Run(Run),
    /// Run these programs
    Replay {
        /// Files with a program each
        #[arg(required = true)]
        programs: Vec<PathBuf>,
        /// How often
        #[arg(long, default_value_t = 1)]
        times: u64,
        #[command(flatten)]
        guest: Guest,
    },
    /// Print a program in C
    Print {
        /// File with the program
        program: PathBuf,
    },
    /// Write the programs of the file `last` of a run as files of their own
    Last {
        /// The file
        last: PathBuf,
        /// Directory for the programs, each named by its number
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls to make
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Seconds after which it ends as well
    #[arg(long)]
    seconds: Option<u64>,
    /// Directory with programs to begin with
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Directory for the last programs, and for those that reached something new
    #[arg(long)]
    out: PathBuf,
    /// A module to reach places of, and how many it has; may be given again
    #[arg(long, value_name = "NAME[=PLACES]")]
    module: Vec<Wanted>,
    #[command(flatten)]
    guest: Guest,
}

#[derive(Debug, Args)]
struct Guest {
    /// Directory on a disk file system, for a file
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Seconds after which a program is taken for hung
    #[arg(long, default_value_t = 120)]
    hang: u64,
}

impl Guest {
    fn runner(&self, modules: Option<&Modules>) -> Result<Runner> {
        let machine = Machine::new(self.disk.as_deref())?;
        Runner::new(machine, modules, Duration::from_secs(self.hang))
    }
}

fn main() -> Result<ExitCode> {
    match Options::parse().command {
        Command::Run(options) => run(&options),
        Command::Replay {
            programs,
            times,
            guest,
        } => replay(&programs, times, &guest),
        Command::Print { program } => {
            print!("{}", print::in_c(&corpus::read_one(&program)?));
            Ok(ExitCode::SUCCESS)
        }
        Command::Last { last, directory } => {
            fs::create_dir_all(&directory)?;
            for (number, program) in Last::read(&last)? {
                let path = directory.join(number.to_string());
                fs::write(&path, program.bytes())?;
                println!("{}", path.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn replay(programs: &[PathBuf], times: u64, guest: &Guest) -> Result<ExitCode> {
    let mut runner = guest.runner(None)?;
    let mut log = Log::from_now_on();
    for _ in 0..times {
        for path in programs {
            let wrong = runner.run(&corpus::read_one(path)?)?.wrong;
            if let Some(wrong) = wrong.or_else(|| log.report()) {
                eprintln!("{}: {wrong}", path.display());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a run counts.
#[derive(Debug, Default)]
struct Counts {
    programs: u64,
    calls: u64,
    ioctls: u64,
    successes: u64,
}

/// The next program. Its choices are by its number, so they do not depend on those before but by
/// what these have added to the corpus.
fn next(seed: u64, number: u64, first: &[Program], corpus: &Corpus) -> Program {
    // Those to begin with come first, as they are.
    if let Some(program) = first.get(number as usize) {
        return program.clone();
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    if corpus.len() == 0 || rng.random_range(0..8) == 0 {
        return Program::random(rng);
    }
    // What was added last is tried more than what is known for long.
    let mut choose = || {
        let (a, b) = (
            rng.random_range(0..corpus.len()),
            rng.random_range(0..corpus.len()),
        );
        corpus.get(a.max(b)).expect("a number of a program")
    };
    let (program, other) = (choose(), choose());
    program.mutated(rng, other)
}

fn run(options: &Run) -> Result<ExitCode> {
    let has_kcov = Path::new("/sys/kernel/debug/kcov").exists();
    let loaded = Modules::loaded(&options.module)?;
    let modules = has_kcov.then_some(&loaded);
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let mut last = Last::create(&options.out.join("last"))?;
    let first = options
        .corpus
        .as_deref()
        .map(corpus::read)
        .transpose()?
        .unwrap_or_default();
    let guided = if has_kcov {
        "guided by KCOV"
    } else {
        "without KCOV, so not guided"
    };
    eprintln!(
        "seed {}, {} programs to begin with, {guided}",
        options.seed,
        first.len()
    );

    let mut runner = options.guest.runner(modules)?;
    let mut log = Log::from_now_on();
    let (mut coverage, mut corpus) = (Coverage::default(), Corpus::default());
    let mut counts = Counts::default();
    let mut progress = Progress::new(options.calls);
    let mut failure = None;
    while counts.calls < options.calls {
        if options
            .seconds
            .is_some_and(|seconds| progress.elapsed().as_secs() >= seconds)
        {
            break;
        }
        let program = next(options.seed, counts.programs, &first, &corpus);
        last.add(&program)?;
        let outcome = match runner.run(&program) {
            Ok(outcome) => outcome,
            Err(error) => {
                failure = Some((program, format!("{error:#}")));
                break;
            }
        };
        counts.programs += 1;
        counts.calls += outcome.calls;
        counts.ioctls += outcome.ioctls;
        counts.successes += outcome.successes;
        let is_new = coverage.add(outcome.places.iter().copied());
        // Not guided, others are made of those to begin with.
        let is_first = !has_kcov && counts.programs <= first.len() as u64;
        if let Some(wrong) = outcome.wrong.or_else(|| log.report()) {
            failure = Some((program, wrong));
            break;
        }
        if is_new || is_first {
            corpus.add(program, outcome.places);
        }
        progress.at(counts.calls, || {
            let (ioctls, edges, programs) = (counts.ioctls, coverage.len(), corpus.len());
            match has_kcov {
                true => {
                    format!("{ioctls} ioctls, {edges} edges, {programs} programs in the corpus")
                }
                false => format!("{ioctls} ioctls"),
            }
        });
    }
    let seconds = progress.elapsed().as_secs_f64();
    progress.finish();

    let Counts {
        programs,
        calls,
        ioctls,
        successes,
    } = counts;
    println!(
        "{programs} programs of seed {} in {seconds:.0} s",
        options.seed
    );
    println!("{calls} calls, of which {ioctls} ioctls, of which {successes} succeeded");
    if has_kcov {
        println!("edges of the modules that were reached:");
        for line in coverage.table(&loaded, &options.module) {
            println!("{line}");
        }
        let few = corpus.write(&options.out.join("corpus"))?;
        println!(
            "{} programs in the corpus; {few} of them reach all of that",
            corpus.len()
        );
    } else {
        println!("{} programs in the corpus", corpus.len());
    }
    let Some((program, failure)) = failure else {
        return Ok(ExitCode::SUCCESS);
    };
    let path = options.out.join("reproducer");
    fs::write(&path, program.bytes())?;
    fs::write(path.with_extension("c"), print::in_c(&program))?;
    println!("{}", print::in_c(&program));
    println!("FAILED: {failure}");
    println!(
        "program: {0}, in C: {0}.c; the last programs: last",
        path.display()
    );
    // What hangs in the kernel does not end, and this process only without waiting for it.
    Ok(ExitCode::FAILURE)
}
