//! A lookup: the search list, the servers and the attempts, walked in order, with one verdict.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::search::{Candidate, candidates};
use super::wire::{self, Answer, Family, Question, Transport};
use super::{ConfSource, ResolvConf};
use crate::text::Millis;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Both; IPv4 comes first, as RFC 6724 sorts it before the unique local IPv6 addresses that
    /// clusters use.
    #[default]
    Auto,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// Asks for names.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Read for every lookup.
    pub source: ConfSource,
    /// Which addresses to ask for.
    pub families: Families,
    /// How long each question may take.
    pub question_timeout: Duration,
}

/// A lookup, and everything that was asked for it.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The name as it was given.
    pub name: String,
    /// What decided what to ask; `None` where there is none to be had.
    pub conf: Option<ResolvConf>,
    /// In the order in which they were asked.
    pub questions: Vec<Question>,
    /// From the first question to the verdict.
    pub duration: Duration,
    /// The addresses, at least one, or why there is none.
    pub outcome: Result<Vec<IpAddr>, Failure>,
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word.
    pub kind: FailureKind,
    /// With the evidence: names, servers, response codes.
    pub evidence: String,
}

/// Why a name has no address, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no usable configuration, so nobody was asked.
    NoConf,
    /// The name does not exist.
    NxDomain,
    /// The name exists, without an address.
    NoData,
    /// The server cannot answer.
    ServFail,
    /// The server will not answer.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// Nothing listens at the server's address, or there is no way to it.
    Unreachable,
    /// What came is not an answer.
    Malformed,
    /// Nothing could be asked, for a reason on this side.
    Local,
}

impl Resolver {
    /// Resolves `name`, until `deadline` at the latest.
    pub async fn lookup(&self, name: &str, deadline: Instant) -> Lookup {
        let start = Instant::now();
        let mut questions = Vec::new();
        let (conf, outcome) = match self.source.read() {
            Ok(conf) => {
                let walked = self.walk(name, &conf, deadline, &mut questions).await;
                let explain = |verdict: Verdict| verdict.explain(name, &questions, start.elapsed());
                (Some(conf), walked.map_err(explain))
            }
            Err(error) => {
                let failure = Failure {
                    kind: FailureKind::NoConf,
                    evidence: error.to_string(),
                };
                (None, Err(failure))
            }
        };
        Lookup {
            name: name.to_owned(),
            conf,
            questions,
            duration: start.elapsed(),
            outcome,
        }
    }

    /// Like glibc's `__res_context_search`: NXDOMAIN, NODATA and SERVFAIL go on to the next name,
    /// anything else ends the search, and a failure other than NXDOMAIN is what is remembered.
    /// Unlike it, the first such failure counts, and not a last resort's (see [`Candidate`]).
    async fn walk(
        &self,
        name: &str,
        conf: &ResolvConf,
        deadline: Instant,
        questions: &mut Vec<Question>,
    ) -> Result<Vec<IpAddr>, Verdict> {
        let candidates = candidates(name, conf);
        if candidates.is_empty() {
            return Err(Verdict::NoName);
        }
        let mut verdict: Option<Answer> = None;
        for Candidate { name, last_resort } in candidates {
            let (found, failed) = self.resolve(&name, conf, deadline, questions).await;
            if !found.is_empty() {
                return Ok(found);
            }
            let Some(failed) = failed else { continue };
            let ends_search =
                !matches!(failed, Answer::NxDomain | Answer::NoData | Answer::ServFail);
            let decides = match verdict {
                None => true,
                Some(Answer::NxDomain) => !last_resort,
                Some(_) => false,
            };
            if decides {
                verdict = Some(failed);
            }
            if ends_search {
                break;
            }
        }
        Err(verdict.map_or(Verdict::NoTime, Verdict::Answer))
    }

    /// The addresses of one absolute name, or the answer that decided that there are none.
    async fn resolve(
        &self,
        name: &Name,
        conf: &ResolvConf,
        deadline: Instant,
        questions: &mut Vec<Question>,
    ) -> (Vec<IpAddr>, Option<Answer>) {
        let ask = |family| self.ask_all(name, family, conf, deadline);
        let asked = match self.families {
            Families::Auto => {
                let (v4, v6) = tokio::join!(ask(Family::V4), ask(Family::V6));
                vec![v4, v6]
            }
            Families::V4 => vec![ask(Family::V4).await],
            Families::V6 => vec![ask(Family::V6).await],
        };
        let mut found = Vec::new();
        let mut failed = None;
        for (transcript, decisive) in asked {
            match decisive {
                Some(Answer::Addresses { addresses, .. }) => found.extend(addresses),
                Some(answer) => failed = Some(graver(failed, answer)),
                None => {}
            }
            questions.extend(transcript);
        }
        (found, failed)
    }

    /// Asks one server after another until one knows, and again while they are silent. Gives the
    /// transcript and the answer that decided.
    async fn ask_all(
        &self,
        name: &Name,
        family: Family,
        conf: &ResolvConf,
        deadline: Instant,
    ) -> (Vec<Question>, Option<Answer>) {
        let mut transcript = Vec::new();
        let mut decisive = None;
        for _ in 0..conf.attempts {
            for &server in &conf.nameservers {
                let mut transport = if conf.use_tcp {
                    Transport::Tcp
                } else {
                    Transport::Udp
                };
                let answer = loop {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return (transcript, decisive);
                    }
                    let patience = left.min(self.question_timeout);
                    let question =
                        wire::ask(name, family, server, transport, conf.edns, patience).await;
                    let answer = question.answer.clone();
                    transcript.push(question);
                    if answer != Answer::Truncated {
                        break answer;
                    }
                    transport = Transport::Tcp;
                };
                let known = matches!(
                    answer,
                    Answer::Addresses { .. } | Answer::NoData | Answer::NxDomain
                );
                if known {
                    return (transcript, Some(answer));
                }
                decisive = Some(graver(decisive, answer));
            }
            // Only silence may be a lost packet; any other answer would come again.
            if decisive != Some(Answer::Timeout) {
                break;
            }
        }
        (transcript, decisive)
    }
}

/// Of two failures, the one that says more about what is wrong.
fn graver(one: Option<Answer>, other: Answer) -> Answer {
    let rank = |answer: &Answer| match answer {
        Answer::ServFail | Answer::Refused | Answer::OtherCode(_) => 5,
        Answer::Malformed(_) => 4,
        Answer::Timeout => 3,
        Answer::Unreachable(_) | Answer::Local(_) => 2,
        Answer::NoData => 1,
        Answer::NxDomain | Answer::Addresses { .. } | Answer::Truncated => 0,
    };
    match one {
        Some(one) if rank(&one) >= rank(&other) => one,
        _ => other,
    }
}

/// What decided that a name has no address.
enum Verdict {
    /// This answer, to one question or several.
    Answer(Answer),
    /// Nothing could be asked: every name it may stand for is longer than DNS allows.
    NoName,
    /// Nothing could be asked before the deadline.
    NoTime,
}

impl Verdict {
    fn explain(self, name: &str, questions: &[Question], elapsed: Duration) -> Failure {
        let (kind, answer) = match self {
            Self::Answer(answer) => (kind(&answer), answer),
            Self::NoName => {
                return Failure {
                    kind: FailureKind::NxDomain,
                    evidence: format!("{name}: not a name that DNS can have"),
                };
            }
            Self::NoTime => {
                return Failure {
                    kind: FailureKind::Timeout,
                    evidence: format!("{name}: no time left to ask"),
                };
            }
        };
        let mut evidence = format!("{name}: {}", Answered(&answer, questions));
        // What did not decide is not hidden, either.
        let mut told = vec![&answer];
        for Question { answer, .. } in questions {
            let is_plain = matches!(
                answer,
                Answer::NxDomain | Answer::NoData | Answer::Truncated
            );
            if !is_plain && !told.contains(&answer) {
                told.push(answer);
                evidence += &format!("; {}", Answered(answer, questions));
            }
        }
        evidence += &format!(" after {}", Millis(Some(elapsed)));
        Failure { kind, evidence }
    }
}

/// An answer, the names it was given for and the servers that gave it.
struct Answered<'a>(&'a Answer, &'a [Question]);

impl fmt::Display for Answered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(answer, questions) = self;
        let alike = || {
            questions
                .iter()
                .filter(|question| question.answer == **answer)
        };
        let names = List::of(alike().map(|question| question.name.to_ascii()));
        let servers = List::of(alike().map(|question| question.server.to_string()));
        write!(f, "{answer} for {names} from {servers}")
    }
}

fn kind(answer: &Answer) -> FailureKind {
    match answer {
        Answer::NxDomain => FailureKind::NxDomain,
        Answer::NoData | Answer::Addresses { .. } => FailureKind::NoData,
        Answer::ServFail | Answer::OtherCode(_) => FailureKind::ServFail,
        Answer::Refused => FailureKind::Refused,
        Answer::Timeout => FailureKind::Timeout,
        Answer::Unreachable(_) => FailureKind::Unreachable,
        Answer::Local(_) => FailureKind::Local,
        Answer::Malformed(_) | Answer::Truncated => FailureKind::Malformed,
    }
}

/// Distinct items in order, separated by commas.
struct List(Vec<String>);

impl List {
    fn of(items: impl Iterator<Item = String>) -> Self {
        let mut list = Vec::new();
        for item in items {
            if !list.contains(&item) {
                list.push(item);
            }
        }
        Self(list)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
