//! Internationalized host names: each label that is not ASCII becomes `xn--` and its Punycode (RFC 3492).
//! Letters are put in lower case. The rest of IDNA's mapping and validation is left out: its Unicode
//! tables would enlarge the image for names that hardly occur in a cluster.

/// Other characters that separate labels as a dot does (RFC 3490, section 3.1).
const DOTS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// The name in ASCII; `None` if it is too long to be encoded.
pub(super) fn to_ascii(name: &str) -> Option<String> {
    if name.is_ascii() {
        return Some(name.to_owned());
    }
    let labels = name.split(|c: char| c == '.' || DOTS.contains(&c));
    let labels = labels.map(|label| match label.is_ascii() {
        true => Some(label.to_owned()),
        false => Some(format!("xn--{}", encode(&label.to_lowercase())?)),
    });
    Some(labels.collect::<Option<Vec<String>>>()?.join("."))
}

/// Encodes a label as Punycode (RFC 3492, section 6.3).
fn encode(label: &str) -> Option<String> {
    let mut output: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(output.len()).ok()?;
    if basic > 0 {
        output.push('-');
    }
    let (mut n, mut delta, mut bias, mut handled) = (128_u32, 0_u32, 72_u32, basic);
    let total = u32::try_from(label.chars().count()).ok()?;
    while handled < total {
        let next = label.chars().map(u32::from).filter(|&c| c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for c in label.chars().map(u32::from) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c != n {
                continue;
            }
            let mut q = delta;
            for k in (36..).step_by(36) {
                let threshold = u32::clamp(k, bias + 1, bias + 26) - bias;
                if q < threshold {
                    break;
                }
                output.push(digit(threshold + (q - threshold) % (36 - threshold)));
                q = (q - threshold) / (36 - threshold);
            }
            output.push(digit(q));
            bias = adapt(delta, handled + 1, handled == basic);
            delta = 0;
            handled += 1;
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    Some(output)
}

fn digit(value: u32) -> char {
    char::from_digit(if value < 26 { value + 10 } else { value - 26 }, 36).unwrap_or('?')
}

/// Punycode's bias adaptation (RFC 3492, section 6.1).
fn adapt(delta: u32, points: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { 700 } else { 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::to_ascii;

    #[test]
    fn names_are_encoded_as_they_are_registered() {
        for (name, ascii) in [
            ("backend", "backend"),
            ("B\u{fc}cher.example", "xn--bcher-kva.example"),
            ("m\u{fc}nchen", "xn--mnchen-3ya"),
            (
                "\u{4f8b}\u{3048}\u{3002}\u{30c6}\u{30b9}\u{30c8}",
                "xn--r8jz45g.xn--zckzah",
            ),
            ("\u{440}\u{444}", "xn--p1ai"),
            ("fa\u{df}.de", "xn--fa-hia.de"),
            ("\u{1f4a9}.la", "xn--ls8h.la"),
        ] {
            assert_eq!(to_ascii(name).as_deref(), Some(ascii));
        }
    }
}
