//! Certificates, and OpenSSL's own server that presents them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::process::{Process, run};
use crate::tool;

/// A certificate authority and the certificates that it has issued, in files.
pub struct Pki {
    files: TempDir,
}

/// A time of issue that is in the past for certain: faketime counts in seconds, and may be one ahead.
const NOW: &str = "1 minute ago";

/// The certificates that the authority issues: the name of the file, the names in the certificate, the time of issue
/// (as faketime reads it) and the validity in days. Besides these there are `ca`, the authority; `stranger`, another
/// authority; `self`, which is self-signed; and `nameless`, which has no names.
const ISSUED: [(&str, &str, &str, &str); 5] = [
    ("good", "DNS:localhost,IP:127.0.0.1", NOW, "30"),
    ("expired", "DNS:localhost,IP:127.0.0.1", "20 days ago", "10"),
    ("future", "DNS:localhost,IP:127.0.0.1", "+252 hours", "30"),
    ("other", "DNS:other.example,DNS:another.example", NOW, "30"),
    ("client", "DNS:client", NOW, "30"),
];

/// Options of `openssl req` that make a new key, without a passphrase.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

impl Pki {
    /// Makes the authority and its certificates. `None` if openssl or faketime is missing: the test is to be skipped,
    /// as [`tool`] has printed.
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
        pki.issue("nameless", "keyUsage=digitalSignature", NOW, "30");
        Some(pki)
    }

    /// The path of a file, such as `good.pem`, `good.key` or `ca.pem`; of the folder, for an empty name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Runs a program in the folder of the files; it has to succeed.
    fn succeed(&self, program: &str, args: &[&[&str]]) {
        let mut command = Command::new(program);
        let command = command.args(args.concat()).current_dir(self.files.path());
        let output = run(command);
        assert_eq!(output.code, Some(0), "{command:?}: {}", output.stderr);
    }

    /// Makes a key, and a certificate that it signs itself.
    fn self_signed(&self, name: &str, subject: &str, more: &[&str]) {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let request = ["req", "-x509", "-days", "30", "-subj", subject];
        let files = ["-keyout", &key, "-out", &cert];
        self.succeed("openssl", &[&request, &NEW_KEY, &files, more]);
    }

    /// Makes a key, and a certificate that the authority issues.
    fn issue(&self, name: &str, extension: &str, issued: &str, days: &str) {
        let file = |kind: &str| format!("{name}.{kind}");
        let [key, csr, cert, extensions] = ["key", "csr", "pem", "ext"].map(file);
        let text = format!("{extension}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.file(&extensions), text).expect("it can be written");
        let subject = format!("/CN={name}");
        let request = ["req", "-subj", &subject];
        let files = ["-keyout", &key, "-out", &csr];
        self.succeed("openssl", &[&request, &NEW_KEY, &files]);
        let sign = [issued, "openssl", "x509", "-req", "-days", days];
        let authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let files = ["-in", &csr, "-out", &cert, "-extfile", &extensions];
        self.succeed("faketime", &[&sign, &authority, &files]);
    }

    /// Starts OpenSSL's server at this address, with this certificate and these options. It responds with a page.
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

/// An address of 127.0.0.1 at which nothing listens, for a port that has to be closed or that another program is to
/// open. It stays free, because its port is below those that the kernel chooses by itself, for example for the
/// connections of other tests.
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
