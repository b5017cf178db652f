//! The delay before the next attempt to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A delay that doubles with each failure. Half of it is random, so that processes do not all reconnect
/// at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        for failures in 0..40 {
            let longest = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
            let delay = backoff.next();
            assert!(delay >= longest / 2 && delay <= longest, "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
