//! Faults of TLS, with OpenSSL's own server and certificates: each fault is named, a running caller succeeds again when
//! it is repaired, and `diagnose` shows the certificate although it is not accepted.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use caller::failure::FailureKind;
use socket2::SockRef;
use test_support::pki::{Pki, free_addr};
use test_support::process::{Process, Signal, run};
use test_support::{TIMEOUT, tool, wait_until};

use super::{Expected, assert_reported};
use crate::CALLER;

/// A command that runs a caller which trusts the CA and calls this address by name.
fn caller(pki: &Pki, addr: SocketAddr) -> Command {
    let mut command = Command::new(CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "off")
        .env("CALLER_CACERT", pki.file("ca.pem"))
        .env("CALLER_URL", format!("https://localhost:{}/", addr.port()));
    command
}

/// A test for each way in which OpenSSL's server and the caller do not fit together: the certificate and the options of
/// the server, and the flags of the caller.
macro_rules! tls_faults {
    ($($test:ident: $certificate:literal $server:expr, $caller:expr, $kind:ident, $evidence:literal, $likely:expr;)*) => {
        $(#[test]
        fn $test() {
            let expected = Expected { kind: FailureKind::$kind, evidence: $evidence, likely: $likely };
            assert_tls($certificate, &$server, &$caller, &expected);
        })*
    };
}

tls_faults! {
    a_certificate_that_has_expired: "expired" [], [],
        TlsExpired, "TLS certificate expired 10 days ago (for localhost, 127.0.0.1, issued by CN=Test CA, valid from 20", None;
    a_certificate_that_is_not_valid_yet: "future" [], [],
        TlsExpired, "TLS certificate not valid for another 10 days", Some("the clock here, or where it was issued, is wrong");
    a_certificate_for_other_names: "other" [], [],
        TlsName, "TLS certificate not for localhost (for other.example, another.example, issued by CN=Test CA", None;
    a_certificate_without_names: "nameless" [], [],
        TlsName, "TLS certificate not for localhost (for no host name, subject CN=nameless", Some("no host name in its subjectAltName");
    a_certificate_that_signed_itself: "self" [], [],
        TlsUntrusted, "TLS certificate not trusted (for localhost, 127.0.0.1, self-signed by CN=self", Some("--cacert with it");
    an_old_version_alone: "good" ["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], [],
        TlsHandshake, "TLS alert protocol_version", Some("no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3");
    a_cipher_that_nobody_should_have: "good" ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], [],
        TlsHandshake, "TLS alert handshake_failure", Some("no TLS version or algorithm in common");
    a_client_certificate_is_wanted: "good" ["-Verify", "1", "-CAfile", "ca.pem"], [],
        TlsHandshake, "TLS alert certificate_required (it asked for a client certificate)", Some("--cert and --key");
    a_client_certificate_is_wanted_in_tls_1_2: "good" ["-tls1_2", "-Verify", "1", "-CAfile", "ca.pem"], [],
        TlsHandshake, "TLS alert handshake_failure (it asked for a client certificate)", Some("--cert and --key");
    a_client_certificate_of_a_stranger: "good" ["-Verify", "1", "-verify_return_error", "-CAfile", "stranger.pem"], ["--cert=CLIENT.pem", "--key=CLIENT.key"],
        TlsHandshake, "TLS alert unknown_ca", Some("does not accept this client's certificate");
    a_protocol_that_it_does_not_have: "good" ["-alpn", "spdy/1"], [],
        TlsHandshake, "TLS alert no_application_protocol", Some("no protocol in common");
}

fn assert_tls(certificate: &str, server: &[&str], flags: &[&str], expected: &Expected) {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let faulty = pki.serve(addr, certificate, server);
    let client = pki.file("client");
    let args = flags
        .iter()
        .map(|arg| arg.replace("CLIENT", &client.to_string_lossy()));
    let args: Vec<String> = args.collect();
    // The flags are set by variables, because the same command is run with and without a subcommand.
    let command = || {
        let mut command = caller(&pki, addr);
        for arg in &args {
            let (name, value) = arg[2..].split_once('=').expect("a flag with a value");
            command.env(format!("CALLER_{}", name.to_uppercase()), value);
        }
        command
    };
    let diagnosed = run(command().arg("diagnose"));
    let code = Some(expected.kind.exit_code().into());
    assert_eq!(diagnosed.code, code, "{}", diagnosed.stdout);
    if expected.kind != FailureKind::TlsHandshake {
        let shown = "      certificate  for ";
        assert!(diagnosed.stdout.contains(shown), "{}", diagnosed.stdout);
    }
    let mut repaired = None;
    assert_reported(command, expected, || {
        drop(faulty);
        let port = move || TcpListener::bind(addr).is_ok();
        wait_until("the port to be free", TIMEOUT, port);
        let server: &[&str] = match flags.is_empty() {
            true => &[],
            false => &["-Verify", "1", "-CAfile", "ca.pem"],
        };
        repaired = Some(pki.serve(addr, "good", server));
    });
}

/// Makes certificates that are not accepted for a reason of their chain or of their own. `leaf NAME CA` issues one with
/// the extensions that it reads, and `authority NAME SUBJECT CA` a CA.
const CHAINS: &str = r#"
    leaf() { cat > $1.ext; cp good.key $1.key
      openssl x509 -req -in good.csr -CA $2.pem -CAkey $2.key -CAcreateserial -out $1.pem -days 9 -extfile $1.ext ${3-}; }
    authority() { key $1; openssl req -new -key $1.key -subj "$2" -out $1.csr; cat > $1.ext
      openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -out $1.pem -days 9 -extfile $1.ext; }
    key() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }
    san=subjectAltName=DNS:localhost
    ca=basicConstraints=critical,CA:true
    echo $ca | authority between "/CN=Between" ca
    echo subjectAltName=DNS:127.0.0.1 | leaf address ca
    echo $san | leaf alone between
    for name in twice unrelated; do cp alone.pem $name.pem; cp alone.key $name.key; done; cp alone.pem twice-chain.pem
    echo $ca | authority strange-between "/CN=Strange Between" stranger
    echo $san | leaf strange strange-between; cat strange-between.pem > strange-chain.pem
    cp strange-between.pem unrelated-chain.pem; echo $san | leaf with-root stranger; cp stranger.pem with-root-chain.pem
    key old; faketime "40 days ago" openssl req -x509 -key old.key -subj "/CN=Old" -days 10 -out old.pem
    echo $san | leaf by-old old
    openssl req -x509 -key old.key -subj "/CN=Old" -days 9 -out renewed.pem; cat old.pem renewed.pem > both.pem
    openssl req -new -key old.key -subj "/CN=Old Between" -out old-between.csr; echo $ca > old-between.ext
    faketime "20 days ago" openssl x509 -req -in old-between.csr -CA ca.pem -CAkey ca.key -CAcreateserial       -out old-between.pem -days 10 -extfile old-between.ext; cp old.key old-between.key
    echo $san | leaf old-chain old-between; cat old-between.pem > old-chain-chain.pem
    echo subjectAltName=DNS:other.example > old-other.ext; cp good.key old-other.key
    faketime "20 days ago" openssl x509 -req -in good.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
      -out old-other.pem -days 10 -extfile old-other.ext
    key namesake; openssl req -x509 -key namesake.key -subj "/CN=Test CA" -days 9 -out namesake.pem
    echo $san | leaf by-namesake namesake
    (echo $san; echo extendedKeyUsage=clientAuth) | leaf for-clients ca
    (echo $san; echo 1.2.3.4.5=critical,ASN1:UTF8String:x) | leaf critical ca
    echo $san | leaf old-hash ca -sha1
    echo $san | leaf by-server other; cp other.pem by-server-chain.pem
    (echo $ca; echo "nameConstraints=critical,permitted;DNS:corp.example") | authority narrow "/CN=Narrow" ca
    echo $san | leaf by-narrow narrow; cp narrow.pem by-narrow-chain.pem
    openssl req -newkey rsa:1024 -nodes -keyout short.key -subj /CN=short -out short.csr
    echo $san | leaf short-key ca; cp short.key short-key.key
    openssl x509 -req -in short.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out short-key.pem -days 9 -extfile short-key.ext
    echo subjectAltName=URI:spiffe://cluster.local/ns/demo/sa/default | leaf workload ca
    echo subjectAltName=email:a@example.com | leaf mail ca
    openssl req -x509 -key good.key -subj "/CN=TRAEFIK DEFAULT CERT" -days 9 -out default.pem       -addext subjectAltName=DNS:traefik.default; cp good.key default.key
    openssl req -x509 -key good.key -subj "/CN=localhost" -days 9 -out common-name.pem; cp good.key common-name.key
    echo subjectAltName=DNS:backend.123,DNS:*.demo.0x7f,DNS:b-.x | leaf unusual ca
"#;

fn make(pki: &Pki, script: &str) {
    let mut command = Command::new("sh");
    let output = run(command.args(["-euc", script]).current_dir(pki.file("")));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// Serves a certificate with its chain, if there is a file of it.
fn serve_chain(pki: &Pki, certificate: &str) -> (Process, SocketAddr) {
    let addr = free_addr();
    let chain = format!("{certificate}-chain.pem");
    let mut options = vec!["-cipher", "ALL:@SECLEVEL=0"];
    if pki.file(&chain).exists() {
        options.extend(["-cert_chain", &chain]);
    }
    (pki.serve(addr, certificate, &options), addr)
}

#[test]
fn the_certificate_of_a_chain_that_is_not_accepted_and_the_reason_are_named() {
    let Some(pki) = Pki::new() else { return };
    make(&pki, CHAINS);
    use FailureKind::*;
    for (certificate, trusted, kind, evidence, likely) in [
        (
            "alone",
            "ca",
            TlsUntrusted,
            "not trusted (for localhost, issued by CN=Between,",
            "the server did not send the issuer's certificate: --cacert lacks it, or",
        ),
        (
            "twice",
            "ca",
            TlsUntrusted,
            "not trusted (for localhost, issued by CN=Between,",
            "the server did not send the issuer's certificate: --cacert lacks it, or",
        ),
        (
            "unrelated",
            "ca",
            TlsUntrusted,
            "not trusted (for localhost, issued by CN=Between,",
            "the server did not send the issuer's certificate: --cacert lacks it, or",
        ),
        (
            "with-root",
            "ca",
            TlsUntrusted,
            "not trusted (for localhost, issued by CN=Another CA,",
            "ends at CN=Another CA, which",
        ),
        (
            "strange",
            "ca",
            TlsUntrusted,
            "not trusted (for localhost, issued by CN=Strange Between,",
            "is not among those that are trusted here: --cacert names others, or the server has",
        ),
        (
            "old-chain",
            "ca",
            TlsExpired,
            "of a CA that the server sends, CN=Old Between, expired 10 days ago (for localhost,",
            "an old chain",
        ),
        (
            "by-old",
            "old",
            TlsExpired,
            "of a CA that is trusted here, CN=Old, expired 30 days ago (for localhost,",
            "an old certificate of that CA",
        ),
        (
            "old-other",
            "ca",
            TlsExpired,
            "TLS certificate expired 10 days ago (for other.example,",
            "or the server has not loaded the new one; and the certificate is not for this host: a default certificate,",
        ),
        (
            "by-namesake",
            "ca",
            TlsUntrusted,
            "is not signed by the key of its issuer",
            "another key: that CA was renewed",
        ),
        (
            "for-clients",
            "ca",
            TlsUntrusted,
            "is not for servers",
            "issued for clients",
        ),
        (
            "critical",
            "ca",
            TlsUntrusted,
            "has a critical extension",
            "issued again, without",
        ),
        (
            "old-hash",
            "ca",
            TlsUntrusted,
            "does not count here (for localhost,",
            "SHA-1",
        ),
        (
            "by-server",
            "ca",
            TlsUntrusted,
            "an issuer in its chain is not a CA",
            "the key of a server",
        ),
        (
            "by-narrow",
            "ca",
            TlsUntrusted,
            "may not issue for its names",
            "the CA is for other names",
        ),
        (
            "short-key",
            "ca",
            TlsUntrusted,
            "its key does not verify the handshake",
            "shorter than 2048 bits",
        ),
        (
            "workload",
            "ca",
            TlsName,
            "not for localhost (for spiffe://cluster.local/ns/demo/sa/default,",
            "the identity of a workload in a mesh",
        ),
        (
            "workload",
            "stranger",
            TlsUntrusted,
            "not trusted (for spiffe://",
            "the identity of a workload in a mesh",
        ),
        (
            "mail",
            "ca",
            TlsName,
            "for no host name, subject CN=good",
            "no host name in its subjectAltName",
        ),
        (
            "default",
            "ca",
            TlsUntrusted,
            "(for traefik.default, self-signed by CN=TRAEFIK DEFAULT CERT,",
            "the wrong Service, or a certificate without the name that is used here",
        ),
        (
            "common-name",
            "ca",
            TlsUntrusted,
            "not trusted (for no host name, subject CN=localhost, self-signed,",
            "no host name in its subjectAltName",
        ),
    ] {
        let (_server, addr) = serve_chain(&pki, certificate);
        let mut command = caller(&pki, addr);
        command.env("CALLER_CACERT", pki.file(&format!("{trusted}.pem")));
        let expected = Expected {
            kind,
            evidence,
            likely: Some(likely),
        };
        expected.assert_once(&run(command.arg("once")));
    }
    // One certificate of the same CA that is valid is enough.
    let (_server, addr) = serve_chain(&pki, "by-old");
    let mut command = caller(&pki, addr);
    let output = run(command
        .env("CALLER_CACERT", pki.file("both.pem"))
        .arg("once"));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
}

#[test]
fn an_address_as_a_dns_name_does_not_count() {
    let Some(pki) = Pki::new() else { return };
    make(&pki, CHAINS);
    let (_server, addr) = serve_chain(&pki, "address");
    let url = format!("https://{addr}/");
    let output = run(caller(&pki, addr).args(["once", &url]));
    for expected in [
        "not for 127.0.0.1 (for DNS:127.0.0.1, issued",
        "; likely the certificate has the address as a DNS name",
    ] {
        assert!(output.stdout.contains(expected), "{}", output.stdout);
    }
}

/// Numeric namespaces are legal, and curl accepts a certificate for a name in one.
#[test]
fn names_that_webpki_does_not_accept_are_verified() {
    let Some(pki) = Pki::new() else { return };
    make(&pki, CHAINS);
    let (_server, addr) = serve_chain(&pki, "unusual");
    let hosts = "127.0.0.1 backend.123 backend.demo.0x7f b-.x other.123 demo.0x7f\n";
    fs::write(pki.file("hosts"), hosts).expect("it can be written");
    let once = |host: &str| {
        let url = format!("https://{host}:{}/", addr.port());
        let mut command = caller(&pki, addr);
        let command = command.env("CALLER_HOSTS", pki.file("hosts"));
        run(command.args(["once", &url]))
    };
    for host in ["backend.123", "Backend.Demo.0x7f", "b-.x"] {
        let output = once(host);
        assert_eq!(output.code, Some(0), "{host}: {}", output.stdout);
    }
    for host in ["other.123", "demo.0x7f"] {
        let output = once(host);
        assert_eq!(output.code, Some(60), "{host}: {}", output.stdout);
        let evidence = format!("not for {host} (for backend.123, *.demo.0x7f, b-.x,");
        assert!(output.stdout.contains(&evidence), "{}", output.stdout);
        let sni = "(the server was not told the name,";
        assert!(output.stdout.contains(sni), "{}", output.stdout);
    }
    let (_server, addr) = serve_chain(&pki, "by-namesake");
    let url = format!("https://backend.123:{}/", addr.port());
    let mut command = caller(&pki, addr);
    let command = command.env("CALLER_HOSTS", pki.file("hosts"));
    let output = run(command.args(["once", "--expect=tls_untrusted", &url]));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
}

/// Starts a server that calls `act` for each connection.
fn server(mut act: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            act(stream.expect("a connection"));
        }
    });
    addr
}

fn assert_once(addr: SocketAddr, kind: FailureKind, evidence: &'static str, likely: &'static str) {
    let Some(pki) = Pki::new() else { return };
    let expected = Expected {
        kind,
        evidence,
        likely: Some(likely),
    };
    expected.assert_once(&run(caller(&pki, addr).args(["once", "--timeout=500ms"])));
}

#[test]
fn plain_http_and_other_protocols_on_a_tls_port_are_named() {
    let reply = |reply: &'static [u8]| {
        server(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(reply);
        })
    };
    let http = reply(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    assert_once(
        http,
        FailureKind::TlsHandshake,
        "which begins \"HTTP/1.1 400 Bad Request",
        "the port speaks plain HTTP: http://",
    );
    let ssh = reply(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    assert_once(
        ssh,
        FailureKind::TlsHandshake,
        "which begins \"SSH-2.0-OpenSSH",
        "another protocol is spoken there",
    );
}

#[test]
fn an_alert_shows_that_the_port_speaks_tls() {
    let cause = "the port speaks TLS, and the server ended the handshake";
    for (alert, name, likely) in [
        (50, "decode_error", cause),
        (47, "illegal_parameter", cause),
        (51, "decrypt_error", cause),
        // It has not asked for a client certificate.
        (42, "bad_certificate", cause),
        (48, "unknown_ca", cause),
        (49, "access_denied", cause),
        (
            70,
            "protocol_version",
            "no TLS version or algorithm in common",
        ),
    ] {
        let addr = server(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, alert]);
        });
        assert_once(addr, FailureKind::TlsHandshake, name, likely);
    }
}

/// An address is not sent as the name of the server.
#[test]
fn a_server_that_serves_host_names_only_may_be_why_an_address_fails() {
    let not_told = "(the server was not told a name: an address sends none)";
    for (alert, likely) in [
        (
            Some(40),
            "no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3, or the server serves host names only",
        ),
        (
            Some(80),
            "it may have no certificate, or the server serves host names only (none was sent)",
        ),
        (
            Some(112),
            "likely the server serves host names only (none was sent)",
        ),
        (
            Some(70),
            "no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3\n",
        ),
        (
            None,
            "it does not speak it, serves host names only (none was sent), or is a proxy",
        ),
    ] {
        let addr = server(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            if let Some(alert) = alert {
                let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, alert]);
            }
        });
        let mut command = Command::new(CALLER);
        let output = run(command.args(["once", &format!("https://{addr}/")]));
        assert_eq!(output.code, Some(35), "{}", output.stdout);
        for expected in [not_told, likely] {
            assert!(
                output.stdout.contains(expected),
                "no {expected:?} in {}",
                output.stdout
            );
        }
    }
}

/// As the sidecar of a mesh with mutual TLS.
#[test]
fn a_plain_call_to_a_port_of_mutual_tls_is_named() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let _server = pki.serve(addr, "good", &["-Verify", "1", "-CAfile", "ca.pem"]);
    let url = format!("http://localhost:{}/", addr.port());
    let output = run(caller(&pki, addr).args(["once", &url]));
    let likely =
        "; likely the port wants TLS, and asks for a client certificate: https:// with --cert";
    assert!(output.stdout.contains(likely), "{}", output.stdout);
}

#[test]
fn a_port_that_no_longer_speaks_tls_is_not_said_to_want_it() {
    let mut connections = 0;
    let addr = server(move |mut stream| {
        connections += 1;
        let _ = stream.read(&mut [0; 1024]);
        // The second connection is the first test for TLS.
        if connections == 2 {
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]);
        }
    });
    let mut command = Command::new(CALLER);
    let command = command.env("CALLER_ADMIN_LISTEN", "off");
    let output = run(command.args(["--count=2", "--interval=0s", &format!("http://{addr}/")]));
    let said = output.stdout.matches("the port wants TLS").count();
    let calls = output.stdout.matches("Call failed: ").count();
    assert_eq!((calls, said), (2, 1), "{}", output.stdout);
}

#[test]
fn a_close_a_reset_and_silence_in_the_handshake_are_named() {
    let hangs_up = server(|mut stream| drop(stream.read(&mut [0; 1024])));
    let likely = "what listens there hangs up on TLS";
    assert_once(
        hangs_up,
        FailureKind::TlsHandshake,
        "TLS handshake: closed without an answer",
        likely,
    );
    let resets = server(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    });
    assert_once(
        resets,
        FailureKind::TlsHandshake,
        "TLS handshake: Connection reset by peer",
        likely,
    );
    let silent = server(std::mem::forget);
    assert_once(
        silent,
        FailureKind::ResponseTimeout,
        "connected, then no answer in the TLS handshake",
        "the backend is overloaded or stuck",
    );
}

#[test]
fn successful_tls_is_described_in_json() {
    let Some(pki) = Pki::new() else { return };
    let with = |certificate: &str, server: &[&str], args: &[&str]| {
        let addr = free_addr();
        let _server = pki.serve(addr, certificate, server);
        let url = format!("https://127.0.0.1:{}/", addr.port());
        let mut command = caller(&pki, addr);
        let output = run(command.args(["once", "--format=json", &url]).args(args));
        assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        let report: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert!(report["phases_ms"]["tls"].as_f64() > Some(0.0), "{report}");
        report["tls"].clone()
    };
    let path = |file: &str| pki.file(file).to_string_lossy().into_owned();

    let tls = with("good", &[], &[]);
    assert_eq!(tls["version"], "TLSv1.3");
    assert_eq!(
        (&tls["verified"], &tls["wants_certificate"]),
        (&true.into(), &false.into())
    );
    let certificate = &tls["certificate"];
    assert_eq!(certificate["subject"], "CN=good");
    assert_eq!(certificate["issuer"], "CN=Test CA");
    assert_eq!(
        certificate["names"],
        serde_json::json!(["localhost", "127.0.0.1"])
    );
    let days = |field: &str| {
        let moment: jiff::Timestamp = certificate[field]
            .as_str()
            .expect("text")
            .parse()
            .expect("a time");
        (moment.as_second() - jiff::Timestamp::now().as_second()) / 86_400
    };
    assert!(days("not_before") == 0 && (29..=30).contains(&days("not_after")));

    assert_eq!(with("good", &["-tls1_2"], &[])["version"], "TLSv1.2");
    // A self-signed certificate can be trusted by itself.
    with("self", &[], &["--cacert", &path("self.pem")]);
    let insecure = with("expired", &[], &["--insecure"]);
    assert_eq!(insecure["verified"], false);
    assert_eq!(insecure["certificate"]["subject"], "CN=expired");
    let mutual = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
    let shown = ["--cert", &path("client.pem"), "--key", &path("client.key")];
    assert_eq!(with("good", &mutual, &shown)["wants_certificate"], true);
}

#[test]
fn a_trusted_certificate_must_be_valid_and_have_the_name() {
    let Some(pki) = Pki::new() else { return };
    for (certificate, code) in [("expired", "tls_expired"), ("other", "tls_name")] {
        let addr = free_addr();
        let _server = pki.serve(addr, certificate, &[]);
        let trusted = pki.file(&format!("{certificate}.pem"));
        let mut command = caller(&pki, addr);
        command.env("CALLER_CACERT", trusted);
        let output = run(command.args(["once", "--expect", code]));
        assert_eq!(output.code, Some(0), "{}", output.stdout);
    }
}

/// As curl does: certificates of version 1, without an expiry date, and with an issuer that has the same kind of name.
#[test]
fn unusual_certificates_are_shown_and_accepted_with_insecure() {
    let Some(pki) = Pki::new() else { return };
    make(
        &pki,
        "openssl x509 -req -in good.csr -signkey good.key -out v1.pem -days 9; cp good.key v1.key
         days=$(( ($(date -d 9999-12-31 +%s) - $(date +%s)) / 86400 + 1 ))
         openssl req -x509 -key good.key -out endless.pem -days $days -subj /CN=endless \\
           -addext subjectAltName=DNS:localhost; cp good.key endless.key
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -days 9 -subj /O=ACME/L=Root
         openssl req -new -key good.key -subj /O=ACME/L=Leaf -out leaf.csr
         openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -out leaf.pem -days 9 -extfile good.ext
         cp good.key leaf.key",
    );
    let serve = |certificate: &str| {
        let addr = free_addr();
        (pki.serve(addr, certificate, &[]), addr)
    };
    for certificate in ["v1", "endless"] {
        let (_server, addr) = serve(certificate);
        let output = run(caller(&pki, addr).args(["once", "--insecure", "--format=json"]));
        assert_eq!(output.code, Some(0), "{certificate}: {}", output.stdout);
        assert!(
            output.stdout.contains("\"not_after\":"),
            "{}",
            output.stdout
        );
    }
    let (_server, addr) = serve("leaf");
    let unknown = run(caller(&pki, addr).arg("once"));
    assert!(
        unknown.stdout.contains(" issued by O=ACME,"),
        "{}",
        unknown.stdout
    );
    assert!(
        unknown.stdout.contains("its issuer is not among those"),
        "{}",
        unknown.stdout
    );
}

#[test]
fn a_server_without_http_2_is_named_as_such() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let _server = pki.serve(addr, "good", &[]);
    let output = run(caller(&pki, addr).args(["once", "--http2"]));
    assert_eq!(output.code, Some(8), "{}", output.stdout);
    let likely = "; likely the server does not speak HTTP/2 over TLS: leave out --http2\n";
    assert!(output.stdout.ends_with(likely), "{}", output.stdout);
}

/// As an ingress: nginx with TLS and HTTP/2.
#[test]
fn nginx_serves_http_1_and_2_over_tls_with_keep_alive() {
    let Some(nginx) = tool("nginx") else { return };
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .;\n\
         uwsgi_temp_path .; scgi_temp_path .;\n\
         server {{ listen {addr} ssl http2; ssl_certificate good.pem; ssl_certificate_key good.key;\n\
         location / {{ return 200 \"$server_protocol $connection_requests\\n\"; }} }} }}"
    );
    std::fs::write(pki.file("nginx.conf"), config).expect("it can be written");
    let folder = pki.file("");
    let _nginx = Process::spawn(
        Command::new(nginx)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(pki.file("nginx.conf")),
    );
    wait_until("nginx", TIMEOUT, || TcpStream::connect(addr).is_ok());
    let bodies = |args: &[&str]| {
        let mut command = caller(&pki, addr);
        let args = [&["--count=3", "--interval=0s"], args].concat();
        let output = run(command.args(args));
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        let bodies = output
            .stdout
            .lines()
            .filter(|line| line.starts_with("HTTP/"));
        bodies.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&[]), ["HTTP/1.1 1"; 3]);
    assert_eq!(
        bodies(&["--keep-alive"]),
        ["HTTP/1.1 1", "HTTP/1.1 2", "HTTP/1.1 3"]
    );
    assert_eq!(bodies(&["--http2"]), ["HTTP/2.0 1"; 3]);
    assert_eq!(
        bodies(&["--http2", "--keep-alive"]),
        ["HTTP/2.0 1", "HTTP/2.0 2", "HTTP/2.0 3"]
    );

    let diagnosed = run(caller(&pki, addr).args(["diagnose", "--http2"]));
    let step = diagnosed
        .stdout
        .lines()
        .find(|line| line.starts_with("ok    TLS "));
    let step = step.expect("a line on TLS");
    assert!(
        step.contains("TLSv1.") && step.ends_with(", certificate verified, h2"),
        "{step}"
    );

    // On plain HTTP, OpenSSL's server closes the connection, and nginx responds with the reason.
    let silent = free_addr();
    let _server = pki.serve(silent, "good", &[]);
    let silent = format!("http://localhost:{}/", silent.port());
    let silent = run(caller(&pki, addr).args(["once", &silent]));
    assert_eq!(silent.code, Some(52), "{}", silent.stdout);
    assert!(
        silent
            .stdout
            .ends_with("; likely the port wants TLS: https://\n"),
        "{}",
        silent.stdout
    );

    let plain = format!("http://localhost:{}/", addr.port());
    let plain = run(caller(&pki, addr).args(["once", &plain]));
    assert_eq!(plain.code, Some(22), "{}", plain.stdout);
    let likely = "likely the port wants TLS: https://\n";
    assert!(plain.stdout.ends_with(likely), "{}", plain.stdout);
}

#[test]
fn trusted_certificates_come_from_a_flag_a_variable_or_the_system() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let _server = pki.serve(addr, "good", &[]);
    let once = |variable: Option<&Path>| {
        let mut command = caller(&pki, addr);
        command.env_remove("CALLER_CACERT");
        if let Some(file) = variable {
            command.env("SSL_CERT_FILE", file);
        }
        run(command.arg("once"))
    };
    assert_eq!(once(Some(&pki.file("ca.pem"))).code, Some(0));
    let stranger = once(Some(&pki.file("stranger.pem")));
    assert_eq!(stranger.code, Some(60), "{}", stranger.stdout);
    let missing = once(Some(Path::new("/nosuch.pem")));
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("/nosuch.pem"), "{}", missing.stderr);
    // As in the image, which has no certificates.
    let Some(_) = tool("unshare") else { return };
    let script = format!("mount -t tmpfs none /etc/ssl && exec {CALLER} once https://localhost:1/");
    let mut bare = Command::new("unshare");
    let bare = run(bare
        .args(["--mount", "sh", "-c", &script])
        .env_remove("SSL_CERT_FILE"));
    if bare.stderr.contains("unshare failed") {
        assert!(std::env::var_os("CI").is_none(), "CI may: {}", bare.stderr);
        return;
    }
    assert_eq!(bare.code, Some(2), "{}", bare.stderr);
    for named in ["--cacert", "SSL_CERT_FILE"] {
        assert!(bare.stderr.contains(named), "{}", bare.stderr);
    }
}

#[test]
fn unusable_files_exit_2_and_are_named() {
    let Some(pki) = Pki::new() else { return };
    let called = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    called.set_nonblocking(true).expect("it can be");
    let addr = called.local_addr().expect("it is bound");
    let path = |file: &str| pki.file(file).to_string_lossy().into_owned();
    for (args, named) in [
        (
            &["--cacert", "/nosuch.pem"][..],
            "/nosuch.pem: cannot be read",
        ),
        (
            &["--cacert", &path("ca.key")],
            "ca.key: holds no certificate in PEM",
        ),
        (
            &["--cert", &path("client.pem")],
            "client.pem: holds no private key",
        ),
        (
            &["--cert", &path("client.pem"), "--key", &path("good.key")],
            "good.key: the key does not belong to the certificate in ",
        ),
        (&["--key", &path("client.key")], "--cert"),
    ] {
        let output = run(caller(&pki, addr).arg("once").args(args));
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(named), "{args:?}: {}", output.stderr);
    }
    assert!(called.accept().is_err(), "it was called");
}

#[test]
fn files_that_are_renewed_are_read_again_while_the_caller_runs() {
    let Some(pki) = Pki::new() else { return };
    let addr = free_addr();
    let verify = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
    let _server = pki.serve(addr, "good", &verify);
    let mounted = tempfile::tempdir().expect("a directory");
    let at = |file: &str| mounted.path().join(file);
    // As the kubelet does it, the name leads to another file all at once.
    let renew = |file: &str, content: Vec<u8>| {
        fs::write(at("new"), content).expect("it can be written");
        fs::rename(at("new"), at(file)).expect("it can be renamed");
    };
    let content = |file: &str| fs::read(pki.file(file)).expect("it is there");
    renew("ca.crt", content("stranger.pem"));
    // Certificate and key in one file, so that both change at once.
    renew(
        "tls.pem",
        [content("stranger.pem"), content("stranger.key")].concat(),
    );
    let caller = Process::spawn(
        caller(&pki, addr)
            .env("CALLER_CACERT", at("ca.crt"))
            .env("CALLER_CERT", at("tls.pem"))
            .arg("--interval=100ms"),
    );
    caller.wait_for_stdout("Call failed: the certificate is not trusted;");
    renew("ca.crt", content("ca.pem"));
    caller.wait_for_stdout("TLS alert unknown_ca");
    renew(
        "tls.pem",
        [content("client.pem"), content("client.key")].concat(),
    );
    caller.wait_for_stdout("Response received successfully!");

    renew("ca.crt", b"half a certif".to_vec());
    let warning = caller.wait_for_stderr("changed TLS files cannot be used");
    assert!(
        warning.contains("ca.crt: holds no certificate"),
        "{warning}"
    );
    let before = caller.stdout().len();
    wait_until("three more calls", TIMEOUT, || {
        caller.stdout()[before..].matches("=== ").count() > 3
    });
    assert!(!caller.stdout()[before..].contains("Call failed"));
    caller.signal(Signal::TERM);
    let warnings = caller.finish().stderr;
    assert_eq!(warnings.matches("cannot be used").count(), 1, "{warnings}");
}
