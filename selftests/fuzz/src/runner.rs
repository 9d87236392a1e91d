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
use crate::coverage::{Modules, Recent};
use crate::program::{Program, MOST_THREADS};
use crate::world::{Machine, World};

/// Addresses that are kept of a call.
const KCOV_WORDS: usize = 1 << 17;
/// After that long, a call that waits for an event is ended.
const PATIENCE: Duration = Duration::from_millis(200);

/// What came of a program.
#[derive(Debug, Default, PartialEq, Eq)]
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
    machine: Arc<Machine>,
    workers: Vec<Worker>,
    outcomes: Receiver<Outcome>,
    /// Of this thread, which opens and closes the devices.
    tracer: Option<Tracer>,
    hang: Duration,
}

/// Which places of the modules a thread comes to.
struct Tracer {
    kcov: Kcov,
    modules: Modules,
    recent: Recent,
}

impl Tracer {
    /// Of this thread, where there are modules.
    fn of_this_thread(modules: Option<&Modules>) -> Result<Option<Self>> {
        let tracer = modules.map(|modules| -> Result<_> {
            Ok(Self {
                kcov: Kcov::this_thread(KCOV_WORDS).context("cannot trace a thread by KCOV")?,
                modules: modules.clone(),
                recent: Recent::new(),
            })
        });
        tracer.transpose()
    }

    /// A program begins.
    fn forget(&mut self) {
        self.recent.forget();
        self.kcov.reset();
    }

    /// Adds what was noted since the last time.
    fn take(&mut self, places: &mut HashSet<u64>) {
        for place in self.kcov.addresses() {
            if self.modules.of(place).is_some() && self.recent.is_new(place) {
                places.insert(place);
            }
        }
        self.kcov.reset();
    }
}

/// What thread `number` does of a program.
fn steps(number: usize, job: &Job, sandbox: &Sandbox, mut tracer: Option<&mut Tracer>) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(tracer) = &mut tracer {
        tracer.forget();
    }
    let mine = job.steps.iter().filter(|step| step.thread == number);
    for step in mine {
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
        if let Some(tracer) = &mut tracer {
            tracer.take(&mut outcome.places);
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
                let mut tracer = match Tracer::of_this_thread(modules.as_ref()) {
                    Ok(tracer) => tracer,
                    Err(error) => return drop(hello.send(Err(error))),
                };
                let _ = hello.send(Ok(this_thread()));
                while let Ok(job) = todo.recv() {
                    job.begin.wait();
                    let outcome = steps(number, &job, &sandbox, tracer.as_mut());
                    // The world ends with whoever has it last, which is to be the main thread.
                    drop(job);
                    let _ = sender.send(outcome);
                }
            });
            let thread = answer.recv()??;
            workers.push(Worker { jobs, thread });
        }
        Ok(Self {
            sandbox,
            machine: Arc::new(machine),
            workers,
            outcomes,
            tracer: Tracer::of_this_thread(modules)?,
            hang,
        })
    }

    /// Runs a program.
    ///
    /// # Errors
    ///
    /// It does not end. No other can be run then.
    pub fn run(&mut self, program: &Program) -> Result<Outcome> {
        if let Some(tracer) = &mut self.tracer {
            tracer.forget();
        }
        let world = Arc::new(World::new(self.machine.clone())?);
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
        if let Some(tracer) = &mut self.tracer {
            tracer.take(&mut all.places);
        }
        Ok(all)
    }
}
