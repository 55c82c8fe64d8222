//! The current condition of the calls, since when it has lasted, and the condition before.
//!
//! The rule, after each round: the condition is *failing* if this round failed and either the one before it
//! failed as well or no other of the last ten did; *unsteady* if any of the last ten failed otherwise; and
//! *working* if none did.
//!
//! So the first failure after a long time of success counts at once, a backend that fails now and then is
//! never shown as working, and the condition does not flicker between unsteady and failing with each call. In
//! retrospect, a single failed round is not an outage: its period becomes unsteady.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::failure::{Failure, FailureKind};
use crate::report::Report;

/// Number of rounds that the condition depends on.
const WINDOW: usize = 10;

/// The condition of the calls of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// None of the last rounds failed.
    Working,
    /// Some of the last rounds failed.
    Unsteady,
    /// The calls fail now.
    Failing,
}

impl Condition {
    /// The value of `state` in JSON.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Unsteady => "unsteady",
            Self::Failing => "failing",
        }
    }

    /// The condition after these rounds, the oldest first; true for one that failed.
    fn of(rounds: impl DoubleEndedIterator<Item = bool> + Clone) -> Self {
        let mut newest_first = rounds.rev();
        let last_failed = newest_first.next().unwrap_or_default();
        let others_failed = newest_first.clone().any(|failed| failed);
        match last_failed && (newest_first.next().unwrap_or_default() || !others_failed) {
            true => Self::Failing,
            false if last_failed || others_failed => Self::Unsteady,
            false => Self::Working,
        }
    }
}

/// An unexpected result of a round.
#[derive(Clone, Debug)]
pub(crate) enum Unexpected {
    /// A failure that was not expected, or of another kind than expected.
    Failed(Failure),
    /// A success, although a failure was expected.
    Succeeded,
}

impl Unexpected {
    /// The unexpected result of a call; `None` if its result was as expected.
    pub(crate) fn of(report: &Report) -> Option<Self> {
        (!report.is_as_expected()).then(|| match report.failure() {
            Some(failure) => Self::Failed(failure.clone()),
            None => Self::Succeeded,
        })
    }

    /// The kind of failure; `None` for a success.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Failed(failure) => Some(failure.kind),
            Self::Succeeded => None,
        }
    }
}

/// A period of time with the same condition.
#[derive(Clone, Debug)]
pub(crate) struct Period {
    pub(crate) condition: Condition,
    /// The start of the first round with a result like the others of this period. The period ends where the
    /// next one begins.
    pub(crate) since: SystemTime,
    /// The last unexpected result in this period.
    pub(crate) unexpected: Option<Unexpected>,
}

/// The health after the last round.
#[derive(Clone, Debug)]
pub(crate) struct HealthStatus {
    /// Whether all results of the last round were as expected.
    pub(crate) ok: bool,
    /// The start of the first of the consecutive rounds with the same value of `ok`.
    pub(crate) since: SystemTime,
    /// If the last round had an unexpected result, its kind of failure (`None` for a success that was not
    /// expected), and the start of the first of the consecutive rounds with that kind.
    pub(crate) cause: Option<(Option<FailureKind>, SystemTime)>,
    /// The current period: it began with the last change of the condition.
    pub(crate) now: Period,
    /// The period before it.
    pub(crate) before: Option<Period>,
}

/// A round that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedRound {
    pub(crate) started: SystemTime,
    /// Number of calls in it.
    pub(crate) calls: usize,
    /// Number of those whose result was not as expected.
    pub(crate) failed: usize,
}

/// The last rounds, and the health that follows from them.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// At most [`WINDOW`] rounds, the newest last.
    rounds: VecDeque<EndedRound>,
    /// The current health; `None` before the first round has ended.
    status: Option<HealthStatus>,
}

impl Health {
    /// Records a round, and updates the health. `unexpected` is one of its unexpected results, if there were
    /// any.
    pub(crate) fn record(&mut self, round: EndedRound, unexpected: Option<&Unexpected>) {
        if self.rounds.len() == WINDOW {
            self.rounds.pop_front();
        }
        self.rounds.push_back(round);
        let condition = Condition::of(self.rounds.iter().map(|round| round.failed > 0));

        let last = self.status.take();
        let ok = unexpected.is_none();
        let since = match &last {
            Some(last) if last.ok == ok => last.since,
            _ => round.started,
        };
        let cause = unexpected.map(|unexpected| {
            let same = last.as_ref().and_then(|last| last.cause);
            match same.filter(|(kind, _)| *kind == unexpected.kind()) {
                Some(same) => same,
                None => (unexpected.kind(), round.started),
            }
        });
        let (mut now, before) = match last {
            Some(last) if last.now.condition == condition => (last.now, last.before),
            Some(mut last) if ok && self.one_round_failed() => {
                last.now.condition = condition;
                (last.now, last.before)
            }
            last => {
                let begun = Period {
                    condition,
                    since,
                    unexpected: None,
                };
                // After an outage, rounds that succeed are unsteady at first. If no more of them fail until
                // the condition is working, it has been working since the end of the outage.
                let before = last.and_then(|last| match last.now.since < since {
                    true => Some(last.now),
                    false => last.before,
                });
                (begun, before)
            }
        };
        now.unexpected = unexpected.cloned().or(now.unexpected);
        self.status = Some(HealthStatus {
            ok,
            since,
            cause,
            now,
            before,
        });
    }

    /// Whether exactly one round failed just before the last one.
    fn one_round_failed(&self) -> bool {
        let mut earlier = self
            .rounds
            .iter()
            .rev()
            .skip(1)
            .map(|round| round.failed > 0);
        earlier.next() == Some(true) && earlier.next() != Some(true)
    }

    /// The health after the last round; `None` before the first one has ended.
    pub(crate) fn status(&self) -> Option<&HealthStatus> {
        self.status.as_ref()
    }

    /// Number of calls in the last rounds, and how many of them failed.
    pub(crate) fn recent(&self) -> (usize, usize) {
        let add =
            |(calls, failed), round: &EndedRound| (calls + round.calls, failed + round.failed);
        self.rounds.iter().fold((0, 0), add)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{Condition, EndedRound, Health, HealthStatus, Period, Unexpected};
    use crate::clock;
    use crate::failure::{Cause, Failure, FailureKind, Stage};

    fn second(number: usize) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(number as u64)
    }

    /// The health after rounds that began at second 0, 1, and so on: `.` succeeded, `D` failed with a DNS
    /// timeout, `R` with a refused connection.
    fn after(rounds: &str) -> HealthStatus {
        let mut health = Health::default();
        for (number, round) in rounds.chars().enumerate() {
            let kind = match round {
                'D' => Some(FailureKind::DnsTimeout),
                'R' => Some(FailureKind::ConnectRefused),
                _ => None,
            };
            let failure = kind.map(|kind| {
                let stage = Stage::Connect;
                Unexpected::Failed(Failure::new(stage, kind, Cause::Timeout, Duration::ZERO))
            });
            let round = EndedRound {
                started: second(number),
                calls: 2,
                failed: usize::from(kind.is_some()),
            };
            health.record(round, failure.as_ref());
        }
        health.status().expect("a round has ended").clone()
    }

    fn condition(rounds: &str) -> Condition {
        after(rounds).now.condition
    }

    fn brief(period: &Period) -> (Condition, usize, Option<FailureKind>) {
        let since = clock::since_epoch(period.since).as_secs() as usize;
        let kind = period.unexpected.as_ref().and_then(Unexpected::kind);
        (period.condition, since, kind)
    }

    fn before(rounds: &str) -> Option<(Condition, usize, Option<FailureKind>)> {
        after(rounds).before.as_ref().map(brief)
    }

    #[test]
    fn the_condition_is_working_once_ten_rounds_in_a_row_have_succeeded() {
        assert_eq!(condition("."), Condition::Working);
        assert_eq!(condition("R........."), Condition::Unsteady);
        assert_eq!(condition("R.........."), Condition::Working);
    }

    #[test]
    fn one_failure_in_three_is_never_shown_as_working() {
        for rounds in [
            ".R",
            "..R..R..R..R..R",
            "R..R..R..R.....",
            "RR........",
            "R..R.......",
        ] {
            for end in 2..=rounds.len() {
                assert_ne!(
                    rounds[..end]
                        .contains('R')
                        .then(|| condition(&rounds[..end])),
                    Some(Condition::Working),
                    "{rounds} up to {end}"
                );
            }
        }
    }

    #[test]
    fn the_first_failure_after_a_quiet_time_is_failing() {
        assert_eq!(condition("R"), Condition::Failing);
        assert_eq!(condition("...R"), Condition::Failing);
        assert_eq!(condition("R..........R"), Condition::Failing);
    }

    #[test]
    fn among_other_failures_two_in_a_row_are_failing() {
        assert_eq!(condition("R.......R"), Condition::Unsteady);
        assert_eq!(condition("R.......RR"), Condition::Failing);
        assert_eq!(condition("R.......RR."), Condition::Unsteady);
    }

    #[test]
    fn a_cause_is_as_old_as_its_first_failure_in_a_row() {
        let status = after("..RRDD");
        assert_eq!(status.since, second(2));
        assert_eq!(
            status.cause,
            Some((Some(FailureKind::DnsTimeout), second(4)))
        );
        assert_eq!(
            after("..D.D").cause.map(|(_, since)| since),
            Some(second(4))
        );
        assert_eq!(after("..RRDD.").cause, None);
    }

    #[test]
    fn the_period_before_an_outage_and_the_outage_are_kept() {
        use Condition::*;
        let outage = Some((Failing, 3, Some(FailureKind::DnsTimeout)));
        assert_eq!(before("..."), None);
        assert_eq!(before("...R"), Some((Working, 0, None)));
        assert_eq!(before("...RDD."), outage);
        assert_eq!(brief(&after("...RDD.").now), (Unsteady, 6, None));
        // It has been working since the end of the outage, and not only since ten rounds succeeded.
        let recovered = "...RDD..........";
        assert_eq!(before(recovered), outage);
        assert_eq!(brief(&after(recovered).now), (Working, 6, None));
    }

    #[test]
    fn scattered_failures_are_a_period_of_their_own() {
        use Condition::*;
        let refused = Some(FailureKind::ConnectRefused);
        assert_eq!(brief(&after(".R..R..R..").now), (Unsteady, 1, refused));
        assert_eq!(before(".R..R..R.."), Some((Working, 0, None)));
        assert_eq!(before(".R..R..R.........."), Some((Unsteady, 1, refused)));
        assert_eq!(before(".R..R..RR"), Some((Unsteady, 1, refused)));
        assert_eq!(brief(&after(".R..R..RR").now), (Failing, 7, refused));
        assert_eq!(before(".R.........."), Some((Unsteady, 1, refused)));
    }

    #[test]
    fn the_calls_of_the_last_ten_rounds_are_counted() {
        let mut health = Health::default();
        for number in 0..15 {
            let round = EndedRound {
                started: second(number),
                calls: 2,
                failed: usize::from(number < 7),
            };
            health.record(round, None);
        }
        assert_eq!(health.recent(), (20, 2));
    }
}
