//! Every operation of the stack with every allocation that it makes refused in turn.
//!
//! The VM tells of each allocation ([`refuse`]), and the n-th raises, as it would without memory: for n = 1, 2, 3…
//! until the operation gets through. Each time the stack is as high as before once the error has been caught, nothing
//! that the operation was given is lost or dropped twice, nothing that it made stays, and the same operation does what
//! it should right after. Operations that allocate nothing, on which others rely, are told apart from those that do.
//!
//! Not told of is the growing of what is there already, stack and arrays: scripts meet it in `tests/stress.rs`.

use super::atom::Atom;
use super::object::{Object, Tag};
use super::tape::{Manner, Peek, Shapes};
use super::{Pin, Raise, Stack, ffi};
use crate::runtime::{Options, Runtime, Worker};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::rc::Rc;

thread_local! {
    /// Allocations until one is refused; 0 for none.
    static LEFT: Cell<usize> = const { Cell::new(0) };
    /// Bytes that were refused after the VM had taken them: they are lost, by our way of refusing.
    static LOST: Cell<usize> = const { Cell::new(0) };
    /// Allocations seen.
    static SEEN: Cell<usize> = const { Cell::new(0) };
}

/// Raises at the allocation whose turn it is.
///
/// # Safety
/// Called by the VM only, for a block of `nsize` bytes that it has just taken.
unsafe extern "C-unwind" fn refuse(
    state: *mut ffi::lua_State,
    block: *mut c_void,
    osize: usize,
    nsize: usize,
    _: u8,
    tt: c_int,
    _: c_int,
) {
    /// What the VM says of blocks that are no objects: `LUA_T_ALL`, the number of its types.
    const NO_OBJECT: c_int = 17;
    if osize != 0 {
        return;
    }
    SEEN.set(SEEN.get() + 1);
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    if left == 1 {
        LOST.set(LOST.get() + nsize);
        // SAFETY: the first byte of an object is its type. Nil says that the block is free, so the collector, which
        // walks all blocks of a page, passes it by. The error is pushed, and nothing here has a destructor.
        unsafe {
            if tt < NO_OBJECT {
                block.cast::<u8>().write(0);
            }
            ffi::lua_pushnil(state);
            ffi::lua_error(state)
        }
    }
}

/// A Rust value in the VM, which tells when it goes.
struct Counted(Rc<Cell<i32>>);

impl Counted {
    fn new(alive: &Rc<Cell<i32>>) -> Self {
        alive.set(alive.get() + 1);
        Self(Rc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Object for Counted {
    const TAG: Tag = Tag::Counted;
    const NAME: &'static CStr = c"Counted";
}

/// What operations work on.
struct Bench<'w> {
    worker: &'w Worker,
    alive: &'w Rc<Cell<i32>>,
}

/// What an operation finds at 1 to 6 of an otherwise empty stack: a table with fields and elements, a string, a
/// buffer, an object, a coroutine that has not begun, and a metatable.
const FIXTURES: i32 = 6;

fn fixtures(stack: &mut Stack<'_>, bench: &Bench<'_>) {
    stack.push_table(0, 0);
    stack.push_string("value");
    stack.set_field(1, c"field");
    stack.push_number(1.0);
    stack.set_element(1, 1);
    stack.push_string("some text that no other test has");
    stack.push_buffer(b"bytes");
    stack.push_object(Counted::new(bench.alive));
    let coroutine = bench.worker.root.new_coroutine().expect("a coroutine");
    stack.push_pin(coroutine.pin());
    stack.push_table(0, 1);
    stack.push_boolean(true);
    stack.set_field(6, c"__metatable");
    assert_eq!(stack.len(), FIXTURES);
}

type Operation = fn(&mut Stack<'_>, &Bench<'_>);

/// Bytes that whoever catches errors may keep for the next one.
const KEPT: usize = 128;

/// Runs `operation` with the fixtures below, refusing allocation `refused` (0: none). True if it got through, with
/// how many allocations.
fn attempt(
    runtime: &Runtime,
    bench: &Bench<'_>,
    operation: Operation,
    refused: usize,
) -> Option<usize> {
    // A string that is garbage would be found again, and not be made.
    used(runtime);
    let mut done = None;
    let mut top = (0, 0);
    // SAFETY: the closure leaves a stack that the protected call, which it runs in, cuts. The callbacks are the VM's.
    let result = unsafe {
        runtime.lua().exec_raw::<()>((), |state| {
            let mut stack = Stack {
                state: NonNull::new(state).expect("a state"),
                worker: Some(bench.worker),
            };
            fixtures(&mut stack, bench);
            let callbacks = ffi::lua_callbacks(state);
            (*callbacks).onallocate = Some(refuse);
            LEFT.set(refused);
            SEEN.set(0);
            operation(&mut stack, bench);
            (*callbacks).onallocate = None;
            done = Some(SEEN.get());
            top = (stack.len(), FIXTURES);
            ffi::lua_settop(state, 0);
        })
    };
    // SAFETY: as above; an error has left it set.
    unsafe {
        let main = bench.worker.root.state.as_ptr();
        (*ffi::lua_callbacks(main)).onallocate = None;
    }
    assert_eq!(result.is_ok(), done.is_some(), "{result:?}");
    assert!(top.0 >= top.1, "an operation took what it was not given");
    done
}

/// Bytes in use once all garbage is gone.
fn used(runtime: &Runtime) -> usize {
    runtime.shared().root.sweep();
    let state = runtime.shared().root.state.as_ptr();
    // SAFETY: the VM is alive and runs nothing; counting takes nothing from it.
    let (kib, rest) = unsafe {
        ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0);
        ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0);
        (
            ffi::lua_gc(state, ffi::LUA_GCCOUNT, 0),
            ffi::lua_gc(state, ffi::LUA_GCCOUNTB, 0),
        )
    };
    usize::try_from(kib).expect("not negative") * 1024
        + usize::try_from(rest).expect("not negative")
}

/// Refuses every allocation of every operation in turn; returns how many each makes.
fn refuse_all(operations: &[(&str, Operation)]) -> Vec<(String, usize)> {
    let options = Options {
        budget: None,
        ..Options::default()
    };
    // Never closed: blocks that were refused are lost, which the VM would find.
    let runtime = ManuallyDrop::new(Runtime::new(&options).expect("a VM"));
    let worker = Rc::clone(runtime.shared());
    let alive = Rc::default();
    let bench = Bench {
        worker: &worker,
        alive: &alive,
    };
    super::object::Metatable::new(runtime.lua(), &worker, Counted::TAG, Counted::NAME)
        .and_then(super::object::Metatable::install_object::<Counted>)
        .expect("a metatable");
    // Steps of the collector would come when they like.
    runtime.lua().gc_stop();
    let mut counts = Vec::new();
    for (name, operation) in operations {
        // What an operation keeps for ever, such as names, it keeps now; so does what catches the errors.
        attempt(&runtime, &bench, *operation, 0).expect("nothing is refused");
        attempt(&runtime, &bench, *operation, 1);
        let before = used(&runtime);
        LOST.set(0);
        let mut refused = 0;
        let count = loop {
            refused += 1;
            assert!(refused < 500, "{name} allocates without end");
            let done = attempt(&runtime, &bench, *operation, refused);
            let main_top = worker.root.stack(&worker).len();
            let after = used(&runtime);
            assert_eq!(alive.get(), 0, "{name}, {refused}: an object is lost");
            assert_eq!(main_top, 0, "{name}, {refused}: left on the main thread");
            assert!(
                after <= before + LOST.get() + KEPT,
                "{name}, {refused}: {before} bytes became {after}, of which {} are ours",
                LOST.get()
            );
            assert!(
                worker.json.try_borrow_mut().is_ok() && worker.scheduler.try_borrow_mut().is_ok(),
                "{name}, {refused}: left borrowed"
            );
            if let Some(count) = done {
                break count;
            }
            let again = attempt(&runtime, &bench, *operation, 0);
            assert!(again.is_some(), "{name} after {refused}");
        };
        assert_eq!(count, refused - 1, "{name}: an error was swallowed");
        counts.push(((*name).to_owned(), count));
    }
    counts
}

fn pushes(stack: &Stack<'_>, count: i32) {
    assert_eq!(stack.len(), FIXTURES + count);
}

#[track_caller]
fn expect_allocations(operations: &[(&str, Operation)]) {
    for (name, count) in refuse_all(operations) {
        assert!(count > 0, "{name} allocates nothing: list it there");
    }
}

#[test]
fn operations_on_strings_and_tables_can_be_refused_anywhere() {
    let operations: &[(&str, Operation)] = &[
        ("push_string", |stack, _| {
            stack.push_string("a string of its own");
            assert_eq!(stack.string(7), Some(&b"a string of its own"[..]));
        }),
        ("push_borrowed", |stack, _| {
            assert!(stack.push_borrowed(|stack| stack.string(2).and_then(|text| text.get(5..))));
            pushes(stack, 1);
        }),
        ("push_buffer", |stack, _| {
            stack.push_buffer(&[7; 5_000]);
            assert_eq!(stack.buffer(7).map(<[u8]>::len), Some(5_000));
        }),
        ("push_table", |stack, _| {
            stack.push_table(4, 4);
            pushes(stack, 1);
        }),
        ("set_field", |stack, _| {
            stack.push_table(0, 0);
            stack.push_number(1.0);
            stack.set_field(7, c"a field of its own");
            pushes(stack, 1);
        }),
        ("push_field", |stack, _| {
            stack.push_field(1, c"a field that is not there");
            assert!(stack.is_nil(7));
        }),
        ("set_entry", |stack, _| {
            stack.push_table(0, 0);
            stack.push_copy(2);
            stack.push_copy(3);
            stack.set_entry(7);
            pushes(stack, 1);
        }),
    ];
    expect_allocations(operations);
}

#[test]
fn operations_on_userdata_and_coroutines_can_be_refused_anywhere() {
    let operations: &[(&str, Operation)] = &[
        ("push_object", |stack, bench| {
            stack.push_object(Counted::new(bench.alive));
            assert!(stack.object::<Counted>(7).is_some());
        }),
        ("push_record", |stack, _| {
            stack.push_record(Tag::Request, [b"a", b"", b"bc", b"d"]);
            assert_eq!(stack.record(7, Tag::Request), Some(&b"abcd"[..]));
        }),
        ("push_record_of", |stack, _| {
            stack.push_record_of(Tag::Headers, |stack| stack.string(2));
            assert!(stack.record(7, Tag::Headers).is_some());
        }),
        ("set_slot", |stack, _| {
            stack.push_number(4.0);
            stack.set_slot(4, 1);
            stack.push_number(5.0);
            stack.set_slot(4, 2);
            stack.push_slot(4, 1);
            assert_eq!(stack.number(7), Some(4.0));
        }),
        ("set_own_metatable", |stack, bench| {
            stack.push_object(Counted::new(bench.alive));
            stack.set_own_metatable(7, 6, 2);
            stack.push_own_state(7, 6);
            assert_eq!(stack.kind(8), super::Kind::String);
        }),
        ("push_raise", |stack, _| {
            stack.push_raise(Raise::from("what went wrong, at length"));
            pushes(stack, 1);
        }),
        ("new_coroutine", |_, bench| {
            assert!(bench.worker.root.new_coroutine().is_some());
        }),
        ("move_to", |stack, bench| {
            let coroutine = bench.worker.root.new_coroutine().expect("made");
            let mut other = coroutine.stack(bench.worker);
            stack.push_copy(1);
            stack.move_to(&mut other, 1).expect("one value");
            stack.copy_to(&mut other, 2);
            assert_eq!((stack.len(), other.len()), (FIXTURES, 2));
        }),
    ];
    expect_allocations(operations);
}

/// JSON of several shapes, nested; twice, so that shapes are learned and used.
const JSON: &str = r#"[{"a":1,"b":[1,2,{"c":"text"}]},{"a":2,"b":[]},{"a":3,"b":{}},{"a":4,"b":null},"x",-0,1.5,true]"#;

#[test]
fn json_can_be_refused_memory_anywhere() {
    fn decode(stack: &mut Stack<'_>, bench: &Bench<'_>) {
        stack.push_string(JSON);
        let reading = crate::json::Reading::default();
        crate::json::decode(bench.worker, stack, reading, |stack| stack.bytes(7))
            .expect("it is JSON");
        assert_eq!(stack.table_len(8), 8);
    }
    fn tape(stack: &mut Stack<'_>, bench: &Bench<'_>) {
        let mut text = JSON.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut text).expect("it is JSON");
        let manner = Manner {
            null_is_nil: true,
            marks: None,
        };
        // Shapes that are dropped where the walk is thrown out of give back what they have pinned.
        let mut shapes = Shapes::default();
        for _ in 0..2 {
            let pushed =
                stack.push_tape(&tape.0, &mut shapes, bench.worker.root.released(), manner);
            assert_eq!(pushed, Ok(()));
        }
        pushes(stack, 2);
    }
    fn encode(stack: &mut Stack<'_>, bench: &Bench<'_>) {
        let mut json = bench.worker.json.borrow_mut();
        let text = crate::json::encode(&mut json, stack, 1, crate::json::Spelling::default());
        // The fixture has an element beside a field.
        assert!(text.is_err());
        stack.push_table(0, 0);
        stack.push_copy(2);
        stack.set_element(7, 1);
        let text = crate::json::encode(&mut json, stack, 7, crate::json::Spelling::default())
            .expect("a list of a string");
        stack.push_string(text);
    }
    let counts = refuse_all(&[("decode", decode), ("push_tape", tape), ("encode", encode)]);
    assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
}

#[track_caller]
fn expect_none(operations: &[(&str, Operation)]) {
    for (name, count) in refuse_all(operations) {
        assert_eq!(count, 0, "{name} allocates");
    }
}

#[test]
fn operations_on_which_others_rely_allocate_nothing() {
    let operations: &[(&str, Operation)] = &[
        ("kind, len, is_nil", |stack, _| {
            for index in -1..9 {
                let _ = (stack.kind(index), stack.is_nil(index));
            }
        }),
        ("values", |stack, _| {
            for index in -1..9 {
                let _ = (stack.boolean(index), stack.number(index));
                let _ = (stack.bytes(index), stack.table_len(index));
                let _ = (stack.atom(index), stack.type_name(index));
                let _ = (stack.object::<Counted>(index), stack.label_at(index));
                let _ = (
                    stack.record(index, Tag::Request),
                    matches!(stack.peek(index), Peek::Nil),
                );
                let _ = (stack.metatable_address(index), stack.is_read_only(index));
            }
            let _ = (stack.called_member(), stack.called_name(), stack.label());
            let _ = (stack.may_suspend(), stack.place_of_call());
        }),
        ("pushes of what is there", |stack, _| {
            stack.push_nil();
            stack.push_null();
            stack.push_boolean(true);
            stack.push_number(1.5);
            stack.push_copy(1);
            stack.push_copy(99);
            stack.push_element(1, 1);
            stack.push_value_of(1, 2);
            stack.push_running();
            stack.push_slot(4, 1);
            stack.push_own_state(4, 6);
            stack.push_callers_global(2);
            pushes(stack, 12);
        }),
    ];
    expect_none(operations);
}

#[test]
fn operations_that_change_what_is_there_allocate_nothing() {
    let operations: &[(&str, Operation)] = &[
        ("changes", |stack, _| {
            stack.push_boolean(true);
            stack.set_element(1, 1);
            stack.push_nil();
            stack.insert(1);
            stack.remove(1);
            stack.resize(9);
            stack.resize(FIXTURES);
            stack.freeze(6);
            stack.pop(0);
            pushes(stack, 0);
        }),
        ("walk, next_entry", |stack, _| {
            let mut fields = 0;
            let ended = stack.walk(1, |key, _| {
                fields += i32::from(key.name.is_some() && key.atom != Some(Atom::Accept));
                true
            });
            assert_eq!((ended, fields), (true, 1));
            pushes(stack, 0);
            let (mut entries, mut cursor) = (0, 0);
            let walked = stack.each_entry(1, (0, true), |entry| {
                let within = stack.with_element(1, 1, |at| stack.number(at));
                assert_eq!(within, Some(1.0));
                let (kind, next) = stack
                    .with_entry(1, cursor, |again| stack.kind(again.value_at()))
                    .unwrap();
                assert_eq!(kind, stack.kind(entry.value_at()));
                cursor = next;
                entries += 1;
                if entries == 2 { Err(()) } else { Ok(()) }
            });
            assert_eq!((walked, entries), (Err(()), 2));
            pushes(stack, 0);
            let mut cursor = 0;
            while let Some(next) = stack.next_entry(1, cursor) {
                stack.pop(2);
                cursor = next;
            }
            pushes(stack, 0);
        }),
        ("pins", |stack, bench| {
            let pin: Pin = stack.pin(1, bench.worker.root.released());
            stack.push_pin(&pin);
            assert!(!stack.place_of(&pin).contains(':'));
            assert!(stack.sees_argument(&pin, 3));
            stack.set_metatable(1, &pin);
            stack.pop(1);
        }),
    ];
    expect_none(operations);
}

/// The files of this folder that are unsafe.
const FILES: &[&str] = &[
    include_str!("../vm.rs"),
    include_str!("coroutine.rs"),
    include_str!("function.rs"),
    include_str!("guard.rs"),
    include_str!("object.rs"),
    include_str!("tape.rs"),
    include_str!("typed.rs"),
    include_str!("walk.rs"),
];

#[test]
fn every_unsafe_function_states_its_contract_and_its_use_of_the_stack() {
    let mut count = 0;
    for file in FILES {
        let lines: Vec<&str> = file.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let is_function = ["fn ", "extern \"C"].iter().any(|word| {
                line.trim_start()
                    .trim_start_matches("pub(crate) ")
                    .trim_start_matches("pub(super) ")
                    .strip_prefix("unsafe ")
                    .is_some_and(|rest| rest.starts_with(word))
            });
            if !is_function {
                continue;
            }
            let documentation: String = lines
                .iter()
                .take(at)
                .rev()
                .skip_while(|line| line.trim_start().starts_with("#["))
                .take_while(|line| line.trim_start().starts_with("///"))
                .copied()
                .collect();
            assert!(
                documentation.contains("# Safety") && documentation.contains("tack"),
                "{line}"
            );
            count += 1;
        }
    }
    assert!(count > 15, "{count} found");
}
