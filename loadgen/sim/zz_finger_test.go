package sim

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

func TestFinger(t *testing.T) {
	if os.Getenv("FINGER") == "" {
		t.Skip()
	}
	w1, _ := Find(Catalogue(), "W1")
	w7, _ := Find(Catalogue(), "W7")
	tr, err := workload.Open("/work/shared/traces/mooncake_conversation.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Scene{w1, Replay("W8j", tr, 16, 1, 3*time.Second), w7} {
		w := s.Make(1)
		for _, p := range []string{"warm", "precise-2026", "approx", "least-tokens"} {
			if s.Name == "W7" && p != "warm" {
				continue
			}
			o := s.Fleet
			o.Profile, o.Policy, o.Seed = o.Profile.Scale(s.Scale), p, 1
			start := time.Now()
			r, f := run(t, o, w)
			h := sha256.New()
			for _, a := range f.answers {
				fmt.Fprintln(h, a.stage, a.refused, a.prompt, a.output, a.hit, a.sent, a.first, a.last, a.slowest, a.alone, a.engine)
			}
			m, _ := json.Marshal(r)
			h.Write(m)
			fmt.Fprintf(os.Stderr, "%.1fs\n", time.Since(start).Seconds())
			fmt.Printf("%s %s %x %+v %v\n", s.Name, p, h.Sum(nil)[:8], r.Metrics, r.Virtual)
		}
	}
}
