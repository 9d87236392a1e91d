// SPDX-License-Identifier: GPL-2.0

//! What a case has to provide, and how its samples are taken.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use anyhow::{ensure, Context, Result};

/// Who does the work of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the kernel has.
    Reference,
    /// mmops, timed in the same place as the reference.
    Mmops,
    /// mmops through `/dev/mmops`, timed in userspace around the whole call.
    Ioctl,
}

/// What a case needs is not installed: it is left out.
#[derive(Debug)]
pub struct Missing(pub String);

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Missing {}

/// A case that is set up.
pub trait Bench {
    /// The sides that there are, in the order of an even run.
    fn sides(&self) -> &'static [Side];

    /// Prepares the state that belongs to `seed` afresh, does the work once on one side, and
    /// checks its whole result. Returns the nanoseconds that the work alone took.
    ///
    /// The state before the work depends on `seed` only, not on the side nor on what was
    /// sampled before. A wrong result is an error, however fast it was.
    fn sample(&mut self, side: Side, seed: u64) -> Result<f64>;
}

/// The samples of a case; those at the same index are from the same run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Nanoseconds of the reference.
    pub reference: Vec<f64>,
    /// Nanoseconds of mmops.
    pub mmops: Vec<f64>,
    /// Nanoseconds of the whole ioctl, if it is timed apart.
    pub ioctl: Vec<f64>,
}

impl Samples {
    fn push(&mut self, side: Side, ns: f64) {
        match side {
            Side::Reference => self.reference.push(ns),
            Side::Mmops => self.mmops.push(ns),
            Side::Ioctl => self.ioctl.push(ns),
        }
    }
}

/// Takes `runs` samples of each side in turn, after one run that is thrown away.
///
/// The sides of a run get the same seed and follow each other at once; every other run goes
/// through them backwards, so that a drift of the machine falls on all of them alike.
/// `finished` is called after each run, the first included.
pub fn interleave(bench: &mut dyn Bench, runs: u32, mut finished: impl FnMut()) -> Result<Samples> {
    let mut samples = Samples::default();
    for run in 0..=runs {
        let mut sides = bench.sides().to_vec();
        if run % 2 == 1 {
            sides.reverse();
        }
        for side in sides {
            let ns = bench
                .sample(side, u64::from(run))
                .with_context(|| format!("run {run}, side {side:?}"))?;
            ensure!(
                ns > 0.0,
                "run {run}, side {side:?}: took no time, the clock is too coarse"
            );
            if run > 0 {
                samples.push(side, ns);
            }
        }
        finished();
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[derive(Default)]
    struct Recorder {
        calls: Vec<(Side, u64)>,
        fail_at: Option<usize>,
    }

    impl Bench for Recorder {
        fn sides(&self) -> &'static [Side] {
            &[Side::Reference, Side::Mmops, Side::Ioctl]
        }

        fn sample(&mut self, side: Side, seed: u64) -> Result<f64> {
            if self.fail_at == Some(self.calls.len()) {
                bail!("wrong bitmap");
            }
            self.calls.push((side, seed));
            Ok(self.calls.len() as f64)
        }
    }

    #[test]
    fn order_alternates_and_seeds_are_shared() {
        use Side::{Ioctl, Mmops, Reference};
        let mut bench = Recorder::default();
        let mut finished = 0;
        let samples = interleave(&mut bench, 2, || finished += 1).unwrap();
        let expected = [
            (Reference, 0),
            (Mmops, 0),
            (Ioctl, 0),
            (Ioctl, 1),
            (Mmops, 1),
            (Reference, 1),
            (Reference, 2),
            (Mmops, 2),
            (Ioctl, 2),
        ];
        assert_eq!(bench.calls, expected);
        assert_eq!(finished, 3);
        assert_eq!(samples.reference, [6.0, 7.0]);
        assert_eq!(samples.mmops, [5.0, 8.0]);
        assert_eq!(samples.ioctl, [4.0, 9.0]);
    }

    #[test]
    fn a_wrong_result_ends_the_case() {
        let mut bench = Recorder {
            fail_at: Some(4),
            ..Recorder::default()
        };
        let error = interleave(&mut bench, 5, || ()).unwrap_err();
        assert_eq!(format!("{error:#}"), "run 1, side Mmops: wrong bitmap");
    }
}
