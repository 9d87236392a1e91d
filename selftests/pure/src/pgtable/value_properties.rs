// SPDX-License-Identifier: GPL-2.0

//! Values of entries, by the bits of the manual and the two that the kernel keeps there.

use super::{
    Pmd,
    Pte,
    Pud, //
};
use crate::{
    bindings::{
        pmd_t,
        pte_t,
        pud_t, //
    },
    given::check, //
};
use proptest::prelude::*;

const PRESENT: usize = 1 << 0;
const RW: usize = 1 << 1;
const ACCESSED: usize = 1 << 5;
const DIRTY: usize = 1 << 6;
const PSE: usize = 1 << 7;
const PROT_NONE: usize = 1 << 8;
const SPECIAL: usize = 1 << 9;
const SOFT_DIRTY: usize = 1 << 11;
const SAVED_DIRTY: usize = 1 << 58;
const FRAMES: usize = 0x000f_ffff_ffff_f000;

fn has(value: usize, bits: usize) -> bool {
    value & bits != 0
}

fn frame(value: usize) -> usize {
    // What is not permitted to anybody has its frame inverted.
    let value = if has(value, PRESENT) { value } else { !value };

    (value & FRAMES) >> 12
}

/// Values, half of them with few low bits.
fn values() -> impl Strategy<Value = usize> {
    prop_oneof![
        any::<usize>(),
        (any::<usize>(), 0..4096usize).prop_map(|(high, low)| high << 12 | low),
        (0..64u32, 0..4096usize).prop_map(|(bit, low)| 1 << bit | low),
    ]
}

#[test]
fn ptes_are_read_as_they_are() {
    check(100_000, values(), |value| {
        let pte = Pte::from_raw(pte_t { pte: value });

        prop_assert_eq!(pte.none(), !has(value, !(ACCESSED | DIRTY)));
        prop_assert_eq!(pte.present(), has(value, PRESENT | PROT_NONE));
        prop_assert_eq!(pte.write(), has(value, RW));
        prop_assert_eq!(pte.rw(), has(value, RW));
        prop_assert_eq!(pte.dirty(), has(value, DIRTY | SAVED_DIRTY));
        prop_assert_eq!(pte.young(), has(value, ACCESSED));
        prop_assert_eq!(pte.soft_dirty(), has(value, SOFT_DIRTY));
        prop_assert_eq!(pte.special(), has(value, SPECIAL));
        if pte.present() {
            prop_assert_eq!(pte.pfn(), frame(value));
        }
        Ok(())
    });
}

#[test]
fn pmds_are_read_as_they_are() {
    check(100_000, values(), |value| {
        let pmd = Pmd::from_raw(pmd_t { pmd: value });
        let present = has(value, PRESENT | PROT_NONE | PSE);

        prop_assert_eq!(pmd.none(), !has(value, !(ACCESSED | DIRTY)));
        prop_assert_eq!(pmd.present(), present);
        prop_assert_eq!(pmd.write(), has(value, RW));
        prop_assert_eq!(pmd.dirty(), has(value, DIRTY | SAVED_DIRTY));
        prop_assert_eq!(pmd.young(), has(value, ACCESSED));
        prop_assert_eq!(pmd.soft_dirty(), has(value, SOFT_DIRTY));
        prop_assert_eq!(pmd.special(), has(value, SPECIAL));
        if !pmd.none() {
            prop_assert_eq!(pmd.is_huge(), !present || has(value, PSE));
        }
        if has(value, PRESENT) && has(value, PSE) {
            prop_assert_eq!(pmd.pfn(), frame(value) & !511);
        }
        Ok(())
    });
}

#[test]
fn puds_are_read_as_they_are() {
    check(100_000, values(), |value| {
        let pud = Pud::from_raw(pud_t { pud: value });

        let present = has(value, PRESENT | PSE);

        // One without permissions is a leaf; of others, kernel/fixes gives the bit a meaning.
        if present || !has(value, PROT_NONE) {
            prop_assert_eq!(pud.present(), present);
        }
        prop_assert_eq!(pud.write(), has(value, RW));
        prop_assert_eq!(pud.dirty(), has(value, DIRTY | SAVED_DIRTY));
        prop_assert_eq!(pud.young(), has(value, ACCESSED));
        prop_assert_eq!(pud.soft_dirty(), has(value, SOFT_DIRTY));
        prop_assert_eq!(pud.special(), has(value, SPECIAL));
        if has(value, PRESENT) {
            prop_assert_eq!(pud.is_huge(), has(value, PSE));
        }
        if has(value, PSE) {
            prop_assert_eq!(pud.pfn(), frame(value) & !(512 * 512 - 1));
        }
        Ok(())
    });
}
