//! Certificates, and OpenSSL's own server that shows them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::process::{Process, run};
use crate::tool;

/// A certificate authority and what it has issued, in files.
pub struct Pki {
    files: TempDir,
}

/// What is issued: the file's name, the names in it, when, and for how many days. Beside these there are `ca`,
/// which issued them, `stranger`, another one, `self`, which signed itself, and `nameless`.
const ISSUED: [(&str, &str, &str, &str); 5] = [
    ("good", "DNS:localhost,IP:127.0.0.1", "now", "30"),
    ("expired", "DNS:localhost,IP:127.0.0.1", "20 days ago", "10"),
    ("future", "DNS:localhost,IP:127.0.0.1", "+252 hours", "30"),
    (
        "other",
        "DNS:other.example,DNS:another.example",
        "now",
        "30",
    ),
    ("client", "DNS:client", "now", "30"),
];

impl Pki {
    /// `None`: there are not the tools, and a line has said so.
    pub fn new() -> Option<Self> {
        let _ = (tool("openssl")?, tool("faketime")?);
        let pki = Self {
            files: tempfile::tempdir().expect("a directory"),
        };
        pki.self_signed("ca", "/CN=Test CA", &[]);
        pki.self_signed("stranger", "/CN=Another CA", &[]);
        let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        pki.self_signed("self", "/CN=self", &names);
        for (name, names, issued, days) in ISSUED {
            let names = format!("subjectAltName={names}");
            pki.issue(name, &names, issued, days);
        }
        pki.issue("nameless", "keyUsage=digitalSignature", "now", "30");
        Some(pki)
    }

    /// A file of it, such as `good.pem`, `good.key`, `ca.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn succeed(&self, program: &str, args: &[&str]) {
        let output = run(Command::new(program)
            .args(args)
            .current_dir(self.files.path()));
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.stderr);
    }

    fn self_signed(&self, name: &str, subject: &str, more: &[&str]) {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let args = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &cert,
            "-days",
            "30",
            "-subj",
            subject,
        ];
        self.succeed("openssl", &[&args, more].concat());
    }

    fn issue(&self, name: &str, extension: &str, issued: &str, days: &str) {
        let file = |kind: &str| format!("{name}.{kind}");
        let extensions = format!("{extension}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.file(&file("ext")), extensions).expect("it can be written");
        let subject = format!("/CN={name}");
        self.succeed(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                &file("key"),
                "-out",
                &file("csr"),
                "-subj",
                &subject,
            ],
        );
        self.succeed(
            "faketime",
            &[
                issued,
                "openssl",
                "x509",
                "-req",
                "-in",
                &file("csr"),
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-out",
                &file("pem"),
                "-days",
                days,
                "-extfile",
                &file("ext"),
            ],
        );
    }

    /// OpenSSL's server at this address, with this certificate and these options. It shows a page.
    pub fn serve(&self, addr: SocketAddr, certificate: &str, options: &[&str]) -> Process {
        let (cert, key) = (format!("{certificate}.pem"), format!("{certificate}.key"));
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-accept", &addr.to_string(), "-www"])
            .args(["-cert", &cert, "-key", &key])
            .args(options)
            .current_dir(self.files.path());
        let server = Process::spawn(&mut command);
        server.wait_for_stdout("ACCEPT");
        server
    }
}

/// An address that is free, and that stays so: its port is none of those that the kernel gives out by itself, as to
/// the other tests that run at the same time.
pub fn free_addr() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(53);
    loop {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (number % 12_000) as u16;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}
