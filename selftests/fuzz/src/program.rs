// SPDX-License-Identifier: GPL-2.0

//! A program: what is mapped at first, and calls with their arguments, as bytes.
//!
//! Any bytes are a program. Behind a header there is a record of the same length for each call, so
//! that a change of a byte changes one call, and records can be taken out, doubled and put
//! elsewhere.

use arbitrary::Unstructured;

use crate::action::{Action, Step, What};
use crate::decode::{action, byte, pages, PAGES, PROT_READ, PROT_WRITE};
use crate::world::BIG_SPAN;

/// Number of threads, and what is in each quarter of the sandbox.
pub const HEADER: usize = 5;
/// A call: which thread makes it, which it is, and its arguments.
pub const RECORD: usize = 16;
/// Most calls of a program.
pub const MOST_CALLS: usize = 24;
/// Most threads of a program.
pub const MOST_THREADS: usize = 4;
/// Bytes of a program at most.
pub const MOST_BYTES: usize = HEADER + RECORD * MOST_CALLS;
/// Pages of a quarter of the sandbox.
const QUARTER: u64 = PAGES / 4;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub(crate) Vec<u8>);

impl Program {
    /// What is in the bytes; of too many, the first.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.len() < HEADER {
            bytes.resize(HEADER, 0);
        }
        bytes.truncate(HEADER + (bytes.len() - HEADER) / RECORD * RECORD);
        bytes.truncate(MOST_BYTES);
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        [1, 1, 2, 3, 2, 4, 1, 2][usize::from(self.0[0] % 8)]
    }

    /// What is mapped before the threads begin, and whether some of it is stored to.
    pub fn layout(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (quarter, kind) in (0..4).zip(&self.0[1..HEADER]) {
            let span = pages(quarter * QUARTER, QUARTER);
            let page = quarter * QUARTER;
            let what = match kind % 8 {
                0..=2 => What::Anonymous,
                3..=4 => What::Shared(0, page),
                5 => What::Shared(1, page),
                6 => What::Shared(2, page),
                _ => continue,
            };
            actions.push(Action::Map(span, what, PROT_READ | PROT_WRITE, false));
            if kind & 16 != 0 {
                actions.push(Action::Advise(span, 14));
            }
            if kind & 8 != 0 {
                actions.push(Action::Store(span));
            }
            if kind & 32 != 0 {
                // One leaf, where the memory is there.
                actions.push(Action::Advise(span, 25));
            }
        }
        if self.0[0] >= 192 {
            actions.push(Action::MapBig(PROT_READ | PROT_WRITE));
            actions.push(Action::Store(BIG_SPAN));
        }
        actions
    }

    /// The calls, in their order in each thread.
    pub fn steps(&self) -> Vec<Step> {
        let step = |record: &[u8]| {
            let mut u = Unstructured::new(record);
            let thread = usize::from(byte(&mut u)) % self.threads();
            let action = action(&mut u);
            Step { thread, action }
        };
        self.0[HEADER..].chunks_exact(RECORD).map(step).collect()
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        (self.0.len() - HEADER) / RECORD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::SeedableRng;

    #[test]
    fn any_bytes_are_a_program() {
        assert_eq!(Program::new(Vec::new()).calls(), 0);
        assert_eq!(Program::new(vec![0xff; 10_000]).calls(), MOST_CALLS);
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut program = Program::random(rng);
        for _ in 0..10_000 {
            let other = Program::random(rng);
            program = program.mutated(rng, &other);
            let steps = program.steps();
            assert_eq!(steps.len(), program.calls());
            assert!(steps.len() <= MOST_CALLS);
            assert!(steps.iter().all(|step| step.thread < program.threads()));
        }
    }
}
