//! A game loop in Rust with a Luau script inside: 60 frames a second, and HTTP meanwhile.
//!
//! `cargo run -p hukilau --example embed`, then open `http://127.0.0.1:8080/join?name=Ann`.
//!
//! The loop belongs to the game. Between frames the time that is left goes to the script's
//! connections: `Runtime::turn` waits no longer than until the next frame. `world.join` waits for
//! the next frame without holding anybody up: its coroutine is suspended until the game, which
//! decides when players come in, answers its `Waiter`.
//!
//! Not here: anything a game is about.

use hukilau::mlua::{Error as LuaError, Table};
use hukilau::{Error, Options, Runtime, Turn, Waiter};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
local net = require("@huki/net")
local world = require("@game/world")

local server = net.serve({
    port = world.port,
    request = function(request)
        if request.path == "/join" then
            local seat = world.join(request.query.name or "nobody")
            return net.json({ seat = seat, frame = world.frame() })
        end
        return net.json({ players = world.players(), frame = world.frame() })
    end,
})
world.ready(server.port)
"#;

/// What the game knows.
#[derive(Default)]
pub(crate) struct World {
    /// Frames so far.
    pub(crate) frame: u64,
    /// Who has joined, by seat.
    pub(crate) players: Vec<String>,
    /// Where the script listens, once it does.
    pub(crate) port: Option<u16>,
    /// Who wants to join: seats are given between frames only.
    arrivals: Vec<(String, Waiter)>,
}

impl World {
    fn step(&mut self) {
        self.frame += 1;
        for (name, waiter) in self.arrivals.drain(..) {
            self.players.push(name);
            waiter.resume(self.players.len());
        }
    }
}

/// The module `@game/world`: what the script may see and do of the game.
fn module(runtime: &Runtime, world: &Rc<RefCell<World>>, port: u16) -> Result<Table, LuaError> {
    let lua = runtime.lua();
    let module = lua.create_table()?;
    module.raw_set("port", port)?;
    let shared = Rc::clone(world);
    let join = runtime.waiting_function(move |_, name: String, waiter| {
        shared.borrow_mut().arrivals.push((name, waiter));
        Ok(())
    })?;
    module.raw_set("join", join)?;
    let shared = Rc::clone(world);
    let players = lua.create_function(move |_, ()| Ok(shared.borrow().players.clone()))?;
    module.raw_set("players", players)?;
    let shared = Rc::clone(world);
    let frame = lua.create_function(move |_, ()| Ok(shared.borrow().frame as f64))?;
    module.raw_set("frame", frame)?;
    let shared = Rc::clone(world);
    let ready = lua.create_function(move |_, port: u16| {
        shared.borrow_mut().port = Some(port);
        Ok(())
    })?;
    module.raw_set("ready", ready)?;
    Ok(module)
}

/// Plays until `goes_on` says no, which is asked once a frame.
///
/// # Errors
/// If the script cannot start, or fails.
#[expect(
    clippy::disallowed_methods,
    reason = "a game loop has a clock; only the library is given its time"
)]
pub(crate) fn play(port: u16, mut goes_on: impl FnMut(&World) -> bool) -> Result<(), Error> {
    const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);
    let mut runtime = Runtime::new(&Options::default())?;
    let world = Rc::new(RefCell::new(World::default()));
    runtime.add_module("@game/world", module(&runtime, &world, port)?)?;
    runtime.start_source("=game", SCRIPT.as_bytes())?;
    let mut next_frame = Instant::now();
    loop {
        world.borrow_mut().step();
        if !goes_on(&world.borrow()) {
            break;
        }
        next_frame += FRAME;
        loop {
            let left = next_frame.saturating_duration_since(Instant::now());
            if let Turn::Ended(_) = runtime.turn(Some(left))? {
                return Ok(());
            }
            if left.is_zero() {
                break;
            }
        }
    }
    // Answers what was asked, for two seconds at most, and ends.
    runtime.stop().drain(Duration::from_secs(2));
    while runtime.turn(None)? == Turn::Running {}
    Ok(())
}

/// Plays for ever.
fn main() -> Result<(), Error> {
    play(8080, |_| true)
}
