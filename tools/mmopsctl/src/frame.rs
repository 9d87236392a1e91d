// SPDX-License-Identifier: GPL-2.0

//! Frames: what a stream, a journal and a state are made of.
//!
//! A preamble (magic and version), then frames of kind, length, payload and checksum. The checksum
//! of a frame covers the one before as well, so a frame that was changed, left out, repeated, moved
//! or taken from elsewhere is told. `Documentation/replicate-stream.rst` has the format.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use blake3::Hasher;

/// What a file or stream of frames says that it is.
pub type Magic = [u8; 8];

/// Version of the format of all of them: another one cannot be read.
pub const VERSION: u32 = 1;

/// Bytes of data in a frame at the most.
pub const MAX_DATA: usize = 1 << 20;
/// Bytes of a payload at the most; no length that is read makes a reader take more memory.
pub const MAX_PAYLOAD: usize = MAX_DATA + 64;

const PREAMBLE: usize = 12;
const HEAD: usize = 8;
const CHECKSUM: usize = blake3::OUT_LEN;

/// The checksum that each frame goes on from.
#[derive(Clone, Copy, Debug)]
struct Chain(blake3::Hash);

impl Chain {
    fn new(preamble: &[u8]) -> Self {
        Self(blake3::hash(preamble))
    }

    fn add(&mut self, head: &[u8], payload: &[&[u8]]) -> &[u8; CHECKSUM] {
        let mut hasher = Hasher::new();
        hasher.update(self.0.as_bytes()).update(head);
        for part in payload {
            hasher.update(part);
        }
        self.0 = hasher.finalize();
        self.0.as_bytes()
    }
}

/// Makes frames.
#[derive(Debug)]
pub struct Encoder {
    chain: Chain,
}

impl Encoder {
    /// Appends the preamble to `out`.
    pub fn new(magic: Magic, out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend(magic);
        out.extend(VERSION.to_le_bytes());
        Self {
            chain: Chain::new(&out[start..]),
        }
    }

    /// Appends a frame to `out`, whose payload is all of `parts`.
    pub fn frame(&mut self, kind: u32, parts: &[&[u8]], out: &mut Vec<u8>) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(length <= MAX_PAYLOAD);
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..].copy_from_slice(&(length as u32).to_le_bytes());
        out.extend(head);
        for part in parts {
            out.extend(*part);
        }
        out.extend(self.chain.add(&head, parts));
    }
}

/// Why frames cannot be read.
#[derive(Debug)]
pub enum FrameError {
    /// They end before the end, or within one.
    Cut,
    /// They are not what a program of this version has written.
    Bad(String),
    /// The input cannot be read.
    Io(io::Error),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("it ends too early"),
            Self::Bad(text) => f.write_str(text),
            Self::Io(_) => f.write_str("cannot read it"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u32,
    pub payload: &'a [u8],
}

/// Reads frames.
#[derive(Debug)]
pub struct Decoder<R> {
    input: R,
    chain: Chain,
    payload: Vec<u8>,
    /// Frames read.
    frames: u64,
    /// The negative control of the checksums.
    #[cfg(test)]
    pub trusts_all: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads the preamble; `what` is what has this magic, for the error.
    pub fn new(mut input: R, magic: Magic, what: &str) -> Result<Self, FrameError> {
        let mut preamble = [0; PREAMBLE];
        input.read_exact(&mut preamble)?;
        if preamble[..8] != magic {
            return Err(FrameError::Bad(format!("this is not {what}")));
        }
        let version = u32::from_le_bytes(preamble[8..].try_into().expect("four bytes"));
        if version != VERSION {
            return Err(FrameError::Bad(format!(
                "it has version {version}, and this mmopsctl knows version {VERSION} alone: \
                 use the same mmopsctl at both ends"
            )));
        }
        Ok(Self {
            input,
            chain: Chain::new(&preamble),
            payload: Vec::new(),
            frames: 0,
            #[cfg(test)]
            trusts_all: false,
        })
    }

    /// The next frame; none where the input ends behind the one before.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let mut head = [0; HEAD];
        if !read_or_end(&mut self.input, &mut head)? {
            return Ok(None);
        }
        let kind = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        let length = u32::from_le_bytes(head[4..].try_into().expect("four bytes")) as usize;
        let number = self.frames;
        if length > MAX_PAYLOAD {
            return Err(FrameError::Bad(format!(
                "frame {number} claims to have {length} bytes, more than any has: it is damaged"
            )));
        }
        self.payload.resize(length, 0);
        self.input.read_exact(&mut self.payload)?;
        let mut checksum = [0; CHECKSUM];
        self.input.read_exact(&mut checksum)?;
        let is_right = self.chain.add(&head, &[&self.payload]) == &checksum;
        #[cfg(test)]
        let is_right = is_right || self.trusts_all;
        if !is_right {
            return Err(FrameError::Bad(format!(
                "the checksum of frame {number} is wrong: it is damaged"
            )));
        }
        self.frames += 1;
        Ok(Some(Frame {
            kind,
            payload: &self.payload,
        }))
    }

    /// Fails unless the input ends here.
    pub fn end(&mut self) -> Result<(), FrameError> {
        if read_or_end(&mut self.input, &mut [0])? {
            return Err(FrameError::Bad("there is something behind its end".into()));
        }
        Ok(())
    }
}

/// Fills `buffer`; false where the input ends.
fn read_or_end(input: &mut impl Read, buffer: &mut [u8]) -> Result<bool, FrameError> {
    let first = loop {
        match input.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if first == 0 {
        return Ok(false);
    }
    input.read_exact(&mut buffer[first..])?;
    Ok(true)
}

/// The fields of a payload, in order. What is missing at its end fails.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| FrameError::Bad("a frame is too short for its kind".into()))?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Result<u128, FrameError> {
        self.take().map(u128::from_le_bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Fails if anything is left.
    pub fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(FrameError::Bad("a frame is too long for its kind".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"testtest";

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(MAGIC, &mut out);
        encoder.frame(1, &[b"one", b"two"], &mut out);
        encoder.frame(2, &[], &mut out);
        encoder.frame(3, &[b"three"], &mut out);
        out
    }

    type Frames = Vec<(u32, Vec<u8>)>;

    /// Frames that are whole, and how the input ends.
    fn read(bytes: &[u8], trusts_all: bool) -> (Frames, Result<(), FrameError>) {
        let mut frames = Vec::new();
        let mut go = || {
            let mut decoder = Decoder::new(bytes, MAGIC, "a test")?;
            decoder.trusts_all = trusts_all;
            while let Some(frame) = decoder.next()? {
                frames.push((frame.kind, frame.payload.to_vec()));
            }
            Ok(())
        };
        let result = go();
        (frames, result)
    }

    #[test]
    fn frames_come_back() {
        let (frames, result) = read(&sample(), false);
        result.unwrap();
        let expected = [(1, &b"onetwo"[..]), (2, b""), (3, b"three")];
        assert_eq!(frames, expected.map(|(kind, bytes)| (kind, bytes.to_vec())));
    }

    #[test]
    fn a_change_anywhere_is_told() {
        let good = sample();
        let all = read(&good, false).0;
        let mut passed = 0;
        for at in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let (frames, result) = read(&bad, false);
            assert!(result.is_err(), "bit {at}");
            assert!(all.starts_with(&frames), "bit {at}");
            // Without checksums, what a frame holds passes.
            passed += u32::from(read(&bad, true).1.is_ok());
        }
        assert!(passed > 8 * 32, "{passed}");
    }

    #[test]
    fn frames_of_another_place_are_told() {
        let good = sample();
        let (first, second) = (PREAMBLE, PREAMBLE + HEAD + 6 + CHECKSUM);
        let third = second + HEAD + CHECKSUM;
        let (one, two, three) = (&good[first..second], &good[second..third], &good[third..]);
        for order in [
            [one, three, two].concat(),
            [two, three, &[]].concat(),
            [one, one, two].concat(),
            [one, two, two].concat(),
        ] {
            let bad = [&good[..PREAMBLE], &order].concat();
            let error = read(&bad, false).1.unwrap_err().to_string();
            assert!(error.contains("checksum"), "{error}");
            read(&bad, true).1.unwrap();
        }
    }

    #[test]
    fn preamble_is_looked_at() {
        let error = |at: usize| {
            let mut bad = sample();
            bad[at] ^= 2;
            read(&bad, false).1.unwrap_err().to_string()
        };
        assert!(error(3).contains("not a test"), "{}", error(3));
        assert!(error(8).contains("version 3"), "{}", error(8));
    }

    #[test]
    fn no_length_takes_memory() {
        let mut bad = sample();
        bad[PREAMBLE + 4..PREAMBLE + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = Decoder::new(&bad[..], MAGIC, "a test").unwrap();
        let error = decoder.next().unwrap_err().to_string();
        assert!(error.contains("more than any has"), "{error}");
        assert!(decoder.payload.capacity() <= MAX_PAYLOAD);
    }
}
