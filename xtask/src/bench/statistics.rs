//! Medians, and how far apart the rounds were.

use serde::Serialize;

/// The median of several rounds, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of these rounds; `None` when there are none.
    pub(super) fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut rounds: Vec<_> = rounds.into_iter().collect();
        rounds.sort_by(f64::total_cmp);
        let middle = rounds.len() / 2;
        let median = match rounds.len() {
            0 => return None,
            odd if odd % 2 == 1 => rounds[middle],
            _ => f64::midpoint(rounds[middle - 1], rounds[middle]),
        };
        Some(Self {
            median,
            low: rounds[0],
            high: rounds[rounds.len() - 1],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two_in_the_middle() {
        let spread = |rounds: &[f64]| Spread::of(rounds.iter().copied());
        assert_eq!(spread(&[]), None);
        let three = spread(&[3.0, 1.0, 2.0]).expect("rounds");
        assert_eq!((three.median, three.low, three.high), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).expect("rounds").median, 2.5);
    }
}
