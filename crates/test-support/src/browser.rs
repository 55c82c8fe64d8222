//! A real browser without a window: Chromium, controlled by WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::http::exchange;
use crate::process::Process;
use crate::{PATIENCE, Tool, tool, wait_until};

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
        let process = Process::spawn(Command::new(driver).arg("--port=0"));
        let started = process.wait_for_stdout("started successfully on port");
        let port = started.trim_end_matches('.').rsplit(' ').next();
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
        let mut browser = Self {
            driver: ([127, 0, 0, 1], port).into(),
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
        wait_until(&format!("{part:?} in {id}"), PATIENCE, || {
            text = self.text(id);
            text.contains(part)
        });
        text
    }

    /// Presses and releases a key. The standard gives keys that are not characters code points from U+E000 on.
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

    /// Writes a picture of the visible part of the page, as PNG.
    pub fn screenshot(&self, file: &Path) {
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
