// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl protect`

use std::io::Write;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use mmops_uapi::{pidfd_open, Device, Prot};

use crate::cli::Protect;
use crate::output::output;

/// `r`, `w` and `x`, or `none`.
pub fn parse_access(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("it is made of r, w and x, or none".into());
    }
    let bit = |c| match c {
        'r' => Ok(Prot::READ.bits()),
        'w' => Ok(Prot::WRITE.bits()),
        'x' => Ok(Prot::EXEC.bits()),
        other => Err(format!("{other} is none of r, w and x")),
    };
    text.chars().try_fold(0, |access, c| Ok(access | bit(c)?))
}

pub fn run(args: &Protect) -> Result<()> {
    let device = Device::open()?;
    let pidfd = pidfd_open(args.pid).with_context(|| format!("process {}", args.pid))?;
    let prot = Prot::from_bits_truncate(args.access);
    let done = device.protect(Some(pidfd.as_fd()), args.range.clone(), prot)?;
    writeln!(
        output(),
        "leaves changed: {} of 4K, {} of 2M, {} of 1G; split: {} of 2M, {} of 1G",
        done.ptes,
        done.pmds,
        done.puds,
        done.split_pmds,
        done.split_puds
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses() {
        assert_eq!(parse_access("rw"), Ok(3));
        assert_eq!(parse_access("none"), Ok(0));
        for bad in ["", "q", "rq", "None"] {
            assert!(parse_access(bad).is_err(), "{bad}");
        }
    }
}
