//! The wording of the faults of a mesh: one sentence for each fault, and the next command to run.

use runtime::escape::Escaped;

use super::next::is_label;
use crate::dns::Lookup;
use crate::mesh::conclude::Conclusion;
use crate::mesh::fault::{Fault, OwnView, Symptoms};
use crate::mesh::matrix::{Matrix, Missing};

/// Most nodes to name in a sentence; the others are counted.
const MAX_NAMED: usize = 3;

/// The sentence for a mesh without faults: how many pairs were called, and how long their calls take.
pub fn all_well(matrix: &Matrix, conclusion: &Conclusion) -> String {
    let nodes = matrix.nodes.len();
    let (called, pairs) = conclusion.called_pairs;
    match (nodes, conclusion.median_ms) {
        (1, _) => "1 node, and no other to reach".to_owned(),
        (_, None) if called > 0 => {
            format!(
                "nothing has failed for a minute: none of {called} pairs called lately succeeds"
            )
        }
        (_, None) => format!("{nodes} nodes, none of which has called another yet"),
        (_, Some(median)) if conclusion.failing_briefly > 0 => format!(
            "nothing has failed for a minute: {} of {pairs} pairs called lately succeed, median {}",
            called - conclusion.failing_briefly,
            ms(median)
        ),
        (_, Some(median)) => format!(
            "{nodes} nodes reach each other: {called} of {pairs} pairs called lately, median {}",
            ms(median)
        ),
    }
}

/// The sentence for a mesh without rows: why they are missing.
pub fn no_rows(matrix: &Matrix, failed_lookups: &[Lookup]) -> String {
    if matrix.nodes.is_empty()
        && let Some(lookup) = failed_lookups.first()
    {
        return lookup_failed(lookup);
    }
    let why = why_missing(matrix, 0..matrix.nodes.len());
    format!(
        "none of {} has a row ({why}): no caller with --sample runs there, or ingress to the port of its page",
        plural(matrix.nodes.len(), "address", "addresses"),
    )
}

/// The sentence for a name of the mesh that could not be looked up when the rows were collected.
pub fn lookup_failed(lookup: &Lookup) -> String {
    let name = Escaped::new(lookup.name.as_bytes()).to_string();
    match &lookup.outcome {
        Err(failure) => format!(
            "the name {name} cannot be looked up here ({}): {}; likely {}",
            failure.kind(),
            super::dns::evidence(lookup, failure),
            super::dns::likely_cause(lookup, failure),
        ),
        Ok(_) => format!("the name {name} has no address"),
    }
}

/// The sentence for a fault: the evidence, and where to look for the cause.
pub fn fault(matrix: &Matrix, fault: &Fault) -> String {
    let one = |node: usize| one(matrix, node);
    match fault {
        Fault::AllPairsFail { pairs, symptoms } => format!(
            "nobody reaches anybody, all of {} fail {}: a policy on the port, or servers that do not run",
            plural(*pairs, "pair", "pairs"),
            kinds(symptoms)
        ),
        Fault::Group {
            nodes,
            is_inward,
            is_outward,
            symptoms,
        } => {
            let group = format!("the group of {}", many(matrix, nodes));
            let kinds = kinds(symptoms);
            match (is_inward, is_outward) {
                (true, true) => format!(
                    "nobody in {group} reaches anybody outside it, nor is reached from there {kinds}: the network between \
                     the two groups"
                ),
                (false, _) => format!(
                    "nobody in {group} reaches anybody outside it {kinds}, and it is reached from there: egress of the group"
                ),
                (true, false) => format!(
                    "{group} is not reached from outside it {kinds}, and it reaches the others: ingress to the group"
                ),
            }
        }
        Fault::NotReached {
            nodes,
            own,
            symptoms,
            ..
        } if nodes.len() > 1 => format!(
            "{} are not reached from any of the others {}{}",
            many(matrix, nodes),
            kinds(symptoms),
            match own {
                OwnView::Missing =>
                    ", and their rows are missing: those nodes, or the network between them and the others",
                OwnView::Reaches | OwnView::ReachesNobody | OwnView::Unknown => "",
            }
        ),
        Fault::NotReached {
            nodes,
            failed: (failing, of),
            own,
            symptoms,
        } => {
            let node = nodes.first().map(|&node| one(node)).unwrap_or_default();
            let from = format!("from {failing} of {}", plural(*of, "node", "nodes"));
            let seen = match lost_size(symptoms) {
                Some(size) => format!(
                    "packets {size} to {node} are lost {from} {}",
                    kinds(symptoms)
                ),
                None => format!("{node} is not reached {from} {}", kinds(symptoms)),
            };
            let rest = match (own, lost_size(symptoms)) {
                (OwnView::ReachesNobody, Some(_)) => {
                    ", and those of its own, too: the MTU of its network"
                }
                (_, Some(_)) => ": the MTU of the path to it",
                (OwnView::Missing, None) => ", and its row is missing: the node, or ingress to it",
                (OwnView::Reaches, None) => ", and it reaches others itself: ingress to it",
                (OwnView::ReachesNobody, None) => {
                    ", and it reaches nobody: the network of that node"
                }
                (OwnView::Unknown, None) => ": ingress to it",
            };
            seen + rest
        }
        Fault::ReachesNobody {
            node,
            failed: (failing, of),
            is_reached,
            symptoms,
        } => {
            let node = one(*node);
            let seen = match lost_size(symptoms) {
                Some(size) => format!(
                    "packets {size} from {node} are lost to {failing} of {of} nodes {}",
                    kinds(symptoms)
                ),
                None => format!(
                    "{node} reaches nobody, {failing} of {of} calls fail {}",
                    kinds(symptoms)
                ),
            };
            let rest = match is_reached {
                true => ", and it is reached: egress of it",
                false => {
                    ", and no other row says whether it is reached: egress of it, or all the others"
                }
            };
            seen + rest
        }
        Fault::LookupFails { nodes, kind } => format!(
            "{} cannot look the others up ({kind}): cluster DNS, or egress to it",
            one_or_many(matrix, nodes)
        ),
        Fault::PartlyConnected {
            node,
            is_outward,
            failed: (failing, of),
            symptoms,
        } => {
            let node = one(*node);
            let kinds = kinds(symptoms);
            match (lost_size(symptoms), is_outward) {
                (Some(size), true) => {
                    format!(
                        "packets {size} from {node} are lost to {failing} nodes {kinds}: the MTU of its network"
                    )
                }
                (Some(size), false) => {
                    format!(
                        "packets {size} to {node} are lost from {failing} nodes {kinds}: the MTU of the path to it"
                    )
                }
                (None, true) => format!(
                    "{node} does not reach {failing} of {of} nodes {kinds}: a part of the network, or a policy"
                ),
                (None, false) => format!(
                    "{node} is not reached from {failing} of {of} nodes {kinds}: a part of the network, or a policy"
                ),
            }
        }
        Fault::Pair {
            from,
            to,
            is_mutual,
            symptoms,
        } => {
            let (from, to) = (one(*from), one(*to));
            let kinds = kinds(symptoms);
            match (lost_size(symptoms), is_mutual) {
                (Some(size), true) => format!(
                    "packets {size} between {from} and {to} are lost {kinds}: the MTU of the path between these two"
                ),
                (Some(size), false) => format!(
                    "packets {size} from {from} to {to} are lost {kinds}: the MTU of the path between these two"
                ),
                (None, true) => format!(
                    "{from} and {to} do not reach each other {kinds}: the path between these two alone"
                ),
                (None, false) => {
                    format!("{from} does not reach {to} {kinds}: the path between these two alone")
                }
            }
        }
        Fault::RowsMissing { nodes } => {
            let why = why_missing(matrix, nodes.iter().copied());
            match nodes.as_slice() {
                [node] => format!(
                    "the row of {} is missing ({why}), so that what it reaches is not known: its caller, or ingress to the \
                     port of its page",
                    one(*node)
                ),
                nodes => format!(
                    "the rows of {} are missing ({why}), so that what they reach is not known: their callers, or ingress \
                     to the port of their pages",
                    many(matrix, nodes)
                ),
            }
        }
        Fault::Slow {
            node,
            is_outward,
            is_inward,
            ms: took,
            usual_ms,
        } => {
            let direction = match (is_outward, is_inward) {
                (true, true) => "from and to",
                (true, false) => "from",
                (false, _) => "to",
            };
            format!(
                "everything {direction} {} is slow: {}, where {} is usual",
                one(*node),
                ms(*took),
                ms(*usual_ms)
            )
        }
    }
}

/// The most useful command to run after a fault.
pub fn next_command(matrix: &Matrix, fault: &Fault) -> String {
    let of_node = |node: usize| {
        let node = &matrix.nodes[node];
        match node.name.as_deref().filter(|name| is_name(name)) {
            Some(name) => format!(
                "kubectl get node {name} -o wide; kubectl get pods -A -o wide --field-selector spec.nodeName={name}"
            ),
            None => format!(
                "kubectl get pods -A -o wide --field-selector status.podIP={}",
                node.address
            ),
        }
    };
    let zones = || {
        "kubectl get nodes -o wide -L topology.kubernetes.io/zone; kubectl get networkpolicies -A"
            .to_owned()
    };
    match fault {
        Fault::AllPairsFail { .. } => "kubectl get networkpolicies -A; kubectl get pods -A -o wide -l app=mesh".to_owned(),
        Fault::Group { .. } => zones(),
        Fault::NotReached { nodes, .. } | Fault::RowsMissing { nodes } => match nodes.as_slice() {
            [node] => of_node(*node),
            _ => zones(),
        },
        Fault::ReachesNobody { node, .. } | Fault::PartlyConnected { node, .. } | Fault::Slow { node, .. } => of_node(*node),
        Fault::LookupFails { .. } => {
            "kubectl get pods -n kube-system -l k8s-app=kube-dns -o wide; kubectl get networkpolicies -A".to_owned()
        }
        Fault::Pair { from, to, .. } => {
            let name = |node: &usize| matrix.nodes[*node].name.as_deref().filter(|name| is_name(name));
            match (name(from), name(to)) {
                (Some(from), Some(to)) => {
                    format!("kubectl get nodes {from} {to} -o wide; kubectl get networkpolicies -A")
                }
                _ => zones(),
            }
        }
    }
}

/// The command to run if there are no rows.
pub fn next_without_rows() -> String {
    "kubectl get daemonsets,services -A -l app=mesh; kubectl get networkpolicies -A".to_owned()
}

/// Whether a name consists of valid labels. Node names come from the network, and no others become part of a command.
fn is_name(name: &str) -> bool {
    name.split('.').all(is_label)
}

/// The name of a node with its address, or the address alone.
fn one(matrix: &Matrix, node: usize) -> String {
    let node = &matrix.nodes[node];
    match &node.name {
        Some(name) => format!("{} ({})", Escaped::new(name.as_bytes()), node.address),
        None => node.address.to_string(),
    }
}

/// The names of the first nodes, and the number of the others.
fn names(matrix: &Matrix, nodes: &[usize]) -> String {
    let name = |&node: &usize| {
        let node = &matrix.nodes[node];
        match &node.name {
            Some(name) => Escaped::new(name.as_bytes()).to_string(),
            None => node.address.to_string(),
        }
    };
    let mut text = nodes
        .iter()
        .take(MAX_NAMED)
        .map(name)
        .collect::<Vec<_>>()
        .join(", ");
    if nodes.len() > MAX_NAMED {
        text += &format!(" and {} more", nodes.len() - MAX_NAMED);
    }
    text
}

/// Several nodes with their number, such as `10 of 20 nodes (node-11, node-12, node-13 and 7 more)`.
fn many(matrix: &Matrix, nodes: &[usize]) -> String {
    let (some, all) = (nodes.len(), matrix.nodes.len());
    format!("{some} of {all} nodes ({})", names(matrix, nodes))
}

/// One node with its address, or several nodes with their number.
fn one_or_many(matrix: &Matrix, nodes: &[usize]) -> String {
    match nodes {
        [node] => one(matrix, *node),
        nodes => many(matrix, nodes),
    }
}

/// The kinds of failure, in parentheses.
fn kinds(symptoms: &Symptoms) -> String {
    let labels: Vec<&str> = symptoms.kinds.iter().map(|kind| kind.label()).collect();
    format!("({})", labels.join(", "))
}

/// The size of the packets that are lost, if only large ones are.
fn lost_size(symptoms: &Symptoms) -> Option<String> {
    symptoms.is_path_mtu().then(|| match symptoms.mtu {
        Some(mtu) => format!("over {mtu} bytes"),
        None => "that are large".to_owned(),
    })
}

/// The reasons why the rows of these nodes are missing.
fn why_missing(matrix: &Matrix, nodes: impl Iterator<Item = usize>) -> String {
    let mut labels: Vec<&str> = nodes
        .filter_map(|node| matrix.nodes[node].row.as_ref().err())
        .map(|missing: &Missing| missing.label())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    labels.join(", ")
}

fn plural(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// A duration in milliseconds; below ten it has one decimal.
pub(crate) fn ms(ms: f32) -> String {
    match ms < 9.95 {
        true => format!("{ms:.1} ms"),
        false => format!("{ms:.0} ms"),
    }
}
