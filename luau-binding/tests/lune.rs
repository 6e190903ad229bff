//! What Lune's surface asks of the native module that no program can wait for. Its programs are in
//! `tests/luau/lune`.

use crate::stub;

#[test]
fn rows_027_and_028_a_request_may_take_as_long_as_it_likes() {
    let asked = stub::values(
        "require('@lune/net').request('http://localhost')
        return asked.options.timeout, asked.options.connectTimeout, asked.options.maxBodyBytes",
    );
    assert_eq!(asked, [f64::INFINITY; 3]);
}

#[test]
fn row_064_a_head_has_thirty_seconds() {
    let asked = stub::values(
        "require('@lune/net').serve(0, print) return asked.options.limits.headTimeout",
    );
    assert_eq!(asked, [30.0]);
}
