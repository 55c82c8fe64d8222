//! `/mesh.json` and the metrics: which peers a caller with `--sample` calls, and what it knows of them.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use test_support::http::metric;

use super::*;

/// Asserts that nobody has connected to this listener.
fn assert_untouched(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("it is a socket");
    let error = listener.accept().expect_err("nobody calls itself");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_round_calls_k_steady_peers_and_one_in_turn_and_n_rounds_call_all() {
    let mesh = Mesh::of(1..=8);
    mesh.resolves_to(1..=9);
    let own = TcpListener::bind(mesh.server(9)).expect("a free port");
    let output = run(mesh
        .caller(9)
        .args(["--count=40", "--format=json", "--interval=10ms"]));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let mut rounds: Vec<(Value, BTreeSet<String>)> = Vec::new();
    for line in output.stdout.lines() {
        let call: Value = serde_json::from_str(line).expect("an object");
        if call["summary"].is_object() {
            continue;
        }
        let round = json!([call["time"], call["dns"]]);
        let address = call["address"].as_str().expect("one").to_owned();
        match rounds.last_mut() {
            Some((last, called)) if *last == round => assert!(called.insert(address), "twice"),
            _ => rounds.push((round, BTreeSet::from([address]))),
        }
    }
    let peers: BTreeSet<String> = (1..=8).map(|node| mesh.server(node).to_string()).collect();
    for (_, called) in &rounds {
        assert!((2..=3).contains(&called.len()), "{called:?}");
    }
    let steady = rounds
        .iter()
        .fold(peers.clone(), |steady, (_, called)| &steady & called);
    assert_eq!(steady.len(), 2, "{rounds:#?}");
    let within_n = rounds.iter().take(9).flat_map(|(_, called)| called.clone());
    assert_eq!(within_n.collect::<BTreeSet<_>>(), peers);
    assert_untouched(&own);
}

#[test]
fn the_row_has_the_node_itself_and_each_peer() {
    let mesh = Mesh::of(1..=4);
    let [node] = mesh.start_all([1]);
    let row = node.row();
    let ip = |node| mesh.ip(node).to_string();
    assert_eq!(
        (&row["address"], &row["node"]),
        (&ip(1).into(), &"node-1".into())
    );
    assert_eq!(row["targets"], json!([mesh.url()]));
    assert_eq!(
        (&row["interval_s"], &row["known"]),
        (&0.02.into(), &3.into())
    );
    assert_eq!((&row["lookup"], &row["mtus"]), (&Value::Null, &json!([])));
    let peers = row["peers"].as_array().expect("a list").iter();
    for (peer, node) in peers.zip(2..=4) {
        assert_eq!(
            (&peer[0], &peer[1]),
            (&ip(node).into(), &format!("node-{node}").into())
        );
        assert_eq!(peer[2], "ok");
        assert!(
            peer[3].as_f64() > Some(0.0) && peer[4].is_u64() && peer[5].is_u64(),
            "{peer}"
        );
    }
}

#[test]
fn without_pod_ip_the_own_address_is_that_of_an_interface() {
    let mesh = Mesh::of([2]);
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let own = TcpListener::bind((localhost, mesh.port)).expect("a free port");
    mesh.bed.records.set(NAME, [localhost, mesh.ip(2)]);
    let node = Node::start(mesh.caller(1).env_remove("POD_IP"));
    let row = node.wait_for_row("a call", |row| result(row, mesh.ip(2)) == Some("ok"));
    assert_eq!(row["address"], localhost.to_string());
    assert_eq!((&row["known"], count(&row["peers"])), (&1.into(), 1));
    assert_untouched(&own);
}

#[test]
fn only_calls_to_the_steady_peers_are_counted_by_node_and_all_peers_are_counted() {
    let mesh = Mesh::of(1..=6);
    let [node] = mesh.start_all([1]);
    let calls = || {
        let metrics = get(node.admin, "/metrics").body;
        let lines = metrics.lines().map(str::to_owned);
        lines
            .filter(|line| line.starts_with("caller_mesh_calls_total{"))
            .collect::<Vec<_>>()
    };
    wait_until("calls of the K", TIMEOUT, || calls().len() >= 2);
    // After 40 calls, every peer has been called.
    let ok = "caller_calls_total{result=\"ok\"}";
    wait_until("more calls", TIMEOUT, || {
        metric(node.admin, ok) >= Some(40.0)
    });
    let calls = calls();
    assert_eq!(calls.len(), 2, "{calls:#?}");
    for call in calls {
        let is_of_node =
            |node| call.contains(&format!("{{to_node=\"node-{node}\",result=\"ok\"}}"));
        assert!((2..=6).any(is_of_node), "{call}");
    }
    assert_eq!(metric(node.admin, "caller_mesh_peers"), Some(5.0));
}

#[test]
fn a_failing_peer_is_counted_by_kind_and_is_first_in_the_row_at_once() {
    let mesh = Mesh::of([1, 2]);
    mesh.resolves_to(1..=3);
    let node = mesh.start(1);
    let row = node.wait_for_row("both", |row| count(&row["peers"]) == 2);
    // A failing peer comes first. Its node is not known, because it has never responded.
    let (failing, well) = (&row["peers"][0], &row["peers"][1]);
    assert_eq!(
        failing.as_array().expect("a list")[..4],
        [
            json!(mesh.ip(3)),
            Value::Null,
            json!("connect_refused"),
            Value::Null
        ]
    );
    assert_eq!((&well[0], &well[2]), (&json!(mesh.ip(2)), &json!("ok")));
    let refused = format!(
        "caller_mesh_calls_total{{to_node=\"{}\",result=\"connect_refused\"}}",
        mesh.ip(3)
    );
    wait_until(&refused, TIMEOUT, || {
        metric(node.admin, &refused) >= Some(2.0)
    });
    // The peer recovers.
    mesh.start_server(3);
    let row = node.wait_for_row("a success", |row| result(row, mesh.ip(3)) == Some("ok"));
    assert_eq!(count(&row["peers"]), 2);
}

#[test]
fn a_caller_without_sample_has_no_mesh_metrics() {
    let mesh = Mesh::of([1, 2]);
    let node = Node::start(mesh.caller(1).env_remove("CALLER_SAMPLE"));
    let ok = "caller_calls_total{result=\"ok\"}";
    wait_until(ok, TIMEOUT, || metric(node.admin, ok) >= Some(3.0));
    let metrics = get(node.admin, "/metrics").body;
    assert!(!metrics.contains("mesh_"), "{metrics}");
}

#[test]
fn a_peer_that_leaves_dns_is_no_longer_called_and_a_new_one_is() {
    let mesh = Mesh::of(1..=4);
    let [node] = mesh.start_all([1]);
    let calls_of = |number| {
        let name = format!("caller_responses_total{{pod=\"mesh-{number}\",result=\"ok\"}}");
        metric(node.admin, &name).unwrap_or_default()
    };
    mesh.resolves_to([1, 2, 4]);
    let row = node.wait_for_row("a peer that left", |row| {
        result(row, mesh.ip(3)) == Some("left")
    });
    assert_eq!(row["known"], 2);
    let peers = |number| metric(node.admin, "caller_mesh_peers") == Some(number);
    wait_until("the round without it", TIMEOUT, || peers(2.0));
    let (gone, here) = (calls_of(3), calls_of(2));
    assert!(gone > 0.0);
    wait_until("ten more rounds", TIMEOUT, || calls_of(2) >= here + 10.0);
    assert_eq!(calls_of(3), gone);
    let unexpected = metric(node.admin, "caller_unexpected_results_total");
    assert_eq!(unexpected, Some(0.0));
    mesh.start_server(5);
    mesh.resolves_to([1, 2, 4, 5]);
    let row = node.wait_for_row("a new peer", |row| result(row, mesh.ip(5)) == Some("ok"));
    assert_eq!(row["known"], 3);
    assert_eq!(result(&row, mesh.ip(3)), Some("left"));
    wait_until("the round with it", TIMEOUT, || peers(3.0));
}

#[test]
fn a_failed_lookup_is_in_the_row_until_one_succeeds() {
    let mesh = Mesh::of(1..=3);
    let [node] = mesh.start_all([1]);
    mesh.bed.records.remove(NAME);
    let row = node.wait_for_row("a failure", |row| row["lookup"].is_array());
    assert_eq!(row["lookup"][0], "dns_nxdomain");
    assert!(row["lookup"][1].is_u64());
    // What was known of the peers stays in the row.
    assert_eq!(
        (&row["known"], result(&row, mesh.ip(2))),
        (&2.into(), Some("ok"))
    );
    mesh.resolves_to([1, 2]);
    node.wait_for_row("a lookup", |row| {
        row["lookup"].is_null() && row["known"] == 1
    });
}
