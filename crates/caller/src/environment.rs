//! Values of environment variables, as Kubernetes hands them over: a Secret or a ConfigMap made from a
//! file ends with a newline, and an optional key that is missing leaves the variable empty.

/// The value without one newline at its end; `None` where nothing but blanks is left, which is as good
/// as no variable.
pub fn value(text: &str) -> Option<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_newline_at_the_end_is_nothing_and_an_empty_value_is_no_value() {
        assert_eq!(value("10s\n"), Some("10s"));
        assert_eq!(value("10s\r\n"), Some("10s"));
        assert_eq!(value("a\nb\n\n"), Some("a\nb\n"));
        assert_eq!(value(" a "), Some(" a "));
        for empty in ["", "\n", " ", " \n"] {
            assert_eq!(value(empty), None);
        }
    }
}
