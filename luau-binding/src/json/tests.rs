//! JSON against serde_json: the same texts are texts, and mean the same.
//!
//! Every value goes in by our decoder and out by our encoder, in a real VM, and is compared with
//! what serde_json makes of the same text.
//!
//! Not here: what scripts see of it (`tests/luau/json.luau`).

use super::{Reading, Spelling, decode, encode};
use crate::runtime::{Options, Runtime};
use crate::vm::Stack;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Decodes and encodes again.
fn round_trip(runtime: &Runtime, text: &[u8], spelling: Spelling) -> Result<Vec<u8>, String> {
    let worker = runtime.shared();
    let mut stack = worker.root.stack(worker);
    let bottom = stack.len();
    stack.push_string(text);
    let reading = Reading::default();
    let decoded = decode(worker, &mut stack, reading, |stack: &Stack<'_>| {
        stack.bytes(1)
    });
    let result = decoded.and_then(|()| {
        let top = stack.len();
        encode(&mut worker.json.borrow_mut(), &mut stack, top, spelling).map(<[u8]>::to_vec)
    });
    stack.pop(stack.len() - bottom);
    result
}

fn runtime() -> Runtime {
    Runtime::new(&Options::default()).expect("a VM")
}

/// Fails unless `text` comes back as what serde_json reads in it.
fn check(runtime: &Runtime, text: &str) -> Result<(), TestCaseError> {
    let expected: Value = serde_json::from_str(text).expect("made by serde_json");
    for pretty in [false, true] {
        let spelling = Spelling {
            is_pretty: pretty,
            is_sorted: pretty,
            ..Spelling::default()
        };
        let ours = round_trip(runtime, text.as_bytes(), spelling).expect("what is JSON is read");
        let again: Value = serde_json::from_slice(&ours).expect("what we write is JSON");
        prop_assert_eq!(&as_doubles(&again), &as_doubles(&expected), "{}", text);
    }
    Ok(())
}

/// The value with all numbers as Luau has them.
fn as_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(as_doubles).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), as_doubles(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[a-z\"\\\\\n\u{0}\u{7f}é😀]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-e]{0,3}|.{0,12}", inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_and_written_again_means_the_same_to_serde_json(
        values in prop::collection::vec(any_json(), 1..4)
    ) {
        let runtime = runtime();
        for value in &values {
            let text = value.to_string();
            // Three times: shapes are learnt the second time and used the third.
            for _ in 0..3 {
                check(&runtime, &text)?;
            }
            check(&runtime, &serde_json::to_string_pretty(value).expect("a value"))?;
        }
    }

    #[test]
    fn every_number_comes_back_bit_by_bit(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let text = format!("{number:e}");
        let ours = round_trip(&runtime(), text.as_bytes(), Spelling::default());
        let ours = String::from_utf8(ours.expect("a number")).expect("ASCII");
        let again: f64 = ours.parse().expect("a number");
        prop_assert_eq!(again.to_bits(), bits, "{} {}", text, ours);
    }

    #[test]
    fn what_serde_json_refuses_is_refused_with_its_place(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut text = value.to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        let ours = round_trip(&runtime(), &text, Spelling::default());
        match (serde_json::from_slice::<Value>(&text), ours) {
            (Ok(expected), Ok(ours)) => {
                let ours: Value = serde_json::from_slice(&ours).expect("what we write is JSON");
                prop_assert_eq!(as_doubles(&ours), as_doubles(&expected));
            }
            (Err(_), Err(message)) => {
                prop_assert!(message.starts_with("invalid JSON at line "), "{}", message);
            }
            (theirs, ours) => {
                prop_assert!(false, "{:?}: {:?} but {:?}", text.escape_ascii().to_string(), theirs, ours);
            }
        }
    }
}

#[test]
fn names_that_recur_are_written_the_same_each_time() {
    let runtime = runtime();
    // More than are remembered, some too long for that, some with escapes, in objects of their own and in one.
    let names: Vec<String> = (0..100_usize)
        .map(|n| format!("{n}\"{}é", "x".repeat(n % 40)))
        .collect();
    let object = |names: &[String]| -> Value {
        let fields = names.iter().map(|name| (name.clone(), json!([name])));
        Value::Object(fields.collect())
    };
    let mut values = vec![object(&names), object(&names)];
    values.extend(names.iter().map(|name| object(std::slice::from_ref(name))));
    values.extend(names.chunks(7).map(object));
    let value = Value::Array(values);
    let text = round_trip(&runtime, value.to_string().as_bytes(), Spelling::default());
    let again: Value = serde_json::from_slice(&text.expect("a value")).expect("JSON");
    assert_eq!(again, value);
}

#[test]
fn objects_of_one_shape_do_not_mix_their_fields() {
    let runtime = runtime();
    let mut records = Vec::new();
    for n in 0..300 {
        let mut record = serde_json::Map::new();
        // Shapes that alternate, that share slots, that repeat keys of one another.
        for key in 0..(2 + n % 7) {
            record.insert(
                format!("key{}", key * (1 + n % 5)),
                json!([n, { "n": n, "x": {} }]),
            );
        }
        records.push(Value::Object(record));
    }
    let text = Value::Array(records).to_string();
    for _ in 0..3 {
        check(&runtime, &text).expect("the same");
    }
    let twice = r#"[{"a":1,"b":2,"a":3},{"a":1,"b":2,"a":3},{"a":1,"b":2,"a":3}]"#;
    check(&runtime, twice).expect("the last one counts");
    let nil = Reading {
        null_is_nil: true,
        ..Reading::default()
    };
    let worker = runtime.shared();
    let mut stack = worker.root.stack(worker);
    for _ in 0..3 {
        stack.push_string(r#"{"left":null,"right":null}"#);
        let bottom = stack.len();
        decode(worker, &mut stack, nil, |stack| stack.bytes(1)).expect("JSON");
        assert!(
            stack.next_entry(bottom + 1, 0).is_none(),
            "no placeholder is left"
        );
        stack.pop(2);
    }
}

#[test]
fn errors_name_line_column_and_what_was_expected() {
    let runtime = runtime();
    for (text, message) in [
        (
            "",
            "line 1, column 1 (byte 0): a value expected, but the text ends",
        ),
        (
            "[1,\n 2,]",
            "line 2, column 4 (byte 7): no comma may stand behind the last element",
        ),
        (
            "{\"é\": 1,\n\"b\" 2}",
            "line 2, column 5 (byte 14): ':' expected, not '2'",
        ),
        (
            "{a: 1}",
            "line 1, column 2 (byte 1): a name in double quotes expected, not 'a'",
        ),
        (
            "['a']",
            "line 1, column 2 (byte 1): strings have double quotes, not single ones",
        ),
        (
            "[01]",
            "line 1, column 3 (byte 2): a number does not begin with a zero",
        ),
        (
            "[1] 2",
            "line 1, column 5 (byte 4): the end of the text expected, not '2'",
        ),
        (
            "\"a\tb\"",
            "line 1, column 3 (byte 2): a string holds byte 0x09, which must be escaped as \\u0009",
        ),
        (
            "\"abc",
            "line 1, column 1 (byte 0): a string that does not end",
        ),
        (
            "[\"\\ud800\"]",
            "line 1, column 3 (byte 2): half a surrogate pair",
        ),
        (
            "[\"\\q\"]",
            "line 1, column 3 (byte 2): an escape that JSON does not have; a backslash itself is \\\\",
        ),
        (
            "1e999",
            "line 1, column 1 (byte 0): a number beyond the greatest there is, about 1.8e308",
        ),
        (
            "[NaN]",
            "line 1, column 2 (byte 1): a value expected, not 'N'",
        ),
        ("// x", "line 1, column 1 (byte 0): JSON has no comments"),
    ] {
        let error = round_trip(&runtime, text.as_bytes(), Spelling::default());
        assert_eq!(error, Err(format!("invalid JSON at {message}")), "{text}");
    }
    let error = round_trip(&runtime, b"[\"ok\", \"\xff\"]", Spelling::default());
    let message = "invalid JSON at line 1, column 9 (byte 8): bytes that are not UTF-8";
    assert_eq!(error, Err(message.to_owned()));
}
