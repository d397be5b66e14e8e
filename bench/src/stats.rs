//! Samples and what is said of them. Nothing is thrown away as an outlier.

/// Measured values of one figure, in the order in which they were taken.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn p50(&self) -> f64 {
        self.quantile(0.50)
    }

    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The middle four fifths: what a reader should expect of one run.
    pub fn spread(&self) -> (f64, f64) {
        (self.quantile(0.10), self.quantile(0.90))
    }

    /// Nearest rank: always a value that was measured. Not a number when nothing was.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// Sample by sample: both were taken in the same round, under the same weather.
    pub fn over(&self, other: &Samples) -> Samples {
        self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Samples {
        Samples(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let hundred: Samples = (1..=100).rev().map(f64::from).collect();
        assert_eq!((hundred.p50(), hundred.p99(), hundred.spread()), (50.0, 99.0, (10.0, 90.0)));
        let one: Samples = [7.0].into_iter().collect();
        assert_eq!((one.p50(), one.p99()), (7.0, 7.0));
        assert!(Samples::default().p50().is_nan());
    }

    #[test]
    fn every_value_counts() {
        let mut taken = Samples::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|v| taken.push(v));
        assert_eq!((taken.quantile(0.0), taken.p50(), taken.quantile(1.0)), (1.0, 2.0, 3.0));
    }

    #[test]
    fn ratios_pair_samples_of_the_same_round() {
        let ours: Samples = [1.0, 20.0].into_iter().collect();
        let theirs: Samples = [4.0, 40.0].into_iter().collect();
        assert_eq!(ours.over(&theirs).spread(), (0.25, 0.5));
    }
}
