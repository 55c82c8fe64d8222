//! The ticker that starts the calls of a target.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Ticks at a fixed interval, from the start of a call to the start of the next. A call that takes longer than
/// the interval skips ticks.
pub(super) struct Ticker(Option<tokio::time::Interval>);

impl Ticker {
    /// Ticks at `first`, and from then on at intervals of `every`; without a pause if that is zero.
    pub(super) fn new(first: Instant, every: Duration) -> Self {
        Self((!every.is_zero()).then(|| {
            let mut ticks = interval_at(first, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        }))
    }

    /// Waits for the next tick.
    pub(super) async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::Ticker;

    const EVERY: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_skips_ticks_and_never_bunches_them() {
        let start = Instant::now();
        let mut ticker = Ticker::new(start, EVERY);
        let mut starts = Vec::new();
        for call in [1, 25, 1, 1] {
            ticker.tick().await;
            starts.push(start.elapsed().as_secs());
            advance(Duration::from_secs(call)).await;
        }
        // The second call took until 35: one immediate tick replaces those at 20 and 30.
        assert_eq!(starts, [0, 10, 35, 40]);
    }
}
