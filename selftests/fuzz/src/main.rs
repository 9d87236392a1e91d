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
mod remote;
mod report;
mod request;
mod runner;
mod world;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::corpus::Corpus;
use crate::coverage::{Coverage, Modules, Wanted};
use crate::program::Program;
use crate::progress::Progress;
use crate::remote::Remote;
use crate::report::{Last, Log};
use crate::runner::{Outcome, Runner};
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
    /// Run programs for the process that has started this one
    #[command(hide = true)]
    Serve {
        /// As of `run`
        #[arg(long)]
        module: Vec<Wanted>,
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
    /// Calls of the devices to make; those that change mappings are not counted
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Seconds after which it ends as well
    #[arg(long)]
    seconds: Option<u64>,
    /// Processes that run programs at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    processes: u64,
    /// Directory with programs to begin with
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Directory for the last programs, and for those that reached something new
    #[arg(long)]
    out: PathBuf,
    /// A module to reach places of, how many it has, and how many of them no call can reach; may be
    /// given again
    #[arg(long, value_name = "NAME[=PLACES[,NEVER]]")]
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

    /// A process with these options.
    fn remote(&self, modules: Option<&[Wanted]>) -> Result<Remote> {
        let mut arguments = vec![format!("--hang={}", self.hang)];
        if let Some(disk) = &self.disk {
            arguments.push(format!("--disk={}", disk.display()));
        }
        for module in modules.unwrap_or_default() {
            arguments.push(format!("--module={}", module.name));
        }
        Remote::start(&arguments)
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
        Command::Serve { module, guest } => {
            let modules = (!module.is_empty()).then(|| Modules::loaded(&module));
            remote::serve(&mut guest.runner(modules.transpose()?.as_ref())?)?;
            Ok(ExitCode::SUCCESS)
        }
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

/// Who runs programs.
enum Executor {
    Here(Runner),
    There(Remote),
}

impl Executor {
    fn run(&mut self, program: &Program) -> Result<Outcome> {
        match self {
            Self::Here(runner) => runner.run(program),
            Self::There(remote) => remote.run(program),
        }
    }
}

/// What a run has come to.
struct State<'a> {
    options: &'a Run,
    first: Vec<Program>,
    is_guided: bool,
    last: Last,
    log: Log,
    coverage: Coverage,
    corpus: Corpus,
    progress: Progress,
    /// Programs that were begun, and those that have ended.
    begun: u64,
    ended: u64,
    /// Of all of them.
    outcome: Outcome,
    /// The first program that failed, and why.
    failure: Option<(Program, String)>,
}

impl State<'_> {
    /// The program to be run next; none at the end.
    fn begin(&mut self) -> Result<Option<Program>> {
        let seconds = self.progress.elapsed().as_secs();
        if self.failure.is_some()
            || self.outcome.ioctls >= self.options.calls
            || self.options.seconds.is_some_and(|most| seconds >= most)
        {
            return Ok(None);
        }
        let program = next(self.options.seed, self.begun, &self.first, &self.corpus);
        self.begun += 1;
        self.last.add(&program)?;
        Ok(Some(program))
    }

    /// This is what came of it.
    fn end(&mut self, program: Program, result: Result<Outcome>) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failure.get_or_insert((program, format!("{error:#}")));
                return;
            }
        };
        self.ended += 1;
        self.outcome.calls += outcome.calls;
        self.outcome.ioctls += outcome.ioctls;
        self.outcome.successes += outcome.successes;
        let is_new = self.coverage.add(outcome.places.iter().copied());
        if let Some(wrong) = outcome.wrong.or_else(|| self.log.report()) {
            self.failure.get_or_insert((program, wrong));
            return;
        }
        if is_new {
            self.corpus.add(program, outcome.places);
        }
        self.progress.at(self.outcome.ioctls, || {
            let calls = self.outcome.calls;
            let (edges, programs) = (self.coverage.len(), self.corpus.len());
            match self.is_guided {
                true => {
                    format!("{calls} calls, {edges} edges, {programs} programs in the corpus")
                }
                false => format!("{calls} calls"),
            }
        });
    }
}

fn lock<'m, 'a>(state: &'m Mutex<State<'a>>) -> MutexGuard<'m, State<'a>> {
    state.lock().expect("no thread has panicked")
}

/// Runs programs until there were enough.
fn work(executor: &mut Executor, state: &Mutex<State<'_>>) -> Result<()> {
    loop {
        let Some(program) = lock(state).begin()? else {
            return Ok(());
        };
        let result = executor.run(&program);
        lock(state).end(program, result);
    }
}

fn run(options: &Run) -> Result<ExitCode> {
    let is_guided = !options.module.is_empty() && Path::new("/sys/kernel/debug/kcov").exists();
    let loaded = Modules::loaded(&options.module)?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let first = options
        .corpus
        .as_deref()
        .map(corpus::read)
        .transpose()?
        .unwrap_or_default();
    let guided = if is_guided {
        "guided by KCOV"
    } else {
        "not guided"
    };
    eprintln!(
        "seed {}, {} programs to begin with, {guided}",
        options.seed,
        first.len()
    );
    let mut corpus = Corpus::default();
    if !is_guided {
        // Nothing is added then, and the others are made of these.
        for program in &first {
            corpus.add(program.clone(), HashSet::new());
        }
    }
    let state = Mutex::new(State {
        options,
        first,
        is_guided,
        last: Last::create(&options.out.join("last"))?,
        log: Log::from_now_on(),
        coverage: Coverage::default(),
        corpus,
        progress: Progress::new(options.calls),
        begun: 0,
        ended: 0,
        outcome: Outcome::default(),
        failure: None,
    });
    if options.processes == 1 {
        let modules = is_guided.then_some(&loaded);
        work(&mut Executor::Here(options.guest.runner(modules)?), &state)?;
    } else {
        let one = || -> Result<()> {
            let modules = is_guided.then_some(&options.module[..]);
            let mut executor = Executor::There(options.guest.remote(modules)?);
            work(&mut executor, &state)?;
            match executor {
                // What hangs would not end.
                Executor::There(remote) if lock(&state).failure.is_none() => remote.finish(),
                _ => Ok(()),
            }
        };
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..options.processes).map(|_| scope.spawn(one)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("no thread panics"))
        })?;
    }
    let state = state.into_inner().expect("no thread has panicked");
    report(&state, &loaded)
}

/// Prints what has come of a run.
fn report(state: &State<'_>, loaded: &Modules) -> Result<ExitCode> {
    let options = state.options;
    let seconds = state.progress.elapsed().as_secs_f64();
    state.progress.finish();
    let Outcome {
        calls,
        ioctls,
        successes,
        ..
    } = state.outcome;
    println!(
        "{} programs of seed {} in {seconds:.0} s",
        state.ended, options.seed
    );
    println!(
        "{calls} calls, of which {ioctls} ioctls, of which {successes} succeeded; {:.0} ioctls/s",
        ioctls as f64 / seconds
    );
    if state.is_guided {
        println!("edges of the modules that were reached:");
        for line in state.coverage.table(loaded, &options.module) {
            println!("{line}");
        }
        let places = options.out.join("places");
        state.coverage.write(&places, loaded, &options.module)?;
        let few = state.corpus.write(&options.out.join("corpus"))?;
        println!(
            "{} programs in the corpus; {few} of them reach all of that",
            state.corpus.len()
        );
    } else {
        println!("{} programs in the corpus", state.corpus.len());
    }
    let Some((program, failure)) = &state.failure else {
        return Ok(ExitCode::SUCCESS);
    };
    let path = options.out.join("reproducer");
    fs::write(&path, program.bytes())?;
    fs::write(path.with_extension("c"), print::in_c(program))?;
    println!("{}", print::in_c(program));
    println!("FAILED: {failure}");
    println!(
        "program: {0}, in C: {0}.c; the last programs: last",
        path.display()
    );
    // What hangs in the kernel does not end, and this process only without waiting for it.
    Ok(ExitCode::FAILURE)
}
