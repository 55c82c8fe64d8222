//! Lookups by `caller`: the names of the Service, the search list and address families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use test_support::bed::Bed;
use test_support::process::run;

use crate::CALLER;

const SEARCH: &str =
    "search pod-to-pod-communication.svc.cluster.local svc.cluster.local cluster.local\n";

#[test]
fn the_service_is_found_by_each_of_its_names_with_any_ndots() {
    let bed = Bed::start(&["backend-1"]);
    for ndots in ["", "options ndots:1\n", "options ndots:5\n"] {
        bed.set_resolv_conf(&format!("{SEARCH}{ndots}"));
        for name in [
            "backend",
            "backend.pod-to-pod-communication",
            "backend.pod-to-pod-communication.svc",
            "backend.pod-to-pod-communication.svc.cluster.local",
            "backend.pod-to-pod-communication.svc.cluster.local.",
        ] {
            let output = run(bed.caller(CALLER).args(["--count=1", &bed.url(name)]));
            assert_eq!(output.code, Some(0), "{name} {ndots}{}", output.stdout);
            assert!(output.stdout.contains("Response received successfully!\n"));
        }
    }
}

#[test]
fn the_search_list_is_tried_in_order() {
    let bed = Bed::start(&["backend-1"]);
    // The same name in the last search domain has an address at which nothing listens.
    bed.records.set(
        "backend.cluster.local",
        [IpAddr::from(Ipv4Addr::new(127, 0, 0, 9))],
    );
    let address = |search: &str| {
        bed.set_resolv_conf(search);
        let output = run(bed.caller(CALLER).args(["--count=1", "--format=wide"]));
        output.stdout
    };
    assert!(address(&format!("{SEARCH}options ndots:5\n")).contains("address=127.0.0.1:"));
    assert!(address("search cluster.local\n").contains("127.0.0.9:"));
}

#[test]
fn a_trailing_dot_disables_the_search_list() {
    let bed = Bed::start(&["backend-1"]);
    let output = run(bed.caller(CALLER).args(["--count=1", &bed.url("backend.")]));
    assert_eq!(output.code, Some(1));
    assert!(
        output.stdout.contains("NXDOMAIN for backend. from"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_change_of_resolv_conf_takes_effect() {
    let bed = Bed::start(&["backend-1"]);
    bed.set_resolv_conf("search elsewhere.local\n");
    let mut command = bed.caller(CALLER);
    let caller = test_support::process::Process::spawn(command.arg("--interval=20ms"));
    caller.wait_for_stdout("Call failed: ");
    bed.set_resolv_conf(SEARCH);
    caller.wait_for_stdout("Response received successfully!");
}

#[test]
fn lookups_are_not_cached() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    let caller = test_support::process::Process::spawn(command.arg("--interval=20ms"));
    caller.wait_for_stdout("Response received successfully!");
    // The TTL is 30 seconds.
    bed.records
        .remove("backend.pod-to-pod-communication.svc.cluster.local");
    caller.wait_for_stdout("Call failed: the name does not exist");
}

#[test]
fn proxy_variables_are_ignored() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1/");
    }
    assert_eq!(run(command.arg("--count=1")).code, Some(0));
}

#[test]
fn ip_family_chooses_the_addresses_that_are_called() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // IPv6 is disabled on this machine, so there is nothing to test.
        return;
    }
    let bed = Bed::start(&[]);
    let pod = bed.pod("backend-6", (Ipv6Addr::LOCALHOST, 0).into());
    let url = format!("http://backend:{}/", pod.port());
    let name = "backend.pod-to-pod-communication.svc.cluster.local";
    let call = |family: &str| {
        let args = ["once", "--format=wide", "--ip-family", family, &url];
        run(bed.caller(CALLER).args(args))
    };
    bed.records.set(name, [IpAddr::from(Ipv6Addr::LOCALHOST)]);
    for (family, code) in [("auto", 0), ("6", 0), ("4", 6)] {
        let output = call(family);
        assert_eq!(output.code, Some(code), "{family}: {}", output.stdout);
    }
    // IPv4 is called first; it refuses, and IPv6 is next.
    bed.records.set(
        name,
        [
            Ipv6Addr::LOCALHOST.into(),
            IpAddr::from(Ipv4Addr::LOCALHOST),
        ],
    );
    for family in ["auto", "6"] {
        let output = call(family);
        let address = format!("pod=backend-6 address=[::1]:{} ", pod.port());
        assert!(
            output.stdout.contains(&address),
            "{family}: {}",
            output.stdout
        );
    }
    assert_eq!(call("4").code, Some(7));
}
