// SPDX-License-Identifier: GPL-2.0

//! Dirty tracking of memory-mapped files with mmops, from the command line.

#![forbid(unsafe_code)]
#![warn(clippy::print_stderr, clippy::print_stdout)]

#[macro_use]
mod output;

mod address;
mod apply;
#[cfg(test)]
mod apply_tests;
mod changes;
mod cli;
mod core_file;
#[cfg(test)]
mod core_file_tests;
mod digests;
mod disk;
#[cfg(test)]
mod disk_model;
mod docs;
mod frame;
mod harvest;
mod hold;
mod holder;
mod info;
mod intervals;
mod leaves;
mod log;
mod new_file;
mod notifier_trace;
mod plot;
mod process;
mod program;
mod protect;
mod receiver;
mod record;
mod replicate;
mod replicator;
mod restore_check;
#[cfg(test)]
mod restore_check_tests;
mod snapshot;
mod snapshot_area;
mod snapshot_compare;
mod snapshot_copier;
mod snapshot_digest;
mod snapshot_dir;
mod snapshot_index;
mod snapshot_mappings;
mod snapshot_memory;
mod snapshot_plan;
mod snapshot_report;
mod snapshot_saved;
mod soft_dirty;
mod sparse;
mod stop;
mod store;
mod stream;
mod target;
mod track;
mod tracked;
mod trackers;
mod units;
mod verify;
mod watch;
mod write_protect;
mod zap;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use receiver::Incomplete;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Info(args) => info::run(&args),
        Command::WriteProtect(args) => write_protect::run(&args),
        Command::Harvest(args) => harvest::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Replicate(args) => replicate::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Leaves(args) => leaves::run(&args),
        Command::Protect(args) => protect::run(&args),
        Command::Zap(args) => zap::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Track(args) => track::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::RestoreCheck(args) => restore_check::run(&args),
        Command::SoftDirty(args) => soft_dirty::run(&args),
        Command::NotifierTrace(args) => notifier_trace::run(&args),
        Command::Hold(args) => holder::run(&args),
        Command::GenMan { dir } => docs::write_man(&dir),
        Command::GenRst => docs::print_rst(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is left to tell.
        Err(error) if output::is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note!("mmopsctl: {error:#}");
            let incomplete = error.downcast_ref::<Incomplete>();
            incomplete.map_or(ExitCode::FAILURE, |why| why.status().into())
        }
    }
}
