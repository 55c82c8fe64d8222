//! The TCP counters of this process's network namespace, which Linux has in `/proc/self/net/netstat` and
//! `/proc/self/net/snmp`. In a pod the namespace is that of all its containers; with `hostNetwork`, of the node. No
//! privilege is needed to read them.

use std::fs;

/// The counters at one time, or the difference between two times. A counter that the kernel does not have is
/// `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// SYN and SYN-ACK segments that were sent again (`TCPSynRetrans`).
    pub syn_retransmits: Option<u64>,
    /// Segments that were sent again, those included (`RetransSegs`).
    pub retransmits: Option<u64>,
    /// Connection attempts that found an accept queue full (`ListenOverflows`). Each retry of a client counts.
    pub listen_overflows: Option<u64>,
}

impl TcpCounters {
    /// Reads the counters. `None` if the system has none of them: it is not Linux, `/proc` is not mounted, or a
    /// sandbox leaves them out.
    pub fn read() -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
        let netstat = read("netstat").unwrap_or_default();
        let snmp = read("snmp").unwrap_or_default();
        let counters = Self::parse(&netstat, &snmp);
        (counters != Self::default()).then_some(counters)
    }

    /// The difference to an earlier reading. A counter that either reading lacks is `None`; one that has decreased,
    /// as in another network namespace, is 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            syn_retransmits: difference(self.syn_retransmits, earlier.syn_retransmits),
            retransmits: difference(self.retransmits, earlier.retransmits),
            listen_overflows: difference(self.listen_overflows, earlier.listen_overflows),
        }
    }

    /// Parses the text of the two files.
    fn parse(netstat: &str, snmp: &str) -> Self {
        let extended = |name| counter(netstat, "TcpExt:", name);
        Self {
            syn_retransmits: extended("TCPSynRetrans"),
            retransmits: counter(snmp, "Tcp:", "RetransSegs"),
            listen_overflows: extended("ListenOverflows"),
        }
    }
}

/// The value of a protocol's counter. The text has two lines that begin with the name of the protocol: one with the
/// names of its counters, and one with their values in the same order.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == protocol).then_some(words)
    });
    let index = lines.next()?.position(|word| word == name)?;
    lines.next()?.nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::TcpCounters;

    // Linux 6.1, without the counters between those that are read.
    const NETSTAT: &str = "\
        TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeouts TCPSynRetrans TCPRcvQDrop\n\
        TcpExt: 0 3 5 7 2 0\n\
        IpExt: InNoRoutes ListenDrops\n\
        IpExt: 0 99\n\
        MPTcpExt: MPCapableSYNRX\n\
        MPTcpExt: 0\n";
    const SNMP: &str = "\
        Icmp: InMsgs InErrors\n\
        Icmp: 1 0\n\
        Tcp: RtoAlgorithm RtoMin RtoMax MaxConn OutSegs RetransSegs InErrs\n\
        Tcp: 1 200 120000 -1 8871 11 0\n\
        Udp: InDatagrams\n\
        Udp: 4\n";

    fn counters(numbers: [Option<u64>; 3]) -> TcpCounters {
        let [syn_retransmits, retransmits, listen_overflows] = numbers;
        TcpCounters {
            syn_retransmits,
            retransmits,
            listen_overflows,
        }
    }

    #[test]
    fn values_are_found_by_the_names_of_the_counters() {
        let expected = counters([Some(2), Some(11), Some(3)]);
        assert_eq!(TcpCounters::parse(NETSTAT, SNMP), expected);
    }

    #[test]
    fn a_missing_file_leaves_out_its_counters_only() {
        let netstat = counters([Some(2), None, Some(3)]);
        assert_eq!(TcpCounters::parse(NETSTAT, ""), netstat);
        let snmp = counters([None, Some(11), None]);
        assert_eq!(TcpCounters::parse("", SNMP), snmp);
        assert_eq!(TcpCounters::parse("", ""), TcpCounters::default());
    }

    #[test]
    fn a_counter_that_is_missing_or_not_a_number_is_none() {
        for (netstat, listen_overflows) in [
            // Names without values, as gVisor has them.
            ("TcpExt: ListenDrops ListenOverflows\n", None),
            (
                "TcpExt: ListenDrops ListenOverflows\nIpExt: InNoRoutes\nIpExt: 0\n",
                None,
            ),
            ("TcpExt: ListenDrops ListenOverflows\nTcpExt:\n", None),
            ("TcpExt: ListenDrops ListenOverflows\nTcpExt: 1\n", None),
            ("TcpExt: ListenDrops ListenOverflows\nTcpExt: 1 x\n", None),
            ("TcpExt: ListenDrops ListenOverflows\nTcpExt: 1 -2\n", None),
            (
                "TcpExt: ListenDrops ListenOverflows\nTcpExt: 1 18446744073709551616\n",
                None,
            ),
            ("TcpExt: ListenDrops\nTcpExt: 1 2\n", None),
            ("TcpExtra: ListenOverflows\nTcpExtra: 2\n", None),
            ("\n \nTcpExt:\nTcpExt: 1\n", None),
            // In all of these the counter has a value.
            ("TcpExt: ListenDrops ListenOverflows\nTcpExt: x 2", Some(2)),
            (
                "TcpExt: New ListenOverflows New\nOther: line\n\nTcpExt: 1 2 3 4 5\n",
                Some(2),
            ),
            ("TcpExt:  ListenOverflows\r\nTcpExt:\t2\r\n", Some(2)),
        ] {
            let counters = TcpCounters::parse(netstat, "");
            assert_eq!(counters.listen_overflows, listen_overflows, "{netstat:?}");
        }
    }

    #[test]
    fn a_difference_has_the_counters_that_both_readings_have() {
        for (earlier, now, expected) in [
            (
                [Some(1), Some(10), None],
                [Some(2), Some(10), Some(7)],
                [Some(1), Some(0), None],
            ),
            (
                [None, Some(9), Some(3)],
                [Some(2), Some(5), None],
                [None, Some(0), None],
            ),
        ] {
            let difference = counters(now).since(&counters(earlier));
            assert_eq!(difference, counters(expected));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_has_the_counters() {
        let counters = TcpCounters::read().expect("Linux has them");
        assert!(counters.retransmits.is_some(), "{counters:?}");
        assert!(counters.listen_overflows.is_some(), "{counters:?}");
        assert_eq!(
            counters.since(&counters).listen_overflows,
            Some(0),
            "{counters:?}"
        );
    }
}
