//! Which absolute names a name may stand for, in glibc's order (`res_search`, resolv.conf(5)).

use hickory_resolver::proto::rr::Name;

use super::ResolvConf;

/// A name to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: Name,
    /// What looks like a Service's short name, tried as it is after the search list. Cluster DNS
    /// passes it on to servers outside, so a failure to answer it says nothing about the Service.
    pub(super) last_resort: bool,
}

/// A trailing dot: that name alone. At least `ndots` dots: as it is, then with each search domain;
/// fewer: the other way round. Names that are too long for DNS are left out.
pub(super) fn candidates(name: &str, conf: &ResolvConf) -> Vec<Candidate> {
    if name.ends_with('.') {
        return absolute(name, "").into_iter().map(candidate).collect();
    }
    let dots = name.matches('.').count();
    let searched = conf
        .search
        .iter()
        .filter_map(|domain| absolute(name, domain))
        .map(candidate);
    let mut names: Vec<Candidate> = searched.collect();
    if let Some(as_is) = absolute(name, "") {
        if dots >= conf.ndots as usize {
            names.insert(0, candidate(as_is));
        } else {
            let last_resort = !names.is_empty() && is_short(name, dots, conf);
            let name = as_is;
            names.push(Candidate { name, last_resort });
        }
    }
    // `search .` and repeated domains: nothing is learnt from asking twice.
    let mut seen = Vec::new();
    names.retain(|candidate| {
        let new = !seen.contains(&candidate.name);
        seen.push(candidate.name.clone());
        new
    });
    names
}

/// `SERVICE`, or, in a cluster, `SERVICE.NAMESPACE` and `SERVICE.NAMESPACE.svc`.
fn is_short(name: &str, dots: usize, conf: &ResolvConf) -> bool {
    let in_a_cluster = conf.search.iter().any(|domain| domain.contains(".svc."));
    dots == 0 || (in_a_cluster && (dots == 1 || name.ends_with(".svc")))
}

fn candidate(name: Name) -> Candidate {
    Candidate {
        name,
        last_resort: false,
    }
}

fn absolute(name: &str, domain: &str) -> Option<Name> {
    let name = name.trim_end_matches('.');
    let domain = domain.trim_matches('.');
    let joined = match domain {
        "" => format!("{name}."),
        _ => format!("{name}.{domain}."),
    };
    Name::from_ascii(joined).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::candidates;
    use crate::dns::ResolvConf;

    fn names(name: &str, ndots: u32, search: &[&str]) -> Vec<String> {
        let conf = ResolvConf {
            nameservers: Vec::new(),
            search: search.iter().map(ToString::to_string).collect(),
            ndots,
            attempts: 2,
            edns: false,
            use_tcp: false,
        };
        candidates(name, &conf)
            .iter()
            .map(|candidate| candidate.name.to_ascii())
            .collect()
    }

    #[test]
    fn few_dots_go_through_the_search_list_first() {
        assert_eq!(names("b", 5, &["x.y", "y"]), ["b.x.y.", "b.y.", "b."]);
        assert_eq!(names("b.x", 5, &["y"]), ["b.x.y.", "b.x."]);
        assert_eq!(names("b", 1, &["y"]), ["b.y.", "b."]);
    }

    #[test]
    fn enough_dots_are_tried_as_they_are_first() {
        assert_eq!(names("b.x", 1, &["y"]), ["b.x.", "b.x.y."]);
        assert_eq!(names("b", 0, &["y"]), ["b.", "b.y."]);
    }

    #[test]
    fn a_trailing_dot_ends_the_matter() {
        assert_eq!(names("b.x.", 5, &["y"]), ["b.x."]);
    }

    #[test]
    fn nothing_is_asked_twice_and_nothing_too_long_at_all() {
        assert_eq!(names("b", 5, &[".", "y", "Y."]), ["b.", "b.y."]);
        let long = "l".repeat(64);
        assert_eq!(names("b", 5, &[&long]), ["b."]);
        assert!(names(&long, 5, &["y"]).is_empty());
    }

    #[test]
    fn a_short_name_after_a_search_is_a_last_resort() {
        let conf = |search: &[&str]| ResolvConf {
            nameservers: Vec::new(),
            search: search.iter().map(ToString::to_string).collect(),
            ndots: 5,
            attempts: 2,
            edns: false,
            use_tcp: false,
        };
        let last = |name: &str, search: &[&str]| {
            let names = candidates(name, &conf(search));
            names.last().expect("there is one").last_resort
        };
        assert!(last("b", &["y"]));
        assert!(!last("b", &[]));
        assert!(!last("b.x", &["y"]));
        assert!(last("b.x", &["n.svc.cluster.local"]));
        assert!(last("b.x.svc", &["n.svc.cluster.local"]));
        assert!(!last("www.example.com", &["n.svc.cluster.local"]));
        assert!(!last("b.x.svc.cluster.local", &["n.svc.cluster.local"]));
    }

    proptest! {
        #[test]
        fn every_name_asked_for_is_absolute_and_none_is_asked_for_twice(
            name: String,
            ndots in 0_u32..20,
            search: Vec<String>,
        ) {
            let search: Vec<&str> = search.iter().map(String::as_str).collect();
            let names = names(&name, ndots, &search);
            prop_assert!(names.iter().all(|name| name.ends_with('.')));
            prop_assert!(names.len() <= search.len() + 1);
            for (n, name) in names.iter().enumerate() {
                prop_assert!(!names[..n].iter().any(|other| other.eq_ignore_ascii_case(name)));
            }
        }
    }
}
