//! The Fibonacci numbers themselves, computed quickly or with as much work as one likes.

use rpc_core::Status;

use crate::Index;

/// How a Fibonacci number is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// By adding up, in less than a microsecond.
    #[default]
    Fast,
    /// By the recursion of the tutorial, whose cost grows with the number itself: work for the
    /// processor that can be measured out.
    Naive,
}

impl Algorithm {
    /// The largest index that this algorithm answers.
    ///
    /// For [`Fast`](Self::Fast) the result of the next one would not fit 128 bits. For
    /// [`Naive`](Self::Naive) it is where one request takes seconds.
    #[must_use]
    pub const fn largest(self) -> Index {
        Index::new(match self {
            Self::Fast => 186,
            Self::Naive => 45,
        })
    }

    /// The Fibonacci number at `index`.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](rpc_core::Code::OutOfRange) beyond [`largest`](Self::largest).
    pub fn fib(self, index: Index) -> Result<u128, Status> {
        if index > self.largest() {
            return Err(self.refusal());
        }
        Ok(match self {
            Self::Fast => fast(index.get()),
            Self::Naive => naive(index.get()).into(),
        })
    }

    fn refusal(self) -> Status {
        let largest = self.largest();
        Status::out_of_range(match self {
            Self::Fast => format!("fib(n) fits 128 bits up to n = {largest}"),
            Self::Naive => format!("the naive algorithm takes too long beyond n = {largest}"),
        })
    }
}

/// The Fibonacci number at `index`, exactly.
///
/// # Errors
///
/// [`OutOfRange`](rpc_core::Code::OutOfRange) beyond 186, whose successor does not fit 128 bits.
pub fn fib(index: Index) -> Result<u128, Status> {
    Algorithm::Fast.fib(index)
}

fn fast(n: u64) -> u128 {
    let (mut this, mut next) = (0u128, 1u128);
    for _ in 0..n {
        // Only the successor of the last one that fits can wrap, and it is never returned.
        (this, next) = (next, this.wrapping_add(next));
    }
    this
}

fn naive(n: u64) -> u64 {
    match n {
        0 | 1 => n,
        _ => naive(n - 1) + naive(n - 2),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rpc_core::Code;

    use super::*;

    /// Decimal addition on paper: shares nothing with the code above, and has no width.
    fn on_paper(n: u64) -> String {
        let (mut this, mut next) = (vec![0u8], vec![1u8]);
        for _ in 0..n {
            let mut carry = 0;
            let mut sum = Vec::new();
            for place in 0..this.len().max(next.len()) {
                let digit = |number: &[u8]| number.get(place).copied().unwrap_or(0);
                let added = digit(&this) + digit(&next) + carry;
                sum.push(added % 10);
                carry = added / 10;
            }
            if carry > 0 {
                sum.push(carry);
            }
            (this, next) = (next, sum);
        }
        this.iter()
            .rev()
            .map(|digit| char::from(b'0' + digit))
            .collect()
    }

    #[test]
    fn every_number_that_fits_is_exact() {
        for n in 0..=186 {
            assert_eq!(fib(Index::new(n)).unwrap().to_string(), on_paper(n), "{n}");
        }
    }

    #[test]
    fn the_limit_is_where_128_bits_end() {
        let last = u128::MAX.to_string();
        let fits = |n| {
            let number = on_paper(n);
            number.len() < last.len() || (number.len() == last.len() && number <= last)
        };
        assert!(fits(186) && !fits(187));
    }

    #[test]
    fn both_algorithms_agree() {
        for n in (0..=25).map(Index::new) {
            assert_eq!(Algorithm::Naive.fib(n).unwrap(), fib(n).unwrap(), "{n}");
        }
    }

    #[test]
    fn no_request_can_burn_for_ever() {
        let refused = Algorithm::Naive.fib(Index::new(46)).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("45"), "{refused}");
    }

    proptest! {
        #[test]
        fn each_number_is_the_sum_of_the_two_before(n in 2u64..=186) {
            let at = |n| fib(Index::new(n)).unwrap();
            prop_assert_eq!(at(n), at(n - 1) + at(n - 2));
        }

        #[test]
        fn beyond_the_limit_the_code_says_so(n in 187u64..) {
            for algorithm in [Algorithm::Fast, Algorithm::Naive] {
                let refused = algorithm.fib(Index::new(n)).unwrap_err();
                prop_assert_eq!(refused.code(), Code::OutOfRange);
            }
        }
    }
}
