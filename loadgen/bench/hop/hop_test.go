package hop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// The tests' own executable plays the roles.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "role" {
		if err := Serve(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// small is every part in miniature. How many scores come late is told of the machine, which other tests share.
func small(t *testing.T, parts ...string) Options {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Parts: parts, Self: []string{path, "role"}, Requests: 40, Seconds: .4, Streams: 20, Late: .9}
}

// TestEveryPartGivesItsFigures runs all of it through real processes and a real router.
func TestEveryPartGivesItsFigures(t *testing.T) {
	var f Figures
	o := small(t, "2048x20", "220000x1", "chunks", "rps", "request", "idle", "decision", "floor", "streams")
	if err := Run(t.Context(), o, &f); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := f.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	for _, r := range f.Results {
		if r.Errors != 0 || r.Requests < 32 || r.Direct.P50 <= 0 || r.Router.P50 <= r.Direct.P50 || r.Score.P50 <= 0 || r.CPU <= 0 || r.Allocations <= 0 {
			t.Errorf("row %+v", r)
		}
	}
	if len(f.Results) != 2 || f.ChunkUS <= 0 || f.MaxRPS["8192"] <= f.MaxRPS["220000"] || f.CoreRPS["220000"] <= 0 || f.RequestCPU <= 0 {
		t.Errorf("figures %+v", f)
	}
	if f.IdleCores == nil || f.Decision == nil || f.Decision.P99 <= 0 || f.Streams == nil || f.Streams.Lost != 0 {
		t.Errorf("figures %+v", f)
	}
	if len(f.Floors) != len(proxies) || f.Floors[0].ChunkUS <= 0 || f.Floors[1].CPU <= 0 || f.Floors[1].Added.P50 <= 0 {
		t.Errorf("floors %+v", f.Floors)
	}
	if left, err := Expected(o, &f); err != nil || left != 0 {
		t.Errorf("%v of it are measured again: %v", left, err)
	}
	data, err := json.Marshal(&f)
	if err != nil || !bytes.Contains(data, []byte(`"idle_cores_100_engines"`)) || !bytes.Contains(data, []byte(`"added_ttfb_us"`)) {
		t.Errorf("%s %v", data, err)
	}
}

// TestImitationsFail: who passes the body on unchanged, answers in the engine's place, cuts the answer or changes one
// byte of it gives errors and no figures.
func TestImitationsFail(t *testing.T) {
	b := &backend{payloads: load{Sizes: []int{2048}, Engines: 1}.payloads()}
	b.buffers.New = func() any { return new(bytes.Buffer) }
	sent := &task{payload: b.payloads[payloadName(2048, 3)], way: routed, number: 7, chunks: 3}
	plain := func(w http.ResponseWriter, r *http.Request) { b.chat(w, r) }
	patched := func(w http.ResponseWriter, r *http.Request) {
		r.Body = io.NopCloser(bytes.NewReader(sent.payload.patched))
		b.chat(w, r)
	}
	say := func(events [][]byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Join(events, nil)) }
	}
	for name, c := range map[string]struct {
		front http.HandlerFunc
		want  string
	}{
		"body as it was":        {plain, "422"},
		"usage is not asked":    {say(answer(7, 3, false)), ""},
		"usage is not held":     {patched, errWrongAnswer.Error()},
		"answer of another":     {say(answer(8, 3, false)), errWrongAnswer.Error()},
		"answer without an end": {say(answer(7, 3, false)[:3]), "before the end"},
		"answer with more":      {say(append(answer(7, 3, false), []byte("\n"))), errWrongAnswer.Error()},
	} {
		server := httptest.NewServer(c.front)
		conn := newConnection(strings.TrimPrefix(server.URL, "http://"))
		_, err := conn.do(sent)
		if got := fmt.Sprint(err); c.want != "" && !strings.Contains(got, c.want) || c.want == "" && err != nil {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		conn.close()
		server.Close()
	}
}

// TestUnscoredRequestsAreCounted reads records as a router without a scorer would write them.
func TestUnscoredRequestsAreCounted(t *testing.T) {
	l := &lab{late: .01}
	if err := l.few(1, 100); err != nil {
		t.Error(err)
	}
	if err := l.few(2, 100); !errors.Is(err, errUnscored) {
		t.Errorf("%v", err)
	}
	s := &scorer{seed: maphash.MakeSeed()}
	if _, err := s.Score(t.Context(), &scorerv1.ScoreRequest{Model: modelID, Kind: scorerv1.Kind_KIND_CHAT,
		Spans: []*scorerv1.Span{{Name: "messages", Value: []byte(`[]`)}}}); err == nil || s.asked.Load() != 0 {
		t.Error("a prompt that nobody sent was scored")
	}
}

// TestARowWithErrorsIsMeasuredAgain: it is in the figures with its errors, until a row without takes its place.
func TestARowWithErrorsIsMeasuredAgain(t *testing.T) {
	var f Figures
	f.put(Row{Bytes: 2048, Connections: 1, Errors: 3})
	o := Options{Parts: []string{"2048x1"}}
	if left, err := Expected(o, &f); err != nil || left == 0 || f.Results[0].Errors != 3 {
		t.Errorf("%v left of %+v: %v", left, f.Results, err)
	}
	f.put(Row{Bytes: 2048, Connections: 1})
	if left, err := Expected(o, &f); err != nil || left != 0 || len(f.Results) != 1 {
		t.Errorf("%v left of %+v: %v", left, f.Results, err)
	}
}

func TestUnknownPartsAreRefused(t *testing.T) {
	if _, err := Expected(Options{Parts: []string{"nothing"}}, &Figures{}); err == nil {
		t.Error("accepted")
	}
}
