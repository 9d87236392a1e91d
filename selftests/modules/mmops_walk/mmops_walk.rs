// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_walk`: a driver with walks, a gather and an invalidation of its own. For tests; the
//! interface is `mmops_walk.h`.
//!
//! A generic function of the crate `mmops` is compiled into the module that uses it. This one uses
//! each walk, and what takes a closure, without `unsafe`. So the build shows that none needs what
//! is exported to `mmops.ko` alone, and the test that each does what it says.

#[macro_use]
#[path = "../misc_device.rs"]
mod misc_device;

use kernel::{
    ioctl::_IOWR,
    page::PAGE_SIZE,
    prelude::*, //
};
use mmops::{
    gather::with_gather,
    mapping::Mapping,
    mm::{
        self,
        MmapRead, //
    },
    notifier::{
        with_invalidation,
        ChangeEvent, //
    },
    pgtable::{
        HugeLevel,
        Leaf,
        PmdLeaf,
        PteTable,
        PudLeaf, //
    },
    range::{
        AddrRange,
        PageRange,
        PMD_SIZE, //
    },
    tlb::FlushScope,
    vma::Vma,
    walk::{
        walk_page_mapping,
        walk_page_range,
        walk_page_range_one_scope,
        walk_page_range_vma,
        Action,
        SpareTable,
        SpareTables,
        Walk, //
    },
    zap::zap_vma, //
};
use zerocopy_derive::Immutable;

module! {
    type: MmopsWalk,
    name: "mmops_walk",
    authors: ["The mmops authors"],
    description: "Walks of a driver's own, for tests of mmops",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

const READ_MAPPING: u32 = 0;
const READ_RANGE: u32 = 1;
const READ_VMA: u32 = 2;
const PROTECT_MAPPING: u32 = 3;
const PROTECT_RANGE: u32 = 4;
const PROTECT_ONE_SCOPE: u32 = 5;
const PROTECT_VMA: u32 = 6;
const ZAP: u32 = 7;
const INVALIDATE: u32 = 8;
const FOREIGN_TABLE: u32 = 9;
const TAKE_DIRTY: u32 = 10;

const SPLIT: u32 = 1 << 0;
const SPLIT_ALL: u32 = 1 << 1;
const SPLIT_PUD: u32 = 1 << 2;
const AS_KERNEL: u32 = 1 << 3;

const IOC: u32 = _IOWR::<Arg>(0xBC, 0x00);

/// `struct mmops_walk`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Arg {
    op: u32,
    flags: u32,
    fd: i32,
    pad: u32,
    first: u64,
    nr: u64,
    gather: u64,
    vmas: u64,
    tables: u64,
    leaves: u64,
    present: u64,
    writable: u64,
    changed: u64,
    split: u64,
    reserved: u64,
}

misc_device!(MmopsWalk, c"mmops_walk", {
    IOC => Arg::run,
});

/// What a walk found.
#[derive(Default)]
struct Found {
    vmas: u64,
    tables: u64,
    leaves: u64,
    present: u64,
    writable: u64,
}

impl Found {
    fn table(&mut self, table: &PteTable<'_, '_>) {
        self.tables += 1;
        table.for_each(|_, pte| self.entry(pte.present(), pte.present() && pte.write(), 1));
    }

    fn leaf<L: HugeLevel>(&mut self, leaf: &Leaf<'_, '_, L>) -> Result {
        let value = leaf.value();

        self.leaves += 1;
        self.entry(
            value.present(),
            value.present() && value.write(),
            leaf.pages()?.nr(),
        );
        Ok(())
    }

    fn entry(&mut self, present: bool, writable: bool, nr: usize) {
        self.present += if present { nr as u64 } else { 0 };
        self.writable += if writable { nr as u64 } else { 0 };
    }
}

/// A walk that only looks.
impl Walk for Found {
    type Hold<'s> = ();

    fn test_vma(&mut self, _vma: Vma<'_>) -> bool {
        self.vmas += 1;
        true
    }

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        self.table(table);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        (): &mut (),
    ) -> Result<Action> {
        Found::leaf(self, leaf)?;
        Ok(Action::Done)
    }
}

/// A walk that write-protects.
struct Protect {
    found: Found,
    changed: u64,
    tables: SpareTables,
    /// Which leaves are to be split, and how.
    flags: u32,
    split: u64,
}

impl Protect {
    fn wants_split<L: HugeLevel>(&self, leaf: &Leaf<'_, '_, L>) -> bool {
        if L::SIZE == PMD_SIZE {
            self.flags & SPLIT_ALL != 0 || leaf.can_split()
        } else {
            self.flags & SPLIT_PUD != 0
        }
    }
}

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn test_vma(&mut self, _vma: Vma<'_>) -> bool {
        self.found.vmas += 1;
        true
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.found.table(table);
        table.for_each_selected(
            scope,
            |pte| pte.rw(),
            |_, entry| {
                entry.wrprotect();
                self.changed += 1;
            },
        );
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Found::leaf(&mut self.found, leaf)?;
        if self.wants_split(leaf) {
            if self.flags & AS_KERNEL != 0 {
                return Ok(Action::Split);
            }
            if let Some(table) = self.tables.take_for(leaf.vma())? {
                return Ok(Action::Replace(table));
            }
        }
        if leaf.wrprotect(scope).is_some_and(|old| old.write()) {
            self.changed += leaf.pages()?.nr() as u64;
        }
        Ok(Action::Done)
    }

    fn was_split(&mut self, _size: usize) {
        self.split += 1;
    }
}

/// A walk that takes a table, for whatever address space it finds a leaf in, and gives it to the
/// next leaf.
struct Foreign {
    tables: SpareTables,
    table: Option<SpareTable>,
}

impl Walk for Foreign {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        if let Some(table) = self.table.take() {
            return Ok(Action::Replace(table));
        }
        self.table = self.tables.take_for(leaf.vma())?;
        Ok(Action::Done)
    }
}

/// A walk that takes dirty bits.
#[derive(Default)]
struct TakeDirty {
    found: Found,
    taken: u64,
}

impl Walk for TakeDirty {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.found.table(table);
        table.take_dirty(scope, |_| self.taken += 1);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Found::leaf(&mut self.found, leaf)?;
        if leaf.take_dirty(scope)? {
            self.taken += leaf.pages()?.nr() as u64;
        }
        Ok(Action::Done)
    }
}

/// What no walk here uses of a leaf: the build shows that a driver can.
fn of_leaf<'s, L: HugeLevel>(leaf: &mut Leaf<'_, 's, L>, scope: &mut FlushScope<'s>) -> usize {
    let _ = leaf.mkold(scope);

    leaf.mark_soft_dirty(scope) + leaf.clear_soft_dirty(scope).kept
}

#[used]
static OF_PMD_LEAF: for<'s> fn(&mut PmdLeaf<'_, 's>, &mut FlushScope<'s>) -> usize = of_leaf;
#[used]
static OF_PUD_LEAF: for<'s> fn(&mut PudLeaf<'_, 's>, &mut FlushScope<'s>) -> usize = of_leaf;

impl Arg {
    fn run(&mut self) -> Result {
        let known = SPLIT | SPLIT_ALL | SPLIT_PUD | AS_KERNEL;

        if self.pad != 0 || self.reserved != 0 || self.flags & !known != 0 {
            return Err(EINVAL);
        }
        match self.op {
            READ_MAPPING | PROTECT_MAPPING => self.mapping(),
            READ_RANGE | READ_VMA | INVALIDATE => self.read(),
            PROTECT_RANGE | PROTECT_ONE_SCOPE | PROTECT_VMA => self.protect_range(),
            ZAP => self.zap(),
            FOREIGN_TABLE => self.foreign_table(),
            TAKE_DIRTY => self.take_dirty(),
            _ => Err(EINVAL),
        }
    }

    /// `nr` pages from the address `first` on.
    fn addresses(&self, nr: u64) -> Result<AddrRange> {
        let first = self.first as usize;
        let bytes = (nr as usize).checked_mul(PAGE_SIZE).ok_or(EINVAL)?;

        AddrRange::new(first, first.checked_add(bytes).ok_or(EINVAL)?)
    }

    fn mapping(&mut self) -> Result {
        let range = PageRange::new(self.first as usize, self.nr as usize)?;
        let mut mapping = Mapping::fget(self.fd)?;

        if self.op == PROTECT_MAPPING {
            return self.protect(|walker| {
                mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, &range, walker))
            });
        }

        let mut found = Found::default();

        mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, &range, &mut found))?;
        self.tell(&found, 0);
        Ok(())
    }

    fn read(&mut self) -> Result {
        let range = self.addresses(self.nr)?;
        let mm = mm::current()?;
        let mut guard = MmapRead::lock(&mm);
        let mut found = Found::default();

        match self.op {
            READ_VMA => walk_page_range_vma(&mut guard, &range, &mut found)?,
            INVALIDATE => with_invalidation(&guard, &range, ChangeEvent::CLEAR, || {
                let vma = guard.vma_lookup(range.start()).ok_or(ENOMEM)?;

                found.vmas += 1;
                if range.end() <= vma.end() {
                    Ok(())
                } else {
                    Err(EINVAL)
                }
            })?,
            _ => walk_page_range(&mut guard, &range, &mut found)?,
        }
        self.tell(&found, 0);
        Ok(())
    }

    fn protect_range(&mut self) -> Result {
        let range = self.addresses(self.nr)?;
        let mm = mm::current()?;
        let op = self.op;

        self.protect(|walker| {
            let mut guard = MmapRead::lock(&mm);

            match op {
                PROTECT_RANGE => walk_page_range(&mut guard, &range, walker),
                PROTECT_ONE_SCOPE => walk_page_range_one_scope(&mut guard, &range, walker),
                _ => walk_page_range_vma(&mut guard, &range, walker),
            }
        })
    }

    /// Write-protects by `walk`, which is begun again when it needs more tables.
    fn protect(&mut self, mut walk: impl FnMut(&mut Protect) -> Result) -> Result {
        let mut walker = Protect {
            found: Found::default(),
            changed: 0,
            tables: if self.flags & SPLIT != 0 {
                SpareTables::new()
            } else {
                SpareTables::none()
            },
            flags: self.flags,
            split: 0,
        };

        loop {
            let ret = walk(&mut walker);

            walker.tables.refill();
            match ret {
                Err(e) if e == EAGAIN => walker.found = Found::default(),
                ret => {
                    self.tell(&walker.found, walker.changed);
                    self.split = walker.split;
                    return ret;
                }
            }
        }
    }

    /// A table from a walk over the other process, given to one over the caller's own memory.
    fn foreign_table(&mut self) -> Result {
        let page = self.addresses(1)?;
        let mut walker = Foreign {
            tables: SpareTables::new(),
            table: None,
        };
        let other = mm::of_pidfd(self.fd)?;

        while let Err(e) = walk_page_range_vma(&mut MmapRead::lock(&other), &page, &mut walker) {
            if e != EAGAIN {
                return Err(e);
            }
            walker.tables.refill();
        }
        if walker.table.is_none() {
            return Err(ENOENT);
        }

        let mm = mm::current()?;
        let mut guard = MmapRead::lock(&mm);

        walk_page_range_vma(&mut guard, &page, &mut walker)
    }

    fn take_dirty(&mut self) -> Result {
        let range = self.addresses(self.nr)?;
        let mm = mm::current()?;
        let mut walker = TakeDirty::default();

        walk_page_range(&mut MmapRead::lock(&mm), &range, &mut walker)?;
        self.tell(&walker.found, walker.taken);
        Ok(())
    }

    /// One gather, two zaps, and a flush between them.
    fn zap(&mut self) -> Result {
        let range = self.addresses(self.nr)?;
        let front = self.addresses(self.nr / 2)?;
        let back = AddrRange::new(front.end(), range.end())?;
        let mm = mm::current()?;
        let mut guard = MmapRead::lock(&mm);
        let zapped = with_gather(&mut guard, &self.addresses(self.gather)?, |gather| {
            let front = zap_vma(gather, &front)?;

            front.check()?;
            gather.flush();

            let back = zap_vma(gather, &back)?;

            back.check()?;
            Ok::<_, Error>(front.did.pages + back.did.pages)
        })?;

        self.tell(&Found::default(), zapped as u64);
        Ok(())
    }

    fn tell(&mut self, found: &Found, changed: u64) {
        self.vmas = found.vmas;
        self.tables = found.tables;
        self.leaves = found.leaves;
        self.present = found.present;
        self.writable = found.writable;
        self.changed = changed;
    }
}
