// SPDX-License-Identifier: GPL-2.0

//! Files with holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

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

/// Whether `page` has zeros only.
fn is_zero(page: &[u8]) -> bool {
    // The compiler makes wide instructions of blocks of a fixed size.
    let (blocks, rest) = page.as_chunks::<64>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |or, byte| or | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Writes whole pages to `file`. Those that are zeros become holes; with `is_fresh` they are.
pub fn write_pages(
    file: &File,
    offset: u64,
    pages: &[u8],
    page_size: usize,
    is_fresh: bool,
) -> io::Result<()> {
    let mut at = 0;
    for run in pages
        .chunks(page_size)
        .map(is_zero)
        .collect::<Vec<_>>()
        .chunk_by(|one, next| one == next)
    {
        let len = run.len() * page_size;
        let here = offset + at as u64;
        if !run[0] {
            file.write_all_at(&pages[at..at + len], here)?;
        } else if !is_fresh {
            make_hole(file, here..here + len as u64)?;
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn zeros_take_no_space() {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-sparse", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
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
}
