// SPDX-License-Identifier: GPL-2.0

//! Page-table entries: values, and references to locked entries.
//!
//! [`Pte`], [`Pmd`] and [`Pud`] are plain values: reading one says nothing of what the entry holds
//! later. [`PteTable`] and [`Leaf`] refer to entries whose page-table lock is held; they exist only
//! inside the callback of a [walk](crate::walk), and a permission is taken from an entry only with
//! a [`FlushScope`] in hand.
//!
//! A base page is [`PAGE_SIZE`](kernel::page::PAGE_SIZE) bytes. A leaf is an entry that maps
//! memory: a present PTE, or a PMD or PUD entry that maps a huge page.
//!
//! C header: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h)
//!
//! [`FlushScope`]: crate::tlb::FlushScope

mod entry_set;
mod leaf;
mod level;
mod soft_leaf;
mod table;
mod value;

pub(crate) use self::{
    entry_set::{
        EntrySet,
        GROUP, //
    },
    leaf::TakenLeaf,
    table::{
        Groups,
        Scan, //
    }, //
};
pub use self::{
    leaf::{
        Leaf,
        PmdLeaf,
        PmdTable,
        PudLeaf, //
    },
    level::{
        ByLevel,
        HugeLevel,
        Level,
        PmdLevel,
        PteLevel,
        PudLevel, //
    },
    soft_leaf::{
        Markers,
        MigrationAccess,
        SoftLeaf, //
    },
    table::{
        LockedPte,
        PteTable, //
    },
    value::{
        Entry,
        Pmd,
        Pte,
        Pud, //
    },
};
