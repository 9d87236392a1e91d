// SPDX-License-Identifier: GPL-2.0

//! Digests of the blocks of a replica, by which a stream is resumed: blocks that are the same in
//! the file need not be sent again.
//!
//! Blocks that are zero have none. A block that the end of the file is in counts as one with zeroes
//! behind the end: that is what becomes of it when the file grows.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;

use anyhow::{Context, Result};

use crate::frame::{Decoder, Encoder, Fields, FrameError, Magic};
use crate::record::Point;
use crate::sparse::{is_zero, read_up_to, Source};
use crate::store::State;
use crate::target::Target;

const MAGIC: Magic = *b"mmopsdig";
const WHAT: &str = "a state that mmopsctl apply --state has written";

const REPLICA: u32 = 1;
const DIGESTS: u32 = 2;
const END: u32 = 3;

/// Bytes of a block.
pub const BLOCK: u64 = 64 << 10;

const DIGEST: usize = blake3::OUT_LEN;
/// Digests in a frame at the most.
const IN_FRAME: usize = 1 << 14;

type Digest = [u8; DIGEST];

/// The digest of a block; none if all of it is zero.
fn digest(block: &[u8]) -> Option<Digest> {
    (!is_zero(block)).then(|| *blake3::hash(block).as_bytes())
}

/// Reads a block; what is behind the end of the file is zero.
fn read_block(file: &File, index: u64, block: &mut [u8]) -> Result<()> {
    let read = read_up_to(file, block, index * BLOCK).context("cannot read a block")?;
    block[read..].fill(0);
    Ok(())
}

/// Blocks of `range` of the file that are no holes.
fn data_blocks(file: Source<'_>, from: u64, size: u64) -> Result<Option<Range<u64>>> {
    let Some(data) = file.next_data(from * BLOCK)?.filter(|&data| data < size) else {
        return Ok(None);
    };
    let end = file.next_hole(data, size)?.max(data + 1);
    Ok(Some(data / BLOCK..end.div_ceil(BLOCK)))
}

/// Writes the digests of `replica` to `output`.
pub fn write(mut output: impl Write, replica: &File, state: &State) -> Result<()> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(MAGIC, &mut out);
    let head = [
        &state.point.stream.to_le_bytes()[..],
        &state.point.round.to_le_bytes(),
        &state.size.to_le_bytes(),
        &BLOCK.to_le_bytes(),
    ];
    encoder.frame(REPLICA, &head, &mut out);
    let mut block = vec![0; BLOCK as usize];
    let (mut first, mut digests, mut count) = (0_u64, Vec::new(), 0_u64);
    let mut next = 0;
    while let Some(data) = data_blocks(replica.into(), next, state.size)? {
        next = data.end;
        for index in data {
            read_block(replica, index, &mut block)?;
            let found = digest(&block);
            let is_next = first + (digests.len() / DIGEST) as u64 == index;
            if !digests.is_empty() && (!is_next || digests.len() == IN_FRAME * DIGEST) {
                encoder.frame(DIGESTS, &[&first.to_le_bytes(), &digests], &mut out);
                output.write_all(&out).context("cannot write the state")?;
                out.clear();
                digests.clear();
            }
            if let Some(found) = found {
                if digests.is_empty() {
                    first = index;
                }
                digests.extend(found);
                count += 1;
            }
        }
    }
    if !digests.is_empty() {
        encoder.frame(DIGESTS, &[&first.to_le_bytes(), &digests], &mut out);
    }
    encoder.frame(END, &[&count.to_le_bytes()], &mut out);
    output
        .write_all(&out)
        .and_then(|()| output.flush())
        .context("cannot write the state")
}

/// Digests that are read from the first block on.
#[derive(Debug)]
pub struct Digests<R> {
    decoder: Decoder<R>,
    /// The state that they are of.
    pub point: Point,
    blocks: u64,
    /// Of blocks from `first` on, those from `at` on are left.
    frame: Vec<u8>,
    first: u64,
    at: usize,
    count: u64,
    is_end: bool,
}

impl<R: Read> Digests<R> {
    pub fn new(input: R) -> Result<Self> {
        Self::open(input).context("cannot use the state")
    }

    fn open(input: R) -> Result<Self, FrameError> {
        let mut decoder = Decoder::new(input, MAGIC, WHAT)?;
        let frame = decoder.next()?.ok_or(FrameError::Cut)?;
        if frame.kind != REPLICA {
            return Err(FrameError::Bad("its first frame is another".into()));
        }
        let mut fields = Fields(frame.payload);
        let point = Point {
            stream: fields.u128()?,
            round: fields.u64()?,
        };
        let (size, block) = (fields.u64()?, fields.u64()?);
        fields.end()?;
        if block != BLOCK {
            return Err(FrameError::Bad(format!(
                "its blocks have {block} bytes instead of {BLOCK}"
            )));
        }
        Ok(Self {
            decoder,
            point,
            blocks: size.div_ceil(BLOCK),
            frame: Vec::new(),
            first: 0,
            at: 0,
            count: 0,
            is_end: false,
        })
    }

    /// The next block that is not zero in the replica.
    fn peek(&mut self) -> Result<Option<(u64, Digest)>, FrameError> {
        while self.at * DIGEST == self.frame.len() && !self.is_end {
            let least = self.first + self.at as u64;
            let frame = self.decoder.next()?.ok_or(FrameError::Cut)?;
            let mut fields = Fields(frame.payload);
            let number = fields.u64()?;
            match frame.kind {
                DIGESTS => {
                    let bytes = fields.rest();
                    let end = number.checked_add((bytes.len() / DIGEST) as u64);
                    let is_right = bytes.len() % DIGEST == 0
                        && number >= least
                        && end.is_some_and(|end| end <= self.blocks);
                    if !is_right {
                        return Err(FrameError::Bad("its blocks are not in order".into()));
                    }
                    self.count += (bytes.len() / DIGEST) as u64;
                    self.frame.clear();
                    self.frame.extend(bytes);
                    (self.first, self.at) = (number, 0);
                }
                END => {
                    fields.end()?;
                    if number != self.count {
                        return Err(FrameError::Bad("it lacks blocks".into()));
                    }
                    self.decoder.end()?;
                    self.is_end = true;
                }
                kind => return Err(FrameError::Bad(format!("it has a frame of kind {kind}"))),
            }
        }
        let digest = self.frame[self.at * DIGEST..].first_chunk();
        Ok(digest.map(|digest| (self.first + self.at as u64, *digest)))
    }

    /// The next block that is not zero in the replica, if that is below `end`.
    fn take_below(&mut self, end: u64) -> Result<Option<(u64, Digest)>> {
        let next = self.peek().context("cannot use the state")?;
        let next = next.filter(|(index, _)| *index < end);
        self.at += usize::from(next.is_some());
        Ok(next)
    }

    /// Writes all blocks of `file` to `target` that differ, and returns how many bytes of data that
    /// was; calls `see` with each block that is no hole, and so in the replica then.
    pub fn copy(
        &mut self,
        source: Source<'_>,
        size: u64,
        target: &mut impl Target,
        see: &mut dyn FnMut(Range<u64>),
    ) -> Result<u64> {
        let mut copied = 0;
        let mut block = vec![0; BLOCK as usize];
        let mut next = 0;
        while let Some(data) = data_blocks(source, next, size)? {
            self.zero_below(data.start, size, target)?;
            next = data.end;
            for index in data {
                read_block(source.file, index, &mut block)?;
                let theirs = self.take_below(index + 1)?.map(|(_, digest)| digest);
                let ours = digest(&block);
                let start = index * BLOCK;
                let length = (size - start).min(BLOCK);
                if ours != theirs {
                    if ours.is_some() {
                        target.write(&block[..length as usize], start)?;
                        copied += length;
                    } else {
                        target.make_hole(start..start + length)?;
                    }
                }
                see(start..start + length);
            }
        }
        // Also of those behind the end, which have gone with it, all are read.
        self.zero_below(u64::MAX, size, target)?;
        Ok(copied)
    }

    /// Makes the blocks zero that are in the replica, up to block `end` alone.
    fn zero_below(&mut self, end: u64, size: u64, target: &mut impl Target) -> Result<()> {
        let mut run = 0..0;
        while let Some((index, _)) = self.take_below(end)? {
            let block = (index * BLOCK).min(size)..((index + 1) * BLOCK).min(size);
            if block.start != run.end {
                if !run.is_empty() {
                    target.make_hole(run)?;
                }
                run = block.start..block.start;
            }
            run.end = block.end;
        }
        if !run.is_empty() {
            target.make_hole(run)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::FileExt;

    use fastrand::Rng;
    use tempfile::tempfile;

    use super::*;
    use crate::sparse::make_hole;

    fn contents(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn state_of(replica: &File) -> Vec<u8> {
        let state = State {
            point: Point {
                stream: 3,
                round: 4,
            },
            size: replica.metadata().unwrap().len(),
            is_pending: false,
        };
        let mut out = Vec::new();
        write(&mut out, replica, &state).unwrap();
        out
    }

    /// Changes some of a file of some 20 blocks at random.
    fn change(file: &File, rng: &mut Rng) {
        for _ in 0..rng.u8(0..8) {
            let size = file.metadata().unwrap().len();
            let (start, end) = (rng.u64(0..size + 1), rng.u64(0..size + 1));
            let range = start.min(end)..start.max(end);
            match rng.u8(0..6) {
                0 => file.set_len(rng.u64(0..20 * BLOCK)).unwrap(),
                1 => drop(make_hole(file, range).unwrap()),
                2 => file
                    .write_all_at(&vec![0; (size - start) as usize], start)
                    .unwrap(),
                _ => file.write_all_at(&[rng.u8(..)], start.min(size)).unwrap(),
            }
        }
    }

    fn resume(file: &File, mut replica: &File, state: &[u8]) -> Result<u64> {
        let size = file.metadata()?.len();
        let mut digests = Digests::new(state)?;
        assert_eq!((digests.point.stream, digests.point.round), (3, 4));
        replica.begin(size)?;
        digests.copy(file.into(), size, &mut replica, &mut |_| {})
    }

    #[test]
    fn what_differs_is_copied_and_nothing_else() {
        let mut differed_without = 0;
        for seed in 0..200 {
            let mut rng = Rng::with_seed(seed);
            let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
            let random: Vec<u8> = (0..rng.u64(0..20 * BLOCK)).map(|_| rng.u8(..)).collect();
            for file in [&file, &replica] {
                file.write_all_at(&random, 0).unwrap();
            }
            change(&replica, &mut rng);
            change(&file, &mut rng);
            let (ours, mut theirs) = (contents(&file), contents(&replica));
            theirs.resize(ours.len(), 0);
            let blocks = ours
                .chunks(BLOCK as usize)
                .zip(theirs.chunks(BLOCK as usize));
            let differ = blocks.filter(|(ours, theirs)| ours != theirs).count() as u64;
            let state = state_of(&replica);
            // The negative control: a state of something else.
            let other = tempfile().unwrap();
            other.write_all_at(&theirs, 0).unwrap();
            other.set_len(theirs.len() as u64).unwrap();
            resume(&file, &other, &state_of(&file)).unwrap();
            differed_without += u32::from(contents(&other) != ours);

            let copied = resume(&file, &replica, &state).unwrap();
            assert!(contents(&replica) == ours, "seed {seed}");
            // And perhaps the one that the end of the file has been moved into.
            assert!(
                copied <= (differ + 1) * BLOCK,
                "seed {seed}: {copied} {differ}"
            );
        }
        assert!(differed_without > 100, "{differed_without}");
    }

    #[test]
    fn holes_cost_nothing() {
        let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
        let size = 1 << 40;
        for (file, blocks) in [(&file, [3, 1 << 20]), (&replica, [3, 1 << 21])] {
            file.set_len(size).unwrap();
            for block in blocks {
                file.write_all_at(b"data", block * BLOCK).unwrap();
            }
        }
        let state = state_of(&replica);
        assert!(state.len() < 1000, "{}", state.len());
        assert_eq!(resume(&file, &replica, &state).unwrap(), BLOCK);
        let data = |file: &File| -> BTreeSet<u64> {
            let mut blocks = BTreeSet::new();
            let mut next = 0;
            while let Some(data) = data_blocks(file.into(), next, size).unwrap() {
                next = data.end;
                blocks.extend(data);
            }
            blocks
        };
        assert_eq!(data(&replica), data(&file));
    }

    #[test]
    fn states_that_are_not_whole() {
        let replica = tempfile().unwrap();
        replica
            .write_all_at(&vec![1; 5 * BLOCK as usize], 0)
            .unwrap();
        replica.write_all_at(b"data", 9 * BLOCK).unwrap();
        let file = tempfile().unwrap();
        file.write_all_at(b"file", 0).unwrap();
        let state = state_of(&replica);
        let result = |state: &[u8]| resume(&file, &tempfile().unwrap(), state);
        result(&state).unwrap();
        for length in 0..state.len() {
            result(&state[..length]).unwrap_err();
        }
        for at in 0..state.len() {
            let mut bad = state.clone();
            bad[at] ^= 1;
            result(&bad).unwrap_err();
        }
        result(&[&state[..], b"x"].concat()).unwrap_err();
    }

    #[test]
    fn digests_that_are_made_up() {
        let head = |size: u64, block: u64| {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(MAGIC, &mut out);
            let numbers = [
                &3_u128.to_le_bytes()[..],
                &4_u64.to_le_bytes(),
                &size.to_le_bytes(),
                &block.to_le_bytes(),
            ];
            encoder.frame(REPLICA, &numbers, &mut out);
            (encoder, out)
        };
        let file = tempfile().unwrap();
        file.write_all_at(b"file", 0).unwrap();
        let result = |frames: &[(u64, usize)], count: u64| {
            let (mut encoder, mut out) = head(10 * BLOCK, BLOCK);
            for (first, digests) in frames {
                let digests = vec![7; digests * DIGEST];
                encoder.frame(DIGESTS, &[&first.to_le_bytes(), &digests], &mut out);
            }
            encoder.frame(END, &[&count.to_le_bytes()], &mut out);
            resume(&file, &tempfile().unwrap(), &out).map_err(|error| format!("{error:#}"))
        };
        result(&[(0, 3), (3, 0), (5, 5)], 8).unwrap();
        for (frames, count) in [
            (&[(0, 3), (2, 1)][..], 4),
            (&[(5, 1), (0, 1)], 2),
            (&[(9, 2)], 2),
            (&[(u64::MAX, 1)], 1),
            (&[(1 << 40, 1)], 1),
            (&[(0, 3)], 2),
            (&[], 1),
        ] {
            result(frames, count).unwrap_err();
        }
        let error = Digests::new(&head(1, 5).1[..]).unwrap_err();
        assert!(
            format!("{error:#}").contains("5 bytes instead"),
            "{error:#}"
        );
    }
}
