//! The name servers of a world.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::wire::{A, AAAA, Asked, CNAME, record};
use crate::world::{Behaviour, World};

/// Number of servers that a world may have.
const SERVERS: u8 = 3;

#[derive(Default)]
struct State {
    world: Option<World>,
    log: String,
}

/// Three servers, and an address at which nothing listens.
pub(crate) struct Servers {
    pub(crate) addresses: Vec<IpAddr>,
    state: Arc<Mutex<State>>,
}

impl Servers {
    /// Starts the servers, at port 53, because a resolv.conf cannot name another one.
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

    /// The queries since the last call, and the behaviour chosen for each.
    pub(crate) fn take_log(&self) -> String {
        std::mem::take(&mut self.state.lock().expect("no server panics").log)
    }
}

fn behaviour(server: usize, question: &Asked, transport: &str, state: &Mutex<State>) -> Behaviour {
    let mut state = state.lock().expect("no server panics");
    let world = state.world.as_ref().expect("there is a world");
    let behaviour = world.behaviour(server, &question.name, question.qtype == AAAA);
    state.log += &format!(
        "  server {server} {transport} {} {}: {behaviour:?}\n",
        question.name,
        if question.qtype == A { "A" } else { "AAAA" },
    );
    behaviour
}

fn serve_udp(server: usize, socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 1500];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).expect("a packet");
        let asked = Asked::read(&buffer[..len]);
        for datagram in asked.datagrams(behaviour(server, &asked, "udp", state)) {
            // The client may have closed its socket.
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
    let answer = asked.over_tcp(behaviour(server, &asked, "tcp", state))?;
    let len = u16::try_from(answer.len()).expect("it fits");
    stream
        .write_all(&[&len.to_be_bytes()[..], &answer].concat())
        .ok()
}

/// The responses that a behaviour stands for.
trait Scripted {
    fn datagrams(&self, behaviour: Behaviour) -> Vec<Vec<u8>>;
    /// The response over TCP; `None` to close the connection.
    fn over_tcp(&self, behaviour: Behaviour) -> Option<Vec<u8>>;
    fn message(&self, behaviour: Behaviour) -> Vec<u8>;
    fn addresses(&self, n: u8) -> Vec<Vec<u8>>;
}

impl Scripted for Asked {
    fn datagrams(&self, behaviour: Behaviour) -> Vec<Vec<u8>> {
        match behaviour {
            Behaviour::Silence => Vec::new(),
            Behaviour::Truncated(_)
            | Behaviour::TruncatedThenCode(_)
            | Behaviour::TruncatedThenClosed => {
                vec![self.answer(0x8380, &[])]
            }
            Behaviour::BareHeader(code) => {
                vec![[&self.id[..], &[0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]].concat()]
            }
            Behaviour::JunkThenAddress => {
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

    fn over_tcp(&self, behaviour: Behaviour) -> Option<Vec<u8>> {
        match behaviour {
            Behaviour::Silence | Behaviour::TruncatedThenClosed => None,
            Behaviour::Truncated(n) => Some(self.answer(0x8180, &self.addresses(n))),
            Behaviour::TruncatedThenCode(code) => Some(self.answer(0x8180 | u16::from(code), &[])),
            // Over TCP there are no stray messages, and each error repeats its question.
            Behaviour::JunkThenAddress => Some(self.answer(0x8180, &self.addresses(1))),
            Behaviour::BareHeader(code) => Some(self.answer(0x8180 | u16::from(code), &[])),
            other => Some(self.message(other)),
        }
    }

    fn message(&self, behaviour: Behaviour) -> Vec<u8> {
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
        match behaviour {
            Behaviour::Addresses(n) => self.answer(0x8180, &self.addresses(n)),
            Behaviour::Large => self.answer(0x8180, &self.addresses(60)),
            Behaviour::NoData => self.answer(0x8180, &[]),
            Behaviour::NxDomain => self.answer(0x8183, &[]),
            Behaviour::Code(code) => self.answer(0x8180 | u16::from(code), &[]),
            Behaviour::Chain(steps) => self.answer(0x8180, &chain(steps)),
            Behaviour::ChainBackwards(steps) => {
                let mut records = chain(steps);
                records.reverse();
                self.answer(0x8180, &records)
            }
            Behaviour::Dangling(code) => {
                let alias = record(own, CNAME, b"\x07nowhere\0");
                self.answer(0x8180 | u16::from(code), &[alias])
            }
            Behaviour::CnameLoop => {
                let there = record(own, CNAME, &name(0));
                self.answer(0x8180, &[there, record(&name(0), CNAME, own)])
            }
            Behaviour::AnotherOwner => self.answer(0x8180, &[self.address(&name(0), 7)]),
            Behaviour::Referral => self.answer(0x8100, &[]),
            other => unreachable!("{other:?} is no single message"),
        }
    }

    fn addresses(&self, n: u8) -> Vec<Vec<u8>> {
        (1..=n).map(|n| self.address(b"\xc0\x0c", n)).collect()
    }
}
