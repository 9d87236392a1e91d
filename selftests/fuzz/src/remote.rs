// SPDX-License-Identifier: GPL-2.0

//! Programs that another process runs: there is one sandbox in each.
//!
//! Both write words of 64 bits: a program is its length and its bytes, and what came of it is the
//! fields of [`Outcome`] in their order.

use std::env;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::coverage::Coverage;
use crate::program::{Program, MOST_BYTES};
use crate::runner::{Outcome, Runner};

/// Most bytes of a field of an outcome.
const MOST: usize = 1 << 24;

fn write_word(to: &mut impl Write, word: u64) -> io::Result<()> {
    to.write_all(&word.to_le_bytes())
}

fn read_word(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_word(to, bytes.len() as u64)?;
    to.write_all(bytes)
}

fn read_bytes(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let len = read_word(from)?;
    if len > most as u64 {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_outcome(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let places: Vec<u8> = outcome
        .places
        .iter()
        .flat_map(|place| place.to_le_bytes())
        .collect();
    write_bytes(to, &places)?;
    write_bytes(to, outcome.wrong.as_deref().unwrap_or("").as_bytes())?;
    for word in [outcome.calls, outcome.ioctls, outcome.successes] {
        write_word(to, word)?;
    }
    to.flush()
}

fn read_outcome(from: &mut impl Read) -> io::Result<Outcome> {
    let places = read_bytes(from, MOST)?;
    let wrong = read_bytes(from, MOST)?;
    let words = places.chunks_exact(8);
    Ok(Outcome {
        places: words
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .collect(),
        wrong: (!wrong.is_empty()).then(|| String::from_utf8_lossy(&wrong).into_owned()),
        calls: read_word(from)?,
        ioctls: read_word(from)?,
        successes: read_word(from)?,
    })
}

/// Runs what is asked for on standard input, until that ends. Of a program that reached no place
/// which none of this process had reached, no places are told.
pub fn serve(runner: &mut Runner) -> Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    let mut known = Coverage::default();
    loop {
        let bytes = match read_bytes(&mut from, MOST_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut outcome = runner.run(&Program::new(bytes))?;
        if !known.add(outcome.places.iter().copied()) {
            outcome.places.clear();
        }
        write_outcome(&mut to, &outcome)?;
    }
}

/// A process that runs programs.
pub struct Remote {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts one, of this program.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            child,
            to: to.expect("a pipe"),
            from: BufReader::new(from.expect("a pipe")),
        })
    }

    /// Has it run a program.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn run(&mut self, program: &Program) -> Result<Outcome> {
        write_bytes(&mut self.to, program.bytes())
            .and_then(|()| read_outcome(&mut self.from))
            .context("the process that runs programs has ended")
    }

    /// Lets it end, and waits for it.
    pub fn finish(self) -> Result<()> {
        let Self { mut child, to, .. } = self;
        drop(to);
        ensure!(
            child.wait()?.success(),
            "a process that runs programs failed"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for wrong in [None, Some("not all was done".to_owned())] {
            let outcome = Outcome {
                places: HashSet::from([1, u64::MAX]),
                wrong,
                calls: 3,
                ioctls: 2,
                successes: 1,
            };
            let mut bytes = Vec::new();
            write_outcome(&mut bytes, &outcome).unwrap();
            assert_eq!(read_outcome(&mut &bytes[..]).unwrap(), outcome);
            bytes.pop();
            assert!(read_outcome(&mut &bytes[..]).is_err());
        }
        assert!(read_bytes(&mut &[9, 0, 0, 0, 0, 0, 0, 0, 1][..], 8).is_err());
    }
}
