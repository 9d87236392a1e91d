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
