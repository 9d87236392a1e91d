// SPDX-License-Identifier: GPL-2.0

//! The command of rustc that Kbuild saved for a module.

use anyhow::{Context, Result};
use std::{ffi::OsString, fs, path::Path, path::PathBuf};

/// What of the command applies to any module.
pub struct Saved {
    /// The compiler.
    pub program: PathBuf,
    /// Its arguments, but for those about the module's source and about output.
    pub arguments: Vec<OsString>,
    /// Variables that are set for it.
    pub environment: Vec<(OsString, Option<OsString>)>,
}

impl Saved {
    /// Reads a `.cmd` file of Kbuild.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: build the modules first", path.display()))?;

        Self::parse(&text).with_context(|| format!("{}: no command of rustc", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with("savedcmd_"))?;
        let (_, command) = line.split_once(":=")?;
        let words = shlex::split(command)?.into_iter();
        // Other programs may follow.
        let mut words = words.take_while(|word| !word.starts_with(';')).peekable();

        let mut environment = Vec::new();
        while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
            environment.push((name.into(), Some(value.into())));
            words.next();
        }

        let program = words.next()?.into();
        let mut arguments = Vec::new();
        while let Some(word) = words.next() {
            if takes_output(&word) {
                words.next();
            } else if !is_about_one_module(&word) {
                arguments.push(word.into());
            }
        }
        Some(Self {
            program,
            arguments,
            environment,
        })
    }
}

/// Whether the word is an option about output whose value is the next word.
fn takes_output(word: &str) -> bool {
    matches!(
        word,
        "--out-dir" | "--crate-type" | "--crate-name" | "--emit" | "-o"
    )
}

fn is_about_one_module(word: &str) -> bool {
    const OPTIONS: [&str; 5] = [
        "--emit=",
        "--out-dir=",
        "--crate-type=",
        "--crate-name=",
        "--error-format=",
    ];

    word.ends_with(".rs") || OPTIONS.iter().any(|option| word.starts_with(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_applies_to_any_module() {
        let saved = Saved::parse(
            "savedcmd_a/b.o := RUST_MODFILE=a/b rustc --edition=2021 '-Aunused x' \
             --crate-name b --emit=obj=a/b.o --emit=dep-info=d -o y --extern mmops=m.rmeta \
             --crate-type rlib /s/a/b.rs ;llvm-link --internalize a/b.bc\n\nsource_a/b.o := b.rs\n",
        )
        .unwrap();

        assert_eq!(saved.program, PathBuf::from("rustc"));
        assert_eq!(
            saved.arguments,
            ["--edition=2021", "-Aunused x", "--extern", "mmops=m.rmeta"]
        );
        assert_eq!(
            saved.environment,
            [("RUST_MODFILE".into(), Some("a/b".into()))]
        );
    }

    #[test]
    fn finds_no_command_where_there_is_none() {
        assert!(Saved::parse("source_a/b.o := b.rs\n").is_none());
    }
}
