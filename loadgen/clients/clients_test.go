package clients

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// checks are what every script must have shown.
var checks = []string{
	"chat", "chat in a stream", "completions", "completions in a stream", "the assembling helper", "parameters pass untouched",
	"a stream left early", "20 streams at once", "request ids", "embeddings", "responses",
	"models", "bad requests", "a prompt too long", "a body too large", "an unknown path",
	"busy, then served", "busy for good", "down, then served", "gone", "lost in a stream", "lost in an answer",
	"a timeout", "a call aborted", "a stream aborted", "statuses", "tool calls",
}

func TestNodeLibrary(t *testing.T) {
	t.Parallel()
	runScript(t, install(t, "node"), "node", "node/client.mjs")
}

func TestPythonLibrary(t *testing.T) {
	t.Parallel()
	python, from := "python3", install(t, "python")
	if system := "/usr/bin/python3"; from != "" && exec.Command(system, "--version").Run() == nil {
		python = system // what Debian's packages are for
	}
	runScript(t, from, python, "python/client.py")
}

// install returns the folder of a library. Where it cannot be had the test is skipped, in words that say why.
func install(t *testing.T, language string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "install.sh", language)
	said, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	last := lines[len(lines)-1]
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: OpenAI's library for %s is not to be had here: %s", language, last)
	}
	return last
}

// runScript runs a script against a world of its own. A script prints a line "ok NAME" or "failed NAME: why" for each check.
func runScript(t *testing.T, modules, program, script string) {
	t.Helper()
	w := newWorld(t)
	path, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, path)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules, "NODE_MODULES="+modules, "ROUTER="+w.router, "BACKSTAGE="+w.backstage)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
	var done []string
	for line := range strings.Lines(string(said)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			done = append(done, name)
			continue
		}
		t.Log(strings.TrimRight(line, "\n"))
	}
	slices.Sort(done)
	if want := slices.Sorted(slices.Values(checks)); !slices.Equal(done, want) {
		t.Errorf("shown:\n%s\nasked for:\n%s", strings.Join(done, "\n"), strings.Join(want, "\n"))
	}
	for model := range w.fronts {
		if err := w.free(ctx, model); err != nil {
			t.Error(err)
		}
	}
}
