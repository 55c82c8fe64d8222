//! What `caller` prints about unusual lookups: the name that was found, aliases, servers that ignore one query, options
//! without effect, and what `caller resolve` accepts and counts.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;
use test_support::process::{Output, run};

use super::scripted::{caller, file, server};
use super::wire::{A, Asked, CNAME, record};

pub(super) const NOERROR: u16 = 0x8180;
pub(super) const SERVFAIL: u16 = 0x8182;
pub(super) const NXDOMAIN: u16 = 0x8183;
pub(super) const REFUSED: u16 = 0x8185;

pub(super) const OWN: &[u8] = b"\xc0\x0c";
pub(super) const SERVICE: &str = "backend.demo.svc.cluster.local.";
pub(super) const POD: &str = "search demo.svc.cluster.local svc.cluster.local cluster.local corp.example.com\n\
                   options ndots:5\n";

pub(super) type Answers = Vec<Vec<u8>>;

/// Runs a subcommand with this resolv.conf and a name server whose responses `script` makes.
pub(super) fn run_with(
    resolv_conf: &str,
    args: &[&str],
    script: impl Fn(&Asked, bool) -> Answers + Send + Sync + 'static,
) -> Output {
    let file = file(resolv_conf);
    run(caller(server(script), file.path()).args(args))
}

pub(super) fn resolve(
    name: &str,
    script: impl Fn(&Asked, bool) -> Answers + Send + Sync + 'static,
) -> Output {
    run_with(POD, &["resolve", "--dns-timeout=300ms", name], script)
}

/// A response with an address for A, and without one for AAAA.
fn found(asked: &Asked) -> Answers {
    match asked.qtype {
        A => vec![asked.answer(NOERROR, &[asked.address(OWN, 7)])],
        _ => vec![asked.answer(NOERROR, &[])],
    }
}

pub(super) fn code(asked: &Asked, flags: u16) -> Answers {
    vec![asked.answer(flags, &[])]
}

pub(super) fn dangling(asked: &Asked, flags: u16) -> Answers {
    let target = b"\x02db\x07outside\x07example\0";
    vec![asked.answer(flags, &[record(OWN, CNAME, target)])]
}

#[track_caller]
pub(super) fn assert_says(output: &Output, exit_code: i32, says: &[&str]) {
    assert_eq!(output.code, Some(exit_code), "{}", output.stdout);
    for text in says {
        assert!(
            output.stdout.contains(text),
            "no {text:?} in {}",
            output.stdout
        );
    }
}

#[test]
fn an_external_name_whose_target_does_not_exist_is_reported_with_the_target() {
    let output = resolve("backend", |asked, _| match asked.name.as_str() {
        SERVICE => dangling(asked, NXDOMAIN),
        _ => code(asked, NXDOMAIN),
    });
    let likely =
        "likely the Service is an ExternalName for db.outside.example., which does not exist\n";
    let next = "next       caller resolve db.outside.example.\n";
    assert_says(&output, 6, &[likely, next, "CNAME db.outside.example."]);
}

#[test]
fn an_external_name_whose_target_has_no_address_is_reported_with_the_target() {
    let output = resolve("backend", |asked, _| match asked.name.as_str() {
        SERVICE => dangling(asked, NOERROR),
        _ => code(asked, NXDOMAIN),
    });
    let likely = "likely the Service is an ExternalName for db.outside.example., which does not exist or has no address\n";
    assert_says(&output, 6, &[likely, "the name exists without an address"]);
    // Because there is an answer, the other names are not queried.
    assert!(
        !output.stdout.contains("backend.svc.cluster.local."),
        "{}",
        output.stdout
    );
}

#[test]
fn an_alias_outside_of_the_cluster_is_not_reported_as_a_service() {
    let output = resolve("www.example.org.", |asked, _| dangling(asked, NXDOMAIN));
    let likely =
        "likely www.example.org. is an alias for db.outside.example., which does not exist\n";
    assert_says(&output, 6, &[likely]);
}

#[test]
fn a_wildcard_in_a_search_domain_is_noted() {
    let script = |asked: &Asked, _| match asked.name.ends_with(".corp.example.com.") {
        true => found(asked),
        false => code(asked, NXDOMAIN),
    };
    let output = resolve("backend", script);
    let note =
        "note       backend.corp.example.com. answered, which is not where backend was to be found";
    assert_says(&output, 0, &["as backend.corp.example.com.\n", note]);
    let json = run_with(
        POD,
        &[
            "once",
            "--format=json",
            "--connect-timeout=50ms",
            "http://backend:1/",
        ],
        script,
    );
    let report: Value = serde_json::from_str(&json.stdout).expect("an object");
    assert_eq!(report["dns"]["answered"], "backend.corp.example.com.");
    assert!(
        report["dns"]["note"]
            .as_str()
            .is_some_and(|note| note.contains("a wildcard"))
    );
    let diagnosis = run_with(
        POD,
        &["diagnose", "--connect-timeout=50ms", "http://backend:1/"],
        script,
    );
    assert!(
        diagnosis
            .stdout
            .contains("note         backend.corp.example.com. answered"),
        "{}",
        diagnosis.stdout
    );
}

#[test]
fn a_final_dot_that_disables_the_search_list_is_named_if_the_name_may_be_that_of_a_service() {
    for name in ["backend.", "backend.demo.", "backend.demo.svc."] {
        let output = resolve(name, |asked, _| code(asked, NXDOMAIN));
        let next = format!("next       caller resolve {}\n", name.trim_end_matches('.'));
        assert_says(
            &output,
            6,
            &["its final dot switches the search list off", &next],
        );
    }
    let output = resolve("www.example.org.", |asked, _| code(asked, NXDOMAIN));
    assert!(!output.stdout.contains("final dot"), "{}", output.stdout);
    let output = resolve("backend.", |asked, _| dangling(asked, NXDOMAIN));
    assert_says(
        &output,
        6,
        &["likely backend. is an alias for db.outside.example."],
    );
}

/// A response for any name in the search domain that is not the cluster's.
fn wildcard(asked: &Asked, _: bool) -> Answers {
    match asked.name.ends_with(".corp.example.com.") {
        true => vec![asked.answer(NOERROR, &[record(OWN, A, &[127, 0, 0, 66])])],
        false => code(asked, NXDOMAIN),
    }
}

#[test]
fn a_wildcard_in_a_search_domain_is_the_likely_cause_if_its_address_cannot_be_called() {
    for (url, name, next) in [
        (
            "http://backend:1/",
            "backend",
            "kubectl get services -n demo\n",
        ),
        (
            "http://www.example.org:1/",
            "www.example.org",
            "caller resolve www.example.org\n",
        ),
    ] {
        let args = ["diagnose", "--no-path", "--ip-family=4", url];
        let output = run_with(POD, &args, wildcard);
        let likely = format!("likely       {name}.corp.example.com. answered, which is not where");
        let next = format!("next         {next}");
        assert_says(&output, 7, &[&likely, &next]);
        assert!(!output.stdout.contains("no endpoints"), "{}", output.stdout);
    }
}

#[test]
fn an_unspecified_address_is_the_likely_cause_if_it_cannot_be_called() {
    let args = ["once", "--ip-family=4", "http://backend:1/"];
    let output = run_with(POD, &args, |asked, _| {
        vec![asked.answer(NOERROR, &[record(OWN, A, &[0; 4])])]
    });
    assert_says(
        &output,
        7,
        &["likely 0.0.0.0 is no address of another machine"],
    );
}

#[test]
fn a_name_with_one_dot_that_is_found_outside_of_the_cluster_has_no_note() {
    let output = resolve("example.com", |asked, _| match asked.name.as_str() {
        "example.com." => found(asked),
        _ => code(asked, NXDOMAIN),
    });
    assert_says(&output, 0, &["as example.com.\n"]);
    assert!(!output.stdout.contains("note"), "{}", output.stdout);
}

#[test]
fn an_address_from_the_hosts_file_that_cannot_be_called_may_be_outdated() {
    let hosts = file("127.0.0.66 backend\n");
    let path = hosts.path().display().to_string();
    let args = ["once", "--hosts", &path, "http://backend:1/"];
    let output = run_with(POD, &args, |asked, _| code(asked, NXDOMAIN));
    let likely =
        format!("likely an outdated address in {path} (hostAliases), as DNS was not asked; or ");
    assert_says(&output, 7, &[&likely]);
}

#[test]
fn a_name_with_one_dot_is_reported_as_a_service_or_an_outside_name() {
    let output = resolve("example.com", |asked, _| code(asked, NXDOMAIN));
    let likely =
        "likely no Service example in the namespace com, nor such a name outside of the cluster\n";
    assert_says(&output, 6, &[likely]);
}

#[test]
fn the_wide_format_has_the_name_that_was_found_if_it_is_unexpected() {
    let wide = |domain: &'static str| {
        let args = [
            "once",
            "--format=wide",
            "--connect-timeout=50ms",
            "http://backend:1/",
        ];
        run_with(POD, &args, move |asked, _| {
            match asked.name.ends_with(domain) {
                true => found(asked),
                false => code(asked, NXDOMAIN),
            }
        })
    };
    let elsewhere = " answered=backend.corp.example.com. id=";
    assert!(wide(".corp.example.com.").stdout.contains(elsewhere));
    assert!(
        !wide(".demo.svc.cluster.local.")
            .stdout
            .contains("answered=")
    );
}

#[test]
fn a_dead_first_server_costs_one_timeout_and_not_one_for_each_name() {
    let dead = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let dead = dead
        .local_addr()
        .map(|addr| (dead, addr))
        .expect("it is bound");
    let alive = server(|asked, _| match asked.name.as_str() {
        "backend." => found(asked),
        _ => code(asked, NXDOMAIN),
    });
    let conf = file(POD);
    let mut command = caller(alive, conf.path());
    command.env("CALLER_NAMESERVER", format!("{},{alive}", dead.1));
    let output = run(command.args(["resolve", "--dns-timeout=200ms", "backend"]));
    assert_says(&output, 0, &["backend is 10.0.0.7"]);
    assert_eq!(
        output.stdout.matches("no answer").count(),
        2,
        "{}",
        output.stdout
    );
}

#[test]
fn a_server_that_ignores_aaaa_queries_does_not_fail_the_lookup() {
    let output = run_with(
        POD,
        &[
            "resolve",
            "--timeout=4s",
            "--dns-timeout=1s",
            "www.example.com",
        ],
        |asked, _| match (asked.qtype, asked.name.as_str()) {
            (A, "www.example.com.") => found(asked),
            (A, _) => code(asked, NXDOMAIN),
            _ => Vec::new(),
        },
    );
    assert_says(&output, 0, &["www.example.com is 10.0.0.7"]);
}

#[test]
fn a_search_that_times_out_is_not_reported_as_nxdomain() {
    let args = [
        "resolve",
        "--timeout=400ms",
        "--dns-timeout=300ms",
        "www.example.com",
    ];
    let output = run_with(POD, &args, |asked, _| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        code(asked, NXDOMAIN)
    });
    assert_says(&output, 6, &["Lookup failed: DNS did not answer in time"]);
    assert!(
        !output.stdout.contains("does not exist"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_service_that_is_found_as_expected_has_no_note() {
    let output = resolve("backend.demo", |asked, _| match asked.name.as_str() {
        SERVICE => found(asked),
        _ => code(asked, NXDOMAIN),
    });
    assert_says(&output, 0, &["as backend.demo.svc.cluster.local.\n"]);
    assert!(!output.stdout.contains("note"), "{}", output.stdout);
}

#[test]
fn an_unspecified_address_is_noted() {
    let output = resolve("backend", |asked, _| match asked.qtype {
        A => vec![asked.answer(NOERROR, &[record(OWN, A, &[0; 4])])],
        _ => code(asked, NOERROR),
    });
    assert_says(
        &output,
        0,
        &["note       0.0.0.0 is no address of another machine"],
    );
}

#[test]
fn a_missing_service_is_reported_although_the_nodes_domains_fail() {
    for (flags, word) in [(SERVFAIL, "SERVFAIL"), (REFUSED, "REFUSED")] {
        let output = resolve("nosuch", move |asked, _| {
            let is_clusters = asked.name.ends_with(".cluster.local.");
            code(asked, if is_clusters { NXDOMAIN } else { flags })
        });
        let told =
            "Lookup failed: the name does not exist; likely no such Service in that namespace\n";
        assert_says(
            &output,
            6,
            &[told, &format!("{word} for nosuch.corp.example.com.")],
        );
        assert_says(
            &output,
            6,
            &["glibc says Temporary failure in name resolution\n"],
        );
    }
}

#[test]
fn a_failure_of_the_clusters_zone_is_reported_although_the_bare_name_does_not_exist() {
    let output = resolve("backend", |asked, _| match asked.name.as_str() {
        "backend." => code(asked, NXDOMAIN),
        _ => code(asked, REFUSED),
    });
    assert_says(
        &output,
        6,
        &[
            "Lookup failed: DNS refused to answer",
            "REFUSED for backend.demo.svc",
        ],
    );
    // The search has ended there, and the bare name does not exist.
    assert_says(&output, 6, &["glibc says Name or service not known\n"]);
}

#[test]
fn a_name_outside_of_the_cluster_is_not_reported_as_a_missing_service() {
    let output = resolve("www.example.com", |asked, _| code(asked, NXDOMAIN));
    let likely =
        "likely it is not in the cluster's domain, and DNS outside of it does not know the name\n";
    assert_says(
        &output,
        6,
        &[
            likely,
            "next       kubectl get configmap -n kube-system coredns",
        ],
    );
}

#[test]
fn a_server_that_ignores_one_query_is_not_reported_as_down() {
    let output = resolve("backend", |asked, _| match asked.name.as_str() {
        SERVICE => code(asked, NXDOMAIN),
        _ => Vec::new(),
    });
    assert_says(
        &output,
        6,
        &[
            "no answer for backend.svc.cluster.local.",
            "likely DNS is up, as it answered another query just now",
        ],
    );
    let output = resolve("www.example.com.", |asked, _| match asked.qtype {
        A => code(asked, REFUSED),
        _ => Vec::new(),
    });
    assert!(
        !output.stdout.contains("cluster DNS is down"),
        "{}",
        output.stdout
    );
}

#[test]
fn the_evidence_names_the_record_type() {
    let output = resolve("backend.demo.svc.cluster.local.", |asked, _| {
        match asked.qtype {
            A => code(asked, NOERROR),
            _ => code(asked, SERVFAIL),
        }
    });
    assert_says(
        &output,
        6,
        &[
            "NODATA for backend.demo.svc.cluster.local.",
            "(A); SERVFAIL",
            "(AAAA) after",
        ],
    );
}

#[test]
fn long_evidence_is_cut() {
    let domains: Vec<String> = (0..60).map(|n| format!("d{n}.example")).collect();
    let conf = format!("search {}\noptions ndots:5\n", domains.join(" "));
    let output = run_with(&conf, &["once", "http://backend/"], |asked, _| {
        code(asked, NXDOMAIN)
    });
    let evidence = output.stdout.lines().nth(1).expect("three lines");
    assert!(
        evidence.len() < 550 && evidence.contains("... after "),
        "{evidence}"
    );
}

#[test]
fn resolve_counts_the_queries_of_the_search_list() {
    let output = resolve("www.example.com", |asked, _| match asked.name.as_str() {
        "www.example.com." => found(asked),
        _ => code(asked, NXDOMAIN),
    });
    let cost = "asked      10 queries, 8 of them in vain, for the search list (ndots:5): \
                www.example.com., with its final dot, saves them\n";
    assert_says(&output, 0, &[cost]);
}

#[test]
fn resolve_counts_the_queries_for_a_name_that_does_not_exist() {
    let output = resolve("www.example.com", |asked, _| code(asked, NXDOMAIN));
    let cost = "asked      10 queries, 8 of them in vain, for the search list (ndots:5): www.example.com.,";
    assert_says(&output, 6, &[cost]);
    let service = resolve("nosuch", |asked, _| code(asked, NXDOMAIN));
    assert_says(&service, 6, &["asked      10 queries\n"]);
}

#[test]
fn resolve_names_lines_of_resolv_conf_without_effect() {
    let conf = "options ndots:5 no-such-option\nsortlist 10.0.0.0\nnameserver nowhere\n";
    let output = run_with(conf, &["resolve", "backend"], |asked, _| found(asked));
    assert_says(
        &output,
        0,
        &[
            "passed over line 1: no-such-option\n",
            "passed over line 2: sortlist 10.0.0.0\n",
            "passed over line 3: nameserver nowhere\n",
        ],
    );
}

#[test]
fn resolve_accepts_names_urls_and_addresses() {
    let script = |asked: &Asked, _: bool| match asked.name.as_str() {
        "backend.123." | "xn--bcher-kva.example." | "a_b." => found(asked),
        _ => code(asked, NXDOMAIN),
    };
    for (argument, says) in [
        ("backend.123", "backend.123 is 10.0.0.7"),
        ("http://backend.123:8080/path", "backend.123 is 10.0.0.7"),
        ("a_b:80", "a_b is 10.0.0.7"),
        ("b\u{fc}cher.example", "xn--bcher-kva.example is 10.0.0.7"),
        ("127.1", "127.0.0.1 is an address"),
        ("[fe80::1%lo]:80", "fe80::1 is an address"),
        ("localhost", "localhost is 127.0.0.1, ::1, found in "),
        ("api.localhost:80", "this machine by definition"),
    ] {
        assert_says(&resolve(argument, script), 0, &[says]);
    }
}

#[test]
fn an_invalid_host_exits_2_with_the_reason() {
    for (argument, says) in [
        ("a b", "' ' cannot be in a host name"),
        ("a..b", "two dots in a row"),
        ("fe80::1%nosuch", "there is no interface \"nosuch\" here"),
        ("-a", "unexpected argument"),
        ("http://-a/", "cannot begin with '-'"),
    ] {
        let output = resolve(argument, |asked, _| found(asked));
        assert_eq!(output.code, Some(2), "{argument}: {}", output.stderr);
        assert!(
            output.stderr.contains(says),
            "{argument}: {}",
            output.stderr
        );
    }
}

#[test]
fn the_hosts_file_has_priority_over_dns() {
    let hosts = file("127.0.0.9 backend # comment\n127.0.0.8 localhost\n");
    let conf = file(POD);
    let server = server(|asked, _| found(asked));
    let resolve = |name: &str| {
        let mut command = caller(server, conf.path());
        run(command
            .arg("resolve")
            .arg("--hosts")
            .arg(hosts.path())
            .arg(name))
    };
    let from_file = format!(" in {}\n", hosts.path().display());
    assert_says(
        &resolve("BACKEND"),
        0,
        &["BACKEND is 127.0.0.9, found in ", &from_file],
    );
    assert_says(&resolve("localhost"), 0, &["localhost is 127.0.0.8"]);
    assert_says(&resolve("backend."), 0, &["backend. is 10.0.0.7"]);
}

#[test]
fn repeat_detects_a_race_of_two_queries_from_one_socket() {
    // The second datagram from a port is dropped, as by conntrack when two packets race for an entry.
    let ports = Mutex::new(HashMap::new());
    let conf = file("options ndots:1\n");
    let lossy = racing_server(move |client, asked| {
        let mut ports = ports.lock().expect("no server panics");
        let count = ports.entry(client).or_insert(0);
        *count += 1;
        if *count == 2 {
            Vec::new()
        } else {
            found(asked)
        }
    });
    let args = ["resolve", "--dns-timeout=300ms", "--repeat=20", "backend."];
    let output = run(caller(lossy, conf.path()).args(args));
    assert_says(
        &output,
        0,
        &[
            "one socket   40 asked, 20 lost, ",
            "two sockets  40 asked, 0 lost, ",
            "total        80 asked, 20 lost, ",
            "likely       two packets from one socket race each other",
        ],
    );
}

/// Starts a server on UDP, whose script gets the address of the client, too.
fn racing_server(
    script: impl Fn(std::net::SocketAddr, &Asked) -> Answers + Send + 'static,
) -> std::net::SocketAddr {
    let udp = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = udp.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (len, client) = udp.recv_from(&mut buffer).expect("a packet");
            for message in script(client, &Asked::read(&buffer[..len])) {
                let _ = udp.send_to(&message, client);
            }
        }
    });
    addr
}
