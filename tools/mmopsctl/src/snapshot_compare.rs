// SPDX-License-Identifier: GPL-2.0

//! The comparison of a snapshot with the memory: for `--verify`, and of what others may have
//! changed without anybody telling.

use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::Result;

use crate::snapshot_area::{check, OpenArea, CHUNK};
use crate::snapshot_memory::Read;
use crate::snapshot_plan::pieces;
use crate::sparse::{data_in, is_zero, make_hole, write_pages};

/// What a compare has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub pages: u64,
    pub differed: u64,
    /// Address of the first page that differed.
    pub first: Option<u64>,
}

impl Compared {
    fn add(&mut self, address: u64, differs: bool) {
        self.pages += 1;
        if differs {
            self.differed += 1;
            self.first = self.first.or(Some(address));
        }
    }

    /// Adds what was found behind.
    pub fn join(&mut self, other: Self) {
        self.pages += other.pages;
        self.differed += other.differed;
        self.first = self.first.or(other.first);
    }
}

impl OpenArea<'_> {
    /// Compares addresses of the area with the file; with `mends`, pages that differ are written.
    pub fn compare(&mut self, range: &Range<u64>, mends: bool) -> Result<Compared> {
        let mut result = Compared::default();
        let used = self.contents.used(&self.area.map, &self.backing, range)?;
        for (piece, is_used) in pieces(&used, range) {
            result.join(match is_used {
                true => self.compare_used(piece, mends)?,
                false => self.compare_unused(piece, mends)?,
            });
        }
        Ok(result)
    }

    /// What has to be read.
    fn compare_used(&mut self, piece: Range<u64>, mends: bool) -> Result<Compared> {
        let page_size = self.page_size as usize;
        let mut result = Compared::default();
        let mut at = piece.start;
        while at < piece.end {
            check(self.stop)?;
            let len = CHUNK.min(piece.end - at) as usize;
            let len = match self.contents.read(&mut self.buffers.memory[..len], at)? {
                Read::Bytes(len) => len,
                Read::Unreadable => {
                    at += self.page_size;
                    continue;
                }
            };
            let offset = self.area.in_file(&(at..at)).start;
            let stored = &mut self.buffers.stored[..len];
            self.file.read_exact_at(stored, offset)?;
            let memory = self.buffers.memory[..len].chunks(page_size);
            for (page, (memory, stored)) in memory.zip(stored.chunks(page_size)).enumerate() {
                let skip = (page * page_size) as u64;
                let differs = memory != stored;
                result.add(at + skip, differs);
                if differs && mends {
                    write_pages(self.file, offset + skip, memory, page_size, false)?;
                }
            }
            at += len as u64;
        }
        Ok(result)
    }

    /// What is zeros in the memory.
    fn compare_unused(&mut self, piece: Range<u64>, mends: bool) -> Result<Compared> {
        let mut result = Compared::default();
        let in_file = self.area.in_file(&piece);
        for data in data_in(self.file, in_file.clone()) {
            let mut data = data?;
            data.start = data.start / self.page_size * self.page_size;
            while data.start < data.end {
                check(self.stop)?;
                let page = &mut self.buffers.stored[..self.page_size as usize];
                self.file.read_exact_at(page, data.start)?;
                let differs = !is_zero(page);
                result.add(self.area.map.address.0 + data.start, differs);
                data.start += self.page_size;
            }
        }
        if result.differed != 0 && mends {
            make_hole(self.file, in_file)?;
        }
        Ok(result)
    }
}
