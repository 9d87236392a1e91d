// SPDX-License-Identifier: GPL-2.0

//! A second thread, which keeps the address space active on another processor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::sched::{sched_getcpu, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// A thread that runs on another processor until it is dropped.
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Starts it. The program itself stays where it is: see [`pin`](crate::machine::pin).
    pub fn start() -> Result<Self> {
        let cpu = usize::from(sched_getcpu().context("sched_getcpu")? == 0);
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let pinned = sched_setaffinity(Pid::from_raw(0), &cpus);
            let _ = ready.send(pinned);
            while !stopped.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let neighbour = Self {
            stop,
            thread: Some(thread),
        };
        is_ready
            .recv()
            .context("the second thread ended")?
            .context("a second processor is needed")?;
        Ok(neighbour)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
