//! Lookups by the `caller` binary, answered by name servers that these tests start.

mod causes;
mod dnsmasq;
mod hostile;
mod scripted;
mod wire;
mod wording;
