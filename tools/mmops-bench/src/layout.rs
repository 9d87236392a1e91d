// SPDX-License-Identifier: GPL-2.0

//! Which pages of a range are stored to before a measured call.

use std::ops::Range;

use rand::rngs::ChaCha8Rng;
use rand::seq::index;
use rand::SeedableRng;

/// How many pages of a range are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// One page in a hundred, at random places.
    Sparse,
    /// Every page.
    Dense,
}

impl Density {
    /// Number of pages that are touched out of `pages`.
    pub fn touched(self, pages: u32) -> u32 {
        match self {
            Density::Sparse => (pages / 100).max(1),
            Density::Dense => pages,
        }
    }
}

/// A set of pages, and the bitmap that a harvest of it has to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Page offsets in the order in which they are stored to.
    order: Vec<u32>,
    /// One bit for each page of the range.
    bitmap: Vec<u64>,
}

impl Layout {
    /// Makes the layout of `pages` pages that belongs to `seed`; the same seed
    /// gives the same layout, so both sides of a pair get equal work.
    pub fn new(density: Density, pages: u32, seed: u64) -> Self {
        let order = match density {
            Density::Dense => (0..pages).collect(),
            Density::Sparse => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let picked =
                    index::sample(&mut rng, pages as usize, density.touched(pages) as usize);
                picked.iter().map(|page| page as u32).collect()
            }
        };
        let mut bitmap = empty_bitmap(pages);
        for &page in &order {
            set_bit(&mut bitmap, page);
        }
        Self { order, bitmap }
    }

    /// Page offsets in the order of the stores.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Number of pages.
    pub fn count(&self) -> u64 {
        self.order.len() as u64
    }

    /// The bitmap that a harvest has to return.
    pub fn bitmap(&self) -> &[u64] {
        &self.bitmap
    }

    /// The smallest range that holds every page.
    pub fn span(&self) -> Range<u64> {
        let first = self.order.iter().min().map_or(0, |&page| page.into());
        let last = self.order.iter().max().map_or(0, |&page| page.into());
        first..last + 1
    }
}

/// A bitmap of `pages` bits in whole words, all clear.
pub fn empty_bitmap(pages: u32) -> Vec<u64> {
    vec![0; pages.div_ceil(u64::BITS) as usize]
}

/// Sets the bit of a page.
pub fn set_bit(bitmap: &mut [u64], page: u32) {
    bitmap[(page / u64::BITS) as usize] |= 1 << (page % u64::BITS);
}

/// Number of set bits.
pub fn weight(bitmap: &[u64]) -> u64 {
    bitmap.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_takes_every_page() {
        let layout = Layout::new(Density::Dense, 128, 7);
        assert_eq!(layout.count(), 128);
        assert_eq!(layout.bitmap(), [u64::MAX; 2]);
        assert_eq!(layout.span(), 0..128);
    }

    #[test]
    fn sparse_takes_one_percent_without_repeats() {
        let layout = Layout::new(Density::Sparse, 100_000, 7);
        assert_eq!(layout.count(), 1000);
        assert_eq!(weight(layout.bitmap()), 1000);
        let span = layout.span();
        assert!(layout
            .order()
            .iter()
            .all(|&page| span.contains(&page.into())));
        assert!(layout.order().contains(&(span.start as u32)));
        assert!(layout.order().contains(&(span.end as u32 - 1)));
    }

    #[test]
    fn sparse_is_spread_over_the_range() {
        let layout = Layout::new(Density::Sparse, 100_000, 7);
        for quarter in layout.bitmap().chunks(100_000 / 64 / 4) {
            assert!(quarter.len() < 100 || (200..300).contains(&weight(quarter)));
        }
    }

    #[test]
    fn same_seed_same_layout() {
        let layout = |seed| Layout::new(Density::Sparse, 10_000, seed);
        assert_eq!(layout(1), layout(1));
        assert_ne!(layout(1), layout(2));
    }

    #[test]
    fn small_range_has_a_page() {
        assert_eq!(Layout::new(Density::Sparse, 64, 1).count(), 1);
    }

    #[test]
    fn bitmap_covers_a_partial_word() {
        assert_eq!(empty_bitmap(65).len(), 2);
        let mut bitmap = empty_bitmap(65);
        set_bit(&mut bitmap, 64);
        assert_eq!(bitmap, [0, 1]);
    }
}
