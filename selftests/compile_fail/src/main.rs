// SPDX-License-Identifier: GPL-2.0

//! Shows that misuse of the crate `mmops` does not compile, and prints KTAP.
//!
//! Each file below the directory of cases is compiled twice with the command with which Kbuild
//! compiled a module that uses the crate, and without `unsafe`: as the misuse, which has to fail
//! with the errors that it names and no others, and as its twin, which differs in what is wrong and
//! has to compile. Documentation/testing.rst says how a case is written.

mod command;
mod ktap;

use anyhow::{anyhow, Context, Result};
use clap::Parser;
use command::Saved;
use ktap::Ktap;
use std::path::{Path, PathBuf};
use ui_test::{
    custom_flags::rustfix::RustfixMode,
    diagnostics::{rustc::rustc_diagnostics_extractor, Diagnostics},
    spanned::Spanned,
    CommandBuilder, Config,
};

#[derive(Parser)]
#[command(about, version)]
struct Options {
    /// Directory that Kbuild built the modules into
    #[arg(long)]
    modules: PathBuf,
    /// Command that Kbuild saved for a module that uses the crate, below that directory
    #[arg(long, default_value = "samples/minimal/.mmops_minimal.o.cmd")]
    saved: PathBuf,
    /// Directory for what the compiler writes
    #[arg(long)]
    out: PathBuf,
    /// Directory with the cases
    cases: PathBuf,
    /// Only cases whose path contains one of these
    filters: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let saved = Saved::read(&options.modules.join(&options.saved))?;

    // Paths in the saved command are relative to where Kbuild ran.
    let out = absolute(&options.out)?;
    let cases = absolute(&options.cases)?;
    std::env::set_current_dir(&options.modules)
        .with_context(|| format!("no directory {}", options.modules.display()))?;

    let config = config(saved, &cases, out, options.filters);
    ui_test::run_tests_generic(
        vec![config],
        |path, config| {
            path.extension()
                .is_some_and(|extension| extension == "rs")
                .then(|| ui_test::default_any_file_filter(path, config))
        },
        |_, _| (),
        Ktap::default(),
    )
    .map_err(|error| anyhow!("{error}"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("no path {}", path.display()))
}

fn config(saved: Saved, cases: &Path, out: PathBuf, filters: Vec<String>) -> Config {
    let mut program = CommandBuilder::rustc();
    program.program = saved.program;
    program.args.extend(saved.arguments);
    program.args.extend(
        [
            "--crate-type=lib",
            "--emit=metadata",
            "-Funsafe_code",
            // A case shows one error, and has to say nothing of what else could be said of it.
            "-Awarnings",
        ]
        .map(Into::into),
    );
    // The kernel builds with a stable compiler's unstable features.
    program
        .envs
        .push(("RUSTC_BOOTSTRAP".into(), Some("1".into())));
    program.envs.extend(saved.environment);

    let mut config = Config {
        program,
        out_dir: out,
        // The errors that matter are named in the cases; the rest of the output is rustc's.
        output_conflict_handling: ui_test::ignore_output_conflict,
        diagnostic_extractor: diagnostics_with_code,
        filter_files: filters,
        ..Config::rustc(cases)
    };
    let defaults = config.comment_defaults.base();
    defaults.set_custom("rustfix", RustfixMode::Disabled);
    // The edition is in the saved command.
    defaults.custom.remove("edition");
    defaults.exit_status = Spanned::dummy(1).into();
    config
}

/// As rustc's diagnostics, with the code in front of each message, so that one annotation names
/// both.
fn diagnostics_with_code(path: &Path, stderr: &[u8]) -> Diagnostics {
    let mut diagnostics = rustc_diagnostics_extractor(path, stderr);
    let elsewhere = &mut diagnostics.messages_from_unknown_file_or_line;

    for message in diagnostics.messages.iter_mut().flatten().chain(elsewhere) {
        if let Some(code) = &message.code {
            message.message = format!("{code}: {}", message.message);
        }
    }
    diagnostics
}
