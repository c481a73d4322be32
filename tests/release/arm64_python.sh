#!/usr/bin/env bash
# Makes a Python 3.11 for 64-bit Arm that runs on other processors, in an emulator, out of Debian 12's packages:
# `tests/release/arm64_python.sh`, then `build/arm64/python`. Needs qemu-user, and apt set up for Debian 12.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/arm64 && cd build/arm64
folder=$PWD
mkdir -p lists/partial cache/archives/partial packages root
packages=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1
    libssl3 libffi8 libbz2-1.0 liblzma5 libcrypt1 libsqlite3-0 libuuid1)
# Lists and caches of their own: the system's apt is not to know of another architecture.
options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache")
apt-get "${options[@]}" -qq update
(cd packages && apt-get "${options[@]}" -qq download "${packages[@]}")
for package in packages/*.deb; do
    dpkg-deb -x "$package" root
done
cat >python <<EOF
#!/bin/sh
PYTHONHOME=$folder/root/usr exec "\${QEMU:-$(command -v qemu-aarch64)}" -0 "$folder/python" -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
EOF
chmod +x python
./python -c 'import platform, sys; print(sys.executable, platform.python_version(), platform.machine())'
