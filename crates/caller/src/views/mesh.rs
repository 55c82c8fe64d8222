//! A mesh as text and as JSON.
//!
//! Text is the conclusion, further faults, the matrix, and the next command:
//!
//! ```text
//! NOT OK  node-3 (10.0.3.7) is not reached from 3 of 3 nodes (connect_timeout), and its row is missing: the node, or ingress to it
//!             to  node-1  node-2  node-3  node-4
//! from node-1          .     0.4       X     0.5
//!      node-2        0.4       .       X     0.4
//!      node-3  row missing (connect_timeout)
//!      node-4        0.5     0.4       X       .
//! milliseconds; X fails
//! next    kubectl get node node-3 -o wide; kubectl get pods -A -o wide --field-selector spec.nodeName=node-3
//! ```
//!
//! If there are more than [`MAX_DRAWN`] nodes, the worst of them are listed in place of the matrix.
//!
//! JSON is an object, from which the page is drawn. `state` is `ok`, `not_ok` or `no_rows`. `cells` has a string for
//! each node in the order of `nodes`, or `null` if its row is missing. A string has a character for each node:
//!
//! - `-` is the node itself.
//! - A space is a pair that was not called lately.
//! - A digit is a pair whose calls succeed: the index of the first bound in `buckets_ms` that its duration does not
//!   exceed; 9 if it exceeds all of them.
//! - A letter is a pair whose calls fail: A is the first kind in `failures`. It is in lower case if the pair has been
//!   failing for less than a minute.
//! - `<` is a peer that has left.
//!
//! `ms` has the durations themselves, if there are at most [`MAX_DRAWN`] nodes. `pairs` are the failing pairs, those
//! that have been failing for longest first.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::SystemTime;

use runtime::escape::Escaped;
use serde::Serialize;

use super::json;
use crate::clock;
use crate::failure::FailureKind;
use crate::mesh::matrix::{Cell, Matrix, MeshNode};
use crate::mesh::report::{MeshReport, MeshState};

/// Most nodes of a mesh whose matrix is drawn with names and durations.
pub const MAX_DRAWN: usize = 40;

/// Most nodes to list if the matrix is not drawn.
const MAX_LISTED: usize = 20;

/// Most further faults in text.
const MAX_ALSO_TEXT: usize = 5;

/// Most further faults in JSON.
const MAX_ALSO_JSON: usize = 20;

/// Most failing pairs in JSON.
const MAX_PAIRS: usize = 200;

/// Upper bounds of the classes of durations, in milliseconds.
const BUCKETS_MS: [f32; 9] = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 100.0, 1000.0];

/// The mesh as text; every line ends with a newline.
pub fn text(report: &MeshReport) -> String {
    let matrix = &report.matrix;
    let mut sentences = report.sentences().into_iter();
    let first = sentences.next().unwrap_or_default();
    let word = match report.state() {
        MeshState::Ok => "OK",
        MeshState::NotOk => "NOT OK",
        MeshState::NoRows => "NO ROWS",
    };
    let mut text = format!("{word:<6}  {first}\n");
    let rest = sentences.len();
    for also in sentences.take(MAX_ALSO_TEXT) {
        let _ = writeln!(text, "also    {also}");
    }
    match rest.saturating_sub(MAX_ALSO_TEXT) {
        0 => {}
        1 => text += "also    1 more fault\n",
        more => {
            let _ = writeln!(text, "also    {more} more faults");
        }
    }
    let brief = match report.conclusion.failing_briefly {
        0 => None,
        1 => Some("1 pair fails".to_owned()),
        pairs => Some(format!("{pairs} pairs fail")),
    };
    if let Some(brief) = brief {
        let _ = writeln!(
            text,
            "note    {brief} for less than a minute, which does not count yet"
        );
    }
    if matrix.left_out > 0 {
        let _ = writeln!(
            text,
            "note    {} more nodes are left out: ask for one name at a time",
            matrix.left_out
        );
    }
    if report.state() != MeshState::NoRows {
        text += &match matrix.nodes.len() > MAX_DRAWN {
            true => list(matrix),
            false => table(matrix),
        };
    }
    if let Some(next) = report.next_command() {
        let _ = writeln!(text, "next    {next}");
    }
    text
}

fn name(node: &MeshNode) -> String {
    match &node.name {
        Some(name) => Escaped::new(name.as_bytes()).to_string(),
        None => node.address.to_string(),
    }
}

fn table(matrix: &Matrix) -> String {
    let names: Vec<String> = matrix.nodes.iter().map(name).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let longest = longest.unwrap_or_default();
    let mut text = format!("{:>1$}", "to", "from ".len() + longest);
    let widths = names.iter().map(|name| name.chars().count().max(5));
    let widths: Vec<usize> = widths.collect();
    for (name, width) in names.iter().zip(&widths) {
        let _ = write!(text, "  {name:>width$}");
    }
    text.push('\n');
    let mut signs = Vec::new();
    for (from, node) in matrix.nodes.iter().enumerate() {
        let head = if from == 0 { "from" } else { "" };
        let _ = write!(text, "{head:<5}{:<longest$}", names[from]);
        if let Err(missing) = &node.row {
            let _ = writeln!(text, "  row missing ({})", missing.label());
            continue;
        }
        for (cell, width) in matrix.row(from).zip(&widths) {
            let sign = sign(&cell);
            if let Some(meaning) = meaning(&cell)
                && !signs.contains(&meaning)
            {
                signs.push(meaning);
            }
            let _ = write!(text, "  {sign:>width$}");
        }
        text.push('\n');
    }
    let mut legend = vec!["milliseconds"];
    legend.extend(signs);
    text + &legend.join("; ") + "\n"
}

fn sign(cell: &Cell) -> String {
    match cell {
        Cell::Unknown => "?".to_owned(),
        Cell::Itself => ".".to_owned(),
        Cell::Ok { ms, .. } if *ms < 99.95 => format!("{ms:.1}"),
        Cell::Ok { ms, .. } => format!("{ms:.0}"),
        Cell::Failing { .. } if cell.is_fault() => "X".to_owned(),
        Cell::Failing { .. } => "x".to_owned(),
        Cell::Left => "-".to_owned(),
    }
}

fn meaning(cell: &Cell) -> Option<&'static str> {
    Some(match cell {
        Cell::Unknown => "? not called lately",
        Cell::Failing { .. } if cell.is_fault() => "X fails",
        Cell::Failing { .. } => "x fails for less than a minute",
        Cell::Left => "- has left DNS",
        Cell::Itself | Cell::Ok { .. } => return None,
    })
}

/// The number of pairs whose calls fail, and the number of pairs whose results are known.
fn failing(cells: impl Iterator<Item = Cell>) -> (usize, usize) {
    cells.fold((0, 0), |(failing, known), cell| match cell {
        Cell::Ok { .. } => (failing, known + 1),
        Cell::Failing { .. } => (failing + 1, known + 1),
        Cell::Unknown | Cell::Itself | Cell::Left => (failing, known),
    })
}

/// The nodes with the most failing calls, one on each line.
fn list(matrix: &Matrix) -> String {
    let mut nodes: Vec<_> = (0..matrix.nodes.len())
        .map(|node| {
            let inward = failing(matrix.column(node));
            let outward = failing(matrix.row(node));
            (inward, outward, node)
        })
        .filter(|((inward, _), (outward, _), node)| inward + outward > 0 || !matrix.has_row(*node))
        .collect();
    let worst = |(inward, outward, node): &((usize, usize), (usize, usize), usize)| {
        (Reverse(inward.0 + outward.0), matrix.has_row(*node), *node)
    };
    nodes.sort_by_key(worst);
    let mut text = String::new();
    for ((inward, called_by), (outward, calls), node) in nodes.iter().take(MAX_LISTED) {
        let row = match &matrix.nodes[*node].row {
            Ok(_) => format!("reaches {} of {calls}", calls - outward),
            Err(missing) => format!("row missing ({})", missing.label()),
        };
        let _ = writeln!(
            text,
            "        {}: reached by {} of {called_by}, {row}",
            name(&matrix.nodes[*node]),
            called_by - inward
        );
    }
    if nodes.len() > MAX_LISTED {
        let _ = writeln!(text, "        and {} more nodes", nodes.len() - MAX_LISTED);
    }
    text
}

#[derive(Serialize)]
struct MeshView<'a> {
    version: &'static str,
    time: String,
    name: Option<&'a str>,
    targets: &'a [String],
    state: &'static str,
    sentence: String,
    next: Option<String>,
    also: Vec<String>,
    more: usize,
    failing_briefly: usize,
    left_out: usize,
    nodes: Vec<NodeView<'a>>,
    failures: Vec<&'static str>,
    buckets_ms: [f32; BUCKETS_MS.len()],
    cells: Vec<Option<String>>,
    ms: Option<Vec<Option<Vec<Option<f32>>>>>,
    pairs: Vec<PairView>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    address: String,
    node: Option<&'a str>,
    row: &'static str,
}

#[derive(Serialize)]
struct PairView {
    from: usize,
    to: usize,
    result: &'static str,
    since_s: u32,
    asked_s: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The mesh as a JSON object. `targets` are the labels of its targets, and `name` is the pod that has collected it.
pub fn to_json(report: &MeshReport, targets: &[String], name: Option<&str>) -> String {
    let matrix = &report.matrix;
    let mut sentences = report.sentences().into_iter();
    let sentence = sentences.next().unwrap_or_default();
    let also: Vec<String> = sentences.by_ref().take(MAX_ALSO_JSON).collect();
    let n = matrix.nodes.len();
    let failures = failures(matrix);
    let ms = |cell: Cell| match cell {
        Cell::Ok { ms, .. } => Some((ms * 1e3).round() / 1e3),
        _ => None,
    };
    let rows = (0..n).map(|from| matrix.has_row(from).then(|| matrix.row(from)));
    json::to_json(&MeshView {
        version: env!("CARGO_PKG_VERSION"),
        time: clock::rfc3339(SystemTime::now()),
        name,
        targets,
        state: report.state().label(),
        sentence,
        next: report.next_command(),
        also,
        more: sentences.len(),
        failing_briefly: report.conclusion.failing_briefly,
        left_out: matrix.left_out,
        nodes: matrix.nodes.iter().map(node).collect(),
        buckets_ms: BUCKETS_MS,
        cells: rows
            .clone()
            .map(|row| Some(row?.map(|cell| character(&cell, &failures)).collect()))
            .collect(),
        ms: (n <= MAX_DRAWN).then(|| rows.map(|row| Some(row?.map(ms).collect())).collect()),
        pairs: pairs(matrix),
        failures: failures.iter().map(|kind| kind.label()).collect(),
    })
}

fn node(node: &MeshNode) -> NodeView<'_> {
    NodeView {
        address: node.address.to_string(),
        node: node.name.as_deref(),
        row: match &node.row {
            Ok(_) => "ok",
            Err(missing) => missing.label(),
        },
    }
}

/// The kinds of failure that occur in the matrix. There are fewer of them than letters.
fn failures(matrix: &Matrix) -> Vec<FailureKind> {
    let mut kinds = Vec::new();
    for cell in (0..matrix.nodes.len()).flat_map(|from| matrix.row(from)) {
        if let Cell::Failing { kind, .. } = cell
            && !kinds.contains(&kind)
        {
            kinds.push(kind);
        }
    }
    kinds
}

fn character(cell: &Cell, failures: &[FailureKind]) -> char {
    let number = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    match cell {
        Cell::Unknown => ' ',
        Cell::Itself => '-',
        Cell::Left => '<',
        Cell::Ok { ms, .. } => {
            let bucket = BUCKETS_MS.iter().position(|bound| ms <= bound);
            char::from(b'0' + number(bucket.unwrap_or(BUCKETS_MS.len())))
        }
        Cell::Failing { kind, .. } => {
            let place = failures.iter().position(|failure| failure == kind);
            let letter = number(place.unwrap_or_default()).min(25);
            match cell.is_fault() {
                true => char::from(b'A' + letter),
                false => char::from(b'a' + letter),
            }
        }
    }
}

/// The failing pairs, those that have been failing for longest first.
fn pairs(matrix: &Matrix) -> Vec<PairView> {
    let n = matrix.nodes.len();
    let mut pairs = Vec::new();
    for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))) {
        if let Cell::Failing {
            kind,
            mtu,
            since_s,
            asked_s,
        } = matrix.cell(from, to)
        {
            pairs.push(PairView {
                from,
                to,
                result: kind.label(),
                since_s,
                asked_s,
                detail: mtu.map(|mtu| format!("packets over {mtu} bytes are lost")),
            });
        }
    }
    pairs.sort_by_key(|pair| (Reverse(pair.since_s), pair.from, pair.to));
    pairs.truncate(MAX_PAIRS);
    pairs
}

#[cfg(test)]
mod tests {
    use super::BUCKETS_MS;

    #[test]
    fn there_is_a_digit_for_each_class_of_times() {
        assert!(BUCKETS_MS.len() < 10);
        assert!(BUCKETS_MS.is_sorted());
    }
}
