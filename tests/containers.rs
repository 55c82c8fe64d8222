//! The images, built with the real Dockerfile and run as in a cluster: with a read-only file system, without
//! capabilities, under a numeric user, with the memory limit of the manifests, on a private network.
//!
//! The tests need a Docker engine. Where the builder image of the Dockerfile is missing and cannot be pulled,
//! `containers/stand-in-builder` makes one from the toolchain of this machine.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use test_support::documents::root;
use test_support::http::get;
use test_support::process::{Output, run};
use test_support::{TIMEOUT, tool, wait_until};

const ECHO_SERVER: &str = "pod-to-pod-communication-test/echo-server";
const CALLER: &str = "pod-to-pod-communication-test/caller";
const TEXT: &str = "Hello from Backend Service!";

fn try_docker(args: &[&str]) -> Output {
    run(Command::new("docker")
        .args(args)
        .env("DOCKER_BUILDKIT", "0"))
}

/// Runs `docker`, which must succeed, and returns its output.
fn docker(args: &[&str]) -> String {
    let Output {
        code,
        stdout,
        stderr,
    } = try_docker(args);
    assert_eq!(code, Some(0), "docker {args:?}: {stderr}");
    stdout.trim_end().to_owned()
}

/// Whether there is a Docker engine. If there is, builds the images, once for all tests.
fn images() -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| {
        if tool("docker").is_none() || try_docker(&["version"]).code != Some(0) {
            assert!(std::env::var_os("CI").is_none(), "CI has no Docker engine");
            return false;
        }
        let builder = Builder::provide();
        for (target, tag) in [("echo-server", ECHO_SERVER), ("caller", CALLER)] {
            // A build takes minutes, so its progress is printed.
            let built = Command::new("docker")
                .args(["build", "--target", target, "--tag", tag, "."])
                .current_dir(root())
                .stdout(Stdio::null())
                .status();
            assert!(
                built.expect("docker was there").success(),
                "the build of {target} failed"
            );
        }
        drop(builder);
        true
    })
}

/// The builder image of the Dockerfile. The name of a stand-in is removed on drop.
struct Builder(Option<String>);

impl Builder {
    fn provide() -> Self {
        let dockerfile = fs::read_to_string(root().join("Dockerfile")).expect("it is there");
        let mut from = dockerfile
            .lines()
            .filter_map(|line| line.strip_prefix("FROM "));
        let name = from
            .next()
            .and_then(|from| from.split(' ').next())
            .expect("a builder");
        let is_there = |image: &str| try_docker(&["image", "inspect", image]).code == Some(0);
        if is_there(name) || try_docker(&["pull", "--quiet", name]).code == Some(0) {
            return Self(None);
        }
        let stand_in = format!("pod-to-pod-communication-test/builder:{:x}", fingerprint());
        if !is_there(&stand_in) {
            let made = Command::new(root().join("tests/containers/stand-in-builder"))
                .arg(&stand_in)
                .status();
            assert!(
                made.expect("it is there").success(),
                "no stand-in for {name}"
            );
        }
        docker(&["tag", &stand_in, name]);
        Self(Some(name.to_owned()))
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            docker(&["rmi", name]);
        }
    }
}

/// A hash of what a stand-in is made from: the lock file, whose crates it contains, and the script.
fn fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in ["Cargo.lock", "tests/containers/stand-in-builder"] {
        fs::read(root().join(file))
            .expect("it is there")
            .hash(&mut hasher);
    }
    hasher.finish()
}

/// A network with containers, all of which are removed on drop.
struct Network {
    name: String,
    containers: Vec<String>,
}

impl Network {
    fn new(test: &str) -> Self {
        let name = format!(
            "pod-to-pod-communication-test-{test}-{}",
            std::process::id()
        );
        docker(&["network", "create", "--internal", &name]);
        Self {
            name,
            containers: Vec::new(),
        }
    }

    /// Starts a container with the restrictions of the manifests.
    fn start(&mut self, name: &str, options: &[&str], image: &str, args: &[&str]) -> String {
        let full_name = format!("{}-{name}", self.name);
        let pod_name = format!("POD_NAME={name}");
        let mut command = vec![
            "run",
            "--detach",
            "--name",
            &full_name,
            "--network",
            &self.name,
        ];
        command.extend([
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ]);
        // These are the values in the manifests.
        let memory = if image == CALLER { "32m" } else { "64m" };
        command.extend(["--memory", memory, "--pids-limit=64", "--env", &pod_name]);
        command.extend(options);
        command.push(image);
        command.extend(args);
        docker(&command);
        self.containers.push(full_name.clone());
        full_name
    }

    fn backend(&mut self, name: &str) -> String {
        let text = format!("-text={TEXT}");
        let args = [&text, "-listen=:8080", "--drain-delay=1s"];
        let alias = ["--network-alias=backend"];
        let container = self.start(name, &alias, ECHO_SERVER, &args);
        wait_for_log(&container, "server is listening");
        container
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for container in &self.containers {
            let _ = try_docker(&["rm", "--force", container]);
        }
        let _ = try_docker(&["network", "rm", &self.name]);
    }
}

fn logs(container: &str) -> String {
    let Output { stdout, stderr, .. } = try_docker(&["logs", container]);
    stdout + &stderr
}

fn wait_for_log(container: &str, what: &str) {
    wait_until(what, TIMEOUT, || logs(container).contains(what));
}

fn inspect(what: &str, format: &str) -> String {
    docker(&["inspect", "--format", format, what])
}

/// Limits on the compressed sizes of the images, in bytes. A size is exact, so it may be asserted.
const BUDGETS: [(&str, &str, u64); 2] = [
    (ECHO_SERVER, "/bin/echo-server", 1_250_000),
    (CALLER, "/bin/caller", 2_350_000),
];

#[test]
fn images_are_below_their_size_limits() {
    if !images() {
        return;
    }
    for (image, binary, budget) in BUDGETS {
        let container = docker(&["create", image]);
        // The only layer has the binary and nothing else.
        let layer = format!("docker cp {container}:{binary} - | gzip -9 | wc -c");
        let output = run(Command::new("sh").args(["-c", &layer]));
        docker(&["rm", &container]);
        let size: u64 = output.stdout.trim().parse().expect("a number");
        eprintln!("{image}: {size} bytes compressed, of {budget}");
        assert!(size > budget / 2, "{image}: {size} bytes are no binary");
        assert!(size <= budget, "{image}: {size} bytes, of {budget}");
    }
}

#[test]
fn an_image_has_one_static_binary_and_a_numeric_user() {
    if !images() {
        return;
    }
    for (image, binary, others) in [
        (ECHO_SERVER, "echo-server", &[][..]),
        // The link `curl` to caller.
        (CALLER, "caller", &["bin/curl"]),
    ] {
        assert_eq!(inspect(image, "{{.Config.User}}"), "65532:65532");
        assert_eq!(inspect(image, "{{len .RootFS.Layers}}"), "1");
        assert_eq!(
            inspect(image, "{{json .Config.Entrypoint}}"),
            format!("[\"/bin/{binary}\"]")
        );
        let label = |name: &str| {
            inspect(
                image,
                &format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}"),
            )
        };
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("title"), binary);

        let container = docker(&["create", image]);
        let tar = std::env::temp_dir().join(format!("{container}.tar"));
        docker(&[
            "export",
            "--output",
            tar.to_str().expect("text"),
            &container,
        ]);
        docker(&["rm", &container]);
        let files = run(Command::new("tar").arg("tf").arg(&tar)).stdout;
        let unpacked = run(Command::new("tar")
            .arg("xOf")
            .arg(&tar)
            .arg(format!("bin/{binary}"))
            .stdout(Stdio::piped()));
        fs::remove_file(&tar).expect("it was there");
        assert_eq!(unpacked.code, Some(0));
        // Files that the engine adds to every container are not part of the image.
        let engines = ["dev/", "etc/", "proc/", "sys/", ".dockerenv"];
        let own: Vec<&str> = files
            .lines()
            .filter(|file| !engines.iter().any(|dir| file.starts_with(dir)))
            .collect();
        let binary_file = format!("bin/{binary}");
        assert_eq!(own, [&["bin/", binary_file.as_str()], others].concat());
        // A dynamically linked ELF file names its interpreter, the dynamic loader.
        assert!(
            !unpacked.stdout.contains("/ld-linux"),
            "{binary} is not static"
        );
    }
}

#[test]
fn frontends_call_backends_recover_from_a_failure_and_stop_in_time() {
    if !images() {
        return;
    }
    let mut network = Network::new("pair");
    // The frontends start first, as they may in a cluster, and yet the first call is a success.
    let args = ["--wait=2m", "--interval=100ms", "--format=wide"];
    let frontends =
        ["frontend-1", "frontend-2"].map(|name| network.start(name, &[], CALLER, &args));
    let backends = ["backend-1", "backend-2"].map(|name| network.backend(name));
    for frontend in &frontends {
        for backend in ["backend-1", "backend-2"] {
            wait_for_log(frontend, &format!("\npod={backend} "));
        }
        let log = logs(frontend);
        let block: Vec<&str> = log.lines().take(3).collect();
        assert!(
            block[0].starts_with("=== Frontend calling Backend at "),
            "{log}"
        );
        assert_eq!(
            block[1..],
            [TEXT, "Response received successfully!"],
            "{log}"
        );
    }
    assert!(logs(&backends[0]).contains("\"GET / HTTP/1.1\" 200 28 \"caller/"));

    // The image has nothing but the binary, which is on the PATH.
    let exec = |args: &[&str]| try_docker(&[&["exec", &frontends[0], "caller"], args].concat());
    assert_eq!(exec(&["once"]).code, Some(0));
    let diagnosis = exec(&["diagnose"]);
    assert_eq!(
        (
            diagnosis.code,
            diagnosis.stdout.matches("ok    HTTP").count()
        ),
        (Some(0), 2)
    );
    assert_eq!(exec(&["once", "http://nosuch:8080/"]).code, Some(6));
    // The command with which the original demo is checked.
    let curl = try_docker(&["exec", &frontends[0], "curl", "http://backend:8080"]);
    let printed = (curl.code, curl.stdout.as_str());
    assert_eq!(printed, (Some(0), "Hello from Backend Service!\n"));
    let shell = try_docker(&["exec", &frontends[0], "sh", "-c", "true"]);
    assert_ne!(shell.code, Some(0));

    // One backend is killed: calls to it fail, and later calls succeed again.
    docker(&["kill", &backends[0]]);
    for frontend in &frontends {
        let before = logs(frontend).len();
        wait_until("a success of the backend that is left", TIMEOUT, || {
            logs(frontend)[before..].contains("\npod=backend-2 ")
        });
    }

    for (container, grace_period) in [
        (&frontends[0], "10"),
        (&frontends[1], "10"),
        (&backends[1], "30"),
    ] {
        docker(&["stop", "--time", grace_period, container]);
        assert_eq!(
            inspect(container, "{{.State.ExitCode}} {{.State.OOMKilled}}"),
            "0 false"
        );
    }
    assert!(logs(&frontends[0]).contains(" call statistics ---"));
    assert!(logs(&backends[1]).contains("drained"));
}

#[test]
fn a_rolling_replacement_of_containers_fails_no_call() {
    if !images() {
        return;
    }
    let mut network = Network::new("rollout");
    let mut backends = vec![network.backend("backend-0"), network.backend("backend-1")];
    let modes = [
        ("fresh", &[][..]),
        ("kept", &["--keep-alive"]),
        ("http2", &["--http2", "--keep-alive"]),
    ];
    let frontends = modes.map(|(name, mode)| {
        network.start(name, &[], CALLER, &[&["--interval=20ms"], mode].concat())
    });
    for frontend in &frontends {
        wait_for_log(frontend, "Response received successfully!");
    }
    for n in 2..12 {
        backends.push(network.backend(&format!("backend-{n}")));
        docker(&["stop", "--time=30", &backends.remove(0)]);
    }
    for frontend in &frontends {
        docker(&["stop", "--time=10", frontend]);
        let log = logs(frontend);
        let (_, summary) = log.rsplit_once("\n--- ").expect("a summary");
        println!("{summary}");
        assert!(summary.contains(" 0 failed (0.0%)"), "{summary}");
        assert!(
            summary.matches("answered by: backend-").count() >= 10,
            "{summary}"
        );
    }
}

#[test]
fn the_text_may_come_from_the_environment() {
    if !images() {
        return;
    }
    let mut network = Network::new("env");
    let options = [
        "--network-alias=backend",
        "--env=ECHO_TEXT=from the environment",
    ];
    let backend = network.start("backend-1", &options, ECHO_SERVER, &[]);
    wait_for_log(&backend, "server is listening");
    let once = ["once", "--expect=ok"];
    let test = network.start("test", &[], CALLER, &once);
    wait_for_log(
        &test,
        "\nfrom the environment\nResponse received successfully!\n",
    );
    let no_text = network.start("no-text", &[], ECHO_SERVER, &[]);
    wait_for_log(&no_text, "Missing -text option or ECHO_TEXT env var!");
    assert_eq!(docker(&["wait", &no_text]), "127");
}

/// The limits of a backend in the manifest: its `--max-connections`, and its memory in the format of Docker.
fn backend_limits() -> (String, String) {
    let manifest = root().join("kustomize/base/backend/deployment.yaml");
    let manifest = fs::read_to_string(manifest).expect("it is there");
    let after = |what: &str| {
        let (_, rest) = manifest.split_once(what).expect("it is in the manifest");
        rest.lines().next().expect("a value").trim().to_owned()
    };
    let connections = format!("--max-connections={}", after("--max-connections="));
    let (_, limits) = manifest.split_once("limits:").expect("limits");
    let (_, memory) = limits.split_once("memory:").expect("a limit");
    let memory = memory.lines().next().expect("a value").trim();
    (connections, memory.replace("Mi", "m"))
}

/// Encodes a header field without compression or indexing (RFC 7541, section 6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).expect("a short name")];
    field.extend_from_slice(name);
    match u8::try_from(value.len()) {
        Ok(length) if length < 127 => field.push(length),
        _ => {
            field.push(127);
            let mut rest = value.len() - 127;
            while rest >= 128 {
                field.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            field.push(rest as u8);
        }
    }
    field.extend_from_slice(value);
    field
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Traffic that makes a server use much memory, with a name for each kind.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let fields: String = (0..94)
        .map(|n| format!("h{n:02}: {}\r\n", "v".repeat(230)))
        .collect();
    let id = |length| format!("X-Request-Id: {}\r\n", "i".repeat(length));
    let http1 = |text: String| text.into_bytes();
    let http2 = |frames: Vec<u8>| {
        let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
        [preface, &frame(4, 0, 0, &[]), &frames].concat()
    };
    let get = [0x82, 0x86, 0x84, 0x41, 1, b'b'];
    let post = [0x83, 0x86, 0x84, 0x41, 1, b'b'];
    let tiny: Vec<u8> = (0..400)
        .flat_map(|n| literal(format!("{n:03x}").as_bytes(), b""))
        .collect();
    let long = literal(b"x-request-id", &[b'i'; 15_000]);
    let streams = |n: u32, flags: u8, head: &[u8]| -> Vec<u8> {
        (0..n)
            .flat_map(|k| frame(HEADERS, flags | END_HEADERS, 2 * k + 1, head))
            .collect()
    };
    vec![
        (
            "full heads, answered",
            http1(format!("GET / HTTP/1.1\r\nHost: b\r\n{fields}\r\n")),
        ),
        (
            "full heads without an end",
            http1(format!("GET / HTTP/1.1\r\nHost: b\r\n{fields}X: ")),
        ),
        (
            "full heads, and bodies without an end",
            http1(format!(
                "POST / HTTP/1.1\r\nHost: b\r\n{}Content-Length: 9\r\n\r\nx",
                id(23_000)
            )),
        ),
        (
            "trailers without an end",
            http1(format!(
                "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n{}\r\n1\r\nx\r\n0\r\nt: {}",
                id(22_000),
                "x".repeat(15_000)
            )),
        ),
        (
            "pipelined requests whose answers nobody reads",
            http1(format!("GET / HTTP/1.1\r\nHost: b\r\n{}\r\n", id(8_000)).repeat(200)),
        ),
        (
            "streams of tiny fields",
            http2(streams(32, 0, &[&post[..], &tiny].concat())),
        ),
        (
            "a block of tiny fields without an end",
            http2(frame(HEADERS, 0, 1, &[&get[..], &tiny].concat())),
        ),
        (
            "streams of large fields",
            http2(streams(16, 0, &[&post[..], &long].concat())),
        ),
        (
            "large answers that nobody reads",
            http2(streams(300, END_STREAM, &[&get[..], &long].concat())),
        ),
    ]
}

/// Sends the same bytes on many connections at once, as many of them as the server reads.
fn flood(addr: SocketAddr, connections: usize, bytes: &[u8]) -> Vec<TcpStream> {
    const SENDERS: usize = 128;
    let send = |_| {
        let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT).ok()?;
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .ok()?;
        // The server may stop reading, or close the connection.
        let _ = stream.write_all(bytes);
        Some(stream)
    };
    thread::scope(|scope| {
        let senders = (0..SENDERS).map(|_| {
            scope.spawn(|| {
                (0..connections / SENDERS)
                    .filter_map(send)
                    .collect::<Vec<_>>()
            })
        });
        let senders: Vec<_> = senders.collect();
        senders
            .into_iter()
            .flat_map(|sender| sender.join().expect("it does not panic"))
            .collect()
    })
}

#[test]
fn a_backend_stays_below_its_memory_limit_whatever_is_sent() {
    if !images() {
        return;
    }
    let (connections, memory) = backend_limits();
    for (name, bytes) in attacks() {
        let mut network = Network::new("memory");
        let options = ["--memory", &memory, "--memory-swap", &memory];
        let args = ["-text=x", &connections, "--access-log=off"];
        let backend = network.start("backend-1", &options, ECHO_SERVER, &args);
        wait_for_log(&backend, "server is listening");
        let ip = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip: IpAddr = inspect(&backend, ip).parse().expect("an address");
        let (addr, admin) = (SocketAddr::new(ip, 8080), SocketAddr::new(ip, 8081));
        let held = flood(addr, 1100, &bytes);
        assert_eq!(get(addr, "/").status(), 200, "{name}");
        assert_eq!(get(admin, "/livez").status(), 200, "{name}");
        let usage = [
            "stats",
            "--no-stream",
            "--format",
            "{{.MemUsage}}",
            &backend,
        ];
        eprintln!(
            "{name}: {} of {} connections, {}",
            docker(&usage),
            held.len(),
            connections
        );
        drop(held);
        assert_eq!(get(addr, "/").status(), 200, "{name}");
        let state = inspect(
            &backend,
            "{{.State.Running}} {{.State.OOMKilled}} {{.RestartCount}}",
        );
        assert_eq!(state, "true false 0", "{name}: {}", logs(&backend));
    }
}
