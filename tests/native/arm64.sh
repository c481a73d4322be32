#!/usr/bin/env bash
# Cross-compiles the kernels for 64-bit Arm and runs their test under an emulator: the digest must be x86-64's.
# Needs a cross-compiler and qemu-user; on Debian g++-aarch64-linux-gnu and qemu-user.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/arm64
cmake -S . -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER="${CXX:-aarch64-linux-gnu-g++}" -DCMAKE_EXE_LINKER_FLAGS=-static \
    -DCOREPRESS_PYTHON=OFF -DCOREPRESS_TESTS=ON -DCOREPRESS_WARNINGS_AS_ERRORS=ON -DSKBUILD_PROJECT_VERSION=0
cmake --build "$build" --parallel "$(getconf _NPROCESSORS_ONLN)"
"${QEMU:-qemu-aarch64}" "$build/digest" tests/native/digest.txt
