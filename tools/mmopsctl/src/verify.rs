// SPDX-License-Identifier: GPL-2.0

//! The compare of a file with its replica.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::log::Verify;
use crate::sparse::{read_up_to, Source};

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 20;

/// Compares all data of both files, which have `size` bytes, and copies the pages that differ.
pub fn verify(
    source: Source<'_>,
    replica: &File,
    size: u64,
    page_size: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Verify> {
    let begin = Instant::now();
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut pages, mut differed) = (0, 0);
    let mut left = 0..size;
    let file = source.file;
    while let Some(data) = next_data_of_both(source, replica.into(), page_size, &left)? {
        left.start = data.end;
        let mut start = data.start;
        while start < data.end {
            let end = (start + CHUNK as u64).min(data.end);
            let length = (end - start) as usize;
            let (ours, theirs) = (&mut ours[..length], &mut theirs[..length]);
            // Shrunk in between: the next step that follows the size will see it.
            let length = read_up_to(file, ours, start)?;
            let length_there = read_up_to(replica, theirs, start)?;
            theirs[length_there..].fill(0);
            for offset in (0..length).step_by(page_size as usize) {
                let page = offset..length.min(offset + page_size as usize);
                pages += 1;
                if ours[page.clone()] != theirs[page.clone()] {
                    differed += 1;
                    replica
                        .write_all_at(&ours[page], start + offset as u64)
                        .context("cannot write the replica")?;
                }
            }
            start = end;
            progress(start);
        }
    }
    Ok(Verify {
        pages,
        differed,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// The first bytes of `left` that are data in one of the files, as whole pages. `left` begins with
/// a page.
fn next_data_of_both(
    file: Source<'_>,
    replica: Source<'_>,
    page_size: u64,
    left: &Range<u64>,
) -> Result<Option<Range<u64>>> {
    if left.is_empty() {
        return Ok(None);
    }
    let ours = file.next_data(left.start)?;
    let theirs = replica.next_data(left.start)?;
    let (file, data) = match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs < ours => (replica, theirs),
        (Some(ours), _) => (file, ours),
        (None, Some(theirs)) => (replica, theirs),
        (None, None) => return Ok(None),
    };
    if data >= left.end {
        return Ok(None);
    }
    // A hole that was filled or made meanwhile may begin where the data did.
    let end = file.next_hole(data, left.end)?.max(data + 1);
    let end = end.next_multiple_of(page_size).min(left.end);
    Ok(Some(data / page_size * page_size..end))
}
