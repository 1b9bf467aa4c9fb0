//! What came of the trials of a sweep: mean and standard error over the seeds of each, best first.

use super::plan::Goal;
use std::cmp::Ordering;

/// What came of one trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number.
    pub trial: usize,
    /// Runs that have ended with a number.
    pub count: usize,
    /// Their mean; none where there are none.
    pub mean: Option<f64>,
    /// The standard error of it; none of fewer than two.
    pub error: Option<f64>,
}

/// The trials, best first; those without a finite number come last. `values` are those of each trial's runs.
pub fn rows(values: &[Vec<f64>], goal: &Goal) -> Vec<Row> {
    let row = |(trial, values): (usize, &Vec<f64>)| {
        let (mean, error) = mean_and_error(values);
        Row { trial, count: values.len(), mean, error }
    };
    let mut rows: Vec<Row> = values.iter().enumerate().map(row).collect();
    let finite = |row: &Row| row.mean.filter(|mean| mean.is_finite());
    rows.sort_by(|a, b| match (finite(a), finite(b)) {
        (Some(x), Some(y)) if goal.maximize => y.total_cmp(&x),
        (Some(x), Some(y)) => x.total_cmp(&y),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    rows
}

/// The mean, and the standard deviation of n - 1 over the root of n.
fn mean_and_error(values: &[f64]) -> (Option<f64>, Option<f64>) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (None, None);
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (Some(mean), (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_mean() {
        // Variance of 1, 2, 6: (4 + 1 + 9) / 2 = 7, of their mean 7 / 3.
        let (mean, error) = mean_and_error(&[1.0, 2.0, 6.0]);
        assert_eq!(mean, Some(3.0));
        assert!(error.is_some_and(|error| (error - (7.0_f64 / 3.0).sqrt()).abs() < 1e-15));
        assert_eq!(mean_and_error(&[2.0]), (Some(2.0), None));
        assert_eq!(mean_and_error(&[]), (None, None));
    }

    #[test]
    fn the_best_comes_first_either_way() {
        let values = [vec![1.0], vec![3.0, 5.0], vec![], vec![f64::NAN], vec![2.0]];
        let order = |maximize| {
            let rows = rows(&values, &Goal { metric: "x".into(), maximize });
            rows.iter().map(|row| row.trial).collect::<Vec<_>>()
        };
        assert_eq!(order(true), [1, 4, 0, 2, 3]);
        assert_eq!(order(false), [0, 4, 1, 2, 3]);
    }
}
