// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl apply`

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use mmops_uapi::retry_on_eintr;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::cli::Apply;
use crate::digests;
use crate::disk::{Files, Name};
use crate::receiver::{receive, Incomplete, Received};
use crate::store::{State, Store};
use crate::stream;
use crate::units;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    replica: &'a str,
    #[serde(flatten)]
    state: Option<State>,
    rounds: u64,
    bytes: u64,
}

pub fn run(args: &Apply) -> Result<()> {
    match (&args.state, &args.recover, &args.stream, &args.replica) {
        (Some(replica), ..) => print_state(replica),
        (_, Some(replica), ..) => {
            let store = open(replica, false)?;
            report(args, replica, store.state(), &Received::default())
        }
        (.., Some(stream), Some(replica)) => apply(args, stream, replica),
        _ => unreachable!("the command line has them"),
    }
}

fn open(replica: &Path, may_create: bool) -> Result<Store<Files>> {
    let files = Files::open(replica, may_create)?;
    Store::open(files).with_context(|| format!("cannot use the replica {}", replica.display()))
}

fn print_state(replica: &Path) -> Result<()> {
    let output = io::stdout();
    ensure!(
        !output.is_terminal(),
        "a state is no text for a terminal: send it to a file, or through a pipe"
    );
    let mut store = open(replica, replica.is_file())?;
    let context = || format!("cannot tell the state of {}", replica.display());
    let state = store.adopt(stream::new_id()?).with_context(context)?;
    let file = File::open(store.disk().path(Name::Replica)).with_context(context)?;
    digests::write(output.lock(), &file, &state)
}

fn apply(args: &Apply, stream: &Path, replica: &Path) -> Result<()> {
    let input = if stream::is_standard(stream) {
        let input = io::stdin();
        ensure!(
            !input.is_terminal(),
            "a stream comes through a pipe, as from `mmopsctl replicate FILE -`, or from a file, \
             and not from a terminal"
        );
        input.as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(stream)
    };
    let input = input.with_context(|| format!("cannot open the stream {}", stream.display()))?;
    let input = BufReader::with_capacity(BUFFER, Input::new(input, args.quiet)?);
    let mut store = open(replica, true)?;
    let mut done = Received::default();
    let result = receive(input, &mut store, |whole| {
        done = *whole;
        if whole.rounds == 1 && !args.quiet {
            note!(
                "mmopsctl: {} follows, after a first round with {}",
                replica.display(),
                units::bytes(whole.bytes)
            );
        }
    });
    if let Err(error) = result {
        let discarded = store.discard();
        let name = replica.display();
        return Err(match store.state() {
            Some(state) => error.context(format!("{name} is {}", state.point)),
            None => {
                store.disk().remove_all();
                error.context(format!("{name} has no state"))
            }
        })
        // What it says first is what it failed for.
        .inspect_err(|_| drop(discarded));
    }
    report(args, replica, store.state(), &done)
}

fn report(args: &Apply, replica: &Path, state: Option<State>, done: &Received) -> Result<()> {
    let name = replica.to_string_lossy();
    if args.json {
        let report = Report {
            replica: &name,
            state,
            rounds: done.rounds,
            bytes: done.bytes,
        };
        say!("{}", serde_json::to_string(&report)?)?;
    } else if let Some(state) = state {
        say!("{name}: {}, {}", state.point, units::bytes(state.size))?;
    } else {
        say!("{name}: no state")?;
    }
    Ok(())
}

/// A stream that signals end.
#[derive(Debug)]
struct Input {
    file: File,
    quiet: bool,
    /// Whether the end of the stream is to be waited for when Ctrl-C comes: that ends whoever
    /// writes it, too, after a last round.
    waits: bool,
    interrupts: OwnedFd,
    ends: OwnedFd,
}

impl Input {
    fn new(file: File, quiet: bool) -> Result<Self> {
        let kind = file.metadata().context("cannot look at the stream")?;
        Ok(Self {
            file,
            quiet,
            waits: kind.file_type().is_fifo() || kind.file_type().is_socket(),
            interrupts: signals(&[SIGINT])?,
            ends: signals(&[SIGTERM, SIGHUP])?,
        })
    }
}

/// What can be read when one of the signals has come.
fn signals(signals: &[i32]) -> Result<OwnedFd> {
    let context = "cannot install a signal handler";
    let (reader, writer) = io::pipe().context(context)?;
    for &signal in signals {
        pipe::register(signal, writer.try_clone().context(context)?).context(context)?;
    }
    Ok(reader.into())
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [&self.ends, &self.interrupts]
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
                .to_vec();
            fds.push(PollFd::new(self.file.as_fd(), PollFlags::POLLIN));
            retry_on_eintr(|| poll(&mut fds, PollTimeout::NONE))?;
            let [ends, interrupts] = [0, 1].map(|at: usize| fds[at].any() == Some(true));
            if !ends && !interrupts {
                return self.file.read(buffer);
            }
            if ends || !self.waits {
                return Err(io::Error::other(Incomplete::Stopped));
            }
            self.waits = false;
            nix::unistd::read(&self.interrupts, &mut [0])?;
            if !self.quiet {
                note!("\nmmopsctl: waits for the end of the stream; Ctrl-C again ends at once");
            }
        }
    }
}
