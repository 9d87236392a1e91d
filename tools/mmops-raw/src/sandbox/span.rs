// SPDX-License-Identifier: GPL-2.0

//! Where the sandbox is, and which ranges of addresses have no memory of the program.

/// First address.
pub const START: u64 = 0x2_0000_0000;
/// Length, in bytes: four leaves of PMD size.
pub const LEN: u64 = 8 << 20;
/// First address of the part for leaves of PUD size.
pub const BIG: u64 = START + (1 << 30);
/// Length of that, in bytes: one leaf.
pub const BIG_LEN: u64 = 1 << 30;
/// Bytes in a base page.
pub const PAGE: u64 = 4096;

/// Below it nothing is ever mapped (`vm.mmap_min_addr`).
const LOWEST: u64 = 0x1_0000;
/// From here on nothing belongs to a process, whatever the levels of page tables.
const KERNEL: u64 = 1 << 63;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub addr: u64,
    /// Length, in bytes.
    pub len: u64,
}

impl Span {
    /// Whether it lies in one of the two parts of the sandbox.
    pub(super) fn is_inside(self) -> bool {
        let end = self.addr.checked_add(self.len);
        let is_in = |start, len| self.addr >= start && end.is_some_and(|end| end <= start + len);
        is_in(START, LEN) || is_in(BIG, BIG_LEN)
    }

    /// Whether no memory of the program is in it: also where there can be none.
    pub(super) fn is_confined(self) -> bool {
        let Some(end) = self.addr.checked_add(self.len) else {
            return true;
        };
        self.len == 0 || end <= LOWEST || self.addr >= KERNEL || self.is_inside()
    }
}

/// Of so many records, which is no range if they are more than there are addresses.
pub(super) fn array(addr: u64, nr: u64, size: u64) -> Span {
    let len = nr.saturating_mul(size);
    Span { addr, len }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(addr: u64, len: u64) -> Span {
        Span { addr, len }
    }

    #[test]
    fn spans_with_memory_of_the_program_are_not_confined() {
        assert!(span(START, LEN).is_confined());
        assert!(!span(START - 1, 2).is_confined());
        assert!(!span(START + LEN - PAGE, PAGE + 1).is_confined());
        assert!(span(BIG, BIG_LEN).is_confined());
        assert!(!span(BIG - 1, 2).is_confined());
        assert!(!span(BIG + BIG_LEN - PAGE, PAGE + 1).is_confined());
        assert!(!span(START, BIG - START + PAGE).is_confined());
        assert!(span(START, u64::MAX - START + 1).is_confined());
        assert!(!span(START, u64::MAX - START).is_confined());
        assert!(span(0, PAGE).is_confined());
        assert!(!span(0, LOWEST + 1).is_confined());
        assert!(span(KERNEL, PAGE).is_confined());
        assert!(!span(KERNEL - 1, PAGE).is_confined());
        assert!(!array(START, u64::MAX / 8 + 2, 8).is_inside());
    }
}
