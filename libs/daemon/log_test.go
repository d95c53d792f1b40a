package daemon

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestALogLineIsAMessageAndOneObject(t *testing.T) {
	var w bytes.Buffer
	p := NewProcess("index", &w, slog.LevelInfo)
	p.Log.Debug("not shown")
	p.Log.With("component", "reader").Info("caught up", "applied", 7, slog.Group("us", "pick", 3))
	stamp, rest, _ := strings.Cut(w.String(), " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || time.Since(at) > time.Minute {
		t.Errorf("stamp %q: %v", stamp, err)
	}
	object, ok := strings.CutPrefix(rest, "INFO caught up ")
	var got struct {
		Service, Component string
		Applied            int
		US                 struct{ Pick int }
		Msg, Level         *string
	}
	if err := json.Unmarshal([]byte(object), &got); !ok || err != nil {
		t.Fatalf("line %q: %v", w.String(), err)
	}
	if got.Service != "index" || got.Component != "reader" || got.Applied != 7 || got.US.Pick != 3 || got.Msg != nil || got.Level != nil {
		t.Errorf("object %s", object)
	}
	if strings.Count(w.String(), "\n") != 1 {
		t.Errorf("%q is not one line", w.String())
	}
}

func TestLogLinesDoNotMix(t *testing.T) {
	var w bytes.Buffer
	p := NewProcess("index", &w, slog.LevelInfo)
	const writers, each = 8, 200
	var all sync.WaitGroup
	for i := range writers {
		log := p.Log.With("writer", i)
		all.Go(func() {
			for j := range each {
				log.Info("line", "j", j)
			}
		})
	}
	all.Wait()
	got := strings.Split(strings.TrimSpace(w.String()), "\n")
	if len(got) != writers*each {
		t.Fatalf("%d lines, want %d", len(got), writers*each)
	}
	for _, line := range got {
		_, object, _ := strings.Cut(line, " INFO line ")
		if !json.Valid([]byte(object)) {
			t.Fatalf("line %q", line)
		}
	}
}
