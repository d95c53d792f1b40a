package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 60 * time.Second

// commands are the binaries that a user runs.
type commands struct{ warmpath, loadgen string }

func buildCommands(t *testing.T) commands {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "github.com/warmpath/warmpath/services/cmd/warmpath", "github.com/warmpath/warmpath/loadgen/cmd/loadgen")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return commands{filepath.Join(dir, "warmpath"), filepath.Join(dir, "loadgen")}
}

// process is a command that runs until it is told to stop.
type process struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// interrupt sends what Ctrl-C sends; the command must drain and exit with 0.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	killed := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer killed.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s after an interrupt: %v\n%s", filepath.Base(p.cmd.Path), err, p.output())
	}
}

// readyFile waits for a ready file and decodes it.
func readyFile(t *testing.T, p *process, path string, into any) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for give := time.Now().Add(patience); time.Now().Before(give); <-poll.C {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no ready file; output:\n%s", p.output())
}

func runToEnd(t *testing.T, name string, args ...string) (out string, code int) {
	t.Helper()
	data, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(data), code
}

func post(t *testing.T, url, body string) (int, http.Header, string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(answer)
}

// What the README tells a newcomer to type: engines, warmpath up, requests, a recording, a replay, Ctrl-C.
func TestCommandsWorkTogether(t *testing.T) {
	bin, dir := buildCommands(t), t.TempDir()
	engines := start(t, bin.loadgen, "engines", "-n", "2", "--profile", "instant", "--model", "m", "--ready-file", dir+"/engines.json")
	var list struct {
		Engines []engineRecord `json:"engines"`
	}
	readyFile(t, engines, dir+"/engines.json", &list)
	if len(list.Engines) != 2 || !strings.Contains(engines.output(), "--engine "+list.Engines[1].URL) {
		t.Fatalf("ready file %+v, output\n%s", list, engines.output())
	}
	stack := start(t, bin.warmpath, "up", "--engines-file", dir+"/engines.json", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
		"--data-dir", dir+"/data", "--ready-file", dir+"/up.json")
	var urls struct{ Router, Metrics, Index, Scorer, NATS string }
	readyFile(t, stack, dir+"/up.json", &urls)

	request := `{"model":"m","max_tokens":3,"prompt":"` + strings.Repeat("the same long system prompt ", 40) + `"}`
	first := ask(t, urls.Router, request)
	recording := start(t, bin.warmpath, "events", "record", "--frames", "2", "--out", dir+"/events.jsonl", first.events(list.Engines))
	for range 6 { // warm requests go where the first one went
		if again := ask(t, urls.Router, request); again.engine != first.engine {
			t.Errorf("an equal request went to %s, the first to %s", again.engine, first.engine)
		}
	}
	feed(t, recording, first.url(list.Engines))
	if out, code := runToEnd(t, bin.warmpath, "events", "verify", dir+"/events.jsonl"); code != 0 || !strings.Contains(out, "verified 2 cases") || !strings.HasSuffix(strings.TrimSpace(out), "0 mismatches") {
		t.Errorf("verify of a recording: exit %d\n%s", code, out)
	}
	trace := `{"timestamp":0,"input_length":600,"output_length":4,"hash_ids":[1,2]}` + "\n" + `{"timestamp":50,"input_length":700,"output_length":4,"hash_ids":[1,3]}` + "\n"
	if err := os.WriteFile(dir+"/trace.jsonl", []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := runToEnd(t, bin.loadgen, "run", "--url", urls.Router, "--model", "m", "--trace", dir+"/trace.jsonl"); code != 0 || !strings.Contains(out, "TTFT p50") {
		t.Errorf("run: exit %d\n%s", code, out)
	}
	metrics(t, urls.Metrics)
	if out, code := runToEnd(t, bin.warmpath, "up", "--engines-file", dir+"/engines.json", "--ops", "127.0.0.1:0", "--data-dir", dir+"/data"); code != 1 || !strings.Contains(out, "in use") {
		t.Errorf("a second process on the same data: exit %d\n%s", code, out)
	}
	stack.interrupt(t)
	engines.interrupt(t)
	decisionLine(t, stack.output())
}

// decisionLine checks the shape of the first decision line: a message and one JSON object with every field.
func decisionLine(t *testing.T, log string) {
	t.Helper()
	_, rest, found := strings.Cut(log, " INFO Got pod scores ")
	object, _, _ := strings.Cut(rest, "\n")
	var line map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &line); !found || err != nil {
		t.Fatalf("decision line %q: %v", object, err)
	}
	for _, field := range []string{
		"x-request-id", "model", "resolvedTargetModel", "priority", "scores", "costs", "chosen", "reason", "unknown", "partial", "us",
	} {
		if _, ok := line[field]; !ok {
			t.Errorf("a decision line without %s: %s", field, object)
		}
	}
}

type answer struct{ engine string }

func ask(t *testing.T, router, body string) answer {
	t.Helper()
	code, header, text := post(t, router+"/v1/completions", body)
	if code != http.StatusOK || header.Get("x-warmpath-engine") == "" || header.Get("x-request-id") == "" {
		t.Fatalf("%d %v %s", code, header, text)
	}
	return answer{header.Get("x-warmpath-engine")}
}

func (a answer) find(engines []engineRecord) engineRecord {
	for _, e := range engines {
		if e.Name == a.engine {
			return e
		}
	}
	return engineRecord{}
}

func (a answer) events(engines []engineRecord) string { return a.find(engines).Events }
func (a answer) url(engines []engineRecord) string    { return a.find(engines).URL }

// feed gives an engine new prompts until the recording has what it wants: a subscriber hears nothing of before.
func feed(t *testing.T, recording *process, engine string) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- recording.cmd.Wait() }()
	for i := 0; ; i++ {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("record: %v\n%s", err, recording.output())
			}
			return
		default:
			if i > 10_000 {
				t.Fatal("nothing was recorded")
			}
			post(t, engine+"/v1/completions", fmt.Sprintf(`{"model":"m","max_tokens":1,"prompt":"%d %s"}`, i, strings.Repeat("word ", 40)))
		}
	}
}

// metrics waits until every service shows a metric: the autoscaler has none before the router's first report.
func metrics(t *testing.T, base string) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var missing []string
	for give := time.Now().Add(patience); time.Now().Before(give); <-poll.C {
		res, err := http.Get(base + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		missing = missing[:0]
		for _, service := range []string{"ingest", "index", "scorer", "router", "autoscaler"} {
			if !bytes.Contains(text, []byte("\nwarmpath_"+service+"_")) {
				missing = append(missing, service)
			}
		}
		if len(missing) == 0 {
			return
		}
	}
	t.Errorf("no metrics of %v", missing)
}

func TestUpExplainsWhatIsWrong(t *testing.T) {
	bin := buildCommands(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no engine":     {[]string{"up"}, "--engine URL"},
		"open address":  {[]string{"up", "--engine", "http://127.0.0.1:1", "--listen", "0.0.0.0:0", "--ops", "127.0.0.1:0", "--data-dir", t.TempDir()}, "--no-auth"},
		"same ports":    {[]string{"up", "--engine", "http://127.0.0.1:1", "--engine", "http://127.0.0.1:2", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data-dir", t.TempDir()}, "--kv-events-config"},
		"bad engine":    {[]string{"up", "--engine", "http://127.0.0.1:1,ranks=0"}, "ranks=0"},
		"unknown flag":  {[]string{"up", "--engin", "http://127.0.0.1:1"}, "engin"},
		"missing file":  {[]string{"events", "verify", "no-such-file"}, "no-such-file"},
		"no files":      {[]string{"events", "verify"}, "at least one file"},
		"record of two": {[]string{"events", "record", "a", "b"}, "one endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := runToEnd(t, bin.warmpath, c.args...)
			if code == 0 || !strings.Contains(out, c.want) {
				t.Errorf("exit %d, want an error that says %q:\n%s", code, c.want, out)
			}
		})
	}
}
