// SPDX-License-Identifier: GPL-2.0

//! What the index of a snapshot says of the memory, once it is known to make sense.

use std::ops::Range;

use anyhow::{bail, ensure, Context, Result};
use blake3::Hash;
use procfs::process::MMPermissions;

use crate::snapshot_dir::Directory;
use crate::snapshot_index::{Addresses, Entry, Index};
use crate::snapshot_plan::clip;

/// Bytes of a page: as few as there are on any machine, and as many.
const PAGE_SIZES: Range<u64> = 1 << 12..1 << 21;

/// A mapping that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub range: Range<u64>,
    pub permissions: MMPermissions,
    /// Where it begins in the file that it maps, in bytes.
    pub offset: u64,
    pub path: String,
    /// What of it could not be read: in order and apart.
    pub unreadable: Vec<Range<u64>>,
    pub digest: Hash,
}

impl Mapping {
    /// Name of the file with its contents.
    pub fn name(&self) -> String {
        Directory::name(self.range.start)
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn new(entry: &Entry, page_size: u64) -> Result<Self> {
        let range = range_of(&entry.addresses, page_size)?;
        let name = Directory::name(range.start);
        ensure!(
            entry.contents == name,
            "its contents are in {:?} instead of {name:?}",
            entry.contents
        );
        ensure!(
            entry.offset.is_multiple_of(page_size),
            "its offset {} is not one of a page",
            entry.offset
        );
        ensure!(!entry.path.contains('\0'), "its path has a zero byte");
        let digest = entry.digest.as_ref().context(
            "it has no digest: an older mmopsctl has made it, and its contents cannot be checked",
        )?;
        Ok(Self {
            permissions: permissions_of(&entry.permissions)?,
            offset: entry.offset,
            path: entry.path.clone(),
            unreadable: unreadable_of(entry, &range, page_size)?,
            digest: Hash::from_hex(digest).context("its digest is none")?,
            range,
        })
    }
}

/// All of them, in ascending order and apart.
pub fn mappings_of(index: &Index) -> Result<Vec<Mapping>> {
    let page_size = index.page_size;
    ensure!(
        page_size.is_power_of_two() && PAGE_SIZES.contains(&page_size),
        "no machine has pages of {page_size} bytes"
    );
    let mut mappings = Vec::with_capacity(index.mappings.len());
    for entry in &index.mappings {
        let context = || format!("mapping {}", entry.addresses);
        mappings.push(Mapping::new(entry, page_size).with_context(context)?);
    }
    let copied = mappings.iter().map(|mapping| mapping.range.clone());
    let copied: Vec<_> = copied.collect();
    let mut left_out = Vec::with_capacity(index.left_out.len());
    for entry in &index.left_out {
        let context = || format!("left out, {}", entry.addresses);
        left_out.push(range_of(&entry.addresses, page_size).with_context(context)?);
    }
    in_order(&copied)?;
    in_order(&left_out)?;
    for range in &left_out {
        if let Some(both) = clip(&copied, range).first() {
            bail!("{:x}-{:x} was copied and left out", both.start, both.end);
        }
    }
    Ok(mappings)
}

/// Fails unless each of them is behind those before.
fn in_order(ranges: &[Range<u64>]) -> Result<()> {
    for pair in ranges.windows(2) {
        let (before, range) = (&pair[0], &pair[1]);
        ensure!(
            before.end <= range.start,
            "{:x}-{:x} is not behind {:x}-{:x}, which comes before it",
            range.start,
            range.end,
            before.start,
            before.end
        );
    }
    Ok(())
}

/// An address as [`Addresses`] has it.
fn address_of(text: &str) -> Result<u64> {
    let address = u64::from_str_radix(text, 16).ok();
    address
        .filter(|address| format!("{address:x}") == text)
        .with_context(|| format!("{text:?} is no address in hexadecimal"))
}

fn range_of(addresses: &Addresses, page_size: u64) -> Result<Range<u64>> {
    let (start, end) = (address_of(&addresses.start)?, address_of(&addresses.end)?);
    for address in [start, end] {
        ensure!(
            address.is_multiple_of(page_size),
            "{address:x} is not the address of a page"
        );
    }
    ensure!(start < end, "{end:x} is not above {start:x}");
    Ok(start..end)
}

fn permissions_of(text: &str) -> Result<MMPermissions> {
    // It takes anything.
    let Ok(permissions) = text.parse::<MMPermissions>();
    let is_one = permissions.intersects(MMPermissions::SHARED | MMPermissions::PRIVATE);
    ensure!(
        is_one && permissions.as_str() == text,
        "its permissions are {text:?}"
    );
    Ok(permissions)
}

fn unreadable_of(entry: &Entry, within: &Range<u64>, page_size: u64) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::with_capacity(entry.unreadable.len());
    for addresses in &entry.unreadable {
        let context = || format!("unreadable, {addresses}");
        let range = range_of(addresses, page_size).with_context(context)?;
        ensure!(
            within.start <= range.start && range.end <= within.end,
            "unreadable, {addresses}: it is not within the mapping"
        );
        ranges.push(range);
    }
    in_order(&ranges).context("unreadable")?;
    Ok(ranges)
}
