//! A real browser without a window: Chromium, controlled by WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::http::{Reply, exchange};
use crate::pki::free_addr;
use crate::process::Process;
use crate::{TIMEOUT, Tool, tool, wait_until};

/// A script that returns the faults in the layout and the colours of a page.
const FAULTS: &str = include_str!("page_faults.js");

/// A name that would do harm if a page showed it as markup.
pub const HOSTILE: &str = "<img src=x onerror=console.error('injected')>\u{202e}";

/// The text that a page shows for [`HOSTILE`].
pub const HOSTILE_SHOWN: &str = "<img src=x onerror=console.error('injected')>\\u{202e}";

/// Keys, with the code points that the standard gives them.
#[allow(missing_docs)]
pub mod keys {
    pub const TAB: char = '\u{e004}';
    pub const ENTER: char = '\u{e007}';
    pub const ESCAPE: char = '\u{e00c}';
    pub const END: char = '\u{e010}';
    pub const HOME: char = '\u{e011}';
    pub const ARROW_LEFT: char = '\u{e012}';
    pub const ARROW_UP: char = '\u{e013}';
    pub const ARROW_RIGHT: char = '\u{e014}';
    pub const ARROW_DOWN: char = '\u{e015}';
}

/// The nonce of a page whose headers allow its own script, its own style and requests to its own server, and nothing
/// else.
///
/// # Panics
///
/// If the headers allow more.
pub fn nonce(page: &Reply) -> &str {
    assert_eq!(page.status(), 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, nonce) = policy.split_once("'nonce-").expect("a nonce");
    let (nonce, _) = nonce.split_once('\'').expect("it ends");
    assert_eq!(policy.matches(nonce).count(), 2, "{policy}");
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!page.body.contains("{nonce}"));
    nonce
}

/// A browser with one tab, which ends on drop.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Process,
}

impl Browser {
    /// Starts a browser that can reach no other machine. `None` if Chromium or its driver is missing: the test is
    /// to be skipped, as [`tool`] has printed.
    pub fn start() -> Option<Self> {
        let (chromium, driver) = (tool("chromium")?, tool("chromedriver")?);
        Some(Self::start_with(&chromium, &driver))
    }

    fn start_with(chromium: &Tool, driver: &Tool) -> Self {
        // A port that the driver chooses for IPv4 may be in use for IPv6, and then the driver exits.
        let addr = free_addr();
        let port = format!("--port={}", addr.port());
        let process = Process::spawn(Command::new(driver).arg(port));
        process.wait_for_stdout("started successfully on port");
        let mut browser = Self {
            driver: addr,
            session: String::new(),
            _process: process,
        };
        let capabilities = json!({
            "goog:chromeOptions": {
                "binary": chromium,
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--disable-component-update",
                    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                ],
            },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let session = browser.command("POST", "", &wanted);
        browser.session = session["sessionId"].as_str().expect("an id").to_owned();
        browser
    }

    /// Sends a command to the driver and returns the value of its response. The standard lists the commands.
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let Self {
            driver, session, ..
        } = self;
        let session = match session.as_str() {
            "" => String::new(),
            id => format!("/{id}"),
        };
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let length = body.len();
        let request = format!(
            "{method} /session{session}{path} HTTP/1.1\r\nHost: {driver}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let reply = exchange(*driver, request);
        assert_eq!(reply.status(), 200, "{method} {path}: {}", reply.body);
        let mut answer: Value = serde_json::from_str(&reply.body).expect("JSON");
        answer["value"].take()
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Sets the size of the window in CSS pixels, and the preferred colour scheme.
    pub fn resize(&self, width: u32, height: u32, dark: bool) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": features }),
        );
    }

    /// Sends a command of Chromium's own protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.command("POST", "/goog/cdp/execute", &body)
    }

    /// Runs a script, the body of a function, in the page, and returns the value that it returns.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.command("POST", "/execute/sync", &body)
    }

    /// The text that the element with this id displays; empty if it is hidden.
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!(
            "const e = document.getElementById('{id}'); return e.checkVisibility() ? e.innerText : ''"
        ));
        text.as_str().expect("text").to_owned()
    }

    /// Waits until the element with this id displays a text that contains `part`, and returns the text.
    pub fn wait_for_text(&self, id: &str, part: &str) -> String {
        let mut text = String::new();
        wait_until(&format!("{part:?} in {id}"), TIMEOUT, || {
            text = self.text(id);
            text.contains(part)
        });
        text
    }

    /// The title of the page.
    pub fn title(&self) -> String {
        let title = self.run("return document.title");
        title.as_str().expect("text").to_owned()
    }

    /// Presses and releases a key: a character, or one of [`keys`].
    pub fn press(&self, key: char) {
        let stroke =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!([{ "type": "key", "id": "keyboard", "actions": stroke }]);
        self.command("POST", "/actions", &json!({ "actions": actions }));
    }

    /// The messages on the console, errors included, since the last call.
    pub fn console(&self) -> Vec<String> {
        let lines = self.log("browser");
        lines
            .iter()
            .map(|line| line["message"].to_string())
            .collect()
    }

    /// The same without messages about a lost connection, or about a server or a page that was not found.
    pub fn errors(&self) -> Vec<String> {
        let expected = [
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
            "ERR_CONNECTION_RESET",
            "ERR_CONNECTION_REFUSED",
            "404 (Not Found)",
        ];
        let is_expected = |line: &String| expected.iter().any(|error| line.contains(error));
        let mut lines = self.console();
        lines.retain(|line| !is_expected(line));
        lines
    }

    /// The URLs that pages have requested since the last call.
    pub fn requests(&self) -> Vec<String> {
        let lines = self.log("performance");
        let url = |line: &Value| {
            let message: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let url = message["params"]["request"]["url"].as_str()?;
            is_request.then(|| url.to_owned())
        };
        lines.iter().filter_map(url).collect()
    }

    /// The entries of a log of the driver since the last call.
    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.command("POST", "/se/log", &json!({ "type": kind }));
        log.as_array().expect("a list").clone()
    }

    /// Checks the layout and the colours of the page in several sizes and both colour schemes, and saves a picture of
    /// each in a directory.
    pub fn check_layout(&self, pictures: &str, name: &str) {
        for width in [320, 375, 1280] {
            for dark in [false, true] {
                self.resize(width, 900, dark);
                let faults = self.run(FAULTS);
                let scheme = if dark { "dark" } else { "light" };
                assert_eq!(faults, Value::Array(Vec::new()), "{name} {width} {scheme}");
                let height = self.run("return document.documentElement.scrollHeight");
                let height =
                    u32::try_from(height.as_u64().expect("a number")).expect("it is small");
                self.resize(width, height, dark);
                let picture = format!("{name}-{width}-{scheme}.png");
                self.screenshot(&Path::new(pictures).join(picture));
            }
        }
        self.resize(1280, 900, false);
    }

    /// Writes a picture of the visible part of the page, as PNG.
    fn screenshot(&self, file: &Path) {
        let picture = self.command("GET", "/screenshot", &Value::Null);
        let picture = picture.as_str().expect("base64");
        let picture = BASE64_STANDARD.decode(picture).expect("base64");
        std::fs::write(file, picture).expect("it can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that is killed leaves its browser running. Errors are ignored, because this may happen in a panic.
        let Self {
            driver, session, ..
        } = self;
        if let Ok(mut stream) = TcpStream::connect(*driver) {
            let end = format!("DELETE /session/{session} HTTP/1.1\r\nHost: {driver}\r\n\r\n");
            let _ = stream.write_all(end.as_bytes());
            let _ = stream.read(&mut [0]);
        }
    }
}
