// SPDX-License-Identifier: GPL-2.0

//! Tests in user space what of the crate mmops needs no kernel.
//!
//! The sources are those of `rust/`, under the names that they have there. Their KUnit suites run
//! as well; beside them, `properties` of each part say what it does by a model that is made
//! otherwise, for arguments at random or for all that there are.

#![cfg(test)]

mod given;

mod bindings;
mod faults;

#[allow(dead_code, clippy::all)]
#[path = "../../../rust/range.rs"]
mod range;

mod range_properties;

#[allow(dead_code, clippy::all)]
#[path = "../../../rust/bitmap.rs"]
mod bitmap;

mod bitmap_properties;

mod dirty {
    mod pieces {
        #[allow(dead_code, clippy::all)]
        #[path = "../../../../../rust/dirty/pieces/search.rs"]
        mod search;

        mod properties;
    }
}

mod gather {
    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/gather/encoded.rs"]
    mod encoded;

    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/gather/queue.rs"]
    mod queue;

    mod properties;
}

mod pgtable {
    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/pgtable/entry_set.rs"]
    mod entry_set;

    #[allow(dead_code, unfulfilled_lint_expectations, clippy::all)]
    #[path = "../../../../rust/pgtable/level.rs"]
    mod level;

    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/pgtable/value.rs"]
    mod value;

    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/pgtable/soft_leaf.rs"]
    mod soft_leaf;

    use self::{
        level::{
            HugeLevel,
            PmdLevel,
            PudLevel, //
        },
        value::{
            Pmd,
            Pte,
            Pud, //
        }, //
    };

    /// A leaf under its lock, of which there is none.
    pub struct Leaf<'t, 's, L: HugeLevel>(std::marker::PhantomData<(&'t (), &'s (), L)>);

    type PmdLeaf<'t, 's> = Leaf<'t, 's, PmdLevel>;
    type PudLeaf<'t, 's> = Leaf<'t, 's, PudLevel>;

    mod entry_set_properties;
    mod soft_leaf_properties;
    mod value_properties;
}

mod track {
    #[allow(dead_code, clippy::all)]
    #[path = "../../../../rust/track/bits.rs"]
    mod bits;

    mod properties;
}
