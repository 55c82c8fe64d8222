//! `once`, `diagnose` and `mesh` without a target, in a pod whose process 1 is a `caller`: they use its target. Each
//! test has a process namespace of its own.

use std::net::TcpStream;
use std::process::Command;

use test_support::bed::Bed;
use test_support::process::{Output, Process, run};
use test_support::{TIMEOUT, tool, wait_until};

use crate::CALLER;
use crate::mesh::Mesh;

/// A process namespace with a program as process 1, which is removed on drop.
struct Pod {
    _unshare: Process,
    /// The process id of process 1 outside of the namespace.
    id: String,
}

impl Pod {
    /// `None` if tools or privileges are missing: the test is to be skipped.
    fn start(program: &mut Command) -> Option<Self> {
        let (unshare, _) = (tool("unshare")?, tool("nsenter")?);
        let mut command = Command::new(unshare);
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        let may = run(Command::new(command.get_program()).args(["--pid", "--fork", "true"]));
        if may.code != Some(0) {
            assert!(std::env::var_os("CI").is_none(), "CI may: {}", may.stderr);
            return None;
        }
        command.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let unshare = Process::spawn(&mut command);
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child = || std::fs::read_to_string(&children).expect("it runs");
        // Before that, the child is a copy of unshare.
        let is_started = || {
            let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", child().trim()));
            cmdline.is_ok_and(|cmdline| {
                !cmdline.starts_with("unshare") && !cmdline.contains("/unshare")
            })
        };
        wait_until("process 1", TIMEOUT, || !child().is_empty() && is_started());
        Some(Self {
            id: child().trim().to_owned(),
            _unshare: unshare,
        })
    }

    /// A caller in the namespace, as `kubectl exec` starts it.
    fn caller(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id, "--pid", "--mount", CALLER]);
        command.args(args);
        command
    }

    /// Runs a caller in the namespace, with the environment of a caller in `bed`.
    fn exec(&self, bed: &Bed, args: &[&str]) -> Output {
        let mut command = self.caller(args);
        for (name, value) in bed.caller(CALLER).get_envs() {
            command.env(name, value.expect("it is set"));
        }
        run(&mut command)
    }
}

#[test]
fn the_default_target_is_that_of_process_1_and_is_printed() {
    let bed = Bed::start(&["backend-1"]);
    let other = bed.pod(
        "backend-headless-1",
        (std::net::Ipv4Addr::LOCALHOST, 0).into(),
    );
    let url = format!("http://{other}/headless");
    let mut loops = bed.caller(CALLER);
    let Some(pod) = Pod::start(loops.args(["--interval=1h", "--expect-status=404", &url])) else {
        return;
    };
    let expected =
        format!("caller: calling what process 1 of this pod calls, with its options: {url}\n");
    let diagnosis = pod.exec(&bed, &["diagnose"]);
    assert_eq!(diagnosis.stderr, expected);
    let target = format!("      target       {url}\n");
    assert!(
        diagnosis.stdout.starts_with(&target),
        "{}",
        diagnosis.stdout
    );
    // Its options are used as well: it expects 404, and not 200.
    assert_eq!(diagnosis.code, Some(22), "{}", diagnosis.stdout);

    let once = pod.exec(&bed, &["once", "--format=wide"]);
    assert!(
        once.stdout.contains("pod=backend-headless-1 "),
        "{}",
        once.stdout
    );
    let own = pod.exec(&bed, &["once", "--expect-status=200"]);
    assert_eq!(own.code, Some(0), "{}", own.stdout);

    let given = pod.exec(&bed, &["diagnose", &bed.url("backend")]);
    assert_eq!((given.code, given.stderr.as_str()), (Some(0), ""));
}

#[test]
fn resolve_looks_up_the_host_of_process_1s_target() {
    let bed = Bed::start(&["backend-1"]);
    let mut loops = bed.caller(CALLER);
    loops.args(["--interval=1h", "http://nosuch:8080/"]);
    let Some(pod) = Pod::start(&mut loops) else {
        return;
    };
    let followed = pod.exec(&bed, &["resolve"]);
    let said = "caller: looking up what process 1 of this pod calls, with its options: nosuch\n";
    assert_eq!((followed.code, followed.stderr.as_str()), (Some(6), said));
    let given = pod.exec(&bed, &["resolve", "backend"]);
    assert_eq!((given.code, given.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_process_1_that_is_not_a_caller_is_ignored() {
    let bed = Bed::start(&["backend-1"]);
    let mut pause = Command::new("sleep");
    let Some(pod) = Pod::start(pause.arg("600")) else {
        return;
    };
    let diagnosis = pod.exec(&bed, &["diagnose"]);
    assert_eq!((diagnosis.code, diagnosis.stderr.as_str()), (Some(0), ""));
    let target = format!("      target       {}\n", bed.url("backend"));
    assert!(
        diagnosis.stdout.starts_with(&target),
        "{}",
        diagnosis.stdout
    );
}

#[test]
fn mesh_uses_the_target_the_rows_port_and_the_resolver_of_process_1() {
    let mesh = Mesh::of([1]);
    let mut node = mesh.caller(1);
    // The options are arguments of process 1, because `kubectl exec` passes the environment on and not the arguments.
    for (option, variable) in [
        ("--sample", "CALLER_SAMPLE"),
        ("--rows-port", "CALLER_ROWS_PORT"),
        ("--nameserver", "CALLER_NAMESERVER"),
        ("--resolv-conf", "CALLER_RESOLV_CONF"),
    ] {
        let mut given = node.get_envs().filter(|(name, _)| *name == variable);
        let value = given
            .next()
            .and_then(|(_, value)| value)
            .expect("it is set")
            .to_owned();
        node.env_remove(variable).arg(option).arg(value);
    }
    let url = mesh.url();
    node.env_remove("CALLER_URL").arg(&url);
    let Some(pod) = Pod::start(&mut node) else {
        return;
    };
    let admin = mesh.rows(1);
    wait_until("the row", TIMEOUT, || TcpStream::connect(admin).is_ok());
    let output = run(&mut pod.caller(&["mesh"]));
    let expected =
        format!("caller: calling what process 1 of this pod calls, with its options: {url}\n");
    assert_eq!(output.stderr, expected);
    assert_eq!(
        (output.code, output.stdout.lines().next()),
        (Some(0), Some("OK      1 node, and no other to reach"))
    );
    // A target and options on the command line override those of process 1.
    let given = run(&mut pod.caller(&["mesh", "http://127.0.0.1/", "--rows-port=1"]));
    assert_eq!((given.code, given.stderr.as_str()), (Some(3), ""));
}

#[test]
fn mesh_ignores_the_target_of_a_process_1_without_sample() {
    let bed = Bed::start(&["backend-1"]);
    let mut loops = bed.caller(CALLER);
    // An empty variable, as a template may leave it, counts as none.
    loops.env("CALLER_SAMPLE", "").arg("--interval=1h");
    let Some(pod) = Pod::start(&mut loops) else {
        return;
    };
    // `kubectl exec` passes on the container's environment, which has a target.
    let output = pod.exec(&bed, &["mesh", "--format=json"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(3), ""));
    let matrix: serde_json::Value = serde_json::from_str(&output.stdout).expect("an object");
    assert_eq!(matrix["targets"], serde_json::json!(["http://mesh:8080/"]));
}
