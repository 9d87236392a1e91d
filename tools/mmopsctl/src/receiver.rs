// SPDX-License-Identifier: GPL-2.0

//! The reader of a stream: which records may follow which, and what they may hold.

use std::fmt;
use std::io::Read;

use anyhow::{ensure, Result};

use crate::frame::{Decoder, FrameError};
use crate::record::{Header, Point, Record, STREAM};
use crate::store::Rounds;

/// Why a stream has no end. What was whole of it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// It cannot be written: whoever read it has gone.
    ReaderGone,
    /// What was read of it ends before its end.
    Cut,
    /// A signal came.
    Stopped,
}

impl Incomplete {
    /// The exit status that tells of it.
    pub fn status(self) -> u8 {
        match self {
            Self::ReaderGone | Self::Cut => 3,
            Self::Stopped => 130,
        }
    }
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReaderGone => {
                "whoever read the stream has gone, so it is not complete: take the state of the \
                 replica (mmopsctl apply --state REPLICA), and go on from that with \
                 --resume STATE; or begin anew"
            }
            Self::Cut => {
                "the stream ends before its end: whoever wrote it has gone; take the state \
                 (mmopsctl apply --state REPLICA), and go on from that with mmopsctl replicate \
                 --resume STATE; or begin anew"
            }
            Self::Stopped => "ended by a signal",
        })
    }
}

impl std::error::Error for Incomplete {}

/// What was whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Rounds.
    pub rounds: u64,
    /// Bytes of data in them.
    pub bytes: u64,
    /// Bytes that became zero.
    pub zeroes: u64,
    /// Bytes in the file after the last.
    pub size: u64,
}

/// Reads a stream up to its end, and makes its rounds; calls `whole` after each with all that was.
pub fn receive(
    input: impl Read,
    rounds: &mut impl Rounds,
    whole: impl FnMut(&Received),
) -> Result<()> {
    let decoder = Decoder::new(input, STREAM, "a stream of mmopsctl replicate").map_err(cut)?;
    receive_from(decoder, rounds, whole)
}

/// As [`receive`], behind the preamble.
pub fn receive_from(
    mut decoder: Decoder<impl Read>,
    rounds: &mut impl Rounds,
    mut whole: impl FnMut(&Received),
) -> Result<()> {
    let header = header(&mut decoder).map_err(cut)?;
    rounds.accept(&header)?;
    let mut done = Received::default();
    loop {
        match next(&mut decoder)? {
            Record::Begin { round, size } => {
                ensure!(
                    round == done.rounds,
                    "round {round} of the stream comes where round {} should",
                    done.rounds
                );
                check_size(size)?;
                let to = Point {
                    stream: header.stream,
                    round,
                };
                rounds.begin(to, size)?;
                done.size = size;
                receive_round(&mut decoder, rounds, to, &mut done)?;
                whole(&done);
            }
            Record::Finish { rounds } => {
                ensure!(
                    rounds == done.rounds,
                    "the stream ends after {} rounds, and claims to have {rounds}",
                    done.rounds
                );
                return Ok(decoder.end()?);
            }
            record => return Err(out_of_place(&record, "between two rounds").into()),
        }
    }
}

/// What of a round follows its begin.
fn receive_round(
    decoder: &mut Decoder<impl Read>,
    rounds: &mut impl Rounds,
    to: Point,
    done: &mut Received,
) -> Result<()> {
    let Received { size, .. } = *done;
    let inside = |offset: u64, length: u64| {
        let end = offset.checked_add(length).filter(|&end| end <= size);
        end.map(|end| offset..end).ok_or_else(|| {
            FrameError::Bad(format!(
                "{length} bytes at {offset} are outside of the file, which has {size}"
            ))
        })
    };
    let (mut count, mut data, mut zeroes) = (0, 0, 0_u64);
    loop {
        match next(decoder)? {
            Record::Data { offset, bytes } => {
                inside(offset, bytes.len() as u64)?;
                rounds.write(bytes, offset)?;
                data += bytes.len() as u64;
            }
            Record::Zero { offset, length } => {
                rounds.zero(inside(offset, length)?)?;
                zeroes = zeroes.saturating_add(length);
            }
            Record::End { round, records } => {
                ensure!(
                    round == to.round && records == count,
                    "the end of round {} says round {round} and {records} records instead of \
                     {count}",
                    to.round
                );
                rounds.end()?;
                done.rounds += 1;
                done.bytes += data;
                done.zeroes = done.zeroes.saturating_add(zeroes);
                return Ok(());
            }
            record => return Err(out_of_place(&record, "within a round").into()),
        }
        count += 1;
    }
}

fn header(decoder: &mut Decoder<impl Read>) -> Result<Header, FrameError> {
    let frame = decoder.next()?.ok_or(FrameError::Cut)?;
    match Record::decode(&frame)? {
        Record::Header(header) => Ok(header),
        record => Err(out_of_place(&record, "in the place of the header")),
    }
}

fn next<'a>(decoder: &'a mut Decoder<impl Read>) -> Result<Record<'a>> {
    let frame = decoder.next().map_err(cut)?;
    let frame = frame.ok_or(Incomplete::Cut)?;
    Ok(Record::decode(&frame)?)
}

/// No file has a size that is no offset.
fn check_size(size: u64) -> Result<()> {
    ensure!(
        i64::try_from(size).is_ok(),
        "the stream has a file of {size} bytes, which no file has"
    );
    Ok(())
}

fn cut(error: FrameError) -> anyhow::Error {
    match error {
        FrameError::Cut => Incomplete::Cut.into(),
        // What a reader that was stopped says.
        FrameError::Io(error) if error.get_ref().is_some_and(|e| e.is::<Incomplete>()) => {
            Incomplete::Stopped.into()
        }
        error => error.into(),
    }
}

fn out_of_place(record: &Record<'_>, place: &str) -> FrameError {
    let what = match record {
        Record::Header(_) => "a header",
        Record::Begin { .. } => "the begin of a round",
        Record::Data { .. } => "data",
        Record::Zero { .. } => "a hole",
        Record::End { .. } => "the end of a round",
        Record::Finish { .. } => "the end of the stream",
    };
    FrameError::Bad(format!("the stream has {what} {place}"))
}
