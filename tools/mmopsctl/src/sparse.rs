// SPDX-License-Identifier: GPL-2.0

//! Files with holes.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use mmops_uapi::retry_on_eintr;
use nix::errno::Errno;
use nix::fcntl::{fallocate, FallocateFlags};
use nix::libc::off_t;
use nix::unistd::{lseek, Whence};

fn seek(file: &File, offset: u64, whence: Whence) -> nix::Result<u64> {
    // No file has a byte there.
    let offset = off_t::try_from(offset).map_err(|_| Errno::ENXIO)?;
    retry_on_eintr(|| lseek(file, offset, whence)).map(|found| found as u64)
}

/// Where the data of `file` goes on from byte `offset` on: the next byte that is no hole.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, offset, Whence::SeekData) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::ENXIO) => Ok(None),
        // The file system does not know about holes: all is data.
        Err(Errno::EINVAL) => Ok(Some(offset)),
        Err(errno) => Err(errno.into()),
    }
}

/// Where the data of `file` that byte `offset` is in ends, at `size` at the latest.
pub fn next_hole(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match seek(file, offset, Whence::SeekHole) {
        Ok(hole) => Ok(hole.min(size)),
        Err(Errno::ENXIO | Errno::EINVAL) => Ok(size),
        Err(errno) => Err(errno.into()),
    }
}

/// A file that is copied.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub file: &'a File,
    /// Whether a hole of it is zero for sure; otherwise all is data.
    pub has_true_holes: bool,
}

impl<'a> From<&'a File> for Source<'a> {
    fn from(file: &'a File) -> Self {
        Self {
            file,
            has_true_holes: true,
        }
    }
}

impl Source<'_> {
    /// As [`next_data()`].
    pub fn next_data(self, offset: u64) -> io::Result<Option<u64>> {
        if !self.has_true_holes {
            return Ok(Some(offset));
        }
        next_data(self.file, offset)
    }

    /// As [`next_hole()`].
    pub fn next_hole(self, offset: u64, size: u64) -> io::Result<u64> {
        if !self.has_true_holes {
            return Ok(size);
        }
        next_hole(self.file, offset, size)
    }
}

/// The parts of `range` of `file` that are no holes.
pub fn data_in(
    file: &File,
    range: Range<u64>,
) -> impl Iterator<Item = io::Result<Range<u64>>> + '_ {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = next_data(file, at).and_then(|data| match data {
            Some(start) if start < end => Ok(Some(start..next_hole(file, start, end)?)),
            _ => Ok(None),
        });
        match &next {
            Ok(Some(data)) => at = data.end,
            _ => at = end,
        }
        next.transpose()
    })
}

/// Makes all of `range` read as zeroes in `file`, and a hole if it can; returns how many bytes that
/// was, without a hole that it begins with.
pub fn make_hole(file: &File, range: Range<u64>) -> io::Result<u64> {
    let Some(data) = next_data(file, range.start)?.filter(|&data| data < range.end) else {
        return Ok(0);
    };
    let length = range.end - data;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match retry_on_eintr(|| fallocate(file, flags, data as off_t, length as off_t)) {
        Ok(()) => {}
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            let mut left = data..range.end;
            while let Some(data) = next_data(file, left.start)?.filter(|&data| data < left.end) {
                left.start = next_hole(file, data, left.end)?;
                write_zeroes(file, data..left.start)?;
            }
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(length)
}

fn write_zeroes(file: &File, range: Range<u64>) -> io::Result<()> {
    let zeroes = vec![0; (range.end - range.start).min(1 << 20) as usize];
    let mut position = range.start;
    while position < range.end {
        let length = zeroes.len().min((range.end - position) as usize);
        file.write_all_at(&zeroes[..length], position)?;
        position += length as u64;
    }
    Ok(())
}

/// Reads as much of `buffer` as the file has from byte `offset` on.
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether `bytes` are all zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // The compiler makes wide instructions of blocks of a fixed size.
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |or, byte| or | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Parts of `pages` that are each as long as can be: pages of zeros alone, which it says, or none
/// of these.
fn runs(pages: &[u8], page_size: usize) -> Vec<(Range<usize>, bool)> {
    let zeros: Vec<bool> = pages.chunks(page_size).map(is_zero).collect();
    let mut at = 0;
    zeros
        .chunk_by(|one, next| one == next)
        .map(|run| {
            let start = at;
            at += run.len() * page_size;
            (start..at, run[0])
        })
        .collect()
}

/// Writes whole pages to `file`. Those that are zeros become holes; with `is_fresh` they are.
pub fn write_pages(
    file: &File,
    offset: u64,
    pages: &[u8],
    page_size: usize,
    is_fresh: bool,
) -> io::Result<()> {
    for (run, is_zero) in runs(pages, page_size) {
        let here = offset + run.start as u64;
        if !is_zero {
            file.write_all_at(&pages[run], here)?;
        } else if !is_fresh {
            make_hole(file, here..here + run.len() as u64)?;
        }
    }
    Ok(())
}

/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// Calls `see` with all pages of `file` that are not of zeros alone: in ascending order, some at a
/// time, with their offset. Holes are not read. The file has `size` bytes, of whole pages; errors
/// to read call it `name`.
pub fn pages_with_data(
    file: &File,
    name: impl Display,
    size: u64,
    page_size: u64,
    mut see: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let context = || format!("cannot read {name}");
    let mut buffer = vec![0; CHUNK.max(page_size) as usize];
    let mut at = 0;
    for data in data_in(file, 0..size) {
        // Holes need not be of whole pages.
        let Range { start, end } = data.with_context(context)?;
        at = at.max(start - start % page_size);
        let end = end.next_multiple_of(page_size);
        while at < end {
            let chunk = &mut buffer[..CHUNK.max(page_size).min(end - at) as usize];
            file.read_exact_at(chunk, at).with_context(context)?;
            for (run, is_zero) in runs(chunk, page_size as usize) {
                if !is_zero {
                    see(at + run.start as u64, &chunk[run])?;
                }
            }
            at += chunk.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::tempfile;

    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn zeros_take_no_space() {
        let file = tempfile().unwrap();
        file.set_len(8 * PAGE as u64).unwrap();
        let mut pages = vec![0; 4 * PAGE];
        // The last byte of one, the first of another.
        pages[PAGE - 1] = 1;
        pages[2 * PAGE] = 2;
        let read = |at: usize| {
            let mut page = vec![9; PAGE];
            file.read_exact_at(&mut page, (at * PAGE) as u64).unwrap();
            page
        };
        write_pages(&file, 2 * PAGE as u64, &pages, PAGE, true).unwrap();
        for at in 0..4 {
            assert_eq!(read(2 + at), pages[at * PAGE..(at + 1) * PAGE], "{at}");
        }
        // What was there becomes zero, in each way.
        write_pages(&file, 2 * PAGE as u64, &vec![7; 4 * PAGE], PAGE, false).unwrap();
        write_pages(&file, 2 * PAGE as u64, &pages, PAGE, false).unwrap();
        for at in 0..4 {
            assert_eq!(read(2 + at), pages[at * PAGE..(at + 1) * PAGE], "{at}");
        }
        make_hole(&file, 4 * PAGE as u64..5 * PAGE as u64).unwrap();
        assert!(is_zero(&read(4)) && !is_zero(&read(2)));
        write_zeroes(&file, 0..3 * PAGE as u64).unwrap();
        assert!(is_zero(&read(2)));
        make_hole(&file, 0..8 * PAGE as u64).unwrap();
        let data: Vec<_> = data_in(&file, 0..8 * PAGE as u64).flatten().collect();
        assert!(data
            .iter()
            .all(|data| is_zero(&read(data.start as usize / PAGE))));
    }

    #[test]
    fn holes_need_not_be_of_whole_pages() {
        let file = tempfile().unwrap();
        // Larger than what the file system has as blocks, and as what is read at once.
        for page_size in [1 << 14, 1 << 21] {
            let size = 8 * page_size;
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            for at in [
                page_size + 5000,
                2 * page_size,
                3 * page_size - 1,
                7 * page_size,
            ] {
                file.write_all_at(b"x", at).unwrap();
            }
            file.write_all_at(&vec![0; page_size as usize], 5 * page_size)
                .unwrap();
            let mut seen = Vec::new();
            pages_with_data(&file, "it", size, page_size, |offset, pages| {
                let mut expected = vec![0; pages.len()];
                file.read_exact_at(&mut expected, offset)?;
                assert!(pages == expected && !pages.is_empty());
                let first = offset / page_size;
                seen.extend(first..first + pages.len() as u64 / page_size);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, [1, 2, 7]);
        }
        // What is not there is no hole.
        file.set_len(0x5000).unwrap();
        file.write_all_at(b"x", 0x4000).unwrap();
        let error = pages_with_data(&file, "it", 0x8000, 0x8000, |_, _| Ok(())).unwrap_err();
        let cause = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "cannot read it");
    }
}
