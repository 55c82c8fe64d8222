//! The next command to run after a failure. It can be run as it is: names and addresses are filled in, and
//! a namespace that is not known becomes `-A`.

use std::net::IpAddr;

use crate::dns::{Host, Lookup, LookupFailure};
use crate::failure::FailureKind;
use crate::report::Report;

/// The object that was called, in the terms of kubectl.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    /// A Service, by its name and, if known, its namespace.
    Service(String, Option<String>),
    /// An IP address of a Service or a pod.
    Address(IpAddr),
    /// The calling pod itself.
    ThisPod,
    /// A host outside of the cluster.
    Outside,
}

/// The most useful command to run after a call failed in this way.
pub(crate) fn next_command(report: &Report, kind: FailureKind) -> String {
    if let Some((lookup, failure)) = super::failed_lookup(report) {
        return after_lookup(lookup, failure);
    }
    let own_namespace = report.lookup.as_deref().and_then(own_namespace);
    if super::doubtful_address(report).is_some()
        && let Host::Name(name) = &report.target.host
    {
        return after_doubtful_lookup(name, &subject(&report.target.host, own_namespace));
    }
    let subject = match (called(report), report.address) {
        (Subject::Outside, Some(address)) => Subject::Address(address.ip()),
        (subject, _) => subject,
    };
    // The name of the pod comes from the network, so it is checked before it becomes part of a command.
    let pod = report
        .response()
        .and_then(|response| response.pod.as_deref());
    let pod = pod.filter(|pod| pod.split('.').all(is_label));
    match (&subject, pod) {
        (Subject::Service(_, namespace), Some(pod)) if is_cut_off(kind) => {
            let within = in_namespace(namespace.as_deref().or(own_namespace));
            format!("kubectl describe pod {within} {pod}")
        }
        _ => command(kind, &subject, own_namespace),
    }
}

/// The most useful command to run after a lookup failed.
pub(crate) fn after_lookup(lookup: &Lookup, failure: &LookupFailure) -> String {
    let name = lookup.name.trim_end_matches('.');
    let is_unknown = failure.kind() == FailureKind::DnsNxdomain && lookup.lacks_search_domain();
    if is_unknown && name.split('.').all(is_label) {
        return format!("caller resolve {name}");
    }
    let usual = || {
        let host = Host::Name(lookup.name.clone());
        let own_namespace = own_namespace(lookup);
        command(
            super::dns::kind_of_cause(lookup, failure),
            &subject(&host, own_namespace),
            own_namespace,
        )
    };
    super::dns::next_command(lookup, failure).unwrap_or_else(usual)
}

/// The most useful command to run if the address of this name is probably not the right one.
fn after_doubtful_lookup(name: &str, subject: &Subject) -> String {
    match subject {
        Subject::Service(_, namespace) => {
            format!(
                "kubectl get services {}",
                in_namespace(namespace.as_deref())
            )
        }
        _ if name.split_terminator('.').all(is_label) => format!("caller resolve {name}"),
        _ => "kubectl get configmap -n kube-system coredns -o yaml".to_owned(),
    }
}

/// How to interpret the output of the next command, if it distinguishes several causes.
pub(crate) fn how_to_read(report: &Report, kind: FailureKind) -> Option<&'static str> {
    let is_of_service = match report
        .lookup
        .as_deref()
        .and_then(Lookup::answered_in_cluster)
    {
        Some(_) => is_service(report),
        None => matches!(called(report), Subject::Service(_, Some(_))),
    };
    let is_it = is_of_service && super::doubtful_address(report).is_none();
    (is_it && kind == FailureKind::ConnectRefused).then_some(
        "no endpoints: no pod matches the selector, or none is ready; endpoints: call one of them with \
         caller diagnose, and if that is refused too, nothing listens at the target port",
    )
}

/// Whether the connection ended before the response was complete, as when the backend dies.
fn is_cut_off(kind: FailureKind) -> bool {
    use FailureKind::*;
    matches!(kind, Reset | EmptyReply | Incomplete)
}

/// Whether the server's certificate was not accepted.
fn is_of_certificate(kind: FailureKind) -> bool {
    use FailureKind::*;
    matches!(kind, TlsUntrusted | TlsExpired | TlsName)
}

fn command(kind: FailureKind, subject: &Subject, own_namespace: Option<&str>) -> String {
    use FailureKind::*;
    let own = in_namespace(own_namespace);
    match kind {
        ResolvConf => format!(
            "kubectl get pods {own} -o custom-columns=NAME:.metadata.name,DNS:.spec.dnsPolicy"
        ),
        DnsServfail | DnsRefused => {
            "kubectl logs -n kube-system -l k8s-app=kube-dns --tail=50".to_owned()
        }
        DnsTimeout => format!(
            "kubectl get pods -n kube-system -l k8s-app=kube-dns; kubectl get networkpolicies {own}"
        ),
        DnsUnreachable | DnsMalformed => {
            "kubectl get services,endpointslices -n kube-system -l k8s-app=kube-dns".to_owned()
        }
        Local => format!("kubectl describe pods {own}"),
        // The CNI plugin, which runs as a DaemonSet, sets the MTU of the pods' interfaces.
        PathMtu => "kubectl get nodes -o wide; kubectl get daemonsets -A".to_owned(),
        _ => match subject {
            Subject::Service(name, namespace) => {
                of_service(kind, name, namespace.as_deref(), own_namespace)
            }
            Subject::Address(address) => of_address(kind, *address, &own),
            Subject::ThisPod if is_of_certificate(kind) => {
                format!("kubectl get secrets {own} --field-selector type=kubernetes.io/tls")
            }
            Subject::ThisPod => "caller diagnose --listening".to_owned(),
            Subject::Outside => {
                "kubectl logs -n kube-system -l k8s-app=kube-dns --tail=50".to_owned()
            }
        },
    }
}

fn of_service(
    kind: FailureKind,
    name: &str,
    namespace: Option<&str>,
    own_namespace: Option<&str>,
) -> String {
    use FailureKind::*;
    let within = in_namespace(namespace);
    match kind {
        DnsNodata => {
            format!("kubectl get endpointslices {within} -l kubernetes.io/service-name={name}")
        }
        ConnectRefused if namespace.is_some() => {
            format!("kubectl describe service {within} {name}")
        }
        ConnectUnreachable => format!("kubectl get nodes; kubectl get pods {within} -o wide"),
        // The egress policies of one namespace or the ingress policies of the other may drop the packets; and the
        // Service may not list the port.
        ConnectTimeout if namespace == own_namespace => {
            format!("kubectl get networkpolicies,services {within}")
        }
        ConnectTimeout => {
            let own = in_namespace(own_namespace);
            format!(
                "kubectl get networkpolicies {own}; kubectl get networkpolicies,services {within}"
            )
        }
        Reset | EmptyReply | Incomplete => format!("kubectl get pods {within} -o wide"),
        HttpStatus | ProxyError | ResponseTimeout if namespace.is_some() => {
            format!("kubectl logs {within} service/{name} --all-pods --prefix --tail=50")
        }
        kind if is_of_certificate(kind) => {
            format!("kubectl get secrets {within} --field-selector type=kubernetes.io/tls")
        }
        Unproven => format!("kubectl get pods {within} -o wide"),
        TlsHandshake | Protocol | BodyTooLarge if namespace.is_some() => {
            format!("kubectl get service {within} {name} -o yaml")
        }
        // kubectl does not accept a name together with -A, but it does accept a field selector.
        ConnectRefused | HttpStatus | ProxyError | ResponseTimeout | TlsHandshake | Protocol
        | BodyTooLarge => {
            format!("kubectl get services -A --field-selector metadata.name={name} -o yaml")
        }
        _ => format!("kubectl get services {within}"),
    }
}

fn of_address(kind: FailureKind, address: IpAddr, own: &str) -> String {
    let owner = format!(
        "kubectl get services -A --field-selector spec.clusterIP={address}; \
         kubectl get pods -A -o wide --field-selector status.podIP={address}"
    );
    match kind {
        FailureKind::ConnectUnreachable => format!("kubectl get nodes -o wide; {owner}"),
        FailureKind::ConnectTimeout => format!("kubectl get networkpolicies {own}; {owner}"),
        _ => owner,
    }
}

fn in_namespace(namespace: Option<&str>) -> String {
    namespace.map_or("-A".to_owned(), |namespace| format!("-n {namespace}"))
}

/// The pod's own namespace, from the search list that the kubelet writes.
fn own_namespace(lookup: &Lookup) -> Option<&str> {
    let mut search = lookup.conf.as_ref()?.search.iter();
    search
        .find_map(|domain| domain.split_once(".svc.").map(|(namespace, _)| namespace))
        .filter(|namespace| is_label(namespace))
}

/// The object that was called. The name that has the addresses tells whether `A.B` is a Service, a pod of one or a host
/// outside of the cluster.
fn called(report: &Report) -> Subject {
    let (host, lookup) = (&report.target.host, report.lookup.as_deref());
    match lookup.and_then(Lookup::answered_in_cluster) {
        Some((name, true)) => subject(&Host::Name(name.to_string().to_lowercase()), None),
        Some((_, false)) => Subject::Outside,
        None => subject(host, lookup.and_then(own_namespace)),
    }
}

/// Whether the name that has the addresses is that of a Service, and not of one of its pods.
pub(super) fn is_service(report: &Report) -> bool {
    let answered = report
        .lookup
        .as_deref()
        .and_then(Lookup::answered_in_cluster);
    answered.is_some_and(|(name, is_in_zone)| {
        let is_svc = |label: &[u8]| label.eq_ignore_ascii_case(b"svc");
        is_in_zone && name.iter().position(is_svc) == Some(2)
    })
}

/// Whether the name that has the addresses is outside of the cluster's zone.
pub(super) fn is_outside(report: &Report) -> bool {
    let answered = report
        .lookup
        .as_deref()
        .and_then(Lookup::answered_in_cluster);
    answered.is_some_and(|(_, is_in_zone)| !is_in_zone)
}

/// The object that a host stands for. A name is read as `[POD.]SERVICE[.NAMESPACE[.svc...]]`.
fn subject(host: &Host, own_namespace: Option<&str>) -> Subject {
    let name = match host {
        host if is_this_pod(host) => return Subject::ThisPod,
        Host::Name(name) => name,
        Host::Address { ip, .. } => return Subject::Address(*ip),
    };
    let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
    let (name, namespace) = match labels.iter().position(|label| *label == "svc") {
        Some(at) if at >= 2 => (labels[at - 2], Some(labels[at - 1])),
        _ => match labels.as_slice() {
            [name] => (*name, own_namespace),
            [name, namespace] => (*name, Some(*namespace)),
            _ => return Subject::Outside,
        },
    };
    match is_label(name) && namespace.is_none_or(is_label) {
        true => Subject::Service(name.to_owned(), namespace.map(str::to_owned)),
        false => Subject::Outside,
    }
}

/// Whether the host is the calling pod itself: a loopback address or `localhost`.
pub(super) fn is_this_pod(host: &Host) -> bool {
    match host {
        Host::Name(name) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Address { ip, .. } => ip.is_loopback(),
    }
}

/// Whether the text is a valid name of a Service or a namespace (a label of RFC 1123). Nothing else of a URL
/// becomes part of a command.
pub(super) fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{FailureKind, Host, Subject, command, subject};

    fn named(host: &str) -> Subject {
        subject(&Host::Name(host.to_owned()), Some("demo"))
    }

    fn service(name: &str, namespace: &str) -> Subject {
        Subject::Service(name.to_owned(), Some(namespace.to_owned()))
    }

    #[test]
    fn every_kind_of_failure_has_a_command_without_placeholders() {
        let address = Subject::Address([10, 96, 37, 4].into());
        let unknown = Subject::Service("backend".to_owned(), None);
        for subject in [
            named("backend"),
            address,
            unknown,
            Subject::Outside,
            Subject::ThisPod,
        ] {
            for &kind in FailureKind::ALL {
                for own in [Some("demo"), None] {
                    let command = command(kind, &subject, own);
                    assert!(
                        command.starts_with("kubectl ") || command.starts_with("caller "),
                        "{command}"
                    );
                    assert!(!command.contains("NAMESPACE"), "{command}");
                    assert!(!command.contains("NAME "), "{command}");
                }
            }
        }
        assert_eq!(
            command(FailureKind::DnsNodata, &named("backend"), Some("demo")),
            "kubectl get endpointslices -n demo -l kubernetes.io/service-name=backend"
        );
    }

    #[test]
    fn service_and_namespace_are_taken_from_the_host_name() {
        assert_eq!(named("backend"), service("backend", "demo"));
        assert_eq!(named("backend.other"), service("backend", "other"));
        assert_eq!(
            named("pod-0.backend.other.svc.cluster.local."),
            service("backend", "other")
        );
        assert_eq!(named("www.example.com"), Subject::Outside);
        assert_eq!(named("no_label"), Subject::Outside);
        assert_eq!(named("-n"), Subject::Outside);
    }
}
