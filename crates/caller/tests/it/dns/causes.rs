//! The likely cause of a failed lookup, and the next command, where the evidence shows more than the kind of failure.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use test_support::process::{Output, run};

use super::scripted::{caller, file};
use super::wire::{A, Asked, CNAME, record};
use super::wording::{
    Answers, NOERROR, NXDOMAIN, OWN, POD, REFUSED, SERVFAIL, SERVICE, assert_says, code, dangling,
    resolve, run_with,
};

const FORMERR: u16 = 0x8181;
const TRUNCATED: u16 = 0x8380;

/// Looks up `backend`, with these responses for A and AAAA of the Service, and NXDOMAIN for every other name.
fn resolve_backend(
    a: impl Fn(&Asked) -> Answers + Send + Sync + 'static,
    aaaa: impl Fn(&Asked) -> Answers + Send + Sync + 'static,
) -> Output {
    resolve("backend", move |asked, _| match asked.name.as_str() {
        SERVICE if asked.qtype == A => a(asked),
        SERVICE => aaaa(asked),
        _ => code(asked, NXDOMAIN),
    })
}

fn silence(_: &Asked) -> Answers {
    Vec::new()
}

/// A test for each pair of responses for A and AAAA, one of which is no usable answer.
macro_rules! one_family {
    ($($test:ident: $a:expr, $aaaa:expr, $likely:literal, $next:literal;)*) => {
        $(#[test]
        fn $test() {
            let likely = concat!("; likely ", $likely);
            assert_says(&resolve_backend($a, $aaaa), 6, &[likely, concat!("next       ", $next)]);
        })*
    };
}

one_family! {
    ipv4_servfail_is_named_although_ipv6_has_nodata: |asked| code(asked, SERVFAIL), |asked| code(asked, NOERROR),
        "there is no usable answer for A of backend.demo.svc.cluster.local.: cluster DNS is up but cannot answer",
        "kubectl logs -n kube-system";
    ipv4_refused_is_named_although_ipv6_has_nodata: |asked| code(asked, REFUSED), |asked| code(asked, NOERROR),
        "there is no usable answer for A of backend.demo.svc.cluster.local.: cluster DNS is up but will not answer",
        "kubectl logs -n kube-system";
    ipv4_silence_is_named_although_ipv6_has_nodata: silence, |asked| code(asked, NOERROR),
        "there is no usable answer for A of backend.demo.svc.cluster.local.: DNS is up",
        "kubectl get pods -n kube-system";
    ipv4_servfail_is_named_although_ipv6_has_nxdomain: |asked| code(asked, SERVFAIL), |asked| code(asked, NXDOMAIN),
        "there is no usable answer for A of backend.demo.svc.cluster.local.: cluster DNS is up but cannot answer",
        "kubectl logs -n kube-system";
    ipv4_silence_is_named_although_ipv6_has_nxdomain: silence, |asked| code(asked, NXDOMAIN),
        "there is no usable answer for A of backend.demo.svc.cluster.local.: DNS is up",
        "kubectl get pods -n kube-system";
    ipv6_servfail_is_named_although_ipv4_has_nodata: |asked| code(asked, NOERROR), |asked| code(asked, SERVFAIL),
        "there is no usable answer for AAAA of backend.demo.svc.cluster.local.: cluster DNS is up but cannot answer",
        "kubectl logs -n kube-system";
    nxdomain_for_ipv4_counts_for_both_families: |asked| code(asked, NXDOMAIN), |asked| code(asked, SERVFAIL),
        "no such Service in that namespace\n", "kubectl get services -n demo\n";
    nodata_for_both_families_is_a_service_without_a_ready_pod: |asked| code(asked, NOERROR), |asked| code(asked, NOERROR),
        "a headless Service with no ready pod", "kubectl get endpointslices -n demo";
}

#[test]
fn a_truncated_answer_names_tcp_that_is_blocked() {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = udp.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (len, client) = udp.recv_from(&mut buffer).expect("a packet");
            let answer = Asked::read(&buffer[..len]).answer(TRUNCATED, &[]);
            let _ = udp.send_to(&answer, client);
        }
    });
    let conf = file(POD);
    let output = run(caller(addr, conf.path()).args(["resolve", "backend"]));
    let says = [
        "(A, AAAA over TCP, truncated over UDP)",
        "likely the answer is too large for UDP, and TCP to port 53 is blocked, or not served by the nameserver\n",
    ];
    assert_says(&output, 6, &says);
}

/// A test for each name that does not exist, with the search list that it is looked up with.
macro_rules! unknown_names {
    ($($test:ident: $conf:expr, $name:literal, $likely:literal, $next:literal;)*) => {
        $(#[test]
        fn $test() {
            let output = run_with($conf, &["resolve", $name], |asked, _| code(asked, NXDOMAIN));
            assert_says(&output, 6, &[concat!("; likely ", $likely), concat!("next       ", $next)]);
        })*
    };
}

const NODE: &str = "search eu-west-1.compute.internal\n";

unknown_names! {
    a_service_without_the_search_list_of_a_pod: NODE, "backend",
        "no such Service, or resolv.conf is not that of a pod", "kubectl get pods -A -o custom-columns=NAME";
    a_full_name_without_the_search_list_of_a_pod: NODE, "backend.demo.svc.cluster.local",
        "no such Service, or resolv.conf is not that of a pod", "kubectl get pods -A -o custom-columns=NAME";
    an_outside_name_without_the_search_list_of_a_pod: NODE, "www.example.com",
        "DNS does not know the name\n", "kubectl get configmap";
    a_pod_of_a_statefulset: POD, "web-0.web.demo.svc.cluster.local",
        "no Service web in the namespace demo, or no ready pod web-0 behind it\n",
        "kubectl get endpointslices -n demo -l kubernetes.io/service-name=web\n";
    a_pod_of_a_statefulset_with_its_namespace: POD, "web-0.web.demo",
        "DNS outside of the cluster does not know the name; or there is no ready pod web-0 behind a headless Service web \
         in the namespace demo\n",
        "kubectl get configmap";
    a_numbered_host_of_a_cloud: POD, "ip-10-0-0-1.ec2.internal",
        "it is not in the cluster's domain, and DNS outside of it does not know the name\n", "kubectl get configmap";
    a_pod_of_a_statefulset_without_its_namespace: POD, "web-0.web",
        "no Service web-0 in the namespace web, no ready pod web-0 behind a headless Service web, nor such a name outside",
        "kubectl get services -n web\n";
    a_service_in_a_namespace: POD, "backend.demo.svc",
        "no such Service in that namespace\n", "kubectl get services -n demo\n";
}

#[test]
fn a_search_that_ends_before_the_services_name() {
    let conf = "search corp.example demo.svc.cluster.local\noptions ndots:5\n";
    let output = run_with(conf, &["resolve", "backend"], |asked, _| {
        let is_searched = asked.name.ends_with(".corp.example.");
        code(asked, if is_searched { REFUSED } else { NXDOMAIN })
    });
    let likely = "likely an answer for another search domain ended the search, as it does in glibc";
    assert_says(&output, 6, &[likely]);
}

#[test]
fn a_name_of_two_labels_that_dns_outside_of_the_cluster_cannot_answer() {
    let output = resolve("github.com", |asked, _| {
        let is_outside = asked.name == "github.com.";
        code(asked, if is_outside { SERVFAIL } else { NXDOMAIN })
    });
    let likely = "likely no Service github in the namespace com; or, if github.com is a name outside of the cluster, DNS could \
                  not answer for it (SERVFAIL)\n";
    assert_says(&output, 6, &[likely]);
}

/// Calls a closed port of an address that one name alone has.
fn diagnose_at_a_closed_port(host: &str, with_address: &'static str) -> Output {
    let closed = test_support::pki::free_addr();
    let url = format!("http://{host}:{}/", closed.port());
    run_with(
        POD,
        &["diagnose", "--no-path", &url],
        move |asked, _| match (asked.name == with_address, asked.qtype) {
            (true, A) => vec![asked.answer(NOERROR, &[record(OWN, A, &[127, 0, 0, 1])])],
            (true, _) => code(asked, NOERROR),
            _ => code(asked, NXDOMAIN),
        },
    )
}

#[test]
fn the_name_that_has_the_address_tells_a_pod_and_an_outside_host_from_a_service() {
    let outside = diagnose_at_a_closed_port("github.com", "github.com.");
    let says = [
        "likely       nothing listens at that port there, or a firewall refuses\n",
        "next         kubectl get services -A --field-selector spec.clusterIP=127.0.0.1; ",
    ];
    assert_says(&outside, 7, &says);
    assert!(!outside.stdout.contains("read  "), "{}", outside.stdout);
    let pod = diagnose_at_a_closed_port("web-0.web", "web-0.web.demo.svc.cluster.local.");
    assert_says(
        &pod,
        7,
        &["next         kubectl describe service -n demo web\n"],
    );
    let service = diagnose_at_a_closed_port("web", "web.demo.svc.cluster.local.");
    let says = [
        "next         kubectl describe service -n demo web\n",
        "read         no endpoints: ",
    ];
    assert_says(&service, 7, &says);
}

#[test]
fn an_unexpected_name_that_has_the_address_is_one_cause_beside_the_usual_one() {
    let output = diagnose_at_a_closed_port("db", "db.corp.example.com.");
    let likely = "db.corp.example.com. answered, which is not where db was to be found: a wildcard in a search domain, or a \
                  resolver that makes names up; or nothing listens at that port there, or a firewall refuses\n";
    assert_says(
        &output,
        7,
        &[likely, "next         kubectl get services -n demo\n"],
    );
}

#[test]
fn an_outside_name_without_an_address() {
    let output = resolve("www.example.com", |asked, _| {
        let is_outside = asked.name == "www.example.com.";
        code(asked, if is_outside { NOERROR } else { NXDOMAIN })
    });
    let likely = "likely www.example.com. exists, but has no address (A, AAAA)\n";
    assert_says(&output, 6, &[likely]);
}

#[test]
fn an_external_name_that_dns_cannot_resolve() {
    for flags in [SERVFAIL, REFUSED] {
        let answer = move |asked: &Asked| dangling(asked, flags);
        let likely = "likely the Service is an ExternalName for db.outside.example., which DNS cannot resolve\n";
        let next = "next       caller resolve db.outside.example.\n";
        assert_says(&resolve_backend(answer, answer), 6, &[likely, next]);
    }
}

#[test]
fn an_external_name_for_an_address() {
    let answer = |asked: &Asked| {
        let target = b"\x0210\x010\x010\x015\0";
        vec![asked.answer(NXDOMAIN, &[record(OWN, CNAME, target)])]
    };
    let likely =
        "likely the Service is an ExternalName for 10.0.0.5., and no alias can be for an address\n";
    let next = "next       kubectl get services -n demo\n";
    assert_says(&resolve_backend(answer, answer), 6, &[likely, next]);
}

#[test]
fn a_server_that_does_not_take_edns() {
    let conf = format!("{POD}options edns0\n");
    let args = ["resolve", "--dns-timeout=300ms", "backend"];
    let likely =
        "likely the nameserver does not take EDNS, which options edns0 in resolv.conf asks for\n";
    for is_bare in [false, true] {
        let output = run_with(&conf, &args, move |asked, _| {
            let mut answer = asked.answer(FORMERR, &[]);
            if is_bare {
                answer.truncate(12);
                answer[5] = 0;
            }
            vec![answer]
        });
        assert_says(&output, 6, &["FORMERR for backend.demo.svc", likely]);
    }
}

/// Looks up `backend` with this resolv.conf alone.
fn resolve_with(resolv_conf: &str) -> Output {
    let conf = file(resolv_conf);
    let mut command = Command::new(crate::CALLER);
    command
        .env("CALLER_HOSTS", "/dev/null")
        .env("CALLER_RESOLV_CONF", conf.path());
    run(command.args(["resolve", "backend"]))
}

#[test]
fn a_loopback_nameserver_that_refuses() {
    let output = resolve_with(&format!("{POD}nameserver 127.53.53.54\n"));
    let likely = "likely nothing listens at this pod's own loopback: the resolv.conf of a node was copied (systemd-resolved)";
    assert_says(
        &output,
        6,
        &[
            likely,
            "next       kubectl get pods -n demo -o custom-columns=NAME",
        ],
    );
}

#[test]
fn a_link_local_nameserver_without_an_interface() {
    let output = resolve_with(&format!("{POD}nameserver fe80::1%nosuch\n"));
    let says = [
        "unreachable (Invalid argument",
        "Lookup failed: DNS cannot be reached; likely a link-local nameserver needs an interface of this pod",
    ];
    assert_says(&output, 6, &says);
}

#[test]
fn text_of_resolv_conf_is_not_taken_for_a_success() {
    let output = resolve_with("nameserver Response received successfully!\n");
    assert_says(&output, 6, &["Response\\x20received"]);
}
