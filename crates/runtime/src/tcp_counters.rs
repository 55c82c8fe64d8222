//! TCP counters of this process's network namespace, as Linux keeps them in `/proc/self/net/netstat` and
//! `/proc/self/net/snmp`. In a pod that is the pod, with all of its containers; with `hostNetwork` it is
//! the node. No right is needed to read them.

use std::fs;

/// A reading of the counters, or the difference of two. A counter that the kernel does not have is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// SYN and SYN-ACK segments that were sent again (`TCPSynRetrans`).
    pub syn_retransmits: Option<u64>,
    /// Segments that were sent again, those included (`RetransSegs`).
    pub retransmits: Option<u64>,
    /// Retransmission timers that ran out (`TCPTimeouts`).
    pub timeouts: Option<u64>,
    /// Attempts to connect that found an accept queue full (`ListenOverflows`). A client that tries
    /// again counts again.
    pub listen_overflows: Option<u64>,
    /// Attempts to connect that a listening socket dropped for any reason, a full accept queue included
    /// (`ListenDrops`).
    pub listen_drops: Option<u64>,
}

impl TcpCounters {
    /// Reads the counters. `None` where the system has none of them: it is not Linux, `/proc` is not
    /// mounted, or a sandbox leaves them out.
    pub fn read() -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
        let netstat = read("netstat").unwrap_or_default();
        let snmp = read("snmp").unwrap_or_default();
        let counters = Self::parse(&netstat, &snmp);
        (counters != Self::default()).then_some(counters)
    }

    /// What has been counted since an earlier reading. A counter that either reading lacks is `None`, and
    /// one that has gone back, as in another network namespace, is 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            syn_retransmits: difference(self.syn_retransmits, earlier.syn_retransmits),
            retransmits: difference(self.retransmits, earlier.retransmits),
            timeouts: difference(self.timeouts, earlier.timeouts),
            listen_overflows: difference(self.listen_overflows, earlier.listen_overflows),
            listen_drops: difference(self.listen_drops, earlier.listen_drops),
        }
    }

    fn parse(netstat: &str, snmp: &str) -> Self {
        let extended = |name| counter(netstat, "TcpExt:", name);
        Self {
            syn_retransmits: extended("TCPSynRetrans"),
            retransmits: counter(snmp, "Tcp:", "RetransSegs"),
            timeouts: extended("TCPTimeouts"),
            listen_overflows: extended("ListenOverflows"),
            listen_drops: extended("ListenDrops"),
        }
    }
}

/// A counter of a protocol, which has two lines that begin with its name: the counters' names, and then,
/// in the same order, their values.
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

    fn counters(numbers: [Option<u64>; 5]) -> TcpCounters {
        let [
            syn_retransmits,
            retransmits,
            timeouts,
            listen_overflows,
            listen_drops,
        ] = numbers;
        TcpCounters {
            syn_retransmits,
            retransmits,
            timeouts,
            listen_overflows,
            listen_drops,
        }
    }

    #[test]
    fn values_are_found_by_their_names() {
        let expected = counters([Some(2), Some(11), Some(7), Some(3), Some(5)]);
        assert_eq!(TcpCounters::parse(NETSTAT, SNMP), expected);
    }

    #[test]
    fn one_file_alone_gives_its_own_counters() {
        let netstat = counters([Some(2), None, Some(7), Some(3), Some(5)]);
        assert_eq!(TcpCounters::parse(NETSTAT, ""), netstat);
        let snmp = counters([None, Some(11), None, None, None]);
        assert_eq!(TcpCounters::parse("", SNMP), snmp);
        assert_eq!(TcpCounters::parse("", ""), TcpCounters::default());
    }

    #[test]
    fn what_is_missing_or_no_number_is_none() {
        for (netstat, listen_drops) in [
            // Names without values, as gVisor has them.
            ("TcpExt: ListenOverflows ListenDrops\n", None),
            (
                "TcpExt: ListenOverflows ListenDrops\nIpExt: InNoRoutes\nIpExt: 0\n",
                None,
            ),
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt:\n", None),
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n", None),
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 x\n", None),
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 -2\n", None),
            (
                "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 18446744073709551616\n",
                None,
            ),
            ("TcpExt: ListenOverflows\nTcpExt: 1 2\n", None),
            ("TcpExtra: ListenDrops\nTcpExtra: 2\n", None),
            ("\n \nTcpExt:\nTcpExt: 1\n", None),
            // All of these say it.
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt: x 2", Some(2)),
            (
                "TcpExt: New ListenDrops New\nOther: line\n\nTcpExt: 1 2 3 4 5\n",
                Some(2),
            ),
            ("TcpExt:  ListenDrops\r\nTcpExt:\t2\r\n", Some(2)),
        ] {
            let counters = TcpCounters::parse(netstat, "");
            assert_eq!(counters.listen_drops, listen_drops, "{netstat:?}");
        }
    }

    #[test]
    fn a_difference_has_what_both_readings_have() {
        let earlier = counters([Some(1), Some(10), None, Some(3), Some(9)]);
        let now = counters([Some(2), Some(10), Some(7), None, Some(5)]);
        let expected = counters([Some(1), Some(0), None, None, Some(0)]);
        assert_eq!(now.since(&earlier), expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_them_all() {
        let counters = TcpCounters::read().expect("Linux has them");
        assert!(counters.retransmits.is_some(), "{counters:?}");
        assert!(counters.listen_overflows.is_some(), "{counters:?}");
        assert_eq!(
            counters.since(&counters).listen_drops,
            Some(0),
            "{counters:?}"
        );
    }
}
