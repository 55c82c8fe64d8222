//! `caller resolve` and `caller diagnose`: the same reports, step by step, for a person.

use std::fmt;

use runtime::escape::Escaped;

use crate::dns::{Answer, Lookup, ResolvConf};
use crate::probe::Host;
use crate::report::{Failure, Kind, Report};
use crate::text::Millis;

/// Marks what went well and what did not: in colour on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Use colour (ECMA-48 SGR).
    pub colour: bool,
}

impl Marks {
    fn ok(self) -> &'static str {
        if self.colour {
            "\x1b[32mok  \x1b[0m"
        } else {
            "ok  "
        }
    }

    fn failed(self) -> &'static str {
        if self.colour {
            "\x1b[31mFAIL\x1b[0m"
        } else {
            "FAIL"
        }
    }
}

/// Displays a lookup: the configuration, every question, the verdict.
#[derive(Debug)]
pub struct Transcript<'a>(pub &'a Lookup);

impl fmt::Display for Transcript<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookup = self.0;
        if let Some(conf) = &lookup.conf {
            for server in &conf.nameservers {
                writeln!(f, "nameserver {server}")?;
            }
            writeln!(f, "search     {}", conf.search.join(" "))?;
            writeln!(f, "options    {}", Options(conf))?;
            writeln!(f)?;
        }
        let width = |column: fn(&crate::dns::Question) -> String| {
            lookup
                .questions
                .iter()
                .map(|q| column(q).len())
                .max()
                .unwrap_or(0)
        };
        let name_width = width(|question| question.name.to_ascii());
        let server_width = width(|question| question.server.to_string());
        for question in &lookup.questions {
            write!(
                f,
                "{name:name_width$}  {family:<4}  {server:server_width$}  {transport}  {took:>9}  {answer}",
                name = question.name.to_ascii(),
                family = question.family.to_string(),
                server = question.server.to_string(),
                transport = question.transport,
                took = Millis(Some(question.duration)),
                answer = question.answer,
            )?;
            if let Answer::Addresses { addresses, ttl } = &question.answer {
                write!(f, "  ttl {ttl}  ")?;
                join(f, addresses)?;
            }
            writeln!(f)?;
        }
        match &lookup.outcome {
            Ok(addresses) => {
                write!(f, "\n{} is ", lookup.name)?;
                join(f, addresses)?;
                writeln!(f, ", found in {}", Millis(Some(lookup.duration)))
            }
            Err(failure) => {
                let kind = Kind::from(failure.kind);
                writeln!(f, "\n{}", Escaped::new(failure.evidence.as_bytes()))?;
                let (words, cause) = (kind.words(), kind.likely_cause());
                writeln!(f, "Lookup failed: {words}; likely {cause}")
            }
        }
    }
}

/// The options that decide what is asked.
struct Options<'a>(&'a ResolvConf);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResolvConf {
            nameservers: _,
            search: _,
            ndots,
            attempts,
            edns,
            use_tcp,
        } = self.0;
        write!(f, "ndots:{ndots} attempts:{attempts}")?;
        if *edns {
            f.write_str(" edns0")?;
        }
        if *use_tcp {
            f.write_str(" use-vc")?;
        }
        Ok(())
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

/// Displays the way of a call, a line a step; after the first failure its likely cause and the
/// command to run next. The reports are those of one round, one for each address.
#[derive(Debug)]
pub struct Diagnosis<'a> {
    /// Never empty.
    pub reports: &'a [Report],
    /// The Service's name, as far as it can be told.
    pub service: Service,
    /// How to mark.
    pub marks: Marks,
}

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lookup_shown = false;
        let mut explained = false;
        for report in self.reports {
            if let Some(lookup) = &report.lookup
                && !lookup_shown
            {
                lookup_shown = true;
                self.lookup(f, lookup)?;
            }
            self.exchange(f, report)?;
            if let Some(failure) = &report.failure
                && !explained
            {
                explained = true;
                self.explanation(f, failure)?;
            }
        }
        Ok(())
    }
}

impl Diagnosis<'_> {
    fn step(&self, f: &mut fmt::Formatter<'_>, ok: bool, what: &str, how: &str) -> fmt::Result {
        let mark = if ok {
            self.marks.ok()
        } else {
            self.marks.failed()
        };
        writeln!(f, "{mark}  {what:<11}  {}", Escaped::new(how.as_bytes()))
    }

    fn lookup(&self, f: &mut fmt::Formatter<'_>, lookup: &Lookup) -> fmt::Result {
        match (&lookup.conf, &lookup.outcome) {
            (Some(conf), _) => {
                let servers: Vec<String> = conf.nameservers.iter().map(|s| s.to_string()).collect();
                let how = format!(
                    "nameserver {}; search {}; {}",
                    servers.join(" "),
                    conf.search.join(" "),
                    Options(conf)
                );
                self.step(f, true, "resolv.conf", &how)?;
            }
            (None, Err(failure)) => {
                return self.step(f, false, "resolv.conf", &failure.evidence);
            }
            (None, Ok(_)) => {}
        }
        match &lookup.outcome {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|ip| ip.to_string()).collect();
                let how = format!(
                    "{} is {} in {}, {} questions",
                    lookup.name,
                    addresses.join(", "),
                    Millis(Some(lookup.duration)),
                    lookup.questions.len()
                );
                self.step(f, true, "DNS", &how)
            }
            Err(failure) => self.step(f, false, "DNS", &failure.evidence),
        }
    }

    fn exchange(&self, f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
        if let (Some(address), Some(took)) = (report.address, report.phases.connect) {
            let how = format!("{address} connected in {}", Millis(Some(took)));
            self.step(f, true, "TCP", &how)?;
        }
        match (&report.failure, &report.answer) {
            (Some(failure), _) if failure.kind < Kind::ConnectRefused => Ok(()),
            (Some(failure), _) if failure.kind.is_before_connection() => {
                self.step(f, false, "TCP", &failure.evidence)
            }
            (Some(failure), _) => self.step(f, false, "HTTP", &failure.evidence),
            (None, Some(answer)) => {
                let pod = answer.pod.as_deref().unwrap_or("an unnamed pod");
                let how = format!(
                    "{} from {pod}, first byte after {}, {} bytes",
                    answer.status,
                    Millis(report.phases.first_byte),
                    answer.body_len
                );
                self.step(f, true, "HTTP", &how)
            }
            (None, None) => Ok(()),
        }
    }

    fn explanation(&self, f: &mut fmt::Formatter<'_>, failure: &Failure) -> fmt::Result {
        let Failure { kind, .. } = failure;
        writeln!(f, "      what         {}", kind.words())?;
        writeln!(f, "      likely       {}", kind.likely_cause())?;
        writeln!(f, "      next         {}", self.service.next_command(*kind))
    }
}

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
            Kind::HttpStatus => format!("kubectl logs -n {namespace} -l app={name} --tail=50"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Service;
    use crate::probe::Host;
    use crate::report::Kind;

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
