//! Random resolv.conf, hosts file, questions and zones, which depend on a seed only.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// A name to look up, and the family: IPv4 ("4"), IPv6 ("6") or both ("").
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) family: &'static str,
}

/// How a server responds to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Addresses(u8),
    /// More than 512 bytes in one datagram, without the flag TC.
    Large,
    NoData,
    NxDomain,
    Code(u8),
    /// A header of twelve bytes with this code, without the question.
    BareHeader(u8),
    Silence,
    /// A CNAME chain of this many steps that ends at an address.
    Chain(u8),
    /// The same chain, with its records in reverse order.
    ChainBackwards(u8),
    /// A CNAME to a name without records, with this code.
    Dangling(u8),
    CnameLoop,
    /// An address of another name.
    AnotherOwner,
    /// No answer, no authority and no recursion.
    Referral,
    /// Datagrams with another id and another question, and then an address.
    JunkThenAddress,
    /// TC, then this many addresses over TCP.
    Truncated(u8),
    /// TC, then this code over TCP.
    TruncatedThenCode(u8),
    /// TC, then the TCP connection is closed.
    TruncatedThenClosed,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) hosts: Vec<u8>,
    pub(crate) questions: Vec<Question>,
    options: String,
    search: Vec<String>,
    servers: Vec<Server>,
    /// Whether there are names for which servers do not respond.
    has_silence: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// It responds; servers with the same number have the same zone.
    Answers(u8),
    Silent,
    /// An address at which nothing listens.
    Closed,
    /// An address to which nothing can be sent from here.
    WithoutRoute,
}

const FAMILIES: [&str; 5] = ["", "", "", "4", "6"];
/// Nameservers for which connect(2) fails in a namespace that has only a loopback interface: ENETUNREACH, and EINVAL.
const WITHOUT_ROUTE: [&str; 3] = [
    "nameserver 10.77.0.1",
    "nameserver fd00::77",
    "nameserver fe80::1%nosuch",
];
const LABELS: [&str; 6] = ["a", "b", "web", "DB", "x_y", "a-1"];
const DOMAINS: [&str; 9] = [
    "n.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "corp.example",
    "y",
    ".",
    "Y.",
    "f\u{fc}r.example",
    ".lead.example",
];

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut search: Vec<String> = match dice.below(4) {
            0 => DOMAINS[..3].iter().map(ToString::to_string).collect(),
            n => (0..n).map(|_| dice.of(&DOMAINS).to_string()).collect(),
        };
        if dice.one_in(4) {
            search.push("corp.example".to_owned());
        }
        if dice.one_in(40) {
            search.insert(0, "l".repeat(64));
        }
        let count = if dice.one_in(2) { 1 } else { 1 + dice.below(3) };
        let mut servers: Vec<Server> = (0..count)
            .map(|_| match dice.below(60) {
                0 => Server::Silent,
                1..6 => Server::Closed,
                6..10 => Server::WithoutRoute,
                n => Server::Answers(u8::from(n > 40)),
            })
            .collect();
        let rotates = dice.one_in(10);
        if rotates {
            servers.fill(Server::Answers(0));
        }
        let mut options = match dice.below(4) {
            0 => "ndots:5".to_owned(),
            _ => format!("ndots:{}", dice.below(4)),
        };
        for (odds, option) in [
            (12, "edns0"),
            (12, "single-request"),
            (12, "single-request-reopen"),
            (12, "no-tld-query"),
            (12, "no-aaaa"),
            (15, "use-vc"),
            (10, "no-such-option"),
        ] {
            if dice.one_in(odds) {
                options += &format!(" {option}");
            }
        }
        if rotates {
            options += " rotate";
        }
        // A lookup takes seconds for each name or server that does not respond.
        let one_zone = servers.iter().all(|server| *server == Server::Answers(0));
        let has_silence = one_zone && !options.contains("use-vc") && dice.one_in(12);
        let is_slow = has_silence || servers.contains(&Server::Silent);
        if servers.contains(&Server::Silent) {
            options = options.replace(" use-vc", "");
        }
        let is_unreachable =
            |server: &Server| matches!(server, Server::Closed | Server::WithoutRoute);
        let questions = (0..if is_slow { 1 } else { 10 }).map(|_| Question {
            name: name(&mut dice),
            family: FAMILIES[dice.below(FAMILIES.len())],
        });
        let mut questions: Vec<Question> = questions.collect();
        if options.contains("no-aaaa") && (is_slow || servers.iter().any(is_unreachable)) {
            questions.retain(|question| question.family != "6");
            questions.push(Question {
                name: "a".to_owned(),
                family: "",
            });
        }
        Self {
            seed,
            hosts: hosts(&mut dice, &questions),
            questions,
            options,
            search,
            servers,
            has_silence,
        }
    }

    pub(crate) fn resolv_conf(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let mut dice = Dice(self.seed ^ 0x5eed);
        let ending = if dice.one_in(15) { "\r\n" } else { "\n" };
        let mut lines = vec![format!("options timeout:1 attempts:1 {}", self.options)];
        let directive = if dice.one_in(10) { "domain" } else { "search" };
        lines.push(format!("{directive} {}", self.search.join(" ")));
        // A closed server is an address at which no server was started.
        for (n, server) in self.servers.iter().enumerate() {
            lines.push(match server {
                Server::Closed => format!("nameserver {}", addresses[3]),
                Server::WithoutRoute => dice.of(&WITHOUT_ROUTE).to_string(),
                Server::Answers(_) | Server::Silent => format!("nameserver {}", addresses[n]),
            });
        }
        for odd in [
            "# comment",
            "; comment",
            " search indented",
            "nameserver nowhere",
            "nameserver 127.0.0.1\r",
            "search ",
            "nonsense \u{e9}",
        ] {
            if dice.one_in(8) {
                lines.insert(dice.below(lines.len() + 1), odd.to_owned());
            }
        }
        if dice.one_in(60) {
            lines.extend(std::iter::repeat_n("# filler".to_owned(), 10_000));
        }
        // With a carriage return the line would be ignored.
        let is_server = |line: &String| {
            line.starts_with("nameserver 127.10") || WITHOUT_ROUTE.contains(&line.as_str())
        };
        let end = |line: &String| if is_server(line) { "\n" } else { ending };
        let text: String = lines.iter().map(|line| line.clone() + end(line)).collect();
        // Latin-1, so that there are bytes that are not UTF-8.
        text.chars().map(|c| c as u8).collect()
    }

    /// Whether there are responses over 2,048 bytes, for which glibc uses another buffer. Where such a response is
    /// discarded because a TCP connection is closed, it reads the code of an older response in the first buffer.
    fn has_large_answers(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// How the server with this number responds to a query.
    pub(crate) fn behaviour(&self, server: usize, name: &str, is_aaaa: bool) -> Behaviour {
        let zone = match self.servers.get(server) {
            Some(Server::Answers(zone)) => *zone,
            _ => return Behaviour::Silence,
        };
        let mut hasher = DefaultHasher::new();
        (self.seed, zone, name.to_lowercase()).hash(&mut hasher);
        let mut of_name = Dice(hasher.finish());
        is_aaaa.hash(&mut hasher);
        let mut dice = Dice(hasher.finish());
        if self.has_silence {
            match of_name.below(3) {
                0 => return Behaviour::Silence,
                1 if is_aaaa => return Behaviour::Silence,
                _ => {}
            }
        }
        // For both types it is the same more often than not.
        if of_name.one_in(2) {
            match of_name.below(8) {
                0 => return Behaviour::Code(2),
                1 => return Behaviour::Code(5),
                2 => {
                    return if is_aaaa {
                        Behaviour::NoData
                    } else {
                        Behaviour::Addresses(1)
                    };
                }
                3 => return Behaviour::NoData,
                _ => return Behaviour::NxDomain,
            }
        }
        match dice.below(32) {
            0..3 => Behaviour::Addresses(1 + dice.below(3) as u8),
            3 => Behaviour::Large,
            4..8 => Behaviour::NoData,
            8..11 => Behaviour::NxDomain,
            11..13 => Behaviour::Code(2),
            13..15 => Behaviour::Code(5),
            15 => Behaviour::Code(4),
            16 => Behaviour::Code(1),
            17 => Behaviour::Code(*dice.of(&[6, 9, 10])),
            18 if !self.options.contains("no-aaaa") => Behaviour::BareHeader(*dice.of(&[2, 4, 5])),
            19 => Behaviour::Chain(1 + dice.below(5) as u8),
            20 => Behaviour::Chain(if self.has_large_answers() { 200 } else { 40 }),
            21 => Behaviour::ChainBackwards(2 + dice.below(3) as u8),
            22..24 => Behaviour::Dangling(*dice.of(&[0, 3])),
            24 => Behaviour::CnameLoop,
            25 => Behaviour::AnotherOwner,
            26 => Behaviour::NoData,
            27 => Behaviour::Referral,
            28 => Behaviour::JunkThenAddress,
            29 => Behaviour::Truncated(1 + dice.below(3) as u8),
            30 => Behaviour::TruncatedThenCode(*dice.of(&[0, 2, 3, 5])),
            _ if self.has_large_answers() || self.options.contains("no-aaaa") => {
                Behaviour::Truncated(1)
            }
            _ => Behaviour::TruncatedThenClosed,
        }
    }
}

fn name(dice: &mut Dice) -> String {
    let label = *dice.of(&LABELS);
    match dice.below(20) {
        0..6 => label.to_owned(),
        6..9 => format!("{label}.b"),
        9..11 => format!("{label}.n.svc"),
        11..13 => format!("{label}.n.svc.cluster.local"),
        13 => format!("{label}."),
        14 => format!("{label}.corp.example."),
        15 => "127.1".to_owned() + ".x",
        16 => format!("{label}.123"),
        17 => "l".repeat(*dice.of(&[63, 64])),
        18 => format!("{label}..b"),
        _ => format!("www.{label}.example"),
    }
}

fn hosts(dice: &mut Dice, questions: &[Question]) -> Vec<u8> {
    let mut lines = Vec::new();
    while dice.one_in(2) {
        let name = &questions[dice.below(questions.len())].name;
        let name = if dice.one_in(3) {
            name.to_uppercase()
        } else {
            name.clone()
        };
        let address = *dice.of(&[
            "10.9.0.1",
            "10.9.0.2",
            "fd00::9",
            "::1",
            "::ffff:10.9.0.3",
            "10.9",
            "010.9.0.1",
            "fe80::1%lo",
            "nonsense",
        ]);
        let before = *dice.of(&["", " ", "\t", "#"]);
        let blank = *dice.of(&[" ", "\t", " first "]);
        let after = *dice.of(&["", " # comment", " other", "\r", "#comment", " b\u{fc}"]);
        lines.push(format!("{before}{address}{blank}{name}{after}\n"));
    }
    lines.concat().chars().map(|c| c as u8).collect()
}

/// A random number generator: SplitMix64.
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
