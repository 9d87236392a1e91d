// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl info`

use anyhow::Result;
use mmops_uapi::{Device, Features};
use serde_json::json;

use crate::cli::Info;

pub fn run(args: &Info) -> Result<()> {
    let info = Device::open()?.info()?;
    let (major, minor) = info.version;
    let mut names = info.features.iter_names();
    let features: Vec<String> = names
        .by_ref()
        .map(|(name, _)| name.to_lowercase().replace('_', "-"))
        .collect();
    let unknown = names.remaining().bits();
    if args.json {
        let object = json!({
            "version": format!("{major}.{minor}"),
            "page_size": info.page_size,
            "features": features,
            "unknown_features": unknown,
        });
        say!("{object:#}")?;
        return Ok(());
    }
    say!("version    {major}.{minor}")?;
    say!("page size  {} bytes", info.page_size)?;
    say!("features   {}", features.join(", "))?;
    if unknown != 0 {
        say!("           {unknown:#x}, which this program does not know")?;
    }
    if info.features.contains(Features::FAULTS) {
        note!("mmopsctl: the module was built with faults for tests: not for use");
    }
    Ok(())
}
