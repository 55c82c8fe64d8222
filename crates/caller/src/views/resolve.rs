//! The output of `caller resolve`: the configuration, every query, the result, and how many queries the search
//! list cost.
//!
//! ```text
//! nameserver 10.96.0.10:53
//! search     demo.svc.cluster.local svc.cluster.local cluster.local
//! options    ndots:5 attempts:2
//!
//! backend.demo.svc.cluster.local.  A     10.96.0.10:53  udp      0.4ms  NOERROR  ttl 30  10.96.3.4
//! backend.demo.svc.cluster.local.  AAAA  10.96.0.10:53  udp      0.4ms  NODATA
//!
//! backend is 10.96.3.4, found in 0.5ms as backend.demo.svc.cluster.local.
//! asked      2 queries, none of them in vain
//! ```

use std::fmt;

use runtime::escape::Escaped;

use crate::dns::{Lookup, LookupFailure, Query, QueryOutcome, Race, ResolvConf, Tally};
use crate::millis::Millis;
use crate::verdict::{self, dns};

/// Displays a lookup with every query; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct Transcript<'a> {
    /// The lookup to display.
    pub lookup: &'a Lookup,
    /// The next command to run, if the lookup failed.
    pub next: Option<String>,
}

impl fmt::Display for Transcript<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookup = self.lookup;
        if let Some(conf) = &lookup.conf {
            for server in &conf.nameservers {
                writeln!(f, "nameserver {server}")?;
            }
            writeln!(
                f,
                "search     {}",
                Escaped::new(conf.search.join(" ").as_bytes())
            )?;
            writeln!(f, "options    {}", Options(conf))?;
            for line in dns::ignored(lookup) {
                writeln!(f, "passed over {}", Escaped::new(line.as_bytes()))?;
            }
            writeln!(f)?;
        }
        self.queries(f)?;
        match &lookup.outcome {
            Ok(addresses) => {
                if !lookup.queries.is_empty() {
                    writeln!(f)?;
                }
                write!(f, "{} is ", lookup.name)?;
                join(f, addresses)?;
                writeln!(
                    f,
                    ", found in {} {}",
                    Millis(Some(lookup.duration)),
                    dns::source(lookup)
                )?;
                if let Some(note) = dns::note(lookup) {
                    writeln!(f, "note       {}", Escaped::new(note.as_bytes()))?;
                }
            }
            Err(failure) => self.failure(f, failure)?,
        }
        match lookup.queries.is_empty() {
            true => Ok(()),
            false => writeln!(f, "asked      {}", Cost(lookup)),
        }
    }
}

impl Transcript<'_> {
    fn queries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = &self.lookup.queries;
        let width = |column: fn(&Query) -> String| {
            let widths = queries.iter().map(|query| column(query).len());
            widths.max().unwrap_or(0)
        };
        let name_width = width(|query| query.name.to_ascii());
        let server_width = width(|query| query.server.to_string());
        for query in queries {
            write!(
                f,
                "{name:name_width$}  {family:<4}  {server:server_width$}  {transport}  {took:>9}  {answer}",
                name = query.name.to_ascii(),
                family = query.family.to_string(),
                server = query.server.to_string(),
                transport = query.transport,
                took = Millis(Some(query.duration)),
                answer = Escaped::new(query.outcome.to_string().as_bytes()),
            )?;
            if let QueryOutcome::Addresses { addresses, ttl } = &query.outcome {
                write!(f, "  ttl {ttl}  ")?;
                join(f, addresses)?;
            }
            for target in &query.cnames {
                write!(f, "  CNAME {target}")?;
            }
            if query.strays > 0 {
                write!(f, "  ({} datagrams that were no answer)", query.strays)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn failure(&self, f: &mut fmt::Formatter<'_>, failure: &LookupFailure) -> fmt::Result {
        let evidence = dns::evidence(self.lookup, failure);
        let cause = dns::likely_cause(self.lookup, failure);
        writeln!(f, "\n{}", Escaped::new(evidence.as_bytes()))?;
        writeln!(
            f,
            "Lookup failed: {}; likely {}",
            verdict::words(failure.kind()),
            Escaped::new(cause.as_bytes())
        )?;
        if let LookupFailure::Answered { glibc, .. } | LookupFailure::Forbidden { glibc } = failure
        {
            writeln!(f, "glibc says {}", dns::glibc_message(*glibc))?;
        }
        match &self.next {
            Some(next) => writeln!(f, "next       {}", Escaped::new(next.as_bytes())),
            None => Ok(()),
        }
    }
}

/// Displays the number of queries, and how many of them were only sent because of the search list.
struct Cost<'a>(&'a Lookup);

impl fmt::Display for Cost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookup = self.0;
        write!(f, "{} queries", lookup.queries.len())?;
        // A Service's short name cannot be found without the search list.
        let Some(name) = lookup.expected_name() else {
            return Ok(());
        };
        let in_vain = lookup.queries.iter().filter(|query| query.name != name);
        match in_vain.count() {
            0 if lookup.outcome.is_ok() => f.write_str(", none of them in vain"),
            0 => Ok(()),
            in_vain => write!(
                f,
                ", {in_vain} of them in vain, for the search list (ndots:{}): {name}, with its final dot, saves them",
                lookup.conf.as_ref().map_or(0, |conf| conf.ndots)
            ),
        }
    }
}

/// Displays how many responses were lost in many rounds of the same queries.
#[derive(Debug)]
pub(crate) struct RaceView<'a>(pub &'a Race);

impl fmt::Display for RaceView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let race = self.0;
        writeln!(
            f,
            "\nA and AAAA of {} from {}, {} times each way",
            race.name, race.server, race.rounds
        )?;
        writeln!(f, "one socket   {}", Counts(&race.one_socket))?;
        writeln!(f, "two sockets  {}", Counts(&race.two_sockets))?;
        let total = race.one_socket.plus(&race.two_sockets);
        writeln!(f, "total        {}", Counts(&total))?;
        match dns::race_verdict(race) {
            Some(verdict) => writeln!(f, "likely       {verdict}"),
            None => Ok(()),
        }
    }
}

struct Counts<'a>(&'a Tally);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            sent, lost, slow, ..
        } = self.0;
        let [p50, p99] = [50, 99].map(|percent| Millis(self.0.percentile(percent)));
        write!(
            f,
            "{sent} asked, {lost} lost, {slow} slow, p50 {p50}, p99 {p99}"
        )
    }
}

/// Displays the options of `resolv.conf` in effect.
pub(crate) struct Options<'a>(pub(crate) &'a ResolvConf);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResolvConf {
            nameservers: _,
            search: _,
            ndots,
            attempts,
            timeout,
            rotate,
            edns,
            use_tcp,
            single_request,
            single_request_reopen,
            no_aaaa,
            no_tld_query,
            ignored: _,
        } = self.0;
        write!(f, "ndots:{ndots} attempts:{attempts}")?;
        if let Some(timeout) = timeout {
            write!(f, " timeout:{}", timeout.as_secs())?;
        }
        for (is_set, name) in [
            (*rotate, "rotate"),
            (*edns, "edns0"),
            (*use_tcp, "use-vc"),
            (*single_request && !*single_request_reopen, "single-request"),
            (*single_request_reopen, "single-request-reopen"),
            (*no_aaaa, "no-aaaa"),
            (*no_tld_query, "no-tld-query"),
        ] {
            if is_set {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}
