// SPDX-License-Identifier: GPL-2.0

//! The manual, made from the command line's own description.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;
use crate::output::output;

/// Columns of a line of text.
const WIDTH: usize = 96;

pub fn write_man(dir: &Path) -> Result<()> {
    let context = || format!("cannot write manual pages to {}", dir.display());
    std::fs::create_dir_all(dir).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(context)
}

pub fn print_rst() -> Result<()> {
    output().write_all(rst().as_bytes())?;
    Ok(())
}

/// The manual in reStructuredText.
fn rst() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut out = String::from(
        ".. SPDX-License-Identifier: GPL-2.0\n\
         .. Made by ``mmopsctl gen-rst``; edit tools/mmopsctl/src/cli.rs instead.\n\n",
    );
    let name = cli.get_name().to_owned();
    let line = "=".repeat(name.len());
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}\n{name}\n{line}\n");
    paragraphs(&mut out, about(&cli), "");
    out.push_str("Commands\n========\n\n");
    for sub in visible(&cli) {
        let about = sub
            .get_about()
            .map(StyledStr::to_string)
            .unwrap_or_default();
        let _ = writeln!(out, "``{}``\n    {about}", sub.get_name());
    }
    out.push('\n');
    for sub in visible(&cli) {
        command(&mut out, &name, sub);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn visible(cli: &Command) -> impl Iterator<Item = &Command> {
    cli.get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(StyledStr::to_string).unwrap_or_default()
}

fn command(out: &mut String, parent: &str, this: &Command) {
    let title = format!("{parent} {}", this.get_name());
    let _ = writeln!(out, "{title}\n{}\n", "=".repeat(title.len()));
    let usage = this.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let _ = writeln!(out, "::\n\n    {usage}\n");
    paragraphs(out, about(this), "");
    let arguments = this
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version"));
    for arg in arguments {
        let _ = writeln!(out, "``{}``", signature(arg));
        let help = arg.get_long_help().or(arg.get_help());
        let mut help = help.map(StyledStr::to_string).unwrap_or_default();
        let defaults = arg.get_default_values();
        if let (Some(default), true) = (defaults.first(), arg.get_action().takes_values()) {
            let _ = write!(help, " [default: {}]", default.to_string_lossy());
        }
        paragraphs(out, help, "    ");
    }
    for sub in visible(this) {
        command(out, &title, sub);
    }
}

/// An argument as it is written on the command line.
fn signature(arg: &Arg) -> String {
    let mut names = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let mut text = names.join(", ");
    if arg.get_action().takes_values() {
        let separator = if text.is_empty() { "" } else { " " };
        let fallback = arg.get_id().as_str().to_uppercase();
        let value = arg.get_value_names().and_then(|names| names.first());
        let _ = write!(
            text,
            "{separator}{}",
            value.map_or(fallback.as_str(), |name| name)
        );
    }
    text
}

/// Appends the paragraphs of `text`, filled and indented.
fn paragraphs(out: &mut String, text: impl AsRef<str>, indent: &str) {
    for paragraph in text.as_ref().split("\n\n") {
        let mut column = 0;
        for word in paragraph.split_whitespace() {
            if column == 0 {
                out.push_str(indent);
                column = indent.len();
            } else if column + 1 + word.len() > WIDTH {
                let _ = write!(out, "\n{indent}");
                column = indent.len();
            } else {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += word.len();
        }
        out.push_str("\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_page_is_up_to_date() {
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../Documentation/mmopsctl.rst");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rst(),
            "{} is out of date: run `mmopsctl gen-rst > Documentation/mmopsctl.rst`",
            path.display()
        );
    }

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(rst().lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn manual_pages() {
        let dir = std::env::temp_dir().join(format!("mmopsctl-{}-man", std::process::id()));
        write_man(&dir).unwrap();
        let page = std::fs::read_to_string(dir.join("mmopsctl-replicate.1")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(page.contains("no\\-verify"));
    }
}
