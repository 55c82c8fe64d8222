//! `caller mesh`: the sentence, the matrix, the next command and the exit code.

use std::net::UdpSocket;

use super::*;

/// The lines of an output.
fn lines(output: &Output) -> Vec<&str> {
    output.stdout.lines().collect()
}

/// Starts callers that make one round and then wait for an hour, so that their rows do not change any more.
fn start_for_one_round<const N: usize>(mesh: &Mesh, nodes: [u8; N]) -> [Node; N] {
    let callers = nodes.map(|node| Node::start(mesh.caller(node).env("CALLER_INTERVAL", "1h")));
    for caller in &callers {
        caller.wait_for_row("a row", |row| count(&row["peers"]) + 1 == N as u64);
    }
    callers
}

#[test]
fn a_healthy_mesh_exits_0_and_the_matrix_is_printed() {
    let mesh = Mesh::of([1, 2]);
    let _callers = start_for_one_round(&mesh, [1, 2]);
    let output = mesh.collect(&[]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    let lines = lines(&output);
    let well = "OK      2 nodes reach each other: 2 of 2 pairs called lately, median ";
    assert!(lines[0].starts_with(well), "{}", output.stdout);
    assert_eq!(lines[1], "         to  node-1  node-2");
    assert!(
        lines[2].starts_with("from node-1       .  "),
        "{}",
        output.stdout
    );
    assert!(
        lines[3].starts_with("     node-2  ") && lines[3].ends_with("       ."),
        "{}",
        output.stdout
    );
    assert_eq!(lines[4..], ["milliseconds"]);
}

#[test]
fn json_has_the_same_data_as_the_page() {
    let mesh = Mesh::of(1..=3);
    let callers = start_for_one_round(&mesh, [1, 2, 3]);
    let (mut printed, code) = mesh.matrix();
    let shown = get(callers[0].admin, "/mesh/matrix.json").body;
    let mut shown: Value = serde_json::from_str(&shown).expect("an object");
    // They differ in the pod that has collected the rows, and in the time.
    assert_eq!(
        (&shown["name"], &printed["name"]),
        (&"mesh-1".into(), &Value::Null)
    );
    for matrix in [&mut printed, &mut shown] {
        assert!(matrix["time"].is_string());
        let fields = matrix.as_object_mut().expect("an object");
        fields.retain(|name, _| name != "time" && name != "name");
    }
    assert_eq!(printed, shown);
    assert_eq!(
        (code, &printed["state"]),
        (Some(0), &"ok".into()),
        "{printed:#}"
    );
    assert_eq!(
        (&printed["targets"], &printed["next"]),
        (&json!([mesh.url()]), &Value::Null)
    );
    let expected = [1, 2, 3]
        .map(|node| json!({"address": mesh.ip(node), "node": format!("node-{node}"), "row": "ok"}));
    assert_eq!(printed["nodes"], json!(expected));
    for (number, cells) in printed["cells"]
        .as_array()
        .expect("a list")
        .iter()
        .enumerate()
    {
        let cells = cells.as_str().expect("text");
        let is_as_expected = |(at, cell): (usize, char)| match at == number {
            true => cell == '-',
            false => cell.is_ascii_digit(),
        };
        assert!(cells.chars().enumerate().all(is_as_expected), "{cells}");
        assert_eq!(cells.len(), 3);
        let ms = printed["ms"][number].as_array().expect("a list");
        let are_known = ms.iter().map(|ms| ms.as_f64() > Some(0.0));
        assert!(are_known.eq((0..3).map(|at| at != number)), "{ms:?}");
    }
    assert_eq!(
        (&printed["pairs"], &printed["failures"]),
        (&json!([]), &json!([]))
    );
}

#[test]
fn a_missing_row_is_a_fault() {
    let mesh = Mesh::of(1..=3);
    let _callers = mesh.start_all([1, 3]);
    let output = mesh.collect(&[]);
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    let lines = lines(&output);
    let sentence = format!(
        "NOT OK  the row of node-2 ({}) is missing (connect_refused), so that what it reaches is not known: its caller, \
         or ingress to the port of its page",
        mesh.ip(2)
    );
    assert_eq!(lines[0], sentence);
    assert!(
        lines.contains(&"     node-2  row missing (connect_refused)"),
        "{}",
        output.stdout
    );
    let next = "next    kubectl get node node-2 -o wide; kubectl get pods -A -o wide --field-selector spec.nodeName=node-2";
    assert_eq!(lines.last(), Some(&next));
    let (matrix, code) = mesh.matrix();
    assert_eq!((code, &matrix["state"]), (Some(1), &"not_ok".into()));
    assert_eq!(matrix["next"].as_str(), next.strip_prefix("next    "));
    let at = mesh.place(2, &matrix);
    assert_eq!(
        (&matrix["cells"][at], &matrix["ms"][at]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn a_name_that_does_not_exist_exits_3_with_the_next_command() {
    let mesh = Mesh::of([]);
    mesh.bed.records.remove(NAME);
    let output = mesh.collect(&[]);
    assert_eq!(output.code, Some(3), "{}", output.stdout);
    let lines = lines(&output);
    let sentence =
        "NO ROWS  the name mesh cannot be looked up here (dns_nxdomain): mesh: NXDOMAIN for ";
    assert!(lines[0].starts_with(sentence), "{}", output.stdout);
    assert!(
        lines[0].ends_with("; likely no such Service in that namespace"),
        "{}",
        output.stdout
    );
    let next = "next    kubectl get services -n pod-to-pod-communication";
    assert_eq!(lines[1..], [next]);
    let (matrix, code) = mesh.matrix();
    assert_eq!(
        (code, &matrix["state"], &matrix["nodes"]),
        (Some(3), &"no_rows".into(), &json!([]))
    );
    assert!(
        matrix["sentence"]
            .as_str()
            .expect("text")
            .contains("dns_nxdomain")
    );
}

#[test]
fn callers_without_sample_have_no_rows() {
    let mesh = Mesh::of([1, 2]);
    let _callers = [1, 2].map(|node| Node::start(mesh.caller(node).env_remove("CALLER_SAMPLE")));
    let output = mesh.collect(&[]);
    assert_eq!(output.code, Some(3), "{}", output.stdout);
    let sentence = "NO ROWS  none of 2 addresses has a row (no_sample): no caller with --sample runs there, or ingress to the \
                    port of its page";
    let next =
        "next    kubectl get daemonsets,services -A -l app=mesh; kubectl get networkpolicies -A";
    assert_eq!(lines(&output), [sentence, next]);
}

#[test]
fn several_targets_are_one_mesh() {
    let mesh = Mesh::of(1..=4);
    let zones = ["zone-a", "zone-b"].map(|zone| format!("http://{zone}:{}/", mesh.port));
    for (zone, nodes) in [("zone-a", [1, 2]), ("zone-b", [3, 4])] {
        let name = NAME.replace("mesh", zone);
        mesh.bed.records.set(&name, nodes.map(|node| mesh.ip(node)));
    }
    let urls = zones.join(" ");
    let callers = [1, 2, 3, 4].map(|node| Node::start(mesh.caller(node).env("CALLER_URL", &urls)));
    for caller in &callers {
        let row = caller.wait_for_row("both zones", |row| count(&row["peers"]) == 3);
        assert_eq!((&row["known"], &row["targets"]), (&3.into(), &json!(zones)));
    }
    let collect = |targets: &[&str]| {
        let rows_port = mesh.rows_port.to_string();
        let args = [
            &["mesh", "--format=json", "--rows-port", &rows_port],
            targets,
        ]
        .concat();
        let output = run(mesh.bed.caller(CALLER).args(args));
        let matrix: Value = serde_json::from_str(&output.stdout).expect("an object");
        (matrix, output.code)
    };
    let (matrix, code) = collect(&[&zones[0], &zones[1]]);
    assert_eq!((code, count(&matrix["nodes"])), (Some(0), 4), "{matrix:#}");
    assert_eq!(matrix["targets"], json!(zones));
    let sentence = matrix["sentence"].as_str().expect("text");
    assert!(
        sentence.starts_with("4 nodes reach each other: 12 of 12 pairs"),
        "{sentence}"
    );
    // One name of two that does not exist is a fault; the nodes behind the other one are shown.
    let nosuch = mesh.url().replace("mesh", "nosuch");
    let (matrix, code) = collect(&[&zones[1], &nosuch]);
    assert_eq!((code, count(&matrix["nodes"])), (Some(1), 2), "{matrix:#}");
    let sentence = matrix["sentence"].as_str().expect("text");
    assert!(
        sentence.starts_with("the name nosuch cannot be looked up here (dns_nxdomain)"),
        "{sentence}"
    );
}

#[test]
fn names_are_looked_up_at_the_same_time() {
    let mesh = Mesh::of([]);
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let nameserver = silent.local_addr().expect("it is bound").to_string();
    // One after another, the lookups would take longer than the timeout of a test.
    let urls: Vec<String> = (1..=100)
        .map(|zone| format!("http://zone-{zone}/"))
        .collect();
    let mut command = mesh.bed.caller(CALLER);
    command.args(["mesh", "--dns-timeout=100ms", "--nameserver", &nameserver]);
    command.args(&urls);
    let output = run(&mut command);
    assert_eq!(output.code, Some(3), "{}", output.stdout);
    let first = "NO ROWS  the name zone-1 cannot be looked up here (dns_timeout)";
    assert!(output.stdout.starts_with(first), "{}", output.stdout);
}

#[test]
fn bad_input_exits_2_and_is_named() {
    let exits_2 = |args: &[&str], env: &[(&str, &str)], named: &[&str]| {
        let mut command = Command::new(CALLER);
        let output = run(command.args(args).envs(env.iter().copied()));
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(2), ""),
            "{args:?} {env:?}"
        );
        for name in named {
            assert!(
                output.stderr.contains(name),
                "no {name} in {}",
                output.stderr
            );
        }
    };
    exits_2(&["--sample=0"], &[], &["--sample <K>", "0"]);
    exits_2(&["--sample=x"], &[], &["--sample <K>", "x"]);
    exits_2(&["--sample=1001"], &[], &["--sample <K>", "1001"]);
    exits_2(&[], &[("CALLER_SAMPLE", "ten")], &["CALLER_SAMPLE", "ten"]);
    exits_2(
        &["--sample=2"],
        &[("POD_IP", "nonsense")],
        &["POD_IP", "nonsense"],
    );
    for command in [&["mesh", "--rows-port=0"][..], &["--rows-port=0"]] {
        exits_2(command, &[], &["--rows-port <PORT>", "0"]);
    }
    exits_2(
        &["mesh"],
        &[("CALLER_ROWS_PORT", "http")],
        &["CALLER_ROWS_PORT", "http"],
    );
    exits_2(
        &["mesh", "--format=xml"],
        &[],
        &["--format <FORMAT>", "xml"],
    );
    exits_2(
        &["mesh", "http://bad_host:99999/"],
        &[],
        &["http://bad_host:99999/"],
    );
    exits_2(&["mesh", "mesh"], &[], &["http://mesh/"]);
}

#[test]
fn pod_ip_may_end_with_a_newline_or_be_empty() {
    let mesh = Mesh::of([1, 2]);
    let own = mesh.ip(1).to_string();
    let node = Node::start(mesh.caller(1).env("POD_IP", own.clone() + "\n"));
    assert_eq!(node.row()["address"], own);
    drop(node);
    let node = Node::start(mesh.caller(1).env("POD_IP", ""));
    assert_eq!(node.row()["address"], Value::Null);
}
