//! The budget of retries.

use super::*;

#[test]
fn failures_cost_a_token_successes_give_a_tenth_and_half_is_too_little() {
    let budget = Budget::new(&RetryPolicy::default());
    assert_eq!(budget.tokens(), 10);
    for _ in 0..4 {
        budget.handle_failure();
        assert!(budget.allows());
    }
    budget.handle_failure();
    assert_eq!(budget.tokens(), 5);
    assert!(!budget.allows());
    budget.handle_success(Duration::ZERO);
    assert!(budget.allows());
}

#[test]
fn tokens_stay_between_none_and_all() {
    let budget = Budget::new(&RetryPolicy::default());
    budget.handle_success(Duration::ZERO);
    assert_eq!(budget.tokens(), 10);
    for _ in 0..100 {
        budget.handle_failure();
    }
    assert_eq!(budget.tokens(), 0);
    for _ in 0..1000 {
        budget.handle_success(Duration::ZERO);
    }
    assert_eq!(budget.tokens(), 10);
}

#[test]
fn without_tokens_nothing_is_repeated() {
    let policy = RetryPolicy {
        tokens: 0,
        ..RetryPolicy::default()
    };
    assert!(!Budget::new(&policy).allows());
}
