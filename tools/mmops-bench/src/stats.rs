// SPDX-License-Identifier: GPL-2.0

//! What is said of the samples of one side, and of a pair of sides.

use statrs::statistics::{Data, Min, OrderStatistics};

/// Least, median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub least: f64,
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Summary {
    /// Summarises at least one sample.
    pub fn of(samples: &[f64]) -> Self {
        assert!(!samples.is_empty(), "no samples");
        let mut data = Data::new(samples.to_vec());
        Self {
            least: data.min(),
            median: data.median(),
            lower: data.lower_quartile(),
            upper: data.upper_quartile(),
        }
    }
}

/// How much faster mmops was than the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Ratio of the medians: the figure of a case.
    pub of_medians: f64,
    /// Median and quartiles of the ratios within each pair: how steady it is.
    pub pairs: Summary,
}

impl Ratio {
    /// Compares samples of which those at the same index were taken together.
    pub fn of(reference: &[f64], mmops: &[f64]) -> Self {
        assert_eq!(reference.len(), mmops.len(), "unpaired samples");
        let pairs: Vec<f64> = reference.iter().zip(mmops).map(|(r, m)| r / m).collect();
        Self {
            of_medians: Summary::of(reference).median / Summary::of(mmops).median,
            pairs: Summary::of(&pairs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Summary::of(&[5.0]).median, 5.0);
    }

    #[test]
    fn least_of_all() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).least, 1.0);
    }

    #[test]
    fn quartiles_enclose_the_median() {
        let samples: Vec<f64> = (1..=99).rev().map(f64::from).collect();
        let summary = Summary::of(&samples);
        assert_eq!(summary.median, 50.0);
        assert!((24.0..=26.0).contains(&summary.lower), "{summary:?}");
        assert!((74.0..=76.0).contains(&summary.upper), "{summary:?}");
    }

    #[test]
    fn one_outlier_does_not_move_the_ratio() {
        let ratio = Ratio::of(&[20.0, 20.0, 2000.0], &[10.0, 10.0, 10.0]);
        assert_eq!(ratio.of_medians, 2.0);
        assert_eq!(ratio.pairs.median, 2.0);
    }

    #[test]
    fn ratio_of_medians_is_not_the_median_of_ratios() {
        let ratio = Ratio::of(&[10.0, 20.0, 60.0], &[10.0, 40.0, 20.0]);
        assert_eq!(ratio.of_medians, 1.0);
        assert_eq!(ratio.pairs.median, 1.0);
        let ratio = Ratio::of(&[10.0, 20.0, 30.0], &[30.0, 5.0, 10.0]);
        assert_eq!(ratio.of_medians, 2.0);
        assert_eq!(ratio.pairs.median, 3.0);
    }

    #[test]
    #[should_panic(expected = "unpaired")]
    fn unpaired_samples_are_refused() {
        Ratio::of(&[1.0, 2.0], &[1.0]);
    }
}
