#!/usr/bin/env bash
# Builds the kernels and the Python module with sanitizers and runs their tests, all in build/sanitize-*:
#
#   tests/native/sanitize.sh address,undefined [pytest arguments]   (default: kernels, compression, tensors)
#   tests/native/sanitize.sh thread [pytest arguments]              (default: the tests that use several threads)
#
# PYTHON names an interpreter with the packages of corepress[test] and pybind11 (default: python3); CXX the compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."
sanitizers=${1:?"usage: tests/native/sanitize.sh address,undefined|thread [pytest arguments]"}
shift
python=${PYTHON:-python3}
compiler=${CXX:-c++}
build=$PWD/build/sanitize-${sanitizers//,/-}
mkdir -p "$build"
options=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_COMPILER=$compiler" "-DCOREPRESS_SANITIZE=$sanitizers"
    -DCOREPRESS_WARNINGS_AS_ERRORS=ON)

case $sanitizers in
*thread*)
    runtimes=(libtsan.so)
    tests=(tests/kernels/test_same_bytes.py)
    # Address space randomisation of recent kernels puts the program where this sanitizer wants its own memory.
    run=(setarch "$(uname -m)" --addr-no-randomize env)
    ;;
*)
    runtimes=(libasan.so libubsan.so)
    tests=(tests/kernels tests/compression tests/tensors)
    run=(env)
    ;;
esac
# The interpreter frees nothing at its end, so leaks cannot be told from its habits there; the digest looks for them.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1

echo "== digest"
cmake -S . -B "$build/native" "${options[@]}" -DCOREPRESS_PYTHON=OFF -DCOREPRESS_TESTS=ON -DSKBUILD_PROJECT_VERSION=0 >"$build.log"
cmake --build "$build/native" --parallel "$(getconf _NPROCESSORS_ONLN)" >>"$build.log" || { tail -50 "$build.log" && exit 1; }
"${run[@]}" "$build/native/digest" tests/native/digest.txt
echo "== threads"
"${run[@]}" "$build/native/test_parallel"
if [[ $sanitizers != *thread* ]]; then  # races are what it is about
    echo "== arrays that change during calls"
    "${run[@]}" "$build/native/changing_arrays"
fi

echo "== Python module"
cmake -S . -B "$build/module" "${options[@]}" -DSKBUILD_PROJECT_VERSION=0 -DPython_EXECUTABLE="$("$python" -c \
    'import sys; print(sys.executable)')" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >>"$build.log"
cmake --build "$build/module" --parallel "$(getconf _NPROCESSORS_ONLN)" >>"$build.log" || { tail -50 "$build.log" && exit 1; }
rm -rf "$build/python"
mkdir -p "$build/python"
cp -r python/corepress "$build/python/"
rm -f "$build"/python/corepress/_core*.so
cp "$build"/module/_core*.so "$build/python/corepress/"

# The interpreter is not built with sanitizers, so their runtimes must be there before it starts.
preload=()
for runtime in "${runtimes[@]}" libstdc++.so; do
    preload+=("$("$compiler" -print-file-name="$runtime")")
done
run+=("LD_PRELOAD=${preload[*]}" ASAN_OPTIONS=detect_leaks=0 "PYTHONPATH=$build/python" COREPRESS_SANITIZED=1)
"${run[@]}" "$python" - "$build" <<'END'
import sys
import corepress
if not corepress.__file__.startswith(sys.argv[1]):
    sys.exit(f"another corepress is in the way ({corepress.__file__}): use an environment without an editable install")
END
[ $# -gt 0 ] || set -- "${tests[@]}"
"${run[@]}" "$python" -m pytest -q -p no:cacheprovider "$@"
