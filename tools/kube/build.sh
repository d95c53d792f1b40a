#!/usr/bin/env bash
# Builds etcd and Kubernetes as one program into the user's cache, once for each version of this folder, and prints where
# it is. Called by the Makefile; takes 5 to 10 minutes on two cores where nothing is compiled yet.
set -euo pipefail
cd "$(dirname "$0")"
export GOWORK=off CGO_ENABLED=0

cache=${XDG_CACHE_HOME:-$HOME/.cache}
[ "$(uname -s)" = Darwin ] && cache=$HOME/Library/Caches
dir=$cache/warmpath/kube-$(cat go.mod go.sum main.go | openssl dgst -sha256 -r | cut -c1-12)
if [ ! -x "$dir/hyperkube" ]; then
	version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
	minor=${version#v1.}
	flags=-X\ k8s.io/component-base/version.gitVersion=$version
	flags+=\ -X\ k8s.io/component-base/version.gitMajor=1\ -X\ k8s.io/component-base/version.gitMinor=${minor%%.*}
	echo "building etcd and Kubernetes $version as one program (once, 5 to 10 minutes; then kept in $dir)" >&2
	mkdir -p "$dir"
	go build -trimpath -ldflags "-s -w $flags" -o "$dir/hyperkube.$$" . &
	build=$!
	trap 'kill $build 2>/dev/null || true; rm -f "$dir/hyperkube.$$"' EXIT
	while kill -0 $build 2>/dev/null; do
		sleep 1
		if ((SECONDS % 30 == 0)); then echo "  still building after $SECONDS s" >&2; fi
	done
	wait $build
	mv "$dir/hyperkube.$$" "$dir/hyperkube"
	echo "built in $SECONDS s" >&2
fi
echo "$dir/hyperkube"
