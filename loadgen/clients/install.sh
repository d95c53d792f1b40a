#!/usr/bin/env bash
# Fetches OpenAI's official libraries for Node and Python into .cache/clients, once, and nothing into the system. Where
# one is not to be had it says so, and the tests with it are skipped: none of them is needed to build or to run anything.
set -euo pipefail
cd "$(dirname "$0")"
cache=$(cd ../.. && pwd)/.cache/clients

# lack ends the attempt at one library with the reason.
lack() {
	echo "$*"
	exit 1
}

# fetch_node installs what the lock file says into a folder.
fetch_node() {
	command -v node >/dev/null && command -v npm >/dev/null || lack "there is no node or no npm"
	[ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ] || lack "node $(node -v) is too old, it takes 20"
	cp node/package.json node/package-lock.json node/.npmrc "$1"
	cd "$1"
	npm ci --ignore-scripts --loglevel=error --fetch-retries=1 >npm.log 2>&1 || lack "npm ci failed: $(tail -n 1 npm.log)"
}

# fetch_python unpacks packages of Debian into a folder, for the system's Python; all of them are plain Python. The
# library is of the release after bookworm; what it needs is of bookworm, in versions that it allows.
fetch_python() {
	local release mirror packages
	# shellcheck disable=SC1091
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	[ "$release" = bookworm ] && command -v apt-get >/dev/null && command -v /usr/bin/python3 >/dev/null ||
		lack "python3 has no module openai, and only for Debian bookworm is it known where to get it"
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' | awk '$2 == "bookworm" && $3 == "main" {print $1; exit}')
	[ -n "$mirror" ] || lack "apt has no source for bookworm"
	mapfile -t packages <python/bookworm/packages
	cp python/bookworm/pydantic_core.py "$1"
	mkdir -p "$1"/apt/lists/partial "$1"/apt/cache/archives/partial
	cd "$1/apt"
	printf 'deb %s %s main\n' "$mirror" bookworm "$mirror" trixie >sources.list
	apt() {
		apt-get -qq -o "Dir::Etc::sourcelist=$PWD/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$PWD/lists" \
			-o "Dir::Cache=$PWD/cache" -o APT::Sandbox::User= -o Acquire::http::Timeout=20 "$@" >>apt.log 2>&1 ||
			lack "apt-get $1 failed: $(tail -n 1 apt.log)"
	}
	apt update
	apt download "${packages[@]}"
	for package in *.deb; do dpkg -x "$package" root; done
	mv root/usr/lib/python3/dist-packages/* ..
	cd ..
	rm -rf apt
}

# library fetches one library, unless the folder is there and made from the same list of packages.
library() {
	local name=$1 list=$2 new why
	cmp -s "$list" "$cache/$name/made-from" && return
	echo "fetching OpenAI's library for $name (once, some seconds)"
	mkdir -p "$cache"
	new=$(mktemp -d "$cache/new.XXXXXX")
	if why=$(bash "$PWD/install.sh" "fetch_$name" "$new"); then
		cp "$list" "$new/made-from"
		rm -rf "${cache:?}/$name"
		mv "$new" "$cache/$name"
	else
		echo "SKIPPED: the test with OpenAI's library for $name, which is not to be had here: $why"
		rm -rf "$new"
	fi
}

if [ $# -gt 0 ]; then # a process of its own, so that its failures end it
	"$@"
	exit
fi
library node node/package-lock.json
python3 -c 'import openai' 2>/dev/null || library python python/bookworm/packages
