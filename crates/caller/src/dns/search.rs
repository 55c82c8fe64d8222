//! The absolute names to query for a name, in glibc's order (`__res_context_search` in res_query.c, and
//! `search` and `ndots` in resolv.conf(5)).

use hickory_resolver::proto::rr::Name;

use super::ResolvConf;

/// An absolute name to query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The name; `None` if it is too long for DNS, or has an empty label.
    pub(super) name: Option<Name>,
    /// Whether a domain of the search list has been appended to the given name.
    pub(super) is_searched: bool,
    /// Whether it is in the cluster's zone and the given name looks like that of a Service.
    pub(super) is_of_service: bool,
}

/// The names to query for `name`, in order. With a trailing dot, that is the name alone; with at least `ndots` dots,
/// the name as it is, and then with each search domain; with fewer dots, the name with each search domain, and then as
/// it is.
pub(super) fn candidates(name: &str, conf: &ResolvConf) -> Vec<Candidate> {
    let zone = service_zone(name, conf);
    let candidate = |domain: Option<&str>| {
        let name = absolute(name, domain.unwrap_or_default());
        let in_zone = |zone: &Name| name.as_ref().is_some_and(|name| zone.zone_of(name));
        Candidate {
            is_of_service: zone.as_ref().is_some_and(in_zone),
            is_searched: domain.is_some(),
            name,
        }
    };
    let as_is = candidate(None);
    if name.ends_with('.') {
        return vec![as_is];
    }
    let dots = name.matches('.').count();
    let searched = conf.search.iter().map(|domain| candidate(Some(domain)));
    let mut names: Vec<Candidate> = searched.collect();
    if dots >= conf.ndots as usize {
        names.insert(0, as_is);
    } else if dots > 0 || names.is_empty() || !conf.no_tld_query {
        names.push(as_is);
    }
    names
}

/// The zone of the cluster, if `name` looks like that of a Service: `SERVICE`, `SERVICE.NAMESPACE`,
/// `SERVICE.NAMESPACE.svc`, or a name in the zone itself.
pub(super) fn service_zone(name: &str, conf: &ResolvConf) -> Option<Name> {
    let zone = cluster_zone(conf)?;
    let is_fully_qualified = absolute(name, "").is_some_and(|name| zone.zone_of(&name));
    let is_short = !name.ends_with('.')
        && match name.split('.').collect::<Vec<_>>().as_slice() {
            [_] | [_, _] => true,
            labels => labels.last() == Some(&"svc"),
        };
    (is_short || is_fully_qualified).then_some(zone)
}

/// The zone of the cluster, from the search list that the kubelet gives a pod: it has
/// `NAMESPACE.svc.ZONE`.
pub(super) fn cluster_zone(conf: &ResolvConf) -> Option<Name> {
    let mut domains = conf.search.iter();
    domains.find_map(|domain| {
        let (namespace, zone) = domain.split_once(".svc.")?;
        (!namespace.contains('.')).then(|| absolute(zone, ""))?
    })
}

/// `name` with `domain` appended, as an absolute name; `None` if it is not a valid DNS name.
pub(super) fn absolute(name: &str, domain: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let domain = (!domain.is_empty()).then(|| domain.split('.'));
    let labels = name.split('.').chain(domain.into_iter().flatten());
    // The bytes of resolv.conf were read as Latin-1, so a character is a byte.
    let bytes = |label: &str| -> Option<Vec<u8>> {
        label
            .chars()
            .map(|c| u8::try_from(u32::from(c)).ok())
            .collect()
    };
    let labels: Vec<Vec<u8>> = labels.map(bytes).collect::<Option<_>>()?;
    let labels = labels.iter().map(Vec::as_slice);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Candidate, candidates};
    use crate::dns::ResolvConf;

    fn conf(ndots: u32, search: &[&str]) -> ResolvConf {
        ResolvConf {
            search: search.iter().map(ToString::to_string).collect(),
            ndots,
            ..ResolvConf::new()
        }
    }

    fn text(candidate: &Candidate) -> String {
        let name = candidate.name.as_ref();
        name.map_or("invalid".to_owned(), |name| name.to_ascii())
    }

    fn names(name: &str, ndots: u32, search: &[&str]) -> Vec<String> {
        let names = candidates(name, &conf(ndots, search));
        names.iter().map(text).collect()
    }

    #[test]
    fn a_name_with_fewer_dots_than_ndots_is_searched_first() {
        assert_eq!(names("b", 5, &["x.y", "y"]), ["b.x.y.", "b.y.", "b."]);
        assert_eq!(names("b.x", 5, &["y"]), ["b.x.y.", "b.x."]);
        assert_eq!(names("b", 1, &["y"]), ["b.y.", "b."]);
    }

    #[test]
    fn a_name_with_at_least_ndots_dots_is_tried_as_it_is_first() {
        assert_eq!(names("b.x", 1, &["y"]), ["b.x.", "b.x.y."]);
        assert_eq!(names("b", 0, &["y"]), ["b.", "b.y."]);
    }

    #[test]
    fn a_trailing_dot_disables_the_search_list() {
        assert_eq!(names("b.x.", 5, &["y"]), ["b.x."]);
    }

    #[test]
    fn a_dot_before_a_search_domain_is_ignored() {
        assert_eq!(names("b", 5, &[".", "Y."]), ["b.", "b.Y.", "b."]);
        assert_eq!(names("b", 5, &[".y"]), ["b.y.", "b."]);
    }

    #[test]
    fn an_invalid_dns_name_has_no_absolute_name() {
        let long = "l".repeat(64);
        assert_eq!(names("b", 5, &[&long]), ["invalid", "b."]);
        assert_eq!(names(&long, 5, &["y"]), ["invalid", "invalid"]);
        assert_eq!(names("a..b", 1, &[]), ["invalid"]);
    }

    #[test]
    fn a_byte_over_127_in_a_search_domain_is_kept() {
        assert_eq!(names("b", 5, &["f\u{fc}r"]), ["b.f\\374r.", "b."]);
    }

    #[test]
    fn no_tld_query_omits_a_name_without_dots_if_there_is_a_search_list() {
        let no_tld = |search: &[&str], name| {
            let conf = ResolvConf {
                no_tld_query: true,
                ..conf(5, search)
            };
            candidates(name, &conf).iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(no_tld(&["y"], "b"), ["b.y."]);
        assert_eq!(no_tld(&[], "b"), ["b."]);
        assert_eq!(no_tld(&["y"], "b.x"), ["b.x.y.", "b.x."]);
    }

    #[test]
    fn candidates_of_a_service_are_those_in_the_clusters_zone() {
        let search = ["n.svc.cluster.local", "cluster.local", "corp.example"];
        let of_service = |name: &str| {
            let names = candidates(name, &conf(5, &search));
            let names = names.iter().filter(|candidate| candidate.is_of_service);
            names.map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            of_service("b"),
            ["b.n.svc.cluster.local.", "b.cluster.local."]
        );
        assert_eq!(of_service("b.x").len(), 2);
        assert_eq!(of_service("p.b.x.svc").len(), 2);
        assert_eq!(
            of_service("b.x.svc.cluster.local.").len(),
            1,
            "it is there as it is"
        );
        assert!(of_service("www.example.com").is_empty());
        assert!(of_service("b.").is_empty());
    }

    proptest! {
        #[test]
        fn every_candidate_is_absolute(
            name: String,
            ndots in 0_u32..20,
            search: Vec<String>,
        ) {
            let names = candidates(&name, &ResolvConf { search: search.clone(), ndots, ..ResolvConf::new() });
            prop_assert!(names.len() <= search.len() + 1);
            let names: Vec<_> = names.iter().filter_map(|candidate| candidate.name.as_ref()).collect();
            prop_assert!(names.iter().all(|name| name.is_fqdn()));
        }
    }
}
