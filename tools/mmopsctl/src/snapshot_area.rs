// SPDX-License-Identifier: GPL-2.0

//! A mapping of which a snapshot is made, and how its contents come to their file.

use std::fs::File;
use std::ops::Range;

use anyhow::{bail, Context, Result};
use procfs::process::MemoryMap;

use crate::snapshot_dir::Directory;
use crate::snapshot_memory::{Backing, Contents, Read};
use crate::snapshot_plan::{pieces, union};
use crate::sparse::{make_hole, write_pages};
use crate::stop::Stop;

/// Bytes that are read and written at once.
pub const CHUNK: u64 = 1 << 20;

/// A mapping, and its contents up to the last round.
#[derive(Debug)]
pub struct Area {
    pub map: MemoryMap,
    /// Address up to which there are contents in its file.
    pub stored_to: u64,
    /// In order and apart.
    pub unreadable: Vec<Range<u64>>,
}

impl Area {
    /// Its addresses.
    pub fn range(&self) -> Range<u64> {
        self.map.address.0..self.map.address.1
    }

    /// The same addresses as places in the file with the contents.
    pub fn in_file(&self, range: &Range<u64>) -> Range<u64> {
        let start = self.map.address.0;
        range.start - start..range.end - start
    }
}

/// For what is read at once; of use for one area after another.
#[derive(Debug)]
pub struct Buffers {
    pub memory: Vec<u8>,
    pub stored: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Self {
        Self {
            memory: vec![0; CHUNK as usize],
            stored: vec![0; CHUNK as usize],
        }
    }
}

/// An area, with what its contents come from and go to.
#[derive(Debug)]
pub struct OpenArea<'a> {
    pub area: &'a mut Area,
    pub backing: Backing,
    pub contents: &'a Contents,
    pub file: &'a File,
    pub page_size: u64,
    pub buffers: &'a mut Buffers,
    pub stop: &'a Stop,
}

impl OpenArea<'_> {
    /// Copies addresses of the area; with `is_fresh` the file has a hole there. The pages that were
    /// read.
    pub fn copy(&mut self, range: &Range<u64>, is_fresh: bool) -> Result<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        let (area, file) = (&mut *self.area, self.file);
        let start = area.map.address.0;
        let context = || format!("cannot write {}", Directory::name(start));
        let used = self.contents.used(&area.map, &self.backing, range)?;
        let (mut pages, mut unreadable) = (0, Vec::new());
        for (piece, is_used) in pieces(&used, range) {
            let mut at = piece.start;
            if !is_used {
                if !is_fresh {
                    make_hole(file, area.in_file(&piece)).with_context(context)?;
                }
                continue;
            }
            while at < piece.end {
                check(self.stop)?;
                let len = CHUNK.min(piece.end - at) as usize;
                let buffer = &mut self.buffers.memory[..len];
                match self.contents.read(buffer, at)? {
                    Read::Bytes(len) => {
                        let offset = area.in_file(&(at..at)).start;
                        let page_size = self.page_size as usize;
                        write_pages(file, offset, &buffer[..len], page_size, is_fresh)
                            .with_context(context)?;
                        pages += len as u64 / self.page_size;
                        at += len as u64;
                    }
                    Read::Unreadable => {
                        let page = at..at + self.page_size;
                        if !is_fresh {
                            make_hole(file, area.in_file(&page)).with_context(context)?;
                        }
                        at = page.end;
                        unreadable.push(page);
                    }
                }
            }
        }
        if !unreadable.is_empty() {
            unreadable.append(&mut area.unreadable);
            area.unreadable = union(unreadable);
        }
        Ok(pages)
    }
}

/// Fails if the snapshot is to be given up.
pub fn check(stop: &Stop) -> Result<()> {
    if stop.requested() {
        bail!("interrupted: there is no snapshot");
    }
    Ok(())
}
