//! How much of what is freed the system's allocator keeps.
//!
//! Sits beside `vm.rs`, as what it asks for cannot be asked for safely. Luau frees by the garbage
//! collector, many blocks at a time, and allocates as many again soon after. glibc's allocator gives
//! 128 KiB and more of free memory at the end of its heap back to the system at once, and blocks of
//! that size always: each buffer of a long message then is memory that the system has to clear and to
//! map, page by page, which costs more than all else that is done with it.
//!
//! Invariants
//! - What is kept is bounded: by [`KEPT_BYTES`] at the end of each heap.
//!
//! Not here: when the collector works (`runtime.rs`), limits of the VM's memory (`guard.rs`).

/// Free bytes at the end of a heap above which the system gets them back.
#[cfg(all(unix, target_env = "gnu"))]
const KEPT_BYTES: std::ffi::c_int = 8 * 1024 * 1024;

/// Blocks from here on are mapped, and unmapped when they are freed. Tables of connections are, as they would leave
/// holes in the heap whenever they grow; buffers of messages of 64 KiB are not.
#[cfg(all(unix, target_env = "gnu"))]
const MAPPED_BYTES_MIN: std::ffi::c_int = 256 * 1024;

/// Lets the allocator of the process keep up to 8 MiB of what is freed, where that is glibc's; does
/// nothing elsewhere. A server whose messages or bodies are long saves a tenth of its time.
///
/// For the `main` of a program, which alone knows whom else it concerns: `huki` calls it first.
pub fn keep_freed_memory() {
    #[cfg(all(unix, target_env = "gnu"))]
    {
        // <malloc.h>
        const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        unsafe extern "C" {
            fn mallopt(param: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        for (param, value) in [
            (M_TRIM_THRESHOLD, KEPT_BYTES),
            (M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        ] {
            // SAFETY: declared as in <malloc.h>; it takes any two numbers, holds the heap's lock, and
            // refuses what it does not know, which leaves the defaults.
            let _is_known = unsafe { mallopt(param, value) };
        }
    }
}
