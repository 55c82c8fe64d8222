//! The output of `caller diagnose --listening`: the listening sockets of this pod, and who can reach each.

use std::fmt;
use std::net::SocketAddr;

/// Displays listening sockets, one on each line.
#[derive(Debug)]
pub(crate) struct Listening<'a>(
    /// Local addresses of the sockets.
    pub &'a [SocketAddr],
);

impl fmt::Display for Listening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "nothing in this pod listens for TCP connections");
        }
        let width = self.0.iter().map(|address| address.to_string().len()).max();
        let width = width.unwrap_or_default();
        for address in self.0 {
            let ip = address.ip();
            let who = if ip.is_loopback() {
                format!(
                    "this pod alone: bound to {ip}, so that no other pod and no Service can reach it"
                )
            } else if ip.is_unspecified() {
                "every pod that policies let through".to_owned()
            } else {
                format!("every pod that policies let through, at {ip} alone")
            };
            writeln!(f, "LISTEN  {:<width$}  {who}", address.to_string())?;
        }
        Ok(())
    }
}
