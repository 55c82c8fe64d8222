//! Name servers that try to keep a caller busy, with floods of datagrams and responses that take long to parse: a call
//! takes no longer than its timeout, and probes are served meanwhile.

use test_support::http::get;
use test_support::process::{self, run};

use super::scripted::{caller, file, server};
use super::wire::{A, AAAA, Asked, CNAME, record};

const NOERROR: u16 = 0x8180;
const TRUNCATED: u16 = 0x8380;
const OWN: &[u8] = b"\xc0\x0c";

/// A response with an address for A, and without one for AAAA.
fn found(asked: &Asked) -> Vec<u8> {
    assert_eq!(asked.name, "backend.");
    match asked.qtype {
        A => asked.answer(NOERROR, &[asked.address(OWN, 7)]),
        _ => asked.answer(NOERROR, &[]),
    }
}

#[test]
fn thousands_of_stray_datagrams_are_reported_in_one_line() {
    let conf = file("");
    let server = server(|asked, _| {
        let mut stray = asked.clone();
        let strays = (0..2000_u16).map(|n| {
            stray.id = (u16::from_be_bytes(asked.id).wrapping_add(n + 1)).to_be_bytes();
            stray.answer(NOERROR, &[])
        });
        let mut messages: Vec<_> = strays.collect();
        messages.push(found(asked));
        messages
    });
    let output = run(caller(server, conf.path()).args(["resolve", "backend"]));
    assert_eq!(output.stderr, "");
    // The kernel may have dropped the valid response.
    assert!(
        output.stdout.contains(" datagrams that were no answer"),
        "{}",
        output.stdout
    );
    assert!(output.stdout.len() < 4096, "{}", output.stdout);
}

#[test]
fn a_flood_of_datagrams_does_not_extend_the_timeout() {
    let conf = file("");
    let server = server(|asked, _| {
        let mut stray = asked.clone();
        stray.id[0] ^= 0xff;
        let stray = stray.answer(NOERROR, &[]);
        // As many as the buffer holds, for each query.
        vec![stray; 20_000]
    });
    let args = ["resolve", "--timeout=1s", "--dns-timeout=300ms", "backend"];
    let output = run(caller(server, conf.path()).args(args));
    assert_eq!(output.code, Some(6), "{}", output.stdout);
    assert!(
        output.stdout.contains("no answer for backend."),
        "{}",
        output.stdout
    );
}

#[test]
fn probes_are_served_while_a_response_of_many_long_names_is_parsed() {
    assert_probes_are_served(long_chain);
}

#[test]
fn probes_are_served_while_names_of_thousands_of_pointers_are_parsed() {
    assert_probes_are_served(pointers);
}

/// A caller whose name server sends this response over TCP serves its probes.
fn assert_probes_are_served(message: fn(&Asked) -> Vec<u8>) {
    let conf = file("");
    let server = server(move |asked, over_tcp| match over_tcp {
        false => vec![asked.answer(TRUNCATED, &[])],
        true => vec![message(asked)],
    });
    let mut command = caller(server, conf.path());
    command.args([
        "--admin-listen=127.0.0.1:0",
        "--interval=0s",
        "--timeout=1s",
    ]);
    let (caller, admin) = process::caller(command.arg("http://backend:9/"));
    caller.wait_for_stdout("Call failed: ");
    for _ in 0..20 {
        assert_eq!(get(admin, "/livez").status(), 200);
    }
}

/// 2,500 records whose names are each a chain of 7,000 pointers.
fn pointers(asked: &Asked) -> Vec<u8> {
    const TXT: u16 = 16;
    let first = 12 + asked.question.len() + 12;
    let offset = |n: usize| u16::try_from(0xc000 + first + 2 * n).expect("it is near");
    let chain = (0..7000).map(|n: usize| n.checked_sub(1).map_or(0xc00c, offset));
    let chain: Vec<u8> = chain.flat_map(u16::to_be_bytes).collect();
    let last = offset(6999).to_be_bytes();
    let mut records = vec![record(OWN, TXT, &chain)];
    records.resize(2500, record(&last, TXT, &[0; 4]));
    asked.answer(NOERROR, &records)
}

/// A CNAME chain of 2,500 names, each of 230 bytes, in 64 KB.
fn long_chain(asked: &Asked) -> Vec<u8> {
    let suffix_at = 12 + asked.question.len() + 12;
    let suffix = [b"\x01a".repeat(110).as_slice(), b"\0"].concat();
    let pointer = u16::try_from(0xc000 + suffix_at)
        .expect("it is near")
        .to_be_bytes();
    let name = |n: u16| [format!("\x04{n:04x}").as_bytes(), &pointer].concat();
    let mut records = vec![record(OWN, CNAME, &suffix), record(OWN, CNAME, &name(0))];
    records.extend((0..2400).map(|n| record(&name(n), CNAME, &name(n + 1))));
    asked.answer(NOERROR, &records)
}

#[test]
fn a_long_cname_chain_in_one_response_is_followed() {
    let conf = file("");
    let server = server(|asked, over_tcp| {
        let last = |asked: &Asked| {
            let mut message = long_chain(asked);
            let at = 12 + asked.question.len() + 12;
            let pointer = u16::try_from(0xc000 + at)
                .expect("it is near")
                .to_be_bytes();
            let owner = [format!("\x04{:04x}", 2400).as_bytes(), &pointer].concat();
            message.extend(asked.address(&owner, 7));
            let count = u16::from_be_bytes([message[6], message[7]]) + 1;
            message[6..8].copy_from_slice(&count.to_be_bytes());
            message
        };
        match (over_tcp, asked.qtype) {
            (_, AAAA) => vec![asked.answer(NOERROR, &[])],
            (false, _) => vec![asked.answer(TRUNCATED, &[])],
            (true, _) => vec![last(asked)],
        }
    });
    let output = run(caller(server, conf.path()).args(["resolve", "backend"]));
    assert!(
        output.stdout.contains("backend is 10.0.0.7"),
        "{}",
        output.stdout
    );
}

#[test]
fn large_datagrams_are_accepted() {
    let conf = file("");
    let server = server(|asked, _| match asked.qtype {
        A => vec![asked.answer(NOERROR, &vec![asked.address(OWN, 7); 3000])],
        _ => vec![asked.answer(NOERROR, &[])],
    });
    let output = run(caller(server, conf.path()).args(["resolve", "backend"]));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    assert!(!output.stdout.contains("  tcp  "), "{}", output.stdout);
}

#[test]
fn responses_of_another_class_or_opcode_are_ignored() {
    let conf = file("");
    let of_class_chaos = server(|asked, _| {
        let mut message = found(asked);
        // The class is after the owner's pointer and the type.
        let at = 12 + asked.question.len() + 5;
        if message.len() > at {
            message[at] = 3;
        }
        vec![message]
    });
    let output = run(caller(of_class_chaos, conf.path()).args(["resolve", "backend"]));
    assert_eq!(output.code, Some(6), "{}", output.stdout);
    assert!(
        output.stdout.contains("NODATA for backend."),
        "{}",
        output.stdout
    );
    let update = server(|asked, _| vec![asked.answer(NOERROR | 5 << 11, &[asked.address(OWN, 7)])]);
    let args = ["resolve", "--dns-timeout=200ms", "backend"];
    let output = run(caller(update, conf.path()).args(args));
    assert_eq!(output.code, Some(6), "{}", output.stdout);
    assert!(
        output.stdout.contains("it is not a response to a query"),
        "{}",
        output.stdout
    );
}
