#!/usr/bin/env bash
# Runs the Autobahn|Testsuite against the WebSocket server, then against the client, and compares
# every verdict with the recorded ones beside this script. A difference fails.
#
#   tests/autobahn/run.sh             # both ends, all sections; about two minutes each
#   tests/autobahn/run.sh client      # one end: client or server
#   UPDATE=1 tests/autobahn/run.sh    # records the verdicts instead
#
# The suite is for Python 2.7 and pins what it needs. It is installed once, from the Python package
# index, into AUTOBAHN_VENV (default: the user's cache folder). Where no Python 2.7 is found, or the
# index is out of reach, the script says so and exits with 77.
#
# Sections 12 and 13 send MESSAGES messages a case (default 20; the suite's own number is 1000).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${AUTOBAHN_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/hukilau-autobahn}
messages=${MESSAGES:-20}
ends=${1:-server client}
work=$(mktemp -d)
# The one background process: our server, or the suite's.
peer=
trap '[ -z "$peer" ] || kill "$peer" 2>/dev/null || true; rm -rf "$work"' EXIT

find_python() {
    for python in "${AUTOBAHN_PYTHON:-}" python2.7 "$HOME"/.pyenv/versions/2.7*/bin/python2.7; do
        [ -n "$python" ] && "$python" -c 'import ssl, zlib' 2>/dev/null && { echo "$python"; return; }
    done
    echo "skipped: no working python2.7 found; name one in AUTOBAHN_PYTHON" >&2
    return 1
}

install() {
    local python=$1 boot=$work/boot pip
    "$python" -m pip install -q --no-warn-script-location --target "$boot" 'virtualenv==20.15.1'
    PYTHONPATH=$boot "$python" -m virtualenv -q --no-download "$venv"
    pip="$venv/bin/python -m pip --disable-pip-version-check install -q"
    $pip 'pip==20.3.4' 'setuptools==44.0.0' 'wheel==0.36.2'
    $pip 'incremental==16.10.1'
    # The versions that the suite's own image pins.
    $pip 'pyOpenSSL==19.1.0' 'cryptography==3.3.2' 'six==1.16.0' 'zope.interface==4.6.0' \
        'txaio==2.1.0' 'jinja2==2.11.3' 'markupsafe==1.1.1' 'Werkzeug==1.0.1' \
        'service_identity==18.1.0' 'unittest2==1.1.0'
    $pip --no-build-isolation 'Twisted==19.10.0' 'klein==17.10.0'
    $pip --no-build-isolation 'autobahn==0.10.9'
    $pip 'wsaccel==0.6.2' || echo "without wsaccel: slower, same verdicts" >&2
    $pip --no-deps --no-build-isolation 'autobahntestsuite==25.10.1'
}

if [ ! -x "$venv/bin/wstest" ]; then
    python=$(find_python) || exit 77
    # A step that fails leaves no wstest.
    install "$python" >&2 || true
fi
[ -x "$venv/bin/wstest" ] || { echo "skipped: the suite could not be installed" >&2; exit 77; }

# A copy of the suite whose compression cases send fewer messages, so that the installed one stays
# as its authors made it.
cp -r "$venv/lib/python2.7/site-packages/autobahntestsuite" "$work/autobahntestsuite"
sed -i "s/,\( *\)1000,/,\1$messages,/" "$work"/autobahntestsuite/case/case1[23]_*.py
find "$work/autobahntestsuite" -name '*.pyc' -delete

cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p hukilau-core --examples
examples=${CARGO_TARGET_DIR:-$root/target}/release/examples

# The suite as a client of our server.
run_server() {
    mkfifo "$work/port"
    "$examples/hello" 127.0.0.1:0 compress >"$work/port" &
    peer=$!
    read -r line <"$work/port"
    cat >"$work/spec.json" <<JSON
{"outdir": "$work/server", "servers": [{"agent": "hukilau", "url": "ws://${line##* }"}],
 "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}}
JSON
    (cd "$work" && PYTHONPATH=$work timeout 1200 "$venv/bin/wstest" -m fuzzingclient -s spec.json >wstest.log 2>&1) ||
        { tail -5 "$work/wstest.log" >&2; exit 1; }
    kill "$peer" || { echo "the server did not survive" >&2; exit 1; }
    peer=
}

# The suite as a server of our client. It cannot choose a port by itself.
run_client() {
    local port
    port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat >"$work/spec.json" <<JSON
{"url": "ws://127.0.0.1:$port", "outdir": "$work/client", "webport": 0,
 "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}}
JSON
    (cd "$work" && exec env PYTHONPATH="$work" "$venv/bin/wstest" -m fuzzingserver -s spec.json >wstest.log 2>&1) &
    peer=$!
    until "$venv/bin/python" -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2>/dev/null; do
        kill -0 "$peer" 2>/dev/null || { tail -5 "$work/wstest.log" >&2; exit 1; }
        sleep 0.2
    done
    timeout 1200 "$examples/autobahn_client" "127.0.0.1:$port"
    kill "$peer"
    peer=
}

for end in $ends; do
    "run_$end"
    "$venv/bin/python" "$here/verdicts.py" "$work/$end/index.json" >"$work/verdicts.txt"
    if [ -n "${UPDATE:-}" ]; then
        cp "$work/verdicts.txt" "$here/expected-$end.txt"
    fi
    diff -u "$here/expected-$end.txt" "$work/verdicts.txt" || { echo "verdicts of the $end differ from the recorded ones" >&2; exit 1; }
    echo "$end:"
    cut -d' ' -f2 "$work/verdicts.txt" | sort | uniq -c
done
