package scalers

import (
	"testing"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// busyDecode are decode replicas of 300,000 tokens with .8 x .9 of it in use: k1 is 240,000 tokens.
func busyDecode(ready, ordered int, usage, waiting float64) *view {
	return crowd(decide.Decode, ready, ordered, decide.Engine{Scrape: decide.Scrape{At: begin, KVUsage: usage, Waiting: waiting, KVTokens: 300_000}})
}

func TestWVA(t *testing.T) {
	for _, c := range []struct {
		name string
		v    *view
		want int
	}{
		// 4 x 270,000/.85 = 1,270,588; supply 960,000; 310,588 over 240,000 are 2 more.
		{"up", busyDecode(4, 4, .9, 0), 6},
		// The same, but two start: what is required is there already.
		{"pending counts", busyDecode(4, 6, .9, 0), 6},
		{"pending counts one by one", busyDecode(4, 5, .9, 0), 6},
		// 4 x 60,000/.70 = 342,857; 960,000 - 342,857 = 617,143: 2 less.
		{"down", busyDecode(4, 4, .2, 0), 2},
		// 4 x 180,000: /.85 = 847,059 < 960,000; /.70 = 1,028,571 > 960,000.
		{"neither", busyDecode(4, 4, .6, 0), 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWVA(c.v, false, filled(policy()))
			w.see(c.v, begin)
			if n := w.wished(c.v, begin); n != c.want {
				t.Errorf("%d replicas, want %d", n, c.want)
			}
		})
	}
}

// k2: what is resident while five wait; then the mean of these, by length of the output; else what the batch allows.
func TestWVALearnsWhatAnEngineCanDo(t *testing.T) {
	w := newWVA(busyDecode(1, 1, 0, 0), false, filled(policy()))
	if k := w.k2(0, 0, 6992, 1200); k != 256*(6992+600) {
		t.Errorf("derived: %v, want that of 256 sequences", k)
	}
	if k := w.k2(0, 0, 8092, 100); k != 100*(8092+50) { // 8192 x 100/8192 = 100 sequences
		t.Errorf("derived: %v, want that of 100 sequences", k)
	}
	if k := w.k2(100_000, 5, 1000, 200); k != 100_000 {
		t.Errorf("while 5 wait: %v", k)
	}
	w.k2(140_000, 9, 1000, 200)
	if k := w.k2(50_000, 4, 1000, 200); k != 120_000 {
		t.Errorf("later: %v, want the mean of both", k)
	}
	if k := w.k2(50_000, 4, 1000, 600); k != 256*1300 {
		t.Errorf("of long outputs nothing was seen: %v", k)
	}
}

// An engine that says nothing is counted as empty, which is what is wrong with it.
func TestWVATakesSilenceForZero(t *testing.T) {
	v := busyDecode(4, 4, .6, 0)
	for i := range 3 {
		v.engines[i].Scrape = decide.Scrape{}
	}
	w := newWVA(v, false, filled(policy()))
	w.see(v, begin)
	if n := w.wished(v, begin); n >= 4 {
		t.Errorf("three of four silent: %d replicas", n)
	}
}

// A request that waits for decode will hold its prompt and its output, one that waits for prefill its prompt.
func TestWVACountsWhatWaits(t *testing.T) {
	for role, want := range map[decide.Role]int{decide.Prefill: 4, decide.Decode: 6} {
		v := crowd(role, 4, 4, decide.Engine{Scrape: decide.Scrape{At: begin, KVUsage: .5, Waiting: 4, KVTokens: 300_000}})
		v.routers.Ended = []decide.Request{{Prompt: 8000, Output: 25_000}}
		w := newWVA(v, false, filled(policy()))
		// Prefill: 4 x (150,000 + 4 x 8,000)/.85 = 856,471 of 960,000; decode: 4 x (150,000 + 4 x 33,000)/.85 = 1,327,059.
		if w.want(v, begin); w.wish != want {
			t.Errorf("%s: %d replicas, want %d", role, w.wish, want)
		}
	}
}

// A peak of KV usage holds for a minute.
func TestWVAHoldsPeaks(t *testing.T) {
	v := busyDecode(4, 4, .9, 0)
	w := newWVA(v, false, filled(policy()))
	w.see(v, at(0))
	low := busyDecode(4, 4, .1, 0)
	w.see(low, at(30))
	if n := w.wished(low, at(30)); n != 6 {
		t.Errorf("30 s after the peak: %d, want 6", n)
	}
	w.see(low, at(65))
	if n := w.wished(low, at(65)); n >= 4 {
		t.Errorf("65 s after the peak: %d", n)
	}
}
