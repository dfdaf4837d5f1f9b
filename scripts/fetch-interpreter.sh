#!/bin/sh
# Creates .cache/interpreter/, the Python environment of tests/interpreter: NumPy, and jaxlib for its MLIR parser. Needs
# Python 3.11 to 3.13. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
exec scripts/python-env.sh .cache/interpreter 'ml_dtypes, numpy, jaxlib.mlir.ir' scripts/requirements-interpreter.txt
