//! The README and the pages in `docs` say what the program does: samples of output are compared with what is
//! printed, tables with what is declared, and commands and links with what exists.

#[path = "documents/mesh.rs"]
mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use caller::failure::FailureKind;
use caller::verdict;
use serde_json::Value;
use test_support::documents::{
    Page, anchors, assert_shown, blocks, checked_by, page, pages, root, shows,
};
use test_support::http::get;
use test_support::pki::{Pki, free_addr};
use test_support::process::{Output, Process, Signal, run};
use test_support::{TIMEOUT, wait_until};

/// Limit on the lines of the README, so that it is read to its end.
const README_LINES: usize = 180;

/// How often the command of a sample is run at most: which pod responds is chosen at random for each call, and a sample
/// may need both, or one of them first.
const TRIES: usize = 30;

fn local_cluster() -> Command {
    Command::new(env!("CARGO_BIN_EXE_local-cluster"))
}

/// A running local cluster and the addresses of its parts.
struct Cluster {
    /// The environment variables that tell a caller its name server and its target.
    env: [(&'static str, String); 3],
    backends: Vec<SocketAddr>,
    frontends: Vec<SocketAddr>,
    _process: Process,
}

impl Cluster {
    fn start(flags: &str) -> Self {
        let mut command = local_cluster();
        let process = Process::spawn(
            command
                .args(["--interval", "1h"])
                .args(flags.split_whitespace()),
        );
        let suggestion = process.wait_for_stdout(" caller diagnose ");
        let words: Vec<&str> = suggestion.split_whitespace().collect();
        let [
            ..,
            "--resolv-conf",
            resolv_conf,
            "--nameserver",
            nameserver,
            url,
        ] = words[..]
        else {
            panic!("{suggestion}");
        };
        let banner = process.stdout();
        let admin = |what: &str| {
            let pods = banner.lines().filter(|line| line.starts_with("pod "));
            pods.filter_map(|pod| pod.split_once(what)?.1.split('/').next()?.parse().ok())
                .collect()
        };
        Self {
            env: [
                ("CALLER_RESOLV_CONF", resolv_conf.to_owned()),
                ("CALLER_NAMESERVER", nameserver.to_owned()),
                ("CALLER_URL", url.to_owned()),
            ],
            backends: admin("metrics at http://"),
            frontends: admin("live page at http://"),
            _process: process,
        }
    }

    /// A command that runs a caller in this cluster. The port 18080 of the pages is replaced by that of the Service
    /// here, which may be another one.
    fn caller(&self, args: &str) -> Command {
        let [.., (_, url)] = &self.env;
        let (_, port) = url.rsplit_once(':').expect("a port");
        let args = args.replace("18080", port.trim_end_matches('/'));
        let mut command = local_cluster();
        command
            .arg("caller")
            .args(args.split_whitespace())
            .env("CALLER_ADMIN_LISTEN", "off")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

#[test]
fn the_readme_is_short_enough_to_be_read_to_its_end() {
    let lines = page("README.md").lines().count();
    assert!(lines <= README_LINES, "{lines} lines: move some to docs/");
}

/// The text of every source file in a folder and the folders below it.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let texts = paths.map(|path| match path.is_dir() {
        true => sources(&path),
        false if path.extension().is_some_and(|extension| extension == "rs") => {
            fs::read_to_string(&path).expect("text")
        }
        false => String::new(),
    });
    texts.collect()
}

#[test]
fn every_block_says_which_test_holds_it() {
    let folders = ["tests", "crates"].map(|folder| root().join(folder));
    let tests: String = folders.iter().map(|folder| sources(folder)).collect();
    let blocks = blocks();
    assert!(blocks.len() >= 40, "{}", blocks.len());
    for block in blocks {
        let place = &block.place;
        match block.comment.split_once(": ") {
            Some(("output of", _)) => {}
            Some(("checked by", test)) => {
                let is_there = tests.contains(&format!("\nfn {test}() {{"));
                assert!(is_there, "{place}: there is no test {test}");
                // The test gets its blocks by its own name.
                let takes_it = tests.contains(&format!("\"{test}\""));
                assert!(takes_it, "{place}: {test} does not take the block");
            }
            Some(("not run", reason)) => assert!(!reason.trim().is_empty(), "{place}: why not?"),
            _ => panic!("{place}: a comment above it has to say how it is tested"),
        }
    }
}

#[test]
fn samples_of_output_are_what_the_program_prints() {
    let mut compared = 0;
    for block in blocks() {
        let Some(command) = block.comment.strip_prefix("output of: ") else {
            continue;
        };
        let (command, cluster) = command
            .split_once("; in: local-cluster ")
            .unwrap_or((command, ""));
        let (program, args) = command.split_once(' ').unwrap_or((command, ""));
        assert_eq!(program, "caller", "{}", block.place);
        let cluster = Cluster::start(cluster);
        let mut printed = String::new();
        let is_shown = (0..TRIES).any(|_| {
            printed = run(&mut cluster.caller(args)).stdout;
            shows(&printed, &block.text)
        });
        assert!(
            is_shown,
            "{}:\n{}`{command}` prints:\n{printed}",
            block.place, block.text
        );
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
}

/// The commands in the shell blocks of a text and between its backticks: the program, which is caller or
/// local-cluster, and its arguments.
fn commands(text: &str) -> Vec<(&'static str, String)> {
    let mut commands = Vec::new();
    let mut is_shell = false;
    for line in text.replace("\\\n", " ").lines() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
        } else if is_shell {
            commands.extend(command(line));
        } else {
            // Every second part is between backticks.
            commands.extend(line.split('`').skip(1).step_by(2).filter_map(command));
        }
    }
    commands
}

/// The program and the arguments of a line that runs caller or local-cluster, in a pod or on this machine.
fn command(line: &str) -> Option<(&'static str, String)> {
    let line = line.split([';', '&', '|', '>', '#']).next()?.trim();
    if let Some(args) = line.strip_prefix("cargo run --release -p local-cluster") {
        return Some(("local-cluster", args.trim_start_matches(" -- ").to_owned()));
    }
    let (outside, inside) = line.split_once("-- ").unwrap_or(("", line));
    let inside = inside.trim_start();
    let args = |program| match inside.strip_prefix(program)? {
        "" => Some(String::new()),
        args => args.strip_prefix(' ').map(str::to_owned),
    };
    match args("local-cluster") {
        Some(args) => Some(("local-cluster", args)),
        // The entry point of the image.
        None if outside.contains("kubectl run") && outside.contains("--image=caller:") => {
            Some(("caller", inside.to_owned()))
        }
        None => args("caller").map(|args| ("caller", args)),
    }
}

#[test]
fn commands_have_flags_that_exist() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        for (program, args) in commands(&page.text) {
            let mut command = local_cluster();
            command.args((program == "caller").then_some(program));
            // `--help` comes last, because flags before it are parsed first, and an unknown one is an error.
            let output = run(command.args(args.split_whitespace()).arg("--help"));
            let path = &page.path;
            assert_eq!(output.code, Some(0), "{path}: {args}: {}", output.stderr);
            seen.insert(format!("{program} {args}"));
        }
    }
    assert!(seen.len() >= 15, "{seen:?}");
}

#[test]
fn images_have_the_tag_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for page in pages() {
        for (number, line) in (1..).zip(page.text.lines()) {
            for name in ["caller:", "echo-server:"] {
                for (_, rest) in line.match_indices(name).map(|(at, _)| line.split_at(at)) {
                    let tag = &rest[name.len()..];
                    let is_tag = tag.starts_with(|c: char| c.is_ascii_digit());
                    assert!(
                        !is_tag || tag.starts_with(version),
                        "{}:{number}: {line}",
                        page.path
                    );
                }
            }
        }
    }
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let others = [
        "CONTRIBUTING.md",
        "kustomize/components/monitoring/runbook.md",
    ];
    let others = others.map(|path| Page {
        text: page(path),
        path: path.to_owned(),
    });
    for page in pages().into_iter().chain(others) {
        let folder = root().join(&page.path);
        let folder = folder.parent().expect("a folder");
        for (start, _) in page.text.match_indices("](") {
            let (_, link) = page.text.split_at(start + 2);
            let link = link.split(')').next().expect("text");
            if link.starts_with("https://") {
                continue;
            }
            let line = page.text[..start].lines().last().expect("text");
            let place = format!("{}: {link}", page.path);
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path: PathBuf = match file {
                "" => root().join(&page.path),
                file => folder.join(file),
            };
            // A picture that does not exist yet may be linked in a comment.
            let is_hidden = line.starts_with("<!-- ");
            assert_eq!(path.exists(), !is_hidden, "{place}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(path).expect("a page");
                assert!(anchors(&text).contains(anchor), "{place}");
            }
        }
    }
}

#[test]
fn the_first_commands_of_the_readme_run() {
    let blocks = checked_by("the_first_commands_of_the_readme_run");
    let [block] = &blocks[..] else {
        panic!("{blocks:?}");
    };
    // The second command is the one that runs this test.
    assert_eq!(
        block.text,
        "cargo run --release -p local-cluster\ncargo test --workspace\n"
    );
    let cluster = Process::spawn(&mut local_cluster());
    cluster.wait_for_stdout("live page at http://");
    cluster.wait_for_stdout(" caller diagnose ");
    cluster.wait_for_stdout("Response received successfully!");
    cluster.signal(Signal::INT);
    assert_eq!(cluster.finish().code, Some(0));
}

#[test]
fn the_files_of_targets_are_read() {
    let cluster = Cluster::start("");
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("targets");
    for block in checked_by("the_files_of_targets_are_read") {
        let lines = block.text.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<Vec<&str>> = lines
            .map(|line| line.split_whitespace().collect())
            .collect();
        fs::write(&file, &block.text).expect("it can be written");
        let args = format!("once --format json --targets {}", file.display());
        let output = run(&mut cluster.caller(&args));
        // A bad file would exit with 2.
        assert_eq!(output.code, Some(1), "{}: {}", block.place, output.stderr);
        let reports = output.stdout.lines().map(|line| {
            let report: Value = serde_json::from_str(line).expect("JSON");
            (report["expectation"].clone(), report["as_expected"].clone())
        });
        for (report, line) in reports.zip(&lines) {
            // In this cluster, only the target with the name that does not exist ends as expected.
            assert_eq!(report, (line[0].into(), (line[0] == "dns_nxdomain").into()));
        }
        assert_eq!(output.stdout.lines().count(), lines.len());
    }
}

#[test]
fn an_expired_certificate_is_shown_as_in_the_docs() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let _server = pki.serve(addr, "expired", &[]);
    let mut command = local_cluster();
    command
        .args(["caller", "diagnose", "--cacert"])
        .arg(pki.file("ca.pem"))
        .arg(format!("https://localhost:{}/", addr.port()));
    let Output { stdout, .. } = run(&mut command);
    assert_shown("an_expired_certificate_is_shown_as_in_the_docs", &stdout);
}

#[test]
fn the_status_has_what_the_docs_take_from_it() {
    let cluster = Cluster::start("");
    let reply = get(cluster.frontends[0], "/status.json");
    let status: Value = serde_json::from_str(&reply.body).expect("JSON");
    for block in checked_by("the_status_has_what_the_docs_take_from_it") {
        let (_, names) = block.text.split_once('{').expect("an object");
        let (names, _) = names.split_once('}').expect("an object");
        for name in names.split(", ") {
            assert!(status.get(name).is_some(), "{}: {name}", block.place);
        }
    }
}

#[test]
fn kinds_of_failure_are_those_of_the_program() {
    let text = page("docs/failures.md");
    let (_, table) = text.split_once("\n| kind | exit code |").expect("a table");
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let kinds = FailureKind::ALL.iter();
    let expected: Vec<String> = kinds
        .map(|kind| {
            let (label, code) = (kind.label(), kind.exit_code());
            let (words, cause) = (verdict::words(*kind), verdict::usual_cause(*kind));
            format!("| [`{label}`](#{label}) | {code} | {words} | {cause} |")
        })
        .collect();
    assert_eq!(rows, expected);
    let entries = text.lines().filter_map(|line| line.strip_prefix("### "));
    let labels = FailureKind::ALL.iter().map(|kind| kind.label());
    assert_eq!(entries.collect::<Vec<_>>(), labels.collect::<Vec<_>>());
}

/// The metrics at an admin port, and the labels of each, except the label `le` of histograms.
fn metrics(admin: SocketAddr) -> BTreeMap<String, BTreeSet<String>> {
    let text = get(admin, "/metrics").body;
    let mut metrics = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            (name, _) = declared.split_once(' ').expect("a type");
        } else if !line.starts_with('#') {
            let labels: &mut BTreeSet<String> = metrics.entry(name.to_owned()).or_default();
            // No value of a label in this test has a comma or a quote in it.
            let (_, values) = line.split_once('{').unwrap_or_default();
            let parts = values.split(',').filter_map(|part| part.split_once("=\""));
            labels.extend(
                parts
                    .map(|(label, _)| label.to_owned())
                    .filter(|label| label != "le"),
            );
        }
    }
    metrics
}

#[test]
fn metrics_are_those_that_are_exposed() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let _server = pki.serve(addr, "good", &[]);
    let cluster = Cluster::start("");
    let url = format!("https://localhost:{}/", addr.port());
    let mut command = cluster.caller(&format!("http://backend:18080/ {url}"));
    command
        .arg("--cacert")
        .arg(pki.file("ca.pem"))
        .args(["--interval=100ms", "--log-level=info"])
        .env("CALLER_ADMIN_LISTEN", "127.0.0.1:0");
    let caller = Process::spawn(&mut command);
    let admin = caller.wait_for_field("admin is listening", "address");
    let admin = admin.parse().expect("an address");
    // These metrics are there only once they have a value.
    let late = [
        "caller_dns_questions_total",
        "caller_responses_total",
        "caller_tls_certificate_not_after_timestamp_seconds",
    ];
    wait_until("an answer of each target", TIMEOUT, || {
        let metrics = metrics(admin);
        late.iter().all(|name| metrics.contains_key(*name))
    });
    let mut exposed = metrics(admin);
    wait_until("a request to each backend", TIMEOUT, || {
        cluster
            .backends
            .iter()
            .all(|backend| metrics(*backend).contains_key("echo_server_requests_total"))
    });
    exposed.extend(metrics(cluster.backends[0]));
    let mesh = Process::spawn(local_cluster().args(["--nodes=2", "--interval=1s"]));
    let line = mesh.wait_for_stdout("mesh, page at http://");
    let (_, url) = line.split_once("http://").expect("a URL");
    let admin = url.trim_end_matches("/mesh").parse().expect("an address");
    wait_until("a call of the mesh", TIMEOUT, || {
        metrics(admin).contains_key("caller_mesh_calls_total")
    });
    exposed.extend(metrics(admin));

    let text = page("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let mut cells = row.split('|').skip(1);
            let mut quoted = || {
                let cell = cells.next().expect("a cell");
                let quoted = cell.split('`').skip(1).step_by(2);
                quoted.map(str::to_owned).collect::<Vec<_>>()
            };
            (quoted().remove(0), quoted().into_iter().collect())
        })
        .collect();
    assert_eq!(documented, exposed);
}
