#!/usr/bin/env bash
# Installs what the build needs beside Go, git and make: a C compiler, pkg-config and CZMQ (for goczmq).
# Does nothing where they are there already. Called by the Makefile.
set -euo pipefail

packages="gcc libc6-dev pkg-config libczmq-dev"

missing() {
	command -v gcc >/dev/null 2>&1 && command -v pkg-config >/dev/null 2>&1 &&
		pkg-config --exists libczmq libzmq libsodium && return 1
	return 0
}

missing || exit 0

hint="Warmpath needs a C compiler, pkg-config and the CZMQ headers"
if command -v apt-get >/dev/null 2>&1; then
	sudo=""
	if [ "$(id -u)" -ne 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			echo "$hint; run: sudo apt-get install -y $packages" >&2
			exit 1
		fi
		sudo="sudo"
	fi
	echo "installing $packages"
	log=$(mktemp)
	if ! { $sudo apt-get update &&
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		echo "$hint; installing $packages failed, see above" >&2
		exit 1
	fi
	rm -f "$log"
elif command -v dnf >/dev/null 2>&1; then
	echo "$hint; run: sudo dnf install gcc pkgconf-pkg-config czmq-devel libsodium-devel" >&2
	exit 1
elif command -v pacman >/dev/null 2>&1; then
	echo "$hint; run: sudo pacman -S gcc pkgconf czmq libsodium" >&2
	exit 1
elif command -v brew >/dev/null 2>&1; then
	echo "$hint; run: brew install pkg-config czmq libsodium" >&2
	exit 1
else
	echo "$hint (Debian names: $packages)" >&2
	exit 1
fi

if missing; then
	echo "$hint; $packages are installed, but pkg-config does not find libczmq" >&2
	exit 1
fi
