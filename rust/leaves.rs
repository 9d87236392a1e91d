// SPDX-License-Identifier: GPL-2.0

//! A list of the leaves that map a range of addresses: their size, protection and state.
//!
//! It says what was there when each entry was looked at, under its page-table lock; the next moment
//! it may be otherwise. Nothing is changed, and no page is faulted in. hugetlbfs is left out, as
//! from every walk.

use crate::{
    bindings,
    mm::MmapRead,
    partial::{
        Bytes,
        Partial, //
    },
    pgtable::{
        self,
        ByLevel,
        HugeLevel,
        PteTable,
        SoftLeaf, //
    },
    range::{
        AddrRange,
        PMD_SIZE, //
    },
    signal,
    walk::{
        walk_page_range,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It maps memory.
    Present = 0,
    /// A page in swap.
    Swap = 1,
    /// A page that is being migrated.
    Migration = 2,
    /// Memory of a device that the CPU cannot access.
    DevicePrivate = 3,
    /// Memory that a device has for itself.
    DeviceExclusive = 4,
    /// Memory that is broken.
    Hwpoison = 5,
    /// No page: a marker of userfaultfd, a guard or an error.
    Marker = 6,
}

impl From<SoftLeaf> for Kind {
    fn from(leaf: SoftLeaf) -> Self {
        match leaf {
            SoftLeaf::Swap { .. } => Self::Swap,
            SoftLeaf::Migration { .. } => Self::Migration,
            SoftLeaf::DevicePrivate { .. } => Self::DevicePrivate,
            SoftLeaf::DeviceExclusive { .. } => Self::DeviceExclusive,
            SoftLeaf::HwPoison { .. } => Self::Hwpoison,
            SoftLeaf::Marker(_) => Self::Marker,
        }
    }
}

/// The state of an entry: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u32);

impl State {
    /// Loads are permitted.
    pub const READ: Self = Self(bindings::MMOPS_LEAF_READ);
    /// Stores are permitted.
    pub const WRITE: Self = Self(bindings::MMOPS_LEAF_WRITE);
    /// Fetches of instructions are permitted.
    pub const EXEC: Self = Self(bindings::MMOPS_LEAF_EXEC);
    /// A store was made since the entry was last clean.
    pub const DIRTY: Self = Self(bindings::MMOPS_LEAF_DIRTY);
    /// The memory was accessed since the entry was last old.
    pub const YOUNG: Self = Self(bindings::MMOPS_LEAF_YOUNG);
    /// A store was made since soft-dirty was last cleared.
    pub const SOFT_DIRTY: Self = Self(bindings::MMOPS_LEAF_SOFT_DIRTY);
    /// userfaultfd protects the page, against stores or against all accesses.
    pub const UFFD: Self = Self(bindings::MMOPS_LEAF_UFFD);
    /// The entry maps no folio that mm manages.
    pub const SPECIAL: Self = Self(bindings::MMOPS_LEAF_SPECIAL);

    /// The bits, each as in the constants, from bit 0 on.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A leaf, or an entry in the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First address that it maps, which may lie before the range that was asked for.
    pub addr: usize,
    /// Bytes that it maps.
    pub size: usize,
    /// What it stands for.
    pub kind: Kind,
    /// Its state. Of an entry that is not present only [`State::SOFT_DIRTY`] and [`State::UFFD`]
    /// are known.
    pub state: State,
}

/// Appends the leaves of `range` to `list`, in ascending order, as far as its capacity lasts.
///
/// [`Partial::stopped`] is `ENOSPC` if that was not for all of the range; the next call has to go
/// on behind what is done. A list with room for [`MIN_ROOM`] leaves gets further with each call.
///
/// Sleeps. The guard holds the mmap lock, for reading. A fatal signal ends the call early as well.
///
/// # Errors
///
/// None that says something of the range: what it does not map has no leaf.
///
/// # Examples
///
/// ```
/// use mmops::{
///     leaves::{self, MIN_ROOM},
///     mm::{self, MmapRead},
/// };
///
/// let mm = mm::current()?;
/// let mut guard = MmapRead::lock(&mm);
/// let range = guard.user_range()?;
/// let mut list = KVVec::with_capacity(MIN_ROOM, GFP_KERNEL)?;
/// let listed = leaves::list(&mut guard, &range, &mut list)?;
///
/// pr_info!("{} leaves in the first {} bytes\n", list.len(), listed.done.0);
/// Ok(())
/// ```
pub fn list(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    list: &mut KVVec<Leaf>,
) -> Result<Partial<()>> {
    let mut walker = Lister {
        next: range.start(),
        list,
    };

    let ret = walk_page_range(guard, range, &mut walker);

    if ret.is_ok() {
        walker.next = range.end();
    }
    Ok(Partial::new((), Bytes(walker.next - range.start()), ret))
}

/// Leaves in the smallest piece that is listed whole: those of a PTE table.
pub const MIN_ROOM: usize = PMD_SIZE >> PAGE_SHIFT;

struct Lister<'l> {
    /// All before is listed.
    next: usize,
    list: &'l mut KVVec<Leaf>,
}

impl Lister<'_> {
    /// Appends an entry, if it is one of a known kind; under a page-table lock, so without
    /// allocating.
    fn push(&mut self, addr: usize, size: usize, entry: Option<(Kind, u32)>) {
        if let Some((kind, state)) = entry {
            // `checkpoint` saw to the room.
            let _ = self.list.push_within_capacity(Leaf {
                addr,
                size,
                kind,
                state: State(state),
            });
        }
    }
}

impl Walk for Lister<'_> {
    type Hold<'s> = ();

    fn checkpoint(&mut self, nr: usize, _hold: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()?;
        if self.list.capacity() - self.list.len() < nr.min(MIN_ROOM) {
            return Err(ENOSPC);
        }
        Ok(())
    }

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        table.for_each(|addr, pte| {
            if pte.none() {
                return;
            }

            let entry = if pte.present() {
                Some((Kind::Present, pte.leaf_state()))
            } else {
                pte.soft_leaf()
                    .map(|leaf| (leaf.into(), pte.softleaf_state()))
            };
            self.push(addr, PAGE_SIZE, entry);
        });
        self.next = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut pgtable::Leaf<'_, 's, L>,
        (): &mut (),
    ) -> Result<Action> {
        let entry = match leaf.by_level() {
            ByLevel::Pmd(leaf) if leaf.is_softleaf() => {
                let pmd = leaf.value();

                pmd.soft_leaf()
                    .map(|leaf| (leaf.into(), pmd.softleaf_state()))
            }
            _ => Some((Kind::Present, leaf.value().leaf_state())),
        };

        self.push(leaf.leaf_addr(), L::SIZE, entry);
        self.next = leaf.end();
        Ok(Action::Done)
    }
}
