//! A name server that misbehaves in a given way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Longer than the timeout of the callers in these tests.
const TOO_LATE: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    NxDomain,
    NoData,
    ServFail,
    ServFailThenNxDomain,
    NxDomainButServFailForTheBareName,
    NotImplemented,
    Refused,
    Silent,
    SilentForIpv6,
    LostOnce,
    Late,
    WrongId,
    AnotherQuestion,
    Garbage,
    NotAResponse,
    CnameLoop,
    CnameToBackend,
    TruncatedAndTcpCloses,
    TruncatedAndTcpSilent,
    TruncatedAndTcpAnswersAnotherQuestion,
    TwoHundredAddresses,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    asked: Vec<String>,
}

/// A server on UDP and TCP, which runs until the process ends.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        // A port that is free for UDP may be taken for TCP.
        let any = || Self::try_start_at((Ipv4Addr::LOCALHOST, 0).into());
        (0..20).find_map(|_| any()).expect("a free port")
    }

    pub(crate) fn start_at(addr: SocketAddr) -> Self {
        Self::try_start_at(addr).expect("a free port")
    }

    /// Starts a server at port 53 of a loopback address, for a resolv.conf, which cannot name a port. `None` if that is
    /// not permitted.
    pub(crate) fn start_on_port_53() -> Option<Self> {
        let addr = (Ipv4Addr::new(127, 53, 53, 53), 53).into();
        let started = Self::try_start_at(addr);
        if started.is_none() {
            assert!(std::env::var_os("CI").is_none(), "CI may take port 53");
            let _ = writeln!(
                std::io::stderr(),
                "skipped a test: port 53 is not to be had"
            );
        }
        started
    }

    fn try_start_at(addr: SocketAddr) -> Option<Self> {
        let udp = UdpSocket::bind(addr).ok()?;
        let addr = udp.local_addr().expect("it is bound");
        let tcp = TcpListener::bind(addr).ok()?;
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Healthy,
            asked: Vec::new(),
        }));
        let (over_udp, over_tcp) = (Arc::clone(&state), Arc::clone(&state));
        thread::spawn(move || serve_udp(&udp, &over_udp));
        thread::spawn(move || serve_tcp(&tcp, &over_tcp));
        Some(Self { addr, state })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().expect("no server panics").mode = mode;
    }

    pub(crate) fn was_asked_for(&self, name: &str) -> bool {
        let state = self.state.lock().expect("no server panics");
        state.asked.iter().any(|asked| asked == name)
    }
}

fn serve_udp(socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 1500];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).expect("a packet");
        let query = Message::from_vec(&buffer[..len]).expect("callers send DNS");
        let mode = note(state, &query);
        let Some(answer) = answer(mode, &query, false) else {
            continue;
        };
        if mode == Mode::Late {
            thread::sleep(TOO_LATE);
        }
        // The client may have closed its socket.
        let _ = socket.send_to(&answer, client);
    }
}

fn serve_tcp(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming() {
        let (mut stream, state) = (stream.expect("a connection"), Arc::clone(state));
        // A client sends the queries for both types over one connection.
        thread::spawn(move || while serve_tcp_query(&mut stream, &state).is_some() {});
    }
}

/// Reads a query and responds. Returns `None` if the connection is to be closed.
fn serve_tcp_query(stream: &mut TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut query = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut query).expect("a whole query");
    let query = Message::from_vec(&query).expect("callers send DNS");
    match note(state, &query) {
        Mode::TruncatedAndTcpCloses => None,
        Mode::TruncatedAndTcpSilent => Some(()),
        mode => {
            let answer = answer(mode, &query, true).expect("it answers over TCP");
            let len = u16::try_from(answer.len()).expect("it fits");
            let message = [&len.to_be_bytes()[..], &answer].concat();
            stream.write_all(&message).ok()
        }
    }
}

fn note(state: &Mutex<State>, query: &Message) -> Mode {
    let mut state = state.lock().expect("no server panics");
    state.asked.push(query.queries[0].name().to_ascii());
    let mode = state.mode;
    if mode == Mode::LostOnce {
        state.mode = Mode::Healthy;
    }
    mode
}

fn answer(mode: Mode, query: &Message, tcp: bool) -> Option<Vec<u8>> {
    let question = &query.queries[0];
    let name = question.name().clone();
    let is_bare = name.num_labels() == 1;
    let mut message = query.clone().into_response();
    // Without this flag, a response without records is a referral.
    message.metadata.recursion_available = true;
    let mut code = |code| message.metadata.response_code = code;
    match mode {
        Mode::Silent | Mode::LostOnce => return None,
        Mode::SilentForIpv6 if question.query_type() == RecordType::AAAA => return None,
        Mode::NxDomain => code(ResponseCode::NXDomain),
        Mode::NxDomainButServFailForTheBareName if is_bare => code(ResponseCode::ServFail),
        Mode::NxDomainButServFailForTheBareName => code(ResponseCode::NXDomain),
        Mode::NoData => {}
        Mode::ServFail => code(ResponseCode::ServFail),
        Mode::ServFailThenNxDomain if name.num_labels() == 5 => code(ResponseCode::ServFail),
        Mode::ServFailThenNxDomain => code(ResponseCode::NXDomain),
        Mode::NotImplemented => code(ResponseCode::NotImp),
        Mode::Refused => code(ResponseCode::Refused),
        Mode::Garbage => {
            let id = query.metadata.id.to_be_bytes();
            return Some([&id[..], b"\x84\x00 this is not DNS, is it?"].concat());
        }
        Mode::WrongId => message.metadata.id ^= 1,
        Mode::TruncatedAndTcpAnswersAnotherQuestion if !tcp => message.metadata.truncation = true,
        Mode::AnotherQuestion | Mode::TruncatedAndTcpAnswersAnotherQuestion => {
            message.queries = vec![Query::query(dns_name("other.example."), RecordType::A)];
        }
        Mode::NotAResponse => message.metadata.message_type = MessageType::Query,
        Mode::CnameLoop => {
            let there = dns_name("loop.example.");
            add(&mut message, &name, RData::CNAME(CNAME(there.clone())));
            add(&mut message, &there, RData::CNAME(CNAME(name)));
        }
        Mode::CnameToBackend => {
            let there = dns_name("elsewhere.example.");
            add(&mut message, &name, RData::CNAME(CNAME(there.clone())));
            add_address(&mut message, &there, question, Ipv4Addr::LOCALHOST);
        }
        Mode::TruncatedAndTcpCloses | Mode::TruncatedAndTcpSilent => {
            message.metadata.truncation = true;
        }
        Mode::TwoHundredAddresses if !tcp => message.metadata.truncation = true,
        Mode::TwoHundredAddresses => {
            // All of these addresses are of this machine; the backend listens at the last one.
            for n in (1..=200).rev() {
                add_address(&mut message, &name, question, Ipv4Addr::new(127, 0, 0, n));
            }
        }
        Mode::Healthy | Mode::Late | Mode::SilentForIpv6 => {
            add_address(&mut message, &name, question, Ipv4Addr::LOCALHOST);
        }
    }
    Some(message.to_vec().expect("it can be encoded"))
}

fn add_address(message: &mut Message, name: &Name, question: &Query, address: Ipv4Addr) {
    if question.query_type() == RecordType::A {
        add(message, name, RData::A(A(address)));
    }
}

fn add(message: &mut Message, name: &Name, data: RData) {
    message.add_answer(Record::from_rdata(name.clone(), 30, data));
}

fn dns_name(name: &str) -> Name {
    Name::from_ascii(name).expect("a name")
}
