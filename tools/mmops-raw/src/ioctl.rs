// SPDX-License-Identifier: GPL-2.0

//! Calls of devices.
//!
//! What makes them safe: a call belongs to the type of its structure, and is issued to a device
//! that has it; and where the structure names a descriptor, an array or memory of this process,
//! that is put there from what the caller lends.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use crate::process::OtherProcess;
use crate::sys::*;
#[cfg(feature = "memory")]
use crate::Memory;
use crate::Mmops;

pub(crate) use sealed::Sealed;

mod sealed {
    /// Of this crate, which knows what a call does.
    pub trait Sealed {}
}

/// The structure that a call takes, and writes its results to. But for that, for the array, and for
/// the memory that [`Argument::Names`] has, the call changes no contents of memory of this process.
pub trait Argument: Sealed {
    /// What has the call.
    type Device: AsFd;
    /// What fields of the structure name: descriptors and memory of this process.
    type Names<'a>;
    /// What the call writes to beside the structure. Any bytes are a value of its elements.
    type Array<'a>;
    /// The number of the call.
    const NUMBER: u32;

    /// Puts what is named, and the address and the length of the array, into the structure.
    #[doc(hidden)]
    fn put(&mut self, names: Self::Names<'_>, array: Self::Array<'_>);
}

/// A process, by a pidfd; none is the caller.
pub type Process<'a> = Option<BorrowedFd<'a>>;

/// Whose memory [`mmops_zap`] takes away.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// What the structure has the addresses of.
    Process(&'a OtherProcess<'a>),
    /// All of a mapping of this process.
    #[cfg(feature = "memory")]
    Memory(&'a Memory),
}

/// `-1` is the caller, for all devices here.
fn number(process: Process<'_>) -> i32 {
    process.map_or(-1, |pidfd| pidfd.as_raw_fd())
}

/// Address and length of an array that is written to.
pub(crate) fn place<T>(array: &mut [T]) -> (u64, u64) {
    if array.is_empty() {
        return (0, 0);
    }
    (array.as_mut_ptr() as u64, array.len() as u64)
}

/// As [`place`], in bits.
pub(crate) fn place_of_bits(words: &mut [u64]) -> (u64, u64) {
    let (address, words) = place(words);
    (address, words * u64::from(u64::BITS))
}

/// The number of a call that reads and writes a structure of the type, which it has to hold the
/// size of.
pub(crate) const fn number_for<A>(number: u32) -> u32 {
    assert!(number >> 30 == 3 && (number >> 16 & 0x3fff) as usize == size_of::<A>());
    number
}

macro_rules! arguments {
    ($device:ty: $($type:ty, $number:expr, $names:ty, $array:ty, $put:expr;)+) => {
        $(
            impl $crate::ioctl::Sealed for $type {}

            impl $crate::ioctl::Argument for $type {
                type Device = $device;
                type Names<'a> = $names;
                type Array<'a> = $array;

                const NUMBER: u32 = $crate::ioctl::number_for::<Self>($number);

                fn put<'a>(&mut self, names: Self::Names<'a>, array: Self::Array<'a>) {
                    let put: fn(&mut Self, Self::Names<'a>, Self::Array<'a>) = $put;
                    put(self, names, array)
                }
            }
        )+

        /// Types and numbers as they are named.
        #[cfg(test)]
        #[allow(dead_code)]
        const NAMES: &[(&str, &str)] = &[$((stringify!($type), stringify!($number))),+];
    };
}
#[cfg(feature = "memory")]
pub(crate) use arguments;

arguments! {
    Mmops:
    mmops_info, MMOPS_IOC_INFO, (), (), |_, (), ()| {};
    mmops_write_protect, MMOPS_IOC_WRITE_PROTECT, BorrowedFd<'a>, (),
        |arg, file, ()| arg.fd = file.as_raw_fd();
    mmops_clean_record, MMOPS_IOC_CLEAN_RECORD, BorrowedFd<'a>, &'a mut [u64], |arg, file, words| {
        arg.fd = file.as_raw_fd();
        (arg.bitmap, arg.bitmap_bits) = place_of_bits(words);
    };
    mmops_zap, MMOPS_IOC_ZAP, Target<'a>, (), |arg, target, ()| match target {
        Target::Process(process) => arg.pidfd = process.pidfd().as_raw_fd(),
        #[cfg(feature = "memory")]
        Target::Memory(memory) => {
            arg.pidfd = -1;
            (arg.addr, arg.len) = memory.place();
        }
    };
    mmops_soft_dirty_clear, MMOPS_IOC_SOFT_DIRTY_CLEAR, Process<'a>, (),
        |arg, process, ()| arg.pidfd = number(process);
    mmops_revoke, MMOPS_IOC_REVOKE, Process<'a>, (),
        |arg, process, ()| arg.pidfd = number(process);
    mmops_notifier_subscribe, MMOPS_IOC_NOTIFIER_SUBSCRIBE, Process<'a>, (),
        |arg, process, ()| arg.pidfd = number(process);
    mmops_notifier_log, MMOPS_IOC_NOTIFIER_LOG, (), &'a mut [mmops_notifier_event],
        |arg, (), events| {
            let (address, nr) = place(events);
            arg.events = address;
            // Of more, the first are written to.
            arg.nr = nr.min(u32::MAX.into()) as u32;
        };
    mmops_protect, MMOPS_IOC_PROTECT, Process<'a>, (),
        |arg, process, ()| arg.pidfd = number(process);
    mmops_leaves, MMOPS_IOC_LEAVES, Process<'a>, &'a mut [mmops_leaf], |arg, process, leaves| {
        arg.pidfd = number(process);
        (arg.vec, arg.vec_len) = place(leaves);
    };
    mmops_age, MMOPS_IOC_AGE, Process<'a>, (), |arg, process, ()| arg.pidfd = number(process);
    mmops_track_open, MMOPS_IOC_TRACK_OPEN, Process<'a>, (),
        |arg, process, ()| arg.pidfd = number(process);
    mmops_track_begin, MMOPS_IOC_TRACK_BEGIN, (), (), |_, (), ()| {};
    mmops_track_read, MMOPS_IOC_TRACK_READ, (), &'a mut [mmops_track_range],
        |arg, (), ranges| (arg.vec, arg.vec_len) = place(ranges);
    mmops_track_end, MMOPS_IOC_TRACK_END, (), (), |_, (), ()| {};
    mmops_track_bitmap, MMOPS_IOC_TRACK_BITMAP, (), &'a mut [u64],
        |arg, (), words| (arg.bitmap, arg.words) = place(words);
}

/// Issues the call that the structure is for. Returns what `ioctl(2)` does.
pub fn ioctl<'a, A: Argument>(
    device: &A::Device,
    arg: &mut A,
    names: A::Names<'a>,
    array: A::Array<'a>,
) -> nix::Result<i32> {
    arg.put(names, array);
    // SAFETY: `device` has the call of this number, which takes a structure of this type. It writes
    // to that, which lives across the call, and to the array and the memory that `put()` has put
    // there: these are lent for `'a`, and the latter may change at any time.
    Errno::result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), A::NUMBER as _, arg) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are compared with those of the header by mmops-uapi.
    #[test]
    fn each_structure_has_the_number_of_its_name() {
        for (structure, number) in NAMES {
            let call = number.strip_prefix("MMOPS_IOC_").unwrap();
            assert_eq!(*structure, format!("mmops_{}", call.to_lowercase()));
        }
    }

    #[test]
    fn arrays_are_where_they_are() {
        let (mut words, mut none) = ([0u64; 3], [0u64; 0]);
        let address = words.as_ptr() as u64;
        assert_eq!(place(&mut words), (address, 3));
        assert_eq!(place_of_bits(&mut words), (address, 192));
        assert_eq!(place(&mut none), (0, 0));
        let mut arg = mmops_clean_record {
            bitmap: 1,
            bitmap_bits: u64::MAX,
            ..Default::default()
        };
        arg.put(std::io::stdin().as_fd(), &mut words);
        assert_eq!((arg.fd, arg.bitmap, arg.bitmap_bits), (0, address, 192));
    }

    /// Whatever the caller has put there.
    #[test]
    fn processes_are_those_that_are_lent() {
        let mut arg = mmops_age {
            pidfd: 77,
            ..Default::default()
        };
        arg.put(None, ());
        assert_eq!(arg.pidfd, -1);
        arg.put(Some(std::io::stdin().as_fd()), ());
        assert_eq!(arg.pidfd, 0);
    }
}
