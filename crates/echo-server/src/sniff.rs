//! The content type that Go's `http.DetectContentType` detects, as far as it concerns text: the rows for HTML and
//! XML of the WHATWG MIME Sniffing standard, section 7.1.

use http::HeaderValue;

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const XML: HeaderValue = HeaderValue::from_static("text/xml; charset=utf-8");

/// Beginnings of HTML. They are compared without regard to case, and have to be followed by a space or `>`.
const HTML_TAGS: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

/// Number of bytes that Go looks at.
const SNIFFED: usize = 512;

/// The content type of a text.
pub(crate) fn content_type(text: &[u8]) -> HeaderValue {
    let text = text[..text.len().min(SNIFFED)].trim_ascii_start();
    if text.starts_with(b"<?xml") {
        return XML;
    }
    if HTML_TAGS.iter().any(|tag| starts_with_tag(text, tag)) {
        return HTML;
    }
    PLAIN
}

/// Whether the text begins with this tag.
fn starts_with_tag(text: &[u8], tag: &[u8]) -> bool {
    text.len() > tag.len()
        && text[..tag.len()].eq_ignore_ascii_case(tag)
        && matches!(text[tag.len()], b' ' | b'>')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::content_type;

    #[test]
    fn the_content_type_is_that_of_go() {
        for (text, expected) in [
            ("Hello from Backend Service!", "text/plain; charset=utf-8"),
            ("{\"a\": 1}", "text/plain; charset=utf-8"),
            ("<html>hi</html>", "text/html; charset=utf-8"),
            (" \n\t<!doctype HTML><p>", "text/html; charset=utf-8"),
            ("<p class=x>", "text/html; charset=utf-8"),
            ("<!-- x", "text/html; charset=utf-8"),
            ("<!-->", "text/html; charset=utf-8"),
            ("<!--x", "text/plain; charset=utf-8"),
            ("<!--", "text/plain; charset=utf-8"),
            (
                &format!("{}<p>", " ".repeat(510)),
                "text/plain; charset=utf-8",
            ),
            ("<paragraph>", "text/plain; charset=utf-8"),
            ("<p", "text/plain; charset=utf-8"),
            ("x <html>", "text/plain; charset=utf-8"),
            ("<?xml version=\"1.0\"?>", "text/xml; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(content_type(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn white_space_before_a_text_does_not_change_its_content_type(text: Vec<u8>) {
            let text = &text[..text.len().min(500)];
            let padded = [b" \t\n", text].concat();
            prop_assert_eq!(content_type(text), content_type(&padded));
        }
    }
}
