#!/usr/bin/env bash
# Fetches OpenAI's official library for Node or Python into the cache, once, and prints its folder as the last line.
# Fails, with the reason as the last line, where the language or its packages are not to be had. Installs nothing on the system.
set -euo pipefail
cd "$(dirname "$0")"
cache=$(cd ../.. && pwd)/.cache/clients

fail() {
	echo "$1"
	exit 1
}

# into runs a command in a new folder, which becomes the named one when the command has succeeded.
into() {
	local folder=$1
	shift
	mkdir -p "$(dirname "$folder")"
	local new
	new=$(mktemp -d "$folder.XXXXXX")
	if ! "$@" "$new" >"$new.log" 2>&1; then
		tail -n 5 "$new.log"
		rm -rf "$new" "$new.log"
		fail "its packages did not come (see above)"
	fi
	mv -T "$new" "$folder" 2>/dev/null || rm -rf "$new" # another process was first
	rm -f "$new.log"
}

npm_install() {
	cp node/package.json node/package-lock.json node/.npmrc "$1"
	(cd "$1" && npm ci --ignore-scripts)
}

case $1 in
node)
	command -v node >/dev/null && command -v npm >/dev/null || fail "there is no node or no npm"
	major=$(node -p 'process.versions.node.split(".")[0]')
	[ "$major" -ge 20 ] || fail "it needs node 20, here is $major"
	folder=$cache/node-$(sha256sum node/package-lock.json | cut -c1-12)
	[ -d "$folder" ] || into "$folder" npm_install
	echo "$folder"
	;;
*) fail "unknown language $1" ;;
esac
