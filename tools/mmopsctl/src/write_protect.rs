// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl write-protect`

use anyhow::{Context, Result};
use mmops_uapi::Device;

use crate::cli::WriteProtect;
use crate::tracked::Tracked;
use crate::units;

pub fn run(args: &WriteProtect) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let tracked = Tracked::open(&args.file)?;
    let range = tracked.range(&args.pages, page_size)?;
    let result = device
        .write_protect(
            tracked.file(),
            range.start,
            range.end - range.start,
            args.huge.into(),
        )
        .with_context(|| args.file.display().to_string())?;
    say!(
        "{} write-protected",
        units::pages(result.write_protected, page_size)
    )?;
    if result.write_protected == 0 {
        if let Some(hint) = tracked.hint_when_clean() {
            note!("mmopsctl: {hint}");
        }
    }
    Ok(())
}
