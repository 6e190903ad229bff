//! A room on tokio-tungstenite, as its example of a chat server builds one: an unbounded channel for
//! each socket, into which every message is put for everybody.
//!
//! Its example's channel is that of the futures crate; this is tokio's, which its users have at hand.
//! Payloads are counted references, so that a message is copied only where it is framed.
//!
//! Invariants
//! - The one who speaks hears itself too, as with every peer.
//!
//! Not here: its echo (`websockets.rs`).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;

use super::websockets::{Outcome, serve as serve_connections};

/// Who is in the room, by a number that counts up.
#[derive(Default)]
struct Members {
    next: u64,
    senders: HashMap<u64, UnboundedSender<Message>>,
}

type Room = Arc<Mutex<Members>>;

/// Serves until the process is ended.
pub(super) fn serve() -> io::Result<()> {
    let room = Room::default();
    serve_connections("tungstenite", move |stream| {
        member(stream, Arc::clone(&room))
    })
}

async fn member(stream: TcpStream, room: Room) -> Outcome {
    let (mut sink, mut messages) = tokio_tungstenite::accept_async(stream).await?.split();
    let (sender, mut waiting) = unbounded_channel();
    let number = {
        let mut members = room.lock().unwrap_or_else(PoisonError::into_inner);
        members.next += 1;
        let number = members.next;
        members.senders.insert(number, sender);
        number
    };
    let hear = async {
        while let Some(message) = messages.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                let members = room.lock().unwrap_or_else(PoisonError::into_inner);
                for sender in members.senders.values() {
                    // Who has left is taken out by its own task.
                    let _ = sender.send(message.clone());
                }
            }
        }
        Ok(())
    };
    let tell = async {
        while let Some(message) = waiting.recv().await {
            // What waits behind it leaves in the same write.
            sink.feed(message).await?;
            while let Ok(message) = waiting.try_recv() {
                sink.feed(message).await?;
            }
            sink.flush().await?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = hear => outcome,
        outcome = tell => outcome,
    };
    let mut members = room.lock().unwrap_or_else(PoisonError::into_inner);
    members.senders.remove(&number);
    outcome
}
