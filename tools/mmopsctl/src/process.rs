// SPDX-License-Identifier: GPL-2.0

//! A process, seen through a thread that lives.
//!
//! A process lives on when its main thread has ended, but `/proc/PID` shows the main thread: no
//! mappings then, and no pages. `/proc/PID/task/TID` of another thread shows them.

use std::fs::File;
use std::path::PathBuf;

use procfs::process::{MemoryMap, Process};
use procfs::ProcResult;

/// Whether `state`, of `/proc/PID/stat`, is that of a thread that has ended.
pub fn is_end(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// The memory of a process.
#[derive(Debug)]
pub struct Memory {
    process: Process,
    root: PathBuf,
}

impl Memory {
    /// Memory of the process `pid`; when all of its threads have ended, it has no mappings.
    pub fn of(pid: i32) -> ProcResult<Self> {
        let root = PathBuf::from(format!("/proc/{pid}"));
        let process = Process::new(pid)?;
        if !is_end(process.stat()?.state) {
            return Ok(Self { process, root });
        }
        for task in process.tasks()? {
            // Each of them can end meanwhile.
            let Some(task) = task
                .ok()
                .filter(|task| task.stat().is_ok_and(|stat| !is_end(stat.state)))
            else {
                continue;
            };
            let root = root.join("task").join(task.tid.to_string());
            if let Ok(process) = Process::new_with_root(root.clone()) {
                return Ok(Self { process, root });
            }
        }
        Ok(Self { process, root })
    }

    /// The mappings.
    pub fn maps(&self) -> ProcResult<Vec<MemoryMap>> {
        Ok(self.process.maps()?.into_iter().collect())
    }

    /// The file `pagemap`, of the memory that the process has now.
    pub fn pagemap(&self) -> std::io::Result<File> {
        File::open(self.root.join("pagemap"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory() {
        let memory = Memory::of(std::process::id() as i32).unwrap();
        let here = own_memory as fn() as usize as u64;
        let maps = memory.maps().unwrap();
        assert!(maps
            .iter()
            .any(|map| (map.address.0..map.address.1).contains(&here)));
        assert!(memory.pagemap().is_ok());
        assert!(Memory::of(i32::MAX).is_err());
    }
}
