//! Makes bytes from the network safe to print: on one line, and without control sequences for the terminal.

use std::fmt::{self, Write};

/// Displays bytes as text on one line. Newline, carriage return and tab become `\n`, `\r` and `\t`; other control
/// characters, and bytes that are not UTF-8, become `\xNN`; characters that reorder or hide text become `\u{NNNN}`.
///
/// ```
/// use runtime::escape::Escaped;
///
/// assert_eq!(Escaped::new(b"two\nlines").to_string(), r"two\nlines");
/// assert_eq!(Escaped::quoted(br#"a "quote""#).to_string(), r#"a \"quote\""#);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    quoted: bool,
}

impl<'a> Escaped<'a> {
    /// Escapes text that is printed without quotes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            quoted: false,
        }
    }

    /// Escapes text that is printed between double quotes: `"` and `\` as well, so that it cannot end the quotes.
    pub fn quoted(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            quoted: true,
        }
    }

    /// Appends the escaped text to a buffer. Faster than `Display` where there is nothing to escape.
    pub fn append_to(&self, text: &mut Vec<u8>) {
        if self.bytes.iter().all(|&byte| self.is_plain(byte)) {
            text.extend_from_slice(self.bytes);
        } else {
            text.extend_from_slice(self.to_string().as_bytes());
        }
    }

    fn is_plain(&self, byte: u8) -> bool {
        matches!(byte, b' '..=b'~') && !(self.quoted && matches!(byte, b'"' | b'\\'))
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            let text = chunk.valid();
            if text.bytes().all(|byte| self.is_plain(byte)) {
                f.write_str(text)?;
            } else {
                for c in text.chars() {
                    self.write_char(f, c)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Escaped<'_> {
    fn write_char(&self, f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
        match c {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            '"' | '\\' if self.quoted => write!(f, "\\{c}"),
            _ if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32),
            _ if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", c as u32),
            _ => f.write_char(c),
        }
    }
}

/// Displays JSON text in which the characters that [`Escaped`] escapes, and JSON does not have to, are written as
/// `\uNNNN`. The value of the JSON stays the same, and it is safe to print.
#[derive(Clone, Copy, Debug)]
pub struct EscapedJson<'a>(
    /// Valid JSON text, such as `serde_json` writes.
    pub &'a str,
);

impl fmt::Display for EscapedJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || is_invisible(c) {
                // Outside of strings, JSON has none of these characters.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a character is invisible or changes how others are displayed, so that it can make a line look like
/// another (Unicode Technical Report 36, CVE-2021-42574): the characters that `char::escape_debug` escapes (format,
/// private and unassigned characters, separators, combining marks), and the letters and the symbol that are blank.
fn is_invisible(c: char) -> bool {
    let is_blank = matches!(
        c,
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
    );
    is_blank || (!c.is_ascii() && c.escape_debug().len() > 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Escaped, EscapedJson, is_invisible};

    #[test]
    fn printable_text_is_not_changed() {
        let text = "Hello from Backend Service! \\ \"quoted\" grüße 你好";
        assert_eq!(Escaped::new(text.as_bytes()).to_string(), text);
    }

    #[test]
    fn control_and_reordering_characters_are_escaped() {
        let bytes = b"a\x1b[31m\r\n\tb\x7f\xff\xc2\x85\xe2\x80\xae";
        assert_eq!(
            Escaped::new(bytes).to_string(),
            "a\\x1b[31m\\r\\n\\tb\\x7f\\xff\\u{85}\\u{202e}"
        );
    }

    #[test]
    fn invisible_characters_are_escaped() {
        // Of each range of Default_Ignorable_Code_Point, and blanks.
        for c in "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{180b}\u{180e}\u{200b}\u{202e}\u{2060}\u{2065}\
                  \u{206f}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fff0}\u{1bca0}\u{1d173}\u{e0000}\u{e01ef}\u{e0fff}\
                  \u{a0}\u{2003}\u{2028}\u{2800}\u{3000}\u{e000}"
            .chars()
        {
            let shown = Escaped::new(c.to_string().as_bytes()).to_string();
            assert_eq!(shown, format!("\\u{{{:x}}}", c as u32));
        }
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_in_quoted_text() {
        assert_eq!(
            Escaped::quoted(br#"x" 200 "\"#).to_string(),
            r#"x\" 200 \"\\"#
        );
    }

    #[test]
    fn json_is_escaped_without_a_change_of_its_value() {
        let json = "{\"a\":\"b\u{9b}\u{7f}\u{202e}\u{e0001} \\n grüße\"}";
        assert_eq!(
            EscapedJson(json).to_string(),
            "{\"a\":\"b\\u009b\\u007f\\u202e\\udb40\\udc01 \\n grüße\"}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_stay_on_one_line_and_within_their_quotes(bytes: Vec<u8>) {
            let shown = Escaped::quoted(&bytes).to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
            let unescaped = shown.replace("\\\\", "").replace("\\\"", "");
            prop_assert!(!unescaped.contains('"'));
        }

        #[test]
        fn escaped_json_has_the_same_value(text: String) {
            let json = serde_json::to_string(&text).expect("a string");
            let safe = EscapedJson(&json).to_string();
            prop_assert!(!safe.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).expect("a string"), text);
        }
    }
}
