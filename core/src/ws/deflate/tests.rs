//! What is agreed about permessage-deflate, by RFC section.

use super::*;
use crate::ws::extension::extensions;
use proptest::prelude::*;

/// The first acceptable offer in a field value.
fn offer(value: &str) -> Option<DeflateOffer> {
    DeflateOffer::first(extensions(value.as_bytes()).flatten())
}

/// What a server with `settings` answers.
fn answer(settings: &DeflateSettings, value: &str) -> Option<String> {
    Some(offer(value)?.answer(settings).answer_value())
}

fn judge(settings: &DeflateSettings, value: &str) -> Result<Option<DeflateParams>, HandshakeError> {
    settings.check_answer(extensions(value.as_bytes()).flatten())
}

fn generous() -> DeflateSettings {
    DeflateSettings {
        own_context_takeover: true,
        peer_context_takeover: true,
        ..DeflateSettings::default()
    }
}

const BOTH_NO_TAKEOVER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn rfc7692_7_1_a_server_answers_each_parameter_as_it_must() {
    let small = DeflateSettings {
        own_window_bits: 10,
        peer_window_bits: 11,
        ..generous()
    };
    let table = [
        (generous(), "permessage-deflate", Some("permessage-deflate")),
        (
            DeflateSettings::default(),
            "permessage-deflate",
            Some(BOTH_NO_TAKEOVER),
        ),
        (generous(), BOTH_NO_TAKEOVER, Some(BOTH_NO_TAKEOVER)),
        (
            generous(),
            "permessage-deflate; server_max_window_bits=12",
            Some("permessage-deflate; server_max_window_bits=12"),
        ),
        // The client's window may be bounded only where the client invites it.
        (
            generous(),
            "permessage-deflate; client_max_window_bits",
            Some("permessage-deflate"),
        ),
        (
            small.clone(),
            "permessage-deflate; client_max_window_bits",
            Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"),
        ),
        (
            small.clone(),
            "permessage-deflate",
            Some("permessage-deflate; server_max_window_bits=10"),
        ),
        (
            generous(),
            "permessage-deflate; client_max_window_bits=8",
            Some("permessage-deflate; client_max_window_bits=8"),
        ),
        (
            small,
            "permessage-deflate; server_max_window_bits=\"9\"; client_max_window_bits=15",
            Some("permessage-deflate; server_max_window_bits=9; client_max_window_bits=11"),
        ),
    ];
    for (settings, offered, want) in table {
        assert_eq!(answer(&settings, offered).as_deref(), want, "{offered}");
    }
}

#[test]
fn rfc7692_7_1_offers_that_cannot_be_served_are_declined_and_the_next_one_is_tried() {
    for declined in [
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; client_max_window_bits=0",
        "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; unknown",
        "x-webkit-deflate-frame",
        "Permessage-Deflate",
    ] {
        assert_eq!(offer(declined), None, "{declined}");
        let both = format!("{declined}, {BOTH_NO_TAKEOVER}, permessage-deflate");
        let second = answer(&generous(), &both);
        assert_eq!(second.as_deref(), Some(BOTH_NO_TAKEOVER), "{both}");
    }
}

#[test]
fn rfc7692_7_1_a_client_offers_what_its_settings_say() {
    assert_eq!(
        DeflateSettings::default().offer(),
        format!("{BOTH_NO_TAKEOVER}; client_max_window_bits")
    );
    let small = DeflateSettings {
        own_window_bits: 10,
        peer_window_bits: 2,
        ..generous()
    };
    assert_eq!(
        small.offer(),
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"
    );
}

#[test]
fn rfc7692_5_1_a_client_fails_on_an_answer_that_does_not_fit_its_offer() {
    let small = DeflateSettings {
        peer_window_bits: 10,
        ..generous()
    };
    let default = DeflateSettings::default();
    assert_eq!(judge(&default, ""), Ok(None), "declined");
    assert!(judge(&generous(), "permessage-deflate; client_max_window_bits=9").is_ok());
    assert!(judge(&generous(), "permessage-deflate; server_max_window_bits=8").is_ok());
    for (settings, value) in [
        (&default, "permessage-deflate"),
        (&small, "permessage-deflate"),
        (&small, "permessage-deflate; server_max_window_bits=11"),
        (&generous(), "permessage-deflate; client_max_window_bits"),
        (&generous(), "permessage-deflate; client_max_window_bits=8"),
        (&generous(), "permessage-deflate; other"),
        (&generous(), "permessage-deflate, permessage-deflate"),
        (&generous(), "other"),
    ] {
        let refused = Err(HandshakeError::ExtensionUnoffered);
        assert_eq!(judge(settings, value), refused, "{value}");
    }
}

fn settings() -> impl Strategy<Value = DeflateSettings> {
    (any::<bool>(), any::<bool>(), 0..20_u8, 0..20_u8).prop_map(
        |(own, peer, own_bits, peer_bits)| DeflateSettings {
            own_context_takeover: own,
            peer_context_takeover: peer,
            own_window_bits: own_bits,
            peer_window_bits: peer_bits,
            ..DeflateSettings::default()
        },
    )
}

proptest! {
    #[test]
    fn both_ends_agree_on_the_same_parameters(client in settings(), server in settings()) {
        let at_server = offer(&client.offer()).expect("ours can be served").answer(&server);
        let at_client = judge(&client, &at_server.answer_value());
        let at_client = at_client.expect("our answer fits our offer").expect("accepted");
        prop_assert_eq!(at_client.own.context_takeover, at_server.peer.context_takeover);
        prop_assert_eq!(at_client.peer.context_takeover, at_server.own.context_takeover);
        // A receiver's window is at least the sender's.
        prop_assert!(at_client.own.window_bits <= at_server.peer.window_bits);
        prop_assert!(at_server.own.window_bits <= at_client.peer.window_bits);
        prop_assert!(!at_client.own.context_takeover || client.own_context_takeover);
        prop_assert!(!at_client.peer.context_takeover || client.peer_context_takeover);
    }
}
