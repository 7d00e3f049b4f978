#!/bin/sh
# Make sure that the locked environment exists, then run a command inside it:  sh tools/env.sh python -m pytest
# It lives in the active virtual environment if there is one, else in .venv; a stamp holds the lock's checksum,
# so a second call costs nothing and a changed lock installs again.
set -eu
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
VENV="${VIRTUAL_ENV:-$PWD/.venv}"
UV_VERSION=0.13.9
want=$(cat requirements.lock requirements-npm.lock settings.ini setup.py tools/env.sh | cksum)
if [ "$(cat "$VENV/.croissant" 2>/dev/null || true)" != "$want $PWD" ]; then
  "$PYTHON" -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "croissant needs Python 3.11 to 3.13; found %s. Set PYTHON=/path/to/python3.11" % sys.version.split()[0])'
  echo "installing the locked environment into $VENV (a few minutes, once)"
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  # torch first and alone: pip takes the build that suits the machine, CPU or CUDA; the lock leaves it out.
  "$VENV/bin/python" -m pip install --quiet torch==2.13.0
  # uv installs the lock in a fraction of pip's time; where it cannot, pip does the same from the same hashes.
  { "$VENV/bin/python" -m pip install --quiet "uv==$UV_VERSION" &&
    "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --no-deps --require-hashes --compile-bytecode -r requirements.lock; } ||
    "$VENV/bin/python" -m pip install --quiet --no-deps --require-hashes -r requirements.lock
  # Some source packages come from npm. A machine without it gets one inside the environment; only fetching needs it.
  command -v npm >/dev/null 2>&1 ||
    "$VENV/bin/python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r requirements-npm.lock ||
    echo "no npm, and none could be installed: everything but fetching the npm packages will work" >&2
  "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e . 2>/dev/null ||
    "$VENV/bin/python" -m pip install --no-deps --no-build-isolation -e .
  echo "$want $PWD" > "$VENV/.croissant"
fi
PATH="$VENV/bin:$PATH"; export PATH
[ $# -eq 0 ] || exec "$@"
