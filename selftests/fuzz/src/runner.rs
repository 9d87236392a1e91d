// SPDX-License-Identifier: GPL-2.0

//! Runs programs: each of its threads in one of this process, which stay from program to program.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use mmops_raw::kcov::Kcov;
use mmops_raw::sandbox::{allow_interrupts, interrupt, this_thread, Sandbox};

use crate::action::{Action, Step};
use crate::check::run_ioctl;
use crate::coverage::Modules;
use crate::program::{Program, MOST_THREADS};
use crate::world::{Machine, World};

/// Addresses that are kept of a call.
const KCOV_WORDS: usize = 1 << 17;
/// After that long, a call that waits for an event is ended.
const PATIENCE: Duration = Duration::from_millis(200);

/// What came of a program.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Places of the modules that were reached.
    pub places: HashSet<u64>,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// Calls that were made.
    pub calls: u64,
    /// Of these, those of devices that are there.
    pub ioctls: u64,
    /// And of these, those that succeeded.
    pub successes: u64,
}

/// A program for the threads.
struct Job {
    steps: Vec<Step>,
    threads: usize,
    world: Arc<World>,
    begin: Arc<Barrier>,
}

struct Worker {
    jobs: Sender<Arc<Job>>,
    thread: i32,
}

/// Runs programs.
pub struct Runner {
    sandbox: Arc<Sandbox>,
    machine: Machine,
    workers: Vec<Worker>,
    outcomes: Receiver<Outcome>,
    /// Of this thread, which opens and closes the devices.
    coverage: Option<(Kcov, Modules)>,
    hang: Duration,
}

/// What was noted of places of the modules.
fn ours<'a>(kcov: &'a Kcov, modules: &'a Modules) -> impl Iterator<Item = u64> + 'a {
    kcov.addresses()
        .filter(|place| modules.of(*place).is_some())
}

/// What thread `number` does of a program.
fn steps(
    number: usize,
    job: &Job,
    sandbox: &Sandbox,
    coverage: Option<(&Kcov, &Modules)>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mine = job.steps.iter().filter(|step| step.thread == number);
    for step in mine {
        if let Some((kcov, _)) = coverage {
            kcov.reset();
        }
        outcome.calls += 1;
        if let Action::Ioctl {
            file,
            request,
            place,
            spoilt,
        } = step.action
        {
            let (on, call) = ((sandbox, &*job.world), (file, request, place));
            match run_ioctl(on, call, spoilt, job.threads == 1) {
                Ok(None) => {}
                Ok(Some(result)) => {
                    outcome.ioctls += 1;
                    outcome.successes += u64::from(result.is_ok());
                }
                Err(wrong) => {
                    outcome.ioctls += 1;
                    outcome.wrong.get_or_insert(wrong);
                }
            }
        } else {
            // Whether it succeeds is between the program and the kernel.
            let _ = job.world.run(sandbox, step.action);
        }
        if let Some((kcov, modules)) = coverage {
            outcome.places.extend(ours(kcov, modules));
        }
    }
    outcome
}

impl Runner {
    /// Starts the threads; with modules they are traced, and so is the calling one.
    pub fn new(machine: Machine, modules: Option<&Modules>, hang: Duration) -> Result<Self> {
        let sandbox = Arc::new(Sandbox::new().context("cannot reserve addresses")?);
        allow_interrupts()?;
        let (sender, outcomes) = mpsc::channel();
        let mut workers = Vec::new();
        for number in 0..MOST_THREADS {
            let (jobs, todo) = mpsc::channel::<Arc<Job>>();
            let (hello, answer) = mpsc::channel();
            let (sandbox, sender) = (sandbox.clone(), sender.clone());
            let modules = modules.cloned();
            thread::spawn(move || {
                let kcov = modules.as_ref().map(|_| Kcov::this_thread(KCOV_WORDS));
                let kcov = match kcov.transpose() {
                    Ok(kcov) => kcov,
                    Err(error) => return drop(hello.send(Err(error))),
                };
                let _ = hello.send(Ok(this_thread()));
                while let Ok(job) = todo.recv() {
                    job.begin.wait();
                    let coverage = kcov.as_ref().zip(modules.as_ref());
                    let outcome = steps(number, &job, &sandbox, coverage);
                    // The world ends with whoever has it last, which is to be the main thread.
                    drop(job);
                    let _ = sender.send(outcome);
                }
            });
            let thread = answer.recv()?.context("cannot trace a thread by KCOV")?;
            workers.push(Worker { jobs, thread });
        }
        let coverage = modules
            .map(|modules| -> Result<_> { Ok((Kcov::this_thread(KCOV_WORDS)?, modules.clone())) });
        Ok(Self {
            sandbox,
            machine,
            workers,
            outcomes,
            coverage: coverage.transpose()?,
            hang,
        })
    }

    /// Runs a program.
    ///
    /// # Errors
    ///
    /// It does not end. No other can be run then.
    pub fn run(&self, program: &Program) -> Result<Outcome> {
        if let Some((kcov, _)) = &self.coverage {
            kcov.reset();
        }
        let world = Arc::new(World::new(&self.machine)?);
        for action in program.layout() {
            let _ = world.run(&self.sandbox, action);
        }
        let threads = program.threads();
        let job = Arc::new(Job {
            steps: program.steps(),
            threads,
            world: world.clone(),
            begin: Arc::new(Barrier::new(threads)),
        });
        for worker in &self.workers[..threads] {
            worker.jobs.send(job.clone())?;
        }
        drop(job);
        let mut all = Outcome::default();
        let (begin, mut left) = (Instant::now(), threads);
        while left > 0 {
            match self.outcomes.recv_timeout(PATIENCE) {
                Ok(outcome) => {
                    left -= 1;
                    all.places.extend(outcome.places);
                    all.wrong = all.wrong.or(outcome.wrong);
                    all.calls += outcome.calls;
                    all.ioctls += outcome.ioctls;
                    all.successes += outcome.successes;
                }
                Err(RecvTimeoutError::Timeout) if begin.elapsed() < self.hang => {
                    for worker in &self.workers[..threads] {
                        interrupt(worker.thread)?;
                    }
                }
                Err(error) => bail!("a program did not end within {:?}: {error}", self.hang),
            }
        }
        drop(world);
        self.sandbox.clear()?;
        if let Some((kcov, modules)) = &self.coverage {
            all.places.extend(ours(kcov, modules));
        }
        Ok(all)
    }
}
