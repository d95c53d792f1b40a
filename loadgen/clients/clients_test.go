package clients

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	"keys", "a spent budget",
}

func TestNodeLibrary(t *testing.T) {
	t.Parallel()
	runScript(t, installed(t, "node"), "node/client.mjs", "node", "--input-type=module", "-")
}

// The library of the system's Python comes first: who has one means that.
func TestPythonLibrary(t *testing.T) {
	t.Parallel()
	const script = "python/client.py"
	if exec.Command("python3", "-c", "import openai").Run() == nil {
		runScript(t, "", script, "python3", "-")
		return
	}
	runScript(t, installed(t, "python"), script, "/usr/bin/python3", "-")
}

// installed is the folder into which install.sh has put a library.
func installed(t *testing.T, language string) string {
	t.Helper()
	folder, err := filepath.Abs("../../.cache/clients/" + language)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "made-from")); err != nil {
		t.Skipf("NOT TESTED: OpenAI's library for %s is not here; `make clients` fetches it, or says why it cannot", language)
	}
	return folder
}

// runScript runs a script against a world of its own. A script prints a line "ok NAME" or "failed NAME: why" for each check.
func runScript(t *testing.T, modules, script, program string, arguments ...string) {
	t.Helper()
	w := newWorld(t)
	text, err := os.ReadFile(script) // not only run: a new script is another test
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // far more than it takes
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Stdin = bytes.NewReader(text)
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
	if w.rendered() == 0 {
		t.Error("no chat was scored with the tokens that its engine renders")
	}
	var all sync.WaitGroup
	for model := range w.fronts {
		all.Go(func() {
			if err := w.free(ctx, model); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
