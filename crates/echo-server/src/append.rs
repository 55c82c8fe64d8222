//! Numbers and addresses as text, for what is written for every request: `format!` takes several times as long.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;

/// Appends a number in decimal.
pub(crate) fn append_number(line: &mut Vec<u8>, number: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address and a port: `10.244.0.7:41234`, `[fd00::7]:41234`.
pub(crate) fn append_address(line: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            let [first, rest @ ..] = address.ip().octets();
            append_number(line, first);
            for octet in rest {
                line.push(b'.');
                append_number(line, octet);
            }
            line.push(b':');
            append_number(line, address.port());
        }
        SocketAddr::V6(_) => append_display(line, format_args!("{address}")),
    }
}

/// Appends formatted text, for what is rare.
pub(crate) fn append_display(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let written = line.write_fmt(text);
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::append_address;

    proptest! {
        #[test]
        fn an_address_is_written_as_the_standard_library_displays_it(address: SocketAddr) {
            let mut line = Vec::new();
            append_address(&mut line, address);
            prop_assert_eq!(String::from_utf8_lossy(&line), address.to_string());
        }
    }
}
