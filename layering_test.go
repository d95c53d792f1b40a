// Package warmpath holds no code: this test keeps the arrows between the packages as docs/architecture.md draws them.
package warmpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/warmpath/warmpath/"

// ban forbids packages below from (a prefix of the import path inside the module) to reach packages below to,
// directly or through others.
type ban struct {
	from, to string
	except   []string // importers below these prefixes may
	why      string
}

func bans() []ban {
	cores := "standard library only: the simulator runs it unchanged"
	return []ban{
		{from: "libs/", to: module + "services/", why: "a library knows no service"},
		{from: "proto/", to: module + "libs/", why: "the wire imports nothing of ours"},
		{from: "proto/", to: module + "services/", why: "the wire imports nothing of ours"},
		{from: "libs/", to: module + "loadgen/", why: "nothing imports the load generator"},
		{from: "services/", to: module + "loadgen/", why: "nothing imports the load generator"},
		{
			from: "", to: "github.com/zeromq/goczmq",
			except: []string{"libs/kvwire", "services/ingest", "services/cmd/", "loadgen/"},
			why:    "one owner of the ZeroMQ sockets: libs/kvwire, which only ingest and the commands need",
		},
		{
			from: "", to: "k8s.io/client-go", except: []string{"libs/fleet/kube", "services/autoscaler", "services/cmd/", "loadgen/cmd/", "loadgen/enginefleet"},
			why: "Kubernetes is known to pod discovery and to the autoscaler alone, and to what runs that",
		},
		{from: "services/cmd/router", to: "k8s.io/", why: "the router is thin: no Kubernetes"},
		{from: "services/cmd/scorer", to: "k8s.io/", why: "the scorer is thin: no Kubernetes"},
		{from: "services/cmd/index", to: "k8s.io/", why: "the index is thin: no Kubernetes"},
		{from: "services/autoscaler/internal/scalingpolicy", to: "k8s.io/", why: "a policy may be a file: it knows no cluster"},
		{
			from: "", to: module + "services/autoscaler/internal/kube/controlplane", except: []string{"services/autoscaler/internal/kube/controlplane"},
			why: "tests alone start a control plane",
		},
		{
			from: "", to: "github.com/nats-io/nats-server", except: []string{"libs/bus/embedded", "services/cmd/warmpath", "loadgen/"},
			why: "no production service carries a NATS server",
		},
		{from: "", to: "charm.land/", except: []string{"services/cmd/warmpath"}, why: "terminals are known to the user's command alone"},
		{from: "services/router", to: module + "libs/prefix", why: "the router is thin: no index"},
		{from: "services/router", to: module + "libs/kvwire", why: "the router is thin: no ZeroMQ"},
		{from: "services/scorer", to: module + "libs/kvwire", why: "the scorer knows no sockets of engines"},
		{from: "services/index", to: module + "libs/kvwire", why: "the index knows no sockets of engines"},
		{from: "libs/prefix", to: "net", why: "memory only"},
		{from: "libs/kvevent", to: "net", why: "pure"},
		{from: "libs/blockkey", to: "net", why: "pure"},
		{from: "services/router/ledger", to: "github.com/prometheus/", why: "it decides and counts nothing: the simulator runs it unchanged"},
		{from: "services/router/policy", to: "github.com/", why: cores},
		{from: "services/router/policy", to: "google.golang.org/", why: cores},
		{from: "services/router/queue", to: "github.com/", why: cores},
		{from: "services/router/queue", to: "google.golang.org/", why: cores},
		{from: "services/autoscaler/decide", to: "github.com/", why: cores},
		{from: "services/autoscaler/decide", to: "google.golang.org/", why: cores},
	}
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	DepOnly    bool
}

func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Imports,Deps,DepOnly"}, patterns...)...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func ours(packages []listed) []listed {
	return slices.DeleteFunc(slices.Clone(packages), func(p listed) bool {
		return p.DepOnly && !strings.HasPrefix(p.ImportPath, module)
	})
}

func TestLayering(t *testing.T) {
	packages := ours(list(t, "./...", "./loadgen/..."))
	if len(packages) < 20 {
		t.Fatalf("go list found %d packages", len(packages))
	}
	for _, p := range packages {
		short := strings.TrimPrefix(p.ImportPath, module)
		for _, b := range bans() {
			for _, dep := range violations(b, short, p.Deps) {
				t.Errorf("%s reaches %s: %s", short, dep, b.why)
			}
		}
	}
}

func violations(b ban, short string, deps []string) []string {
	if !strings.HasPrefix(short, b.from) {
		return nil
	}
	for _, prefix := range b.except {
		if strings.HasPrefix(short, prefix) {
			return nil
		}
	}
	var found []string
	for _, dep := range deps {
		if dep == b.to || strings.HasPrefix(dep, strings.TrimSuffix(b.to, "/")+"/") {
			found = append(found, dep)
		}
	}
	return found
}

// Services meet on subjects and proto, never in code.
func TestServicesDoNotImportEachOther(t *testing.T) {
	for _, p := range ours(list(t, "./services/...")) {
		short := strings.TrimPrefix(p.ImportPath, module)
		name, isService := serviceOf(short)
		if !isService {
			continue
		}
		for _, dep := range p.Deps {
			other, ok := serviceOf(strings.TrimPrefix(dep, module))
			if ok && strings.HasPrefix(dep, module) && other != name {
				t.Errorf("%s imports %s: services meet on subjects and proto", short, dep)
			}
		}
	}
}

func serviceOf(short string) (string, bool) {
	rest, ok := strings.CutPrefix(short, "services/")
	if !ok || strings.HasPrefix(rest, "cmd/") {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, true
}

// A library that only one package may import directly has one place where its traps are known.
func TestSoleImporters(t *testing.T) {
	sole := map[string]string{
		"github.com/zeromq/goczmq":                 "libs/kvwire",
		"github.com/nats-io/nats.go":               "libs/bus",
		"github.com/nats-io/nats.go/jetstream":     "libs/bus",
		"github.com/nats-io/nats-server/v2/server": "libs/bus/embedded",
	}
	for _, p := range ours(list(t, "./...", "./loadgen/...")) {
		short := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			if owner, ok := sole[imported]; ok && short != owner {
				t.Errorf("%s imports %s: only %s may", short, imported, owner)
			}
		}
	}
}

// The bans catch what they are for: a ban that matches nothing proves nothing.
func TestBansCatchViolations(t *testing.T) {
	b := ban{from: "services/router", to: module + "libs/prefix"}
	if got := violations(b, "services/router/internal/proxy", []string{"fmt", module + "libs/prefix"}); len(got) != 1 {
		t.Fatalf("found %v, want the one violation", got)
	}
	if got := violations(b, "services/scorer", []string{module + "libs/prefix"}); got != nil {
		t.Fatalf("found %v outside the banned folder", got)
	}
}
