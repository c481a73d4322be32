#!/usr/bin/env bash
# Which lines the tests reach, in Python and in C++; everything lies in build/coverage, a page for each half:
#
#   tests/coverage.sh [pytest arguments]   (default: all tests)
#
# PYTHON names an interpreter with the packages of corepress[test,coverage] and pybind11 (default: python3), and no
# editable install of corepress. The compiler is GCC; other instruction-set levels than this machine's are not reached.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
build=$PWD/build/coverage
mkdir -p "$build/python"

echo "== Python module, whose calls are counted"
cmake -S . -B "$build/module" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSKBUILD_PROJECT_VERSION=0 \
    "-DCMAKE_CXX_FLAGS=--coverage -fprofile-update=prefer-atomic" \
    -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$build.log"
cmake --build "$build/module" --parallel "$(getconf _NPROCESSORS_ONLN)" >>"$build.log" || { tail -50 "$build.log" && exit 1; }
find "$build/module" -name '*.gcda' -delete
rm -rf "$build/python/corepress"
cp -r python/corepress "$build/python/"
rm -f "$build"/python/corepress/_core*.so
cp "$build"/module/_core*.so "$build/python/corepress/"

echo "== tests"
export PYTHONPATH=$build/python
failed=0
"$python" -m pytest -q -p no:cacheprovider --cov=corepress --cov-report= "$@" || failed=$?
"$python" -m coverage html --quiet --directory "$build/python-half"
"$python" -m coverage report --skip-covered --sort=cover | tail -40
echo "== C++"
"$python" -m gcovr --root . --filter csrc/ "$build/module" --exclude-throw-branches --html-details "$build/cpp.html" \
    --merge-mode-functions=separate --merge-lines --gcov-suspicious-hits-threshold=0 \
    --print-summary --sort uncovered-percent
echo "build/coverage/python-half/index.html and build/coverage/cpp.html show every line"
exit $failed
