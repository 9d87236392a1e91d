// SPDX-License-Identifier: GPL-2.0

//! A replica that is always the state after a whole round, whatever comes in between.
//!
//! A round goes to a journal first. When the journal is whole and on the disk, the round is made in
//! the replica, which is only then written to; when that is on the disk, the state says that the
//! replica has the round. Who finds a whole journal of the round that comes next makes it again:
//! what a round does is the same when it was done before, in part or as a whole. Any other journal
//! is of no use.
//!
//! The first round of a stream that has all goes to a new file instead, which takes the place of
//! the replica. The state says before that this is to be done.

use std::io::BufReader;
use std::ops::Range;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Name, Reader};
use crate::frame::{Decoder, Encoder, Fields, FrameError, Magic, MAX_DATA};
use crate::record::{Header, Point, Record};

/// Magic of a journal.
const JOURNAL: Magic = *b"mmopsjnl";
/// Kind of its first frame: the states of the replica before and after it. Others are records.
const STEP: u32 = 0x100;

const FORMAT: &str = "mmops-replica";
const VERSION: u32 = 1;

/// Bytes of a journal that are written at once.
const BUFFER: usize = 1 << 20;

/// The contents of the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(flatten)]
    pub point: Point,
    /// Bytes in the replica.
    pub size: u64,
    /// Whether the new file, if it is there still, has this state, and not the replica.
    pub is_pending: bool,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    format: String,
    version: u32,
    #[serde(flatten)]
    state: State,
}

/// What takes rounds.
pub trait Rounds {
    /// Whether the rounds of a stream can be made in the replica as it is.
    fn accept(&mut self, header: &Header) -> Result<()>;
    /// A round begins, in which the replica gets this size.
    fn begin(&mut self, to: Point, size: u64) -> Result<()>;
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()>;
    fn zero(&mut self, range: Range<u64>) -> Result<()>;
    /// The round is whole.
    fn end(&mut self) -> Result<()>;
}

/// Where the round under way goes.
#[derive(Debug)]
enum Stage {
    /// There is none, or it is whole.
    None,
    New {
        to: State,
    },
    Journal {
        encoder: Encoder,
        to: State,
        /// Bytes written.
        offset: u64,
        /// Records since the begin of the round.
        records: u64,
    },
}

/// A replica, and what belongs to it.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    state: Option<State>,
    /// Whether the next round has all.
    is_first: bool,
    stage: Stage,
    buffer: Vec<u8>,
}

impl<D: Disk> Store<D> {
    /// Makes the replica whole, if whoever wrote to it was stopped.
    pub fn open(disk: D) -> Result<Self> {
        let mut this = Self {
            disk,
            state: None,
            is_first: false,
            stage: Stage::None,
            buffer: Vec::new(),
        };
        if this.disk.size(Name::Journal)?.is_none() {
            this.disk.create(Name::Journal)?;
            this.disk.sync_names()?;
        }
        this.recover()?;
        Ok(this)
    }

    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The state of the replica; none if there is none.
    pub fn state(&self) -> Option<State> {
        self.state
    }

    /// Makes a state for a replica that has none, or that others have written to.
    pub fn adopt(&mut self, stream: u128) -> Result<State> {
        let size = self.disk.size(Name::Replica)?;
        let size = size.context("there is no such file")?;
        match self.state {
            Some(state) if state.size == size => Ok(state),
            _ => {
                let state = State {
                    point: Point { stream, round: 0 },
                    size,
                    is_pending: false,
                };
                self.disk.sync(Name::Replica)?;
                self.write_state(state)?;
                Ok(state)
            }
        }
    }

    fn recover(&mut self) -> Result<()> {
        self.state = self.read_state()?;
        match self.state {
            Some(state) if state.is_pending => self.replace(state)?,
            _ if self.disk.size(Name::New)?.is_some() => self.disk.remove(Name::New)?,
            _ => {}
        }
        if self.disk.size(Name::NewState)?.is_some() {
            self.disk.remove(Name::NewState)?;
        }
        match self.read_journal(|_, _| Ok(())) {
            Ok((from, to)) => match self.state {
                Some(state) if state.point == from => self.replay(to)?,
                Some(_) => self.disk.set_size(Name::Journal, 0)?,
                None => bail!(
                    "it has a journal and no state, so what it is cannot be told: \
                     remove it and its directory, and begin anew"
                ),
            },
            Err(error) if is_damage(&error) => self.disk.set_size(Name::Journal, 0)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_state(&self) -> Result<Option<State>> {
        let Some(size) = self.disk.size(Name::State)? else {
            return Ok(None);
        };
        let mut text = vec![0; size.min(4096) as usize];
        let read = self.disk.read(Name::State, &mut text, 0)?;
        let file: StateFile = serde_json::from_slice(&text[..read])
            .context("its state cannot be read: remove its directory, and begin anew")?;
        ensure!(
            file.format == FORMAT && file.version == VERSION,
            "its state is of another version: use the mmopsctl that wrote it"
        );
        Ok(Some(file.state))
    }

    fn write_state(&mut self, state: State) -> Result<()> {
        let file = StateFile {
            format: FORMAT.into(),
            version: VERSION,
            state,
        };
        let mut text = serde_json::to_vec(&file)?;
        text.push(b'\n');
        self.disk.create(Name::NewState)?;
        self.disk.write(Name::NewState, &text, 0)?;
        self.disk.sync(Name::NewState)?;
        self.disk.rename(Name::NewState, Name::State)?;
        self.disk.sync_names()?;
        self.state = Some(state);
        Ok(())
    }

    /// Lets the new file take the place of the replica, unless that has been done.
    fn replace(&mut self, state: State) -> Result<()> {
        if self.disk.size(Name::New)?.is_some() {
            self.disk.rename(Name::New, Name::Replica)?;
        }
        self.disk.sync_names()?;
        self.write_state(State {
            is_pending: false,
            ..state
        })
    }

    /// Makes the round that the journal has.
    fn replay(&mut self, to: Point) -> Result<()> {
        let mut size = 0;
        self.read_journal(|disk, record| match *record {
            Record::Begin { size: new, .. } => {
                size = new;
                disk.set_size(Name::Replica, new)
            }
            Record::Data { offset, bytes } => disk.write(Name::Replica, bytes, offset),
            Record::Zero { offset, length } => {
                disk.make_hole(Name::Replica, offset..offset + length)
            }
            _ => Ok(()),
        })
        .context("the round is in the journal, and is made when mmopsctl apply is run again")?;
        self.disk.sync(Name::Replica)?;
        self.write_state(State {
            point: to,
            size,
            is_pending: false,
        })?;
        // Of no use any more, whether that lasts or not.
        self.disk.set_size(Name::Journal, 0)
    }

    /// Calls `f` for each record of the journal, and returns what it leads from and to; an error
    /// that [`is_damage`] if it is not whole.
    fn read_journal(
        &self,
        mut f: impl FnMut(&D, &Record<'_>) -> Result<()>,
    ) -> Result<(Point, Point)> {
        let input = BufReader::with_capacity(MAX_DATA, Reader::new(&self.disk, Name::Journal));
        let mut decoder = Decoder::new(input, JOURNAL, "a journal")?;
        let step = decoder.next()?.ok_or(FrameError::Cut)?;
        ensure!(step.kind == STEP, FrameError::Bad("no step".into()));
        let mut fields = Fields(step.payload);
        let mut point = || -> Result<Point, FrameError> {
            Ok(Point {
                stream: fields.u128()?,
                round: fields.u64()?,
            })
        };
        let (from, to) = (point()?, point()?);
        loop {
            let frame = decoder.next()?.ok_or(FrameError::Cut)?;
            let record = Record::decode(&frame)?;
            f(&self.disk, &record)?;
            if matches!(record, Record::End { .. }) {
                return Ok((from, to));
            }
        }
    }

    /// Drops the round under way.
    pub fn discard(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.stage, Stage::None) {
            Stage::None => Ok(()),
            Stage::New { .. } => self.disk.remove(Name::New),
            Stage::Journal { .. } => self.disk.set_size(Name::Journal, 0),
        }
    }

    /// Writes what was appended to the journal, when it is enough or `all`.
    fn flush(&mut self, all: bool) -> Result<()> {
        if let Stage::Journal { offset, .. } = &mut self.stage {
            if all || self.buffer.len() >= BUFFER {
                self.disk.write(Name::Journal, &self.buffer, *offset)?;
                *offset += self.buffer.len() as u64;
                self.buffer.clear();
            }
        }
        Ok(())
    }

    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        if let Stage::Journal {
            encoder, records, ..
        } = &mut self.stage
        {
            record.encode(encoder, &mut self.buffer);
            *records += 1;
        }
        self.flush(false)
    }
}

/// Whether a journal is not whole, or cannot be one.
fn is_damage(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(FrameError::Cut | FrameError::Bad(_))
    )
}

impl<D: Disk> Rounds for Store<D> {
    fn accept(&mut self, header: &Header) -> Result<()> {
        self.is_first = header.base.is_none();
        let Some(base) = header.base else {
            return Ok(());
        };
        let again = "take its state anew (mmopsctl apply --state), and resume with that";
        let state = self.state.with_context(|| {
            format!("the stream goes on from {base}, and this replica has no state: {again}")
        })?;
        ensure!(
            state.point == base,
            "the stream goes on from {base}, and this replica is {}: {again}",
            state.point
        );
        ensure!(
            self.disk.size(Name::Replica)? == Some(state.size),
            "the replica has not the size that it had after {base}: {again}"
        );
        Ok(())
    }

    fn begin(&mut self, to: Point, size: u64) -> Result<()> {
        let to = State {
            point: to,
            size,
            is_pending: false,
        };
        self.buffer.clear();
        if self.is_first {
            self.stage = Stage::New { to };
            self.disk.create(Name::New)?;
            return self.disk.set_size(Name::New, size);
        }
        let from = self
            .state
            .context("a round that goes on from nothing")?
            .point;
        let mut encoder = Encoder::new(JOURNAL, &mut self.buffer);
        let numbers = [
            &from.stream.to_le_bytes()[..],
            &from.round.to_le_bytes(),
            &to.point.stream.to_le_bytes(),
            &to.point.round.to_le_bytes(),
        ];
        encoder.frame(STEP, &numbers, &mut self.buffer);
        let round = to.point.round;
        Record::Begin { round, size }.encode(&mut encoder, &mut self.buffer);
        self.stage = Stage::Journal {
            encoder,
            to,
            offset: 0,
            records: 0,
        };
        // A size that the file system does not have must fail before the round is whole.
        self.disk.set_size(Name::Journal, size)?;
        self.disk.set_size(Name::Journal, 0)
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        match self.stage {
            Stage::New { .. } => self.disk.write(Name::New, bytes, offset),
            _ => self.append(&Record::Data { offset, bytes }),
        }
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        match self.stage {
            Stage::New { .. } => self.disk.make_hole(Name::New, range),
            _ => self.append(&Record::Zero {
                offset: range.start,
                length: range.end - range.start,
            }),
        }
    }

    fn end(&mut self) -> Result<()> {
        match &mut self.stage {
            Stage::None => bail!("a round ends that has not begun"),
            Stage::New { to } => {
                let pending = State {
                    is_pending: true,
                    ..*to
                };
                self.disk.sync(Name::New)?;
                // From here on the new file must not be dropped: the state may name it.
                self.stage = Stage::None;
                self.is_first = false;
                self.write_state(pending)?;
                self.replace(pending)
            }
            Stage::Journal {
                encoder,
                to,
                records,
                ..
            } => {
                let (to, records) = (to.point, *records);
                let round = to.round;
                Record::End { round, records }.encode(encoder, &mut self.buffer);
                self.flush(true)?;
                self.disk.sync(Name::Journal)?;
                self.stage = Stage::None;
                self.replay(to)
            }
        }
    }
}
