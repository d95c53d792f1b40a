package ingest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvwire"
)

// flowStep is a step of a genuine vLLM cache manager: what it published, and what it then held.
type flowStep struct {
	Stream string         `json:"stream"`
	Step   int            `json:"step"`
	Frames []string       `json:"frames"`
	Cached map[string]int `json:"cached_after"`
}

func readFlow(t *testing.T, path string) (streams map[string][]flowStep) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	streams = map[string][]flowStep{}
	for line := range bytes.Lines(data) {
		var s flowStep
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatal(err)
		}
		streams[s.Stream] = append(streams[s.Stream], s)
	}
	return streams
}

// truth is cached_after with the hashes as events carry them: the low 64 bits.
func (s *flowStep) truth(t testing.TB) copies {
	c := copies{}
	for key, n := range s.Cached {
		digest, group, _ := strings.Cut(key, ":")
		h, err := strconv.ParseUint(digest[max(0, len(digest)-16):], 16, 64)
		g, err2 := strconv.Atoi(group)
		if err != nil || err2 != nil {
			t.Fatalf("cached_after key %q", key)
		}
		c[copyKey(h, g)] = n
	}
	return c
}

// Every genuine recording, as real ZeroMQ frames through ingest and NATS: a fold of the log holds exactly what the
// genuine cache manager held, after every step.
func TestGenuineFlowsEndExactInTheLog(t *testing.T) {
	t.Parallel()
	for _, canonical := range []int{16, 64} {
		t.Run(fmt.Sprintf("canonical=%d", canonical), func(t *testing.T) {
			t.Parallel()
			genuineFlows(t, canonical)
		})
	}
}

func genuineFlows(t *testing.T, canonical int) {
	paths, err := filepath.Glob("../../libs/kvevent/testdata/golden/flow_*.jsonl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	p := newPlaneOf(t, canonical)
	type play struct {
		name  string
		e     *engine
		steps []flowStep
	}
	var plays []play
	var engines []*engine
	for _, path := range paths {
		version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "flow_"), ".jsonl")
		for stream, steps := range readFlow(t, path) {
			size := 16
			if strings.HasPrefix(stream, "block64") {
				size = 64
			}
			e := newEngine(t, size, kvwire.PublisherOptions{Topic: "kv-events", Legacy: strings.HasPrefix(version, "v0.2")})
			engines = append(engines, e)
			plays = append(plays, play{version + "/" + stream, e, steps})
		}
	}
	p.times.probe, p.times.check, p.times.record = time.Second, time.Second, 100*time.Millisecond // there are many of them
	p.ingest("a", engines...)
	t.Run("all", func(t *testing.T) {
		for _, play := range plays {
			t.Run(play.name, func(t *testing.T) {
				t.Parallel()
				p.as(t).play(play.e, play.steps)
			})
		}
	})
	if bad := p.count("bad_total"); bad != 0 {
		t.Errorf("%v genuine messages counted as bad", bad)
	}
}

// play publishes what a genuine cache manager published, and holds the log to what it held after each step.
func (p *plane) play(e *engine, steps []flowStep) {
	t := p.t
	for _, s := range steps {
		if s.Frames != nil {
			payload, err := hex.DecodeString(s.Frames[2])
			if err != nil {
				t.Fatal(err)
			}
			if seq := e.pub.Publish(payload); strconv.FormatUint(seq, 16) != strings.TrimLeft(s.Frames[1], "0") && seq != 0 {
				t.Fatalf("step %d was published as %d, recorded as %s", s.Step, seq, s.Frames[1])
			}
		}
		want := s.truth(t)
		if s.Stream != "full_report_mode" {
			p.holds(e, want)
			continue
		}
		eventually(t, "same set of blocks", func() bool { // re-announcements count copies that are not there
			got, _, ok := p.log.copies(e.id)
			for k, n := range got {
				if n >= want[k] && want[k] > 0 {
					got[k] = want[k]
				}
			}
			return ok && maps.Equal(got, want)
		})
	}
}
