// SPDX-License-Identifier: GPL-2.0
//! Two bitmaps over the same words, which two harvests would fill at once.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::bitmap::RecordBitmap;

pub fn case(words: &mut [u64]) {
    let mut first = RecordBitmap::new(words, 0);

    #[cfg(twin)]
    first.set(0);
    let mut second = RecordBitmap::new(words, 0);
    //~[wrong]^ ERROR: E0499: cannot borrow `*words` as mutable more than once
    second.set(0);
    #[cfg(wrong)]
    first.set(0);
}
