// SPDX-License-Identifier: GPL-2.0

//! The steps of a replication.
//!
//! In a round, an epoch of the trackers is begun first, or the dirty bits of a window are taken,
//! and the pages are read after that. A store before it was found; a store after it is for the next
//! round, even if the copy under way has seen it. So no store is lost, and a round that begins
//! after the last store leaves nothing to do.
//!
//! The size is read when the epochs have begun. A truncation of before that is followed then; one
//! that comes later is in the next epoch, even if the file has grown again until then.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::changes::{Changes, Copier};
use crate::digests::Digests;
use crate::log::{FullCopy, Round, Verify};
use crate::sparse::{is_zero, next_data, read_up_to, Source};
use crate::target::Target;
use crate::verify::verify;

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

/// A file, what its copy is written to, and what tells which pages changed.
#[derive(Debug)]
pub struct Replicator<'a, C, T> {
    files: Files<'a, T>,
    changes: C,
    rounds: u64,
}

#[derive(Debug)]
struct Files<'a, T> {
    file: &'a File,
    source: Source<'a>,
    target: T,
    page_size: u64,
    /// Size of the replica.
    size: u64,
    buffer: Vec<u8>,
}

impl<'a, C: Changes, T: Target> Replicator<'a, C, T> {
    /// The replica of `target` is empty.
    pub fn new(source: impl Into<Source<'a>>, target: T, page_size: u64, changes: C) -> Self {
        let source = source.into();
        Self {
            files: Files {
                file: source.file,
                source,
                target,
                page_size,
                size: 0,
                buffer: vec![0; CHUNK],
            },
            changes,
            rounds: 0,
        }
    }

    /// Takes the changes from before, then copies all data; calls `progress` with how many bytes of
    /// the file are done.
    pub fn full_copy(&mut self, progress: impl FnMut(u64)) -> Result<FullCopy> {
        self.first_copy(None::<&mut Digests<File>>, progress)
    }

    /// As [`Self::full_copy`], to a replica that has these digests: copies what differs.
    pub fn resume(
        &mut self,
        digests: &mut Digests<impl Read>,
        progress: impl FnMut(u64),
    ) -> Result<FullCopy> {
        self.first_copy(Some(digests), progress)
    }

    fn first_copy(
        &mut self,
        digests: Option<&mut Digests<impl Read>>,
        mut progress: impl FnMut(u64),
    ) -> Result<FullCopy> {
        let begin = Instant::now();
        self.changes.take(&mut Forget(&mut self.files))?;
        let size = self.files.size;
        let (files, changes) = (&mut self.files, &mut self.changes);
        let mut copied = |bytes: Range<u64>| {
            let end = bytes.end;
            changes.copied(bytes);
            progress(end);
        };
        let bytes = match digests {
            Some(digests) => {
                let Files { source, target, .. } = files;
                digests.copy(*source, size, target, &mut copied)?
            }
            None => files.copy_data(0..size, &mut copied)?,
        };
        self.files.target.end()?;
        Ok(FullCopy {
            pages: self.files.pages(bytes),
            bytes,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// One round; `at` is reported as its start.
    pub fn round(&mut self, at: f64) -> Result<Round> {
        let begin = Instant::now();
        let finds_holes = self.changes.finds_holes();
        let known = self.files.size;
        let mut copy = Copy {
            files: &mut self.files,
            finds_holes,
            known,
            copied: 0,
            pages: 0,
            holes: 0,
        };
        let taken = self.changes.take(&mut copy)?;
        let (known, holes) = (copy.known, copy.holes);
        let (mut bytes, mut pages) = (copy.copied, copy.pages);
        let files = &mut self.files;
        let dirty_pages = if finds_holes {
            pages + holes
        } else {
            taken.pages
        };
        // All of what the file grew by is copied. Through write(2), it can have changed before the
        // size did: then it was found already, when it lay beyond the end.
        let size = files.size;
        let changes = &mut self.changes;
        let grown = files.copy_data(known..size, &mut |bytes| changes.copied(bytes))?;
        bytes += grown;
        pages += files.pages(grown);
        files.target.end()?;
        let data_pages = files
            .pages(files.file.metadata()?.blocks() * BLOCK)
            .min(files.pages(size));
        self.rounds += 1;
        Ok(Round {
            round: self.rounds,
            at,
            size,
            data_pages,
            dirty_pages,
            pages,
            bytes,
            harvest_calls: taken.calls,
            harvest_seconds: taken.time.as_secs_f64(),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Compares all data of both files, and copies the pages that differ; calls `progress` as
    /// [`Self::full_copy`] does.
    pub fn verify(&mut self, mut progress: impl FnMut(u64)) -> Result<Verify> {
        let files = &mut self.files;
        let size = files.follow_size()?;
        let replica = files.target.replica();
        let replica = replica.context("the replica cannot be read here")?;
        verify(files.source, replica, size, files.page_size, &mut progress)
    }

    /// Ends the replication, after its last round.
    pub fn finish(&mut self) -> Result<()> {
        self.files.target.finish()
    }
}

impl<T: Target> Files<'_, T> {
    /// Pages in `bytes` bytes.
    fn pages(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.page_size)
    }

    fn file_size(&self) -> Result<u64> {
        Ok(self
            .file
            .metadata()
            .context("cannot tell the size of the file")?
            .len())
    }

    /// Gives the replica the size that the file has now.
    fn follow_size(&mut self) -> Result<u64> {
        let size = self.file_size()?;
        self.target.begin(size)?;
        self.size = size;
        Ok(size)
    }

    /// Copies what is no hole in `range`; calls `see` with what that was, some at a time.
    fn copy_data(&mut self, range: Range<u64>, see: &mut dyn FnMut(Range<u64>)) -> Result<u64> {
        let mut copied = 0;
        let mut position = range.start;
        while position < range.end {
            let data = self.source.next_data(position)?;
            let Some(data) = data.filter(|&data| data < range.end) else {
                break;
            };
            let hole = self.source.next_hole(data, range.end)?;
            position = data;
            while position < hole {
                let end = (position + CHUNK as u64).min(hole);
                let (target, buffer) = (&mut self.target, &mut self.buffer);
                copied += copy(self.file, target, position..end, buffer)?;
                see(position..end);
                position = end;
            }
        }
        Ok(copied)
    }
}

/// The changes of before the full copy.
struct Forget<'f, 'a, T>(&'f mut Files<'a, T>);

impl<T: Target> Copier for Forget<'_, '_, T> {
    fn begun(&mut self) -> Result<Range<u64>> {
        let size = self.0.follow_size()?;
        Ok(0..self.0.pages(size))
    }

    fn found(&mut self, _pages: Range<u64>) -> Result<()> {
        Ok(())
    }
}

/// What a round copies.
struct Copy<'f, 'a, T> {
    files: &'f mut Files<'a, T>,
    finds_holes: bool,
    /// Bytes that are in the file and were in the replica when the round began.
    known: u64,
    /// Bytes copied.
    copied: u64,
    /// Pages copied.
    pages: u64,
    /// Pages that became a hole in the replica.
    holes: u64,
}

impl<T: Target> Copier for Copy<'_, '_, T> {
    fn begun(&mut self) -> Result<Range<u64>> {
        let size = self.files.follow_size()?;
        self.known = self.known.min(size);
        Ok(0..self.files.pages(size))
    }

    fn found(&mut self, pages: Range<u64>) -> Result<()> {
        let page_size = self.files.page_size;
        let range = pages.start * page_size..(pages.end * page_size).min(self.known);
        if self.finds_holes {
            return self.copy_or_punch(range);
        }
        let copied = copy(
            self.files.file,
            &mut self.files.target,
            range,
            &mut self.files.buffer,
        )?;
        self.copied += copied;
        self.pages += self.files.pages(copied);
        Ok(())
    }
}

impl<T: Target> Copy<'_, '_, T> {
    /// Copies what is data in `range`, and makes a hole of what is none.
    ///
    /// What is read decides first: to ask where the data ends would cost as much as there is data,
    /// for each page that changed.
    fn copy_or_punch(&mut self, range: Range<u64>) -> Result<()> {
        let (file, page_size) = (self.files.file, self.files.page_size);
        let mut position = range.start;
        while position < range.end {
            let data = next_data(file, position)?.map_or(range.end, |data| data.min(range.end));
            if position < data {
                // Of a page that the file ends in, all. If it has grown since, that comes later.
                let end = if data == range.end {
                    data.next_multiple_of(page_size)
                } else {
                    data
                };
                let made = self.files.target.make_hole(position..end)?;
                self.holes += made.div_ceil(page_size);
                position = data;
                continue;
            }
            let length = self.files.buffer.len().min((range.end - position) as usize);
            let bytes = &mut self.files.buffer[..length];
            let read = read_up_to(file, bytes, position).context("cannot read the file")?;
            let bytes = &bytes[..read];
            let mut end = 0;
            let mut is_hole = false;
            while end < read && !is_hole {
                let at = position + end as u64;
                let next = read.min(end + (page_size - at % page_size) as usize);
                // The first is data, as was just asked.
                is_hole =
                    end != 0 && is_zero(&bytes[end..next]) && next_data(file, at)? != Some(at);
                if !is_hole {
                    end = next;
                }
            }
            self.files.target.write(&bytes[..end], position)?;
            position += end as u64;
            self.copied += end as u64;
            self.pages += (end as u64).div_ceil(page_size);
            // Shrunk meanwhile: that is in the next epoch.
            if read < length && !is_hole {
                break;
            }
        }
        Ok(())
    }
}

/// Copies the bytes of `range` that `file` has, and returns how many those are.
fn copy(
    file: &File,
    target: &mut impl Target,
    range: Range<u64>,
    buffer: &mut [u8],
) -> Result<u64> {
    let mut position = range.start;
    while position < range.end {
        let length = buffer.len().min((range.end - position) as usize);
        let read =
            read_up_to(file, &mut buffer[..length], position).context("cannot read the file")?;
        target.write(&buffer[..read], position)?;
        position += read as u64;
        if read < length {
            break;
        }
    }
    Ok(position - range.start)
}

#[cfg(test)]
mod tests;
