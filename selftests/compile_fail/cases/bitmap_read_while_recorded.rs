// SPDX-License-Identifier: GPL-2.0
//! Words of a bitmap that are read while a harvest may set bits in them.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::bitmap::RecordBitmap;

pub fn case(words: &mut [u64]) -> u64 {
    let mut bitmap = RecordBitmap::new(words, 0);

    #[cfg(twin)]
    bitmap.set(0);
    let word = words.iter().sum();
    //~[wrong]^ ERROR: E0502: cannot borrow `*words` as immutable because it is also borrowed
    #[cfg(wrong)]
    bitmap.set(0);
    word
}
