// SPDX-License-Identifier: GPL-2.0

//! What has to be so of each call, whatever was before.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mmops_raw::sandbox::{Place, Sandbox, LEN, PAGE, START};
use nix::errno::Errno;

use crate::request::{self, Request};
use crate::world::World;

/// Of an entry of pagemap: whether a page is there or in swap, soft-dirty, protected by
/// userfaultfd. Not where it is, which migration changes at any time.
const MARKS: u64 = 1 << 63 | 1 << 62 | 1 << 57 | 1 << 55;
const PRESENT_OR_SWAPPED: u64 = 1 << 63 | 1 << 62;

/// The marks of all pages of the sandbox.
fn marks() -> Option<Vec<u64>> {
    let mut bytes = vec![0; (LEN / PAGE) as usize * 8];
    let file = File::open("/proc/self/pagemap").ok()?;
    file.read_exact_at(&mut bytes, START / PAGE * 8).ok()?;
    let words = bytes.chunks_exact(8);
    let marks = words.map(|word| {
        let word = u64::from_ne_bytes(word.try_into().expect("eight bytes")) & MARKS;
        // Reclaim moves pages to swap at any time.
        match word & PRESENT_OR_SWAPPED {
            0 => word,
            _ => word | PRESENT_OR_SWAPPED,
        }
    });
    Some(marks.collect())
}

/// A call of a device; none if there is no such device, or if the call could have reached memory of
/// this program. `alone`: no other thread is at work.
///
/// # Errors
///
/// What is wrong with what it did.
pub fn run_ioctl(
    (sandbox, world): (&Sandbox, &World),
    (file, mut request, place): (request::File, Request, Place),
    spoilt: bool,
    alone: bool,
) -> Result<Option<nix::Result<i32>>, String> {
    let before = request;
    let marks_before = (spoilt && alone).then(marks).flatten();
    let Some(result) = request.issue(sandbox, world, file, place) else {
        return Ok(None);
    };
    // Where the sandbox itself refuses.
    if result == Err(Errno::EXDEV) {
        return Ok(None);
    }
    if before.documented().is_empty() {
        return Ok(Some(result));
    }
    let wrong = |what: &str| format!("{}: {result:?}: {what}; {before:?}", before.name());
    judge(&before, &request, result, place, spoilt).map_err(|what| wrong(&what))?;
    if let Some(before) = marks_before {
        if marks().is_some_and(|after| after != before) {
            return Err(wrong("it failed, and entries have changed"));
        }
    }
    Ok(Some(result))
}

/// What is wrong with the result of a call, or with its argument behind it.
fn judge(
    before: &Request,
    after: &Request,
    result: nix::Result<i32>,
    place: Place,
    spoilt: bool,
) -> Result<(), String> {
    let what = match result {
        _ if place == Place::Nowhere && result != Err(Errno::EFAULT) => {
            "the argument is not mapped: EFAULT"
        }
        _ if place == Place::Nowhere => return Ok(()),
        _ if spoilt && result != Err(Errno::EINVAL) => "a reserved field is not zero: EINVAL",
        _ if spoilt && after != before => "the argument has changed",
        Err(errno) if !before.documented().contains(&errno) => {
            "Documentation/uapi.rst does not have this error"
        }
        Err(_) => return Ok(()),
        Ok(0) if after.is_complete() => return Ok(()),
        Ok(0) => "not all was done",
        Ok(_) => "neither an error nor 0",
    };
    Err(format!("{what}; after it {after:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmops_raw::sys::mmops_age;
    use mmops_raw::units::Bytes;

    #[test]
    fn what_is_wrong_is_told() {
        let age = |done: u64| {
            Request::Age(mmops_age {
                len: 2 * PAGE,
                done: Bytes(done),
                ..Default::default()
            })
        };
        let judge =
            |done, result, place, spoilt| judge(&age(0), &age(done), result, place, spoilt).is_ok();
        let (memory, nowhere) = (Place::Memory, Place::Nowhere);
        assert!(judge(2 * PAGE, Ok(0), memory, false));
        assert!(!judge(PAGE, Ok(0), memory, false));
        assert!(!judge(2 * PAGE, Ok(1), memory, false));
        assert!(judge(0, Err(Errno::ESRCH), memory, false));
        assert!(!judge(0, Err(Errno::ENOMEM), memory, false));
        assert!(!judge(0, Err(Errno::EINTR), memory, false));
        assert!(judge(0, Err(Errno::EFAULT), nowhere, false));
        assert!(!judge(2 * PAGE, Ok(0), nowhere, false));
        assert!(judge(0, Err(Errno::EINVAL), memory, true));
        assert!(!judge(PAGE, Err(Errno::EINVAL), memory, true));
        assert!(!judge(2 * PAGE, Ok(0), memory, true));
    }
}
