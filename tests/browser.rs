//! A real browser: headless Chromium opens the chat page twice, a message typed in one window
//! appears in the other. Then a page over `https`, which posts and opens a `wss`.
//!
//! Speaks the DevTools protocol, JSON over WebSocket, with tungstenite: no driver program and no
//! further package. Leaves a picture in `target/chat-window.png` for people to look at. Where
//! Chromium is missing the test says that it is skipped; under `.ci/run` it fails instead.

use crate::harness::{Huki, PATIENCE, folder, has_client, repository};
use crate::tls::certs::self_signed;
use base64::Engine as _;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use tungstenite::{Message, WebSocket};

/// A browser with no window, no history and no wish to speak to the world.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-port=0",
    "--window-size=900,700",
];

struct Browser {
    child: Child,
    devtools: WebSocket<TcpStream>,
    /// Numbers commands, so that answers find their way among events.
    sent: u64,
    /// What to answer when a page asks for a name, by session.
    names: Vec<(String, &'static str)>,
}

impl Browser {
    /// With these flags more.
    #[track_caller]
    fn start(more: &[&str]) -> Self {
        let profile = folder("chromium");
        let mut child = Command::new("chromium")
            .args(FLAGS)
            .args(more)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium runs");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, address) = channel();
        // Reads on to the end, or the browser would meet a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("DevTools listening on ") {
                    // A receiver that is gone has failed already.
                    let _ = sender.send(url.trim().to_owned());
                }
            }
        });
        let url = address
            .recv_timeout(PATIENCE * 2)
            .expect("the browser names its address");
        let host = url
            .strip_prefix("ws://")
            .and_then(|rest| rest.split('/').next());
        let stream = TcpStream::connect(host.expect("a WebSocket URL")).expect("it listens");
        stream
            .set_read_timeout(Some(PATIENCE * 2))
            .expect("a valid timeout");
        let (devtools, _) = tungstenite::client(&url, stream).expect("the handshake succeeds");
        Self {
            child,
            devtools,
            sent: 0,
            names: Vec::new(),
        }
    }

    /// Sends one command; its number.
    #[track_caller]
    fn send(&mut self, session: Option<&str>, method: &str, params: Value) -> u64 {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let command = Message::text(command.to_string());
        self.devtools.send(command).expect("the browser reads");
        self.sent
    }

    /// Sends one command and waits for its answer. Of the events in between, a page that asks for a
    /// name is answered and the others are dropped.
    #[track_caller]
    fn command(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        let number = self.send(session, method, params);
        loop {
            let message = self.devtools.read().expect("the browser answers");
            let text = message.into_text().expect("DevTools speaks text");
            let answer: Value = serde_json::from_str(&text).expect("DevTools speaks JSON");
            if answer["method"] == "Page.javascriptDialogOpening" {
                self.answer_prompt(&answer);
            }
            if answer["id"] == number {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    #[track_caller]
    fn answer_prompt(&mut self, event: &Value) {
        let asks = |(session, _): &&(String, &str)| event["sessionId"] == **session;
        let (session, name) = self
            .names
            .iter()
            .find(asks)
            .cloned()
            .expect("a page of ours");
        let answer = json!({ "accept": true, "promptText": name });
        self.send(Some(&session), "Page.handleJavaScriptDialog", answer);
    }

    /// Opens a window of its own on `url`, as the person `name`, and waits until it has loaded.
    #[track_caller]
    fn open(&mut self, url: &str, name: &'static str) -> Page {
        // A context of its own is like another person's browser.
        let context = self.command(None, "Target.createBrowserContext", json!({}));
        let target =
            json!({ "url": "about:blank", "browserContextId": context["browserContextId"] });
        let target = self.command(None, "Target.createTarget", target);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.command(None, "Target.attachToTarget", attach);
        let session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        self.names.push((session.clone(), name));
        let page = Page { session };
        self.command(Some(&page.session), "Page.enable", json!({}));
        self.command(Some(&page.session), "Page.navigate", json!({ "url": url }));
        page.wait_until(
            self,
            "document.readyState === 'complete' && location.href !== 'about:blank'",
        );
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only if the browser has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One window.
struct Page {
    session: String,
}

impl Page {
    /// The value of `expression` in the page, a promise awaited.
    #[track_caller]
    fn evaluate(&self, browser: &mut Browser, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = browser.command(Some(&self.session), "Runtime.evaluate", params);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Waits until `condition` holds in the page.
    #[track_caller]
    fn wait_until(&self, browser: &mut Browser, condition: &str) {
        let script = format!(
            "new Promise(done => {{
                const began = Date.now();
                (function look() {{
                    if ({condition}) done('held');
                    else if (Date.now() - began > 15000) done('waited in vain; page: ' + document.body.innerText);
                    else setTimeout(look, 20);
                }})();
            }})"
        );
        let outcome = self.evaluate(browser, &script);
        assert_eq!(outcome, "held", "{condition}");
    }

    /// Types `text` into the box for messages and presses Enter, as a person would.
    #[track_caller]
    fn say(&self, browser: &mut Browser, text: &str) {
        let boxes = "[...document.querySelectorAll('input:not([type=submit]), textarea')]";
        self.evaluate(browser, &format!("{boxes}.at(-1).focus()"));
        browser.command(
            Some(&self.session),
            "Input.insertText",
            json!({ "text": text }),
        );
        for kind in ["keyDown", "keyUp"] {
            let enter = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13,
            });
            browser.command(Some(&self.session), "Input.dispatchKeyEvent", enter);
        }
    }

    /// Waits until the page shows `text`.
    #[track_caller]
    fn shows(&self, browser: &mut Browser, text: &str) {
        let text = json!(text);
        self.wait_until(
            browser,
            &format!("document.body.innerText.includes({text})"),
        );
    }

    #[track_caller]
    fn picture(&self, browser: &mut Browser) -> Vec<u8> {
        let shot = browser.command(Some(&self.session), "Page.captureScreenshot", json!({}));
        let data = shot["data"].as_str().expect("a picture");
        base64::prelude::BASE64_STANDARD
            .decode(data)
            .expect("base64")
    }
}

#[test]
fn two_windows_of_the_chat_page_see_each_other() {
    if !has_client("chromium") {
        return;
    }
    let huki = Huki::serve_file(
        &repository().join("luau-binding/examples/chat.luau"),
        &["0"],
    );
    let url = format!("http://127.0.0.1:{}/", huki.port);
    let mut browser = Browser::start(&[]);
    let ann = browser.open(&url, "Ann");
    ann.shows(&mut browser, "Ann has joined");
    let bob = browser.open(&url, "Bob");
    bob.shows(&mut browser, "Bob has joined");
    ann.shows(&mut browser, "Bob has joined");

    ann.say(&mut browser, "Is anybody here?");
    bob.shows(&mut browser, "Ann: Is anybody here?");
    bob.say(&mut browser, "Yes: ünïcode <b>too</b>");
    ann.shows(&mut browser, "Bob: Yes: ünïcode <b>too</b>");
    ann.shows(&mut browser, "Ann: Is anybody here?");

    let picture = ann.picture(&mut browser);
    assert!(picture.starts_with(b"\x89PNG"), "a picture");
    let path = repository().join("target/chat-window.png");
    std::fs::write(path, picture).expect("target is writable");
}

#[test]
fn the_page_of_the_arena_draws_its_players_and_moves_one() {
    if !has_client("chromium") {
        return;
    }
    let arena = repository().join("luau-binding/examples/arena.luau");
    let huki = Huki::serve_file(&arena, &["0"]);
    let bots = repository().join("luau-binding/examples/bots.luau");
    let url = format!("ws://127.0.0.1:{}/play", huki.port);
    // Ends with the test at the latest, for its server does.
    let mut bots = std::process::Command::new(crate::harness::BINARY)
        .arg("run")
        .arg(bots)
        .args([&url, "30"])
        .stdout(Stdio::null())
        .spawn()
        .expect("huki runs");

    let mut browser = Browser::start(&[]);
    let url = format!("http://127.0.0.1:{}/", huki.port);
    let page = browser.open(&url, "nobody");
    page.shows(&mut browser, "31 players");
    // Holds two keys until the player stands in the corner, as only the server can say.
    for (key, code) in [("ArrowRight", 39), ("ArrowDown", 40)] {
        let down = json!({ "type": "rawKeyDown", "key": key, "windowsVirtualKeyCode": code });
        browser.command(Some(&page.session), "Input.dispatchKeyEvent", down);
    }
    let mine = "last.players.find(({ id }) => id === me)";
    page.wait_until(
        &mut browser,
        &format!("{mine}.x === 626 && {mine}.y === 386"),
    );
    // The canvas shows what was told: the coin's colour is where the coin is.
    page.wait_until(
        &mut browser,
        "(() => { const [x, y] = last.coin, [r, g, b] = paper.getImageData(x, y, 1, 1).data;
                  return r === 0xf9 && g === 0xe2 && b === 0xaf })()",
    );
    let picture = page.picture(&mut browser);
    assert!(picture.starts_with(b"\x89PNG"), "a picture");
    let path = repository().join("target/arena-window.png");
    std::fs::write(path, picture).expect("target is writable");
    // Has ended already if its bots could not play.
    assert!(bots.try_wait().expect("a child").is_none(), "the bots play");
    bots.kill().expect("it runs");
    bots.wait().expect("it ran");
}

/// Serves a page that fetches, posts and opens a WebSocket where it came from.
const SECURE: &str = r#"
local page = [[<!doctype html><body><p id=got></p><p id=posted></p><p id=heard></p><p id=closed></p><script>
const show = (id, text) => document.getElementById(id).innerText = text;
const host = location.host;
fetch('/scheme').then(answer => answer.text()).then(text => show('got', 'got ' + text));
fetch('/length', { method: 'POST', body: 'x'.repeat(300000) })
    .then(answer => answer.text()).then(text => show('posted', 'posted ' + text));
const socket = new WebSocket('wss://' + host + '/');
socket.onopen = () => socket.send('ünïcode '.repeat(9000));
socket.onmessage = event => { show('heard', 'heard ' + event.data.length); socket.close(4321, 'enough'); };
socket.onclose = event => show('closed', 'closed ' + [event.code, event.reason, event.wasClean]);
</script>]]
local server = net.serve({
    port = 0,
    tls = { cert = [[CERT]], key = [[KEY]] },
    request = function(request)
        if request.path == "/scheme" then return request.scheme end
        if request.path == "/length" then return tostring(#request.body) end
        return { headers = { ["Content-Type"] = "text/html; charset=utf-8" }, body = page }
    end,
    websocket = { message = function(ws, message) ws:send(message) end },
})
print(`port {server.port}`)
"#;

#[test]
fn a_page_over_https_fetches_posts_and_talks_over_wss() {
    if !has_client("chromium") {
        return;
    }
    let pair = self_signed(&["localhost", "127.0.0.1"]);
    let script = SECURE.replace("CERT", &pair.cert).replace("KEY", &pair.key);
    let huki = Huki::serve(&script);
    // Nobody but itself has signed it; the rest of TLS stays as strict as ever.
    let mut browser = Browser::start(&["--ignore-certificate-errors"]);
    let url = format!("https://127.0.0.1:{}/", huki.port);
    let page = browser.open(&url, "nobody");
    page.shows(&mut browser, "got https");
    page.shows(&mut browser, "posted 300000");
    page.shows(&mut browser, "heard 72000");
    page.shows(&mut browser, "closed 4321,,true");
    assert_eq!(page.evaluate(&mut browser, "window.isSecureContext"), true);
}
