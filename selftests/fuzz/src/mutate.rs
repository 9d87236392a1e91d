// SPDX-License-Identifier: GPL-2.0

//! Programs at random, and programs that are like others.

use rand::{Rng, RngExt};

use crate::program::{Program, HEADER, MOST_CALLS, RECORD};

impl Program {
    /// A new one.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = vec![0; HEADER + RECORD * rng.random_range(4..=MOST_CALLS)];
        rng.fill_bytes(&mut bytes);
        Self::new(bytes)
    }

    /// Where the record of a call is.
    fn record(&self, rng: &mut impl Rng) -> usize {
        HEADER + RECORD * rng.random_range(0..self.calls())
    }

    /// One that is like this, with a part of another.
    pub fn mutated(&self, rng: &mut impl Rng, other: &Self) -> Self {
        let mut new = self.clone();
        for _ in 0..1 << rng.random_range(0..4) {
            if new.calls() == 0 {
                return Self::random(rng);
            }
            match rng.random_range(0..10) {
                0 => {
                    let byte = rng.random_range(0..HEADER);
                    new.0[byte] = rng.random();
                }
                1..=4 => {
                    let byte = rng.random_range(HEADER..new.0.len());
                    new.0[byte] = match rng.random_range(0..3) {
                        0 => new.0[byte] ^ 1 << rng.random_range(0..8),
                        1 => new.0[byte].wrapping_add(1),
                        _ => rng.random(),
                    };
                }
                5 => {
                    let at = new.record(rng);
                    rng.fill_bytes(&mut new.0[at..at + RECORD]);
                }
                6 => {
                    let at = new.record(rng);
                    new.0.drain(at..at + RECORD);
                }
                7 => {
                    let (from, to) = (new.record(rng), new.record(rng));
                    let record = new.0[from..from + RECORD].to_vec();
                    new.0.splice(to..to, record);
                }
                8 => {
                    let mut record = [0; RECORD];
                    rng.fill_bytes(&mut record);
                    let to = new.record(rng);
                    new.0.splice(to..to, record);
                }
                _ if other.calls() > 0 => {
                    let (from, to) = (other.record(rng), new.record(rng));
                    new.0.truncate(to);
                    new.0.extend_from_slice(&other.0[from..]);
                }
                _ => {}
            }
        }
        Self::new(new.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use rand::rngs::ChaCha8Rng;
    use rand::SeedableRng;

    #[test]
    fn a_seed_gives_the_same_programs() {
        let program = || {
            let rng = &mut ChaCha8Rng::seed_from_u64(7);
            let (one, other) = (Program::random(rng), Program::random(rng));
            one.mutated(rng, &other)
        };
        assert_eq!(program(), program());
    }

    /// All calls of all devices come.
    #[test]
    fn all_calls_come() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            for step in Program::random(rng).steps() {
                if let Action::Ioctl { request, .. } = step.action {
                    names.insert(request.name());
                }
            }
        }
        assert_eq!(names.len(), 19 + 7 + 1 + 2);
    }
}
