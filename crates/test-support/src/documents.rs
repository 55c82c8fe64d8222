//! The README and the pages in `docs`. A comment above each fenced block names the test that checks it:
//!
//! - `<!-- output of: COMMAND -->`: the command is run in a local cluster, and prints the block. With
//!   `; in: local-cluster FLAGS` the local cluster is started with these flags.
//! - `<!-- checked by: TEST -->`: the test of this name compares the block, by [`checked_by`].
//! - `<!-- not run: REASON -->`: no test checks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A page, by its path in the repository.
#[derive(Debug)]
pub struct Page {
    /// The path of the page, such as `docs/dns.md`.
    pub path: String,
    /// The whole text of the page.
    pub text: String,
}

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// The page and the line where it begins, such as `docs/dns.md:12`.
    pub place: String,
    /// The text of the comment above it; empty if there is none.
    pub comment: String,
    /// The text between the fences.
    pub text: String,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("it is there")
}

/// The page with this path.
pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The README, and then the pages in `docs`.
pub fn pages() -> Vec<Page> {
    let entries = fs::read_dir(root().join("docs")).expect("it is there");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut paths: Vec<String> = names
        .map(|name| format!("docs/{}", name.to_string_lossy()))
        .filter(|path| path.ends_with(".md"))
        .collect();
    paths.sort();
    paths.insert(0, "README.md".to_owned());
    let pages = paths.into_iter().map(|path| Page {
        text: page(&path),
        path,
    });
    pages.collect()
}

/// Every fenced block, in order.
pub fn blocks() -> Vec<Block> {
    let pages = pages();
    pages.iter().flat_map(Page::blocks).collect()
}

/// The blocks whose comment names this test, in order.
///
/// # Panics
///
/// If there is none.
pub fn checked_by(test: &str) -> Vec<Block> {
    let mut blocks = blocks();
    blocks.retain(|block| block.comment == format!("checked by: {test}"));
    assert!(!blocks.is_empty(), "no block is checked by {test}");
    blocks
}

impl Page {
    /// Its fenced blocks, in order.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().zip(1..);
        let mut above = "";
        while let Some((line, number)) = lines.next() {
            if line.starts_with("```") {
                let inside = lines.by_ref().map(|(line, _)| line);
                let inside = inside.take_while(|line| *line != "```");
                blocks.push(Block {
                    place: format!("{}:{number}", self.path),
                    comment: comment(above).unwrap_or_default().to_owned(),
                    text: inside.map(|line| format!("{line}\n")).collect(),
                });
            }
            above = line;
        }
        blocks
    }
}

/// The text of an HTML comment that takes a whole line.
fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->")
}

/// The anchors of the headings of a page, as forges name them.
pub fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// Asserts that the output of a program contains the blocks that name this test.
///
/// # Panics
///
/// If one is missing.
pub fn assert_shown(test: &str, output: &str) {
    for block in checked_by(test) {
        assert!(
            shows(output, &block.text),
            "{}:\n{}it prints:\n{output}",
            block.place,
            block.text
        );
    }
}

/// Whether a program's output has the lines of a sample one after another. A line `...` in the sample stands
/// for any lines. Numbers, times, addresses, units of time and the width of columns may differ.
pub fn shows(output: &str, sample: &str) -> bool {
    let output: Vec<String> = output.lines().map(shape).collect();
    let sample: Vec<String> = sample.lines().map(shape).collect();
    let mut rest = &output[..];
    sample.split(|line| line == "...").all(|part| {
        let found = (0..=rest.len()).find(|start| rest[*start..].starts_with(part));
        if let Some(start) = found {
            rest = &rest[start + part.len()..];
        }
        found.is_some()
    })
}

/// A line without the parts that differ from one run to the next.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().enumerate();
    let words = words.map(|(number, word)| match word {
        // How a step that succeeds is marked depends on how busy the machine is.
        "slow" if number == 0 => "ok".to_owned(),
        word if word.starts_with("id=") => "id=0".to_owned(),
        // The folder differs: a temporary one, or the one in which this program was built.
        word if word.ends_with("/resolv.conf") => "resolv.conf".to_owned(),
        word if word.ends_with("/local-cluster") => "local-cluster".to_owned(),
        word if is_part_of_a_date(word) => "DATE".to_owned(),
        word => without_numbers(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_part_of_a_date(word: &str) -> bool {
    const DAYS: &str = "Mon Tue Wed Thu Fri Sat Sun";
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let mut names = DAYS.split(' ').chain(MONTHS.split(' '));
    names.any(|name| name == word)
}

/// `0` in place of each number, whatever its unit of time, and of each address and time of day.
fn without_numbers(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        text += &rest[..start];
        let number = &rest[start..];
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
        let (number, after) = number.split_at(end.unwrap_or(number.len()));
        text.push('0');
        // Punctuation at the end of a sentence is not part of a number.
        text += &number[number.trim_end_matches(['.', ':']).len()..];
        rest = ["ms", "µs"]
            .iter()
            .find_map(|unit| after.strip_prefix(unit))
            .map_or(after, |after| {
                text.push('s');
                after
            });
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::{Page, shows};

    #[test]
    fn a_block_has_its_place_and_the_comment_right_above_it() {
        let page = Page {
            path: "docs/page.md".to_owned(),
            text: "# Page\n\n<!-- not run: an example -->\n```sh\nls\n```\n\n```\nbare\n```\n"
                .to_owned(),
        };
        let blocks = page.blocks();
        let fields = blocks
            .iter()
            .map(|block| (&*block.place, &*block.comment, &*block.text));
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [
                ("docs/page.md:4", "not run: an example", "ls\n"),
                ("docs/page.md:8", "", "bare\n"),
            ]
        );
    }

    #[test]
    fn a_sample_may_differ_in_numbers_and_in_nothing_else() {
        let output = "start\nok    TCP  127.0.0.1:8080 connected in 0.4ms: 1 SYN lost\nend of it\n";
        for (sample, expected) in [
            ("ok  TCP  10.0.0.1:80 connected in 1.2s: 3 SYN lost", true),
            ("start\n...\nend of it", true),
            ("...\nend of it", true),
            ("start\nend of it", false),
            ("end of it\n...\nstart", false),
            ("ok  TCP  127.0.0.1:8080 connected in 0.4ms", false),
            (
                "FAIL  TCP  127.0.0.1:8080 connected in 0.4ms: 1 SYN lost",
                false,
            ),
        ] {
            assert_eq!(shows(output, sample), expected, "{sample}");
        }
        assert!(shows(
            "at Thu Nov 26 01:20:54 UTC 2026 ===",
            "at Mon Dec 10 16:20:00 UTC 2025 ==="
        ));
    }
}
