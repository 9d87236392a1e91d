// SPDX-License-Identifier: GPL-2.0

//! The writer of a stream: a replication whose replica is elsewhere.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::frame::{Encoder, MAX_DATA};
use crate::receiver::Incomplete;
use crate::record::{Header, Point, Record, STREAM};
use crate::target::Target;

/// Whether `path` stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A number that no other stream has.
pub fn new_id() -> Result<u128> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .context("cannot get random bytes")?;
    Ok(u128::from_le_bytes(id))
}

/// Standard output, for a stream.
pub fn output() -> Result<File> {
    let output = io::stdout();
    ensure!(
        !output.is_terminal(),
        "a stream is no text for a terminal: send it through a pipe, as to \
         `ssh HOST mmopsctl apply - REPLICA`, or to a file"
    );
    let output = output.as_fd().try_clone_to_owned();
    Ok(output.context("cannot use standard output")?.into())
}

/// Makes records of the rounds, and writes them.
#[derive(Debug)]
pub struct Stream<W> {
    output: W,
    encoder: Encoder,
    /// What is not written yet.
    buffer: Vec<u8>,
    rounds: u64,
    /// Records of the round under way, but for its begin.
    records: u64,
    /// Bytes in the replica.
    size: u64,
}

impl<W: Write> Stream<W> {
    /// A stream for a replica that is empty, or has been brought to `base`.
    pub fn new(output: W, page_size: u64, size: u64, base: Option<Point>) -> Result<Self> {
        Self::with_id(new_id()?, output, page_size, size, base)
    }

    fn with_id(
        stream: u128,
        output: W,
        page_size: u64,
        size: u64,
        base: Option<Point>,
    ) -> Result<Self> {
        let mut buffer = Vec::with_capacity(2 * MAX_DATA);
        let mut encoder = Encoder::new(STREAM, &mut buffer);
        let header = Header {
            stream,
            page_size: page_size as u32,
            size,
            base,
        };
        Record::Header(header).encode(&mut encoder, &mut buffer);
        let mut this = Self {
            output,
            encoder,
            buffer,
            rounds: 0,
            records: 0,
            size,
        };
        // Whoever reads it tells at once if it cannot be used.
        this.flush()?;
        Ok(this)
    }

    fn put(&mut self, record: &Record<'_>) -> Result<()> {
        record.encode(&mut self.encoder, &mut self.buffer);
        self.records += 1;
        if self.buffer.len() >= MAX_DATA {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.output.write_all(&self.buffer);
        self.buffer.clear();
        match written.and_then(|()| self.output.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(Incomplete::ReaderGone.into())
            }
            result => result.context("cannot write the stream"),
        }
    }
}

impl<W: Write> Target for Stream<W> {
    fn begin(&mut self, size: u64) -> Result<()> {
        let round = self.rounds;
        self.size = size;
        self.put(&Record::Begin { round, size })?;
        self.records = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        for (bytes, index) in bytes.chunks(MAX_DATA).zip(0..) {
            let offset = offset + index * MAX_DATA as u64;
            self.put(&Record::Data { offset, bytes })?;
        }
        Ok(())
    }

    fn make_hole(&mut self, range: Range<u64>) -> Result<u64> {
        let length = range.end.min(self.size).saturating_sub(range.start);
        if length != 0 {
            self.put(&Record::Zero {
                offset: range.start,
                length,
            })?;
        }
        Ok(length)
    }

    fn end(&mut self) -> Result<()> {
        self.put(&Record::End {
            round: self.rounds,
            records: self.records,
        })?;
        self.rounds += 1;
        self.flush()
    }

    fn finish(&mut self) -> Result<()> {
        self.put(&Record::Finish {
            rounds: self.rounds,
        })?;
        self.flush()
    }

    fn replica(&self) -> Option<&File> {
        None
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A stream into memory.
    pub fn to_vec(id: u128, size: u64, base: Option<Point>) -> Stream<Vec<u8>> {
        Stream::with_id(id, Vec::new(), 64, size, base).unwrap()
    }

    impl Stream<Vec<u8>> {
        /// What was written so far.
        pub fn written(&self) -> &[u8] {
            assert!(self.buffer.is_empty(), "within a round");
            &self.output
        }
    }

    /// Takes so many bytes, and is then closed.
    struct Pipe(usize);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            match taken {
                0 => Err(ErrorKind::BrokenPipe.into()),
                _ => Ok(taken),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_an_error_of_its_own() {
        for room in [0, 50, 200] {
            let result = Stream::with_id(1, Pipe(room), 64, 640, None).and_then(|mut stream| {
                stream.begin(640)?;
                stream.write(&[1; 640], 0)?;
                stream.end()
            });
            let error = result.unwrap_err();
            assert_eq!(
                error.downcast_ref(),
                Some(&Incomplete::ReaderGone),
                "{room}"
            );
            assert!(error.to_string().contains("--resume STATE"), "{error}");
        }
    }
}
