//! The client that `tests/autobahn/run.sh` puts before the Autobahn|Testsuite: asks how many cases
//! there are, echoes through each, and has the reports written.
//!
//! `cargo run --release -p hukilau-core --example autobahn_client -- 127.0.0.1:9001`

use hukilau_core::Reactor;
use hukilau_core::conn::{WsOpening, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Destination, DialConfig};
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::Role;
use hukilau_core::ws::deflate::DeflateSettings;
use std::error::Error;
use std::rc::Rc;

/// The name in the reports.
const AGENT: &str = "hukilau";

/// One reactor for all cases, one connection for each.
struct Client {
    reactor: Reactor,
    inbox: Inbox,
    host: String,
    to: Destination,
    settings: Rc<WsSettings>,
}

impl Client {
    fn new(host: String) -> Result<Self, Box<dyn Error>> {
        let limits = Limits::default();
        let mut settings = WsSettings::new(Role::Client, &limits);
        // Every parameter that a server may choose is on offer.
        settings.deflate = Some(DeflateSettings {
            own_context_takeover: true,
            peer_context_takeover: true,
            ..DeflateSettings::default()
        });
        let (name, port) = host.rsplit_once(':').ok_or("no port")?;
        Ok(Self {
            to: Destination::tcp(name, port.parse()?),
            reactor: Reactor::new(MioNet::new()?, limits)?,
            inbox: Inbox::new(),
            host,
            settings: Rc::new(settings),
        })
    }

    /// Opens a WebSocket at `target` and stays until it has ended; echoes what comes, and returns
    /// the last of it.
    fn talk(&mut self, target: &str, echoes: bool) -> Result<Vec<u8>, Box<dyn Error>> {
        let dialled = self.reactor.dial(&self.to, &DialConfig::default())?;
        let (mut last, mut opened) = (Vec::new(), false);
        loop {
            self.reactor.turn(&mut self.inbox, None)?;
            for completion in self.inbox.completions() {
                if completion.conn != dialled {
                    continue;
                }
                match completion.what {
                    What::Connected { .. } => {
                        let opening = WsOpening {
                            target: target.as_bytes(),
                            host: self.host.as_bytes(),
                            protocols: &[],
                            fields: &[],
                            settings: &self.settings,
                        };
                        self.reactor.open_websocket(dialled, &opening)?;
                    }
                    What::Open => opened = true,
                    What::Message { kind, payload } if echoes => {
                        // What the server has closed meanwhile is part of some cases.
                        let _gone = self.reactor.send(dialled, kind, payload);
                    }
                    What::Message { payload, .. } => last = payload.to_vec(),
                    What::Closed { .. } if opened => return Ok(last),
                    What::Closed { cause } => return Err(cause.to_string().into()),
                    _ => {}
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = std::env::args()
        .nth(1)
        .ok_or("name the suite's host:port")?;
    let mut client = Client::new(host)?;
    let count = String::from_utf8(client.talk("/getCaseCount", false)?)?;
    for case in 1..=count.parse::<u32>()? {
        client.talk(&format!("/runCase?case={case}&agent={AGENT}"), true)?;
    }
    client.talk(&format!("/updateReports?agent={AGENT}"), false)?;
    println!("{count} cases");
    Ok(())
}
