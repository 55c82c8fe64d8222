//! Name servers that do what a world says.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::wire::{A, AAAA, Asked, CNAME, record};
use crate::world::{Deed, World};

/// How many servers a world may have.
const SERVERS: u8 = 3;

#[derive(Default)]
struct State {
    world: Option<World>,
    log: String,
}

/// Three servers, and one address where nothing listens.
pub(crate) struct Servers {
    pub(crate) addresses: Vec<IpAddr>,
    state: Arc<Mutex<State>>,
}

impl Servers {
    /// They listen at port 53, since a resolv.conf cannot say otherwise.
    pub(crate) fn start(worker: u64) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let number = u8::try_from(worker).expect("few workers");
        let addresses: Vec<Ipv4Addr> = (1..=SERVERS + 1)
            .map(|n| Ipv4Addr::new(127, 10, number, n))
            .collect();
        for (n, address) in addresses[..SERVERS.into()].iter().enumerate() {
            let udp = UdpSocket::bind((*address, 53)).expect("port 53 of a namespace of our own");
            let tcp = TcpListener::bind((*address, 53)).expect("port 53 of a namespace of our own");
            let (for_udp, for_tcp) = (Arc::clone(&state), Arc::clone(&state));
            thread::spawn(move || serve_udp(n, &udp, &for_udp));
            thread::spawn(move || serve_tcp(n, &tcp, &for_tcp));
        }
        Self {
            addresses: addresses.into_iter().map(IpAddr::V4).collect(),
            state,
        }
    }

    pub(crate) fn set(&self, world: World) {
        self.state.lock().expect("no server panics").world = Some(world);
    }

    /// What was asked since, and what was done.
    pub(crate) fn take_log(&self) -> String {
        std::mem::take(&mut self.state.lock().expect("no server panics").log)
    }
}

fn deed(server: usize, question: &Asked, transport: &str, state: &Mutex<State>) -> Deed {
    let mut state = state.lock().expect("no server panics");
    let world = state.world.as_ref().expect("there is a world");
    let deed = world.deed(server, &question.name, question.qtype == AAAA);
    state.log += &format!(
        "  server {server} {transport} {} {}: {deed:?}\n",
        question.name,
        if question.qtype == A { "A" } else { "AAAA" },
    );
    deed
}

fn serve_udp(server: usize, socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 1500];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).expect("a packet");
        let asked = Asked::read(&buffer[..len]);
        for datagram in asked.datagrams(deed(server, &asked, "udp", state)) {
            // The client may have gone.
            let _ = socket.send_to(&datagram, client);
        }
    }
}

fn serve_tcp(server: usize, listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming() {
        let (mut stream, state) = (stream.expect("a connection"), Arc::clone(state));
        thread::spawn(move || {
            // Until the client closes the connection.
            while serve_query(server, &mut stream, &state).is_some() {}
        });
    }
}

fn serve_query(server: usize, stream: &mut TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut query = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut query).ok()?;
    let asked = Asked::read(&query);
    let answer = asked.over_tcp(deed(server, &asked, "tcp", state))?;
    let len = u16::try_from(answer.len()).expect("it fits");
    stream
        .write_all(&[&len.to_be_bytes()[..], &answer].concat())
        .ok()
}

/// What a deed looks like.
trait Scripted {
    fn datagrams(&self, deed: Deed) -> Vec<Vec<u8>>;
    /// `None`: the connection is closed.
    fn over_tcp(&self, deed: Deed) -> Option<Vec<u8>>;
    fn message(&self, deed: Deed) -> Vec<u8>;
    fn addresses(&self, n: u8) -> Vec<Vec<u8>>;
}

impl Scripted for Asked {
    fn datagrams(&self, deed: Deed) -> Vec<Vec<u8>> {
        match deed {
            Deed::Silence => Vec::new(),
            Deed::Truncated(_) | Deed::TruncatedThenCode(_) | Deed::TruncatedThenClosed => {
                vec![self.answer(0x8380, &[])]
            }
            Deed::BareHeader(code) => {
                vec![[&self.id[..], &[0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]].concat()]
            }
            Deed::JunkThenAddress => {
                let mut another_id = self.answer(0x8180, &[]);
                another_id[0] ^= 0xff;
                let other = Self {
                    id: self.id,
                    name: String::new(),
                    qtype: self.qtype,
                    question: [b"\x05other\0", &self.question[self.question.len() - 4..]].concat(),
                };
                let another_question = other.answer(0x8183, &[]);
                vec![
                    another_id,
                    another_question,
                    self.answer(0x8180, &self.addresses(1)),
                ]
            }
            other => vec![self.message(other)],
        }
    }

    fn over_tcp(&self, deed: Deed) -> Option<Vec<u8>> {
        match deed {
            Deed::Silence | Deed::TruncatedThenClosed => None,
            Deed::Truncated(n) => Some(self.answer(0x8180, &self.addresses(n))),
            Deed::TruncatedThenCode(code) => Some(self.answer(0x8180 | u16::from(code), &[])),
            // TCP carries no junk, and each error its question.
            Deed::JunkThenAddress => Some(self.answer(0x8180, &self.addresses(1))),
            Deed::BareHeader(code) => Some(self.answer(0x8180 | u16::from(code), &[])),
            other => Some(self.message(other)),
        }
    }

    fn message(&self, deed: Deed) -> Vec<u8> {
        let own = b"\xc0\x0c";
        let name = |n: u8| [&[2, b'c', n][..], b"\x07example\0"].concat();
        let chain = |steps: u8| {
            let mut records = Vec::new();
            for n in 0..steps {
                let owner = if n == 0 { own.to_vec() } else { name(n - 1) };
                records.push(record(&owner, CNAME, &name(n)));
            }
            records.push(self.address(&name(steps - 1), 7));
            records
        };
        match deed {
            Deed::Addresses(n) => self.answer(0x8180, &self.addresses(n)),
            Deed::Large => self.answer(0x8180, &self.addresses(60)),
            Deed::NoData => self.answer(0x8180, &[]),
            Deed::NxDomain => self.answer(0x8183, &[]),
            Deed::Code(code) => self.answer(0x8180 | u16::from(code), &[]),
            Deed::Chain(steps) => self.answer(0x8180, &chain(steps)),
            Deed::ChainBackwards(steps) => {
                let mut records = chain(steps);
                records.reverse();
                self.answer(0x8180, &records)
            }
            Deed::Dangling(code) => {
                let alias = record(own, CNAME, b"\x07nowhere\0");
                self.answer(0x8180 | u16::from(code), &[alias])
            }
            Deed::CnameLoop => {
                let there = record(own, CNAME, &name(0));
                self.answer(0x8180, &[there, record(&name(0), CNAME, own)])
            }
            Deed::AnotherOwner => self.answer(0x8180, &[self.address(&name(0), 7)]),
            Deed::Referral => self.answer(0x8100, &[]),
            other => unreachable!("{other:?} is no single message"),
        }
    }

    fn addresses(&self, n: u8) -> Vec<Vec<u8>> {
        (1..=n).map(|n| self.address(b"\xc0\x0c", n)).collect()
    }
}
