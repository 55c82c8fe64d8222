//! A rolling replacement of the backends fails no call: neither on new connections nor on kept ones, neither over
//! HTTP/1 nor over HTTP/2.
//!
//! As in a cluster, a new pod is started before an old one stops, and the Service goes on sending to the old one for a
//! while after that has been asked to stop.

use std::time::Duration;

use local_cluster::cluster::{any_port, backend};
use runtime::server::Drain;
use test_support::bed::Bed;
use test_support::process::{Output, Process, Signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const REPLACEMENTS: usize = 10;

/// How long the Service goes on sending to a pod that has been asked to stop.
const ENDPOINT_DELAY: Duration = Duration::from_millis(200);

/// The drain delay is longer than [`ENDPOINT_DELAY`], as it is in the manifests.
const DRAIN: Drain = Drain {
    delay: Duration::from_millis(500),
    timeout: Duration::from_secs(15),
};

/// A backend that can be asked to stop.
struct Pod {
    addr: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Pod {
    fn start(n: usize) -> Self {
        let server = backend(&format!("backend-{n}"), any_port(), DRAIN).expect("a free port");
        let addr = server.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { addr, stop, ended }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_replacement_fails_no_call() {
    let bed = tokio::task::block_in_place(|| Bed::start(&[]));
    let mut pods = vec![Pod::start(0), Pod::start(1)];
    let publish = |pods: &[Pod]| {
        let addresses: Vec<_> = pods.iter().map(|pod| pod.addr).collect();
        bed.endpoints.set(addresses);
    };
    publish(&pods);
    let modes = [
        &[][..],
        &["--keep-alive"],
        &["--http2"],
        &["--http2", "--keep-alive"],
    ];
    let callers = modes.map(|mode| {
        let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
        Process::spawn(
            command
                .args(["--interval=20ms", "--format=wide"])
                .args(mode),
        )
    });
    for caller in &callers {
        caller.wait_for_stdout("Response received successfully!");
    }
    for n in 0..REPLACEMENTS {
        pods.push(Pod::start(n + 2));
        publish(&pods);
        let Pod { stop, ended, .. } = pods.remove(0);
        stop.send(()).expect("it runs");
        sleep(ENDPOINT_DELAY).await;
        publish(&pods);
        ended.await.expect("no panic").expect("a clean end");
    }
    for (caller, mode) in callers.into_iter().zip(modes) {
        caller.signal(Signal::INT);
        let Output { code, stdout, .. } = caller.finish();
        let (log, summary) = stdout.rsplit_once("\n--- ").expect("a summary");
        let failed: Vec<&str> = log.lines().filter(|line| line.contains("ailed")).collect();
        assert!(
            summary.contains(" 0 failed (0.0%)"),
            "{mode:?}: {summary}\n{failed:#?}"
        );
        assert_eq!(code, Some(0));
        // A kept connection ends with its pod, so at least three pods have responded.
        let answered = summary.matches("answered by: backend-").count();
        let at_least = if mode.contains(&"--keep-alive") {
            3
        } else {
            REPLACEMENTS
        };
        assert!(answered >= at_least, "{mode:?}: {summary}");
    }
    // The bed has a runtime of its own, which must not be dropped inside another one.
    tokio::task::block_in_place(|| drop(bed));
}
