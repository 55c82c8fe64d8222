//! Which kubectl command to run next, with the real names filled in.

use crate::dns::Lookup;
use crate::failure::FailureKind as Kind;
use crate::probe::Host;

/// A Service's name and namespace, as a caller in a pod can tell them, and the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    name: String,
    namespace: String,
    own_namespace: String,
}

impl Service {
    /// From the host that is called, `[POD.]SERVICE[.NAMESPACE[.svc...]]`, and the pod's own
    /// namespace, which the search list begins with. What cannot be told is left to be filled in.
    pub fn of(host: &Host, lookup: Option<&Lookup>) -> Self {
        let own_namespace = || {
            let conf = lookup?.conf.as_ref()?;
            let mut search = conf.search.iter();
            search.find_map(|domain| domain.split_once(".svc.").map(|(namespace, _)| namespace))
        };
        let own_namespace = own_namespace().unwrap_or("NAMESPACE");
        let (name, namespace) = match host {
            Host::Name(host) => {
                let labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
                match labels.iter().position(|label| *label == "svc") {
                    Some(at) if at >= 2 => (labels[at - 2], labels[at - 1]),
                    _ => match labels.as_slice() {
                        [name] => (*name, own_namespace),
                        [name, namespace] => (*name, *namespace),
                        _ => ("NAME", "NAMESPACE"),
                    },
                }
            }
            Host::Address(_) | Host::Localhost => ("NAME", own_namespace),
        };
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            own_namespace: own_namespace.to_owned(),
        }
    }

    /// The command that tells most about a failure of this kind.
    pub fn next_command(&self, kind: Kind) -> String {
        let Self {
            name,
            namespace,
            own_namespace,
        } = self;
        match kind {
            Kind::ResolvConf => format!(
                "kubectl get pods -n {own_namespace} -o custom-columns=NAME:.metadata.name,DNS:.spec.dnsPolicy"
            ),
            Kind::DnsNxdomain => format!("kubectl get services -n {namespace}"),
            Kind::DnsNodata | Kind::ConnectRefused => format!(
                "kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={name}"
            ),
            Kind::DnsServfail | Kind::DnsRefused => {
                "kubectl logs -n kube-system -l k8s-app=kube-dns --tail=50".to_owned()
            }
            Kind::DnsTimeout => format!(
                "kubectl get pods -n kube-system -l k8s-app=kube-dns; kubectl get networkpolicies -n {own_namespace}"
            ),
            Kind::DnsUnreachable | Kind::DnsMalformed => {
                "kubectl get services,endpointslices -n kube-system -l k8s-app=kube-dns".to_owned()
            }
            Kind::ConnectUnreachable => {
                format!("kubectl get nodes; kubectl get pods -n {namespace} -o wide")
            }
            // Either end's policy may be in the way.
            Kind::ConnectTimeout if namespace == own_namespace => {
                format!("kubectl get networkpolicies -n {namespace}")
            }
            Kind::ConnectTimeout => format!(
                "kubectl get networkpolicies -n {own_namespace}; kubectl get networkpolicies -n {namespace}"
            ),
            Kind::Local => format!("kubectl describe pods -n {own_namespace}"),
            Kind::Reset | Kind::EmptyReply | Kind::Incomplete | Kind::ResponseTimeout => {
                format!("kubectl describe pods -n {namespace} -l app={name}")
            }
            Kind::Protocol | Kind::BodyTooLarge => {
                format!("kubectl get service -n {namespace} {name} -o yaml")
            }
            Kind::HttpStatus | Kind::ProxyError => {
                format!("kubectl logs -n {namespace} -l app={name} --tail=50")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Service;
    use crate::failure::FailureKind as Kind;
    use crate::probe::Host;

    fn service(host: &str) -> Service {
        Service::of(&Host::Name(host.to_owned()), None)
    }

    #[test]
    fn every_kind_has_a_command_with_the_real_names() {
        let service = service("backend.demo.svc.cluster.local.");
        for &kind in Kind::ALL {
            assert!(service.next_command(kind).starts_with("kubectl "));
        }
        assert_eq!(
            service.next_command(Kind::DnsNodata),
            "kubectl get endpointslices -n demo -l kubernetes.io/service-name=backend"
        );
    }

    #[test]
    fn the_service_is_told_from_a_pod_and_from_a_host_outside() {
        let names = |host| {
            let Service {
                name, namespace, ..
            } = service(host);
            (name, namespace)
        };
        let of = |name: &str, namespace: &str| (name.to_owned(), namespace.to_owned());
        assert_eq!(names("backend"), of("backend", "NAMESPACE"));
        assert_eq!(names("backend.demo"), of("backend", "demo"));
        assert_eq!(
            names("pod-0.backend.demo.svc.cluster.local"),
            of("backend", "demo")
        );
        assert_eq!(names("www.example.com"), of("NAME", "NAMESPACE"));
        let address = Host::Address([10, 96, 37, 4].into());
        assert_eq!(Service::of(&address, None).name, "NAME");
    }
}
