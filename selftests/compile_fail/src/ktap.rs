// SPDX-License-Identifier: GPL-2.0

//! Results as KTAP.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
};
use ui_test::{
    status_emitter::{RevisionStyle, StatusEmitter, Summary, TestStatus},
    test_result::TestResult,
    TestOk,
};

/// One result for each revision of each case, and the plan at the end.
#[derive(Default)]
pub struct Ktap {
    results: Arc<AtomicUsize>,
}

struct Case {
    path: PathBuf,
    revision: String,
    results: Arc<AtomicUsize>,
}

impl StatusEmitter for Ktap {
    fn register_test(&self, path: PathBuf) -> Box<dyn TestStatus> {
        Box::new(Case {
            path,
            revision: String::new(),
            results: self.results.clone(),
        })
    }

    fn finalize(&self, _: usize, _: usize, _: usize, _: usize, _: bool) -> Box<dyn Summary> {
        println!("1..{}", self.results.load(Ordering::Relaxed));
        Box::new(())
    }
}

impl TestStatus for Case {
    fn for_revision(&self, revision: &str, _: RevisionStyle) -> Box<dyn TestStatus> {
        Box::new(Case {
            path: self.path.clone(),
            revision: revision.into(),
            results: self.results.clone(),
        })
    }

    fn for_path(&self, path: &Path) -> Box<dyn TestStatus> {
        Box::new(Case {
            path: path.into(),
            revision: self.revision.clone(),
            results: self.results.clone(),
        })
    }

    fn failed_test<'a>(&'a self, _: &'a str, _: &'a [u8], _: &'a [u8]) -> Box<dyn Debug + 'a> {
        Box::new(())
    }

    fn done(&self, result: &TestResult, _aborted: bool) {
        // A file as a whole is done as well, which says nothing more than its revisions.
        if self.revision.is_empty() && result.is_ok() {
            return;
        }

        let number = self.results.fetch_add(1, Ordering::Relaxed) + 1;
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{name} {}", self.revision);
        match result {
            Ok(TestOk::Ok) => println!("ok {number} {name}"),
            Ok(TestOk::Ignored) => println!("ok {number} {name} # SKIP ignored"),
            Err(errored) => {
                for line in format!("{errored:?}").lines() {
                    println!("# {line}");
                }
                println!("not ok {number} {name}");
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn revision(&self) -> &str {
        &self.revision
    }
}
