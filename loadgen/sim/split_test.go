package sim

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// apart is a fleet of prefill and decode engines for small.
func apart(policy string) Options {
	o := tight(policy)
	o.Pods, o.Prefill, o.Decode = 0, 2, 2
	return o
}

// lone is a world in which one prefill and one decode engine do nothing but what they are for.
func lone(t *testing.T, prompts ...int) (*Result, *world) {
	t.Helper()
	w := Workload{Stages: []Stage{{}}}
	for i, n := range prompts {
		w.Stages[0].Sessions = append(w.Stages[0].Sessions, one(time.Second, Prompt{{uint64(i + 1), n}}, 2))
	}
	return run(t, Options{Prefill: 1, Decode: 1, Noise: -1, Policy: "random"}, w)
}

// The first token of a prompt that another engine computes comes after its prefill there, the set-up and the bytes, and
// one step for the last token; the decode engine takes blocks at once, as it is idle.
func TestTheTimeOfOneTransferIsTheFormula(t *testing.T) {
	p := enginesim.Qwen3_32B_TP2_H100
	r, f := lone(t, 5000)
	prefill := p.StepTime(enginesim.Load{PrefillTokens: 5000, TokenPairs: 5000 * 2500})
	bytes := 5000 * 262_144.
	last := p.StepTime(enginesim.Load{PrefillTokens: 1, TokenPairs: 4999.5})
	want := (prefill + time.Millisecond + time.Duration(math.Ceil(bytes/70e9*1e9)) + last).Seconds()
	if math.Abs(r.Metrics.TTFTMean-want) > 1e-8 {
		t.Errorf("TTFT %v, want %v: %v, %v of transfer, %v", r.Metrics.TTFTMean, want, prefill, bytes/70e9, last)
	}
	if e := r.PerEngine; e[0].PrefillTokens != 5000 || e[1].PrefillTokens != 0 || e[0].Requests != 0 || e[1].Requests != 1 {
		t.Errorf("%+v", e)
	}
	if s := f.engines[1].core.Stats(); s.Steps != 2 {
		t.Errorf("the decode engine takes %d steps for two tokens", s.Steps)
	}
}

// times are when each of these transfers, asked for at their own times, arrives, and how many events it takes.
func times(bandwidth float64, asked ...[4]int) (arrived []time.Duration, events int) {
	c := clock{}
	n := network{Network: Network{Bandwidth: bandwidth, Setup: time.Millisecond}, clock: &c}
	calls := make([]call, len(asked))
	arrived = make([]time.Duration, len(asked))
	for i, a := range asked {
		c.at(time.Duration(a[0])*time.Millisecond, action{kind: arrive, engine: i})
	}
	for {
		do, ok := c.next()
		if !ok {
			return arrived, int(c.order)
		}
		if do.kind == arrive {
			a := asked[do.engine]
			n.move(a[1], a[2], a[3], &calls[do.engine])
			continue
		}
		for _, f := range n.arrived() {
			for i := range calls {
				if f.call == &calls[i] {
					arrived[i] = c.now
				}
			}
		}
	}
}

func TestTransfersShareBandwidthFairly(t *testing.T) {
	const mb = 1_000_000
	ms := time.Millisecond
	for _, x := range []struct {
		name  string
		asked [][4]int // at ms, from, to, bytes
		want  []time.Duration
	}{
		{"alone", [][4]int{{0, 0, 1, 10 * mb}}, []time.Duration{11 * ms}},
		{"two of one sender take twice as long", [][4]int{{0, 0, 1, 10 * mb}, {0, 0, 2, 10 * mb}}, []time.Duration{21 * ms, 21 * ms}},
		{"two to one receiver too", [][4]int{{0, 0, 2, 10 * mb}, {0, 1, 2, 10 * mb}}, []time.Duration{21 * ms, 21 * ms}},
		{"both ways at once do not share", [][4]int{{0, 0, 1, 10 * mb}, {0, 1, 0, 10 * mb}}, []time.Duration{11 * ms, 11 * ms}},
		// 4 ms alone, then both at half: the second ends its 2 MB at 5+4, the first has 6-2 left and ends at 9+4.
		{"the second comes later", [][4]int{{0, 0, 1, 10 * mb}, {4, 0, 2, 2 * mb}}, []time.Duration{13 * ms, 9 * ms}},
		// Three to engine 3 get a third each; what sender 0 has left of its own, two thirds, goes to engine 2.
		{"a sender gives on what a receiver leaves", [][4]int{{0, 0, 3, 10 * mb}, {0, 1, 3, 10 * mb}, {0, 0, 2, 10 * mb}, {0, 4, 3, 10 * mb}},
			[]time.Duration{31 * ms, 31 * ms, 16 * ms, 31 * ms}},
		// Three of sender 0 get a third each; engine 2 has two thirds left for sender 1.
		{"a receiver gives on what a sender leaves", [][4]int{{0, 0, 2, 10 * mb}, {0, 0, 3, 10 * mb}, {0, 0, 4, 10 * mb}, {0, 1, 2, 10 * mb}},
			[]time.Duration{31 * ms, 31 * ms, 31 * ms, 16 * ms}},
	} {
		arrived, _ := times(1e9, x.asked...)
		for i, got := range arrived {
			if (got - x.want[i]).Abs() > 2 {
				t.Errorf("%s: transfer %d arrives at %v, want %v", x.name, i, got, x.want[i])
			}
		}
	}
}

// Many transfers at once take an event when each is asked for, one when they begin, and one when each ends.
func TestTransfersAtOnceTakeFewEvents(t *testing.T) {
	const n = 100
	var asked [][4]int
	for i := range n {
		asked = append(asked, [4]int{0, i, n, 1_000_000 * (1 + i)})
	}
	if _, events := times(1e9, asked...); events > 2*n+1 {
		t.Errorf("%d events for %d transfers", events, n)
	}
}

// Whatever the policy, requests are answered, prompts are computed once, and no block is in use at the end.
func TestRolesHold(t *testing.T) {
	for _, policy := range Policies() {
		w := small(1)
		r, f := run(t, apart(policy), w)
		if r.Metrics.Completed != r.Metrics.Offered || r.Metrics.Offered == 0 {
			t.Errorf("%s: %+v", policy, r.Metrics)
		}
		split := 0
		for i, e := range f.engines {
			if s := e.core.Stats(); s.Free != s.Blocks || s.Running+s.Waiting != 0 {
				t.Errorf("%s: engine %d ends with %+v", policy, i, s)
			}
			if got := r.PerEngine[i]; f.o.role(i) == "prefill" && (got.Requests != 0 || got.PrefillTokens == 0) {
				t.Errorf("%s: prefill engine %d did %+v", policy, i, got)
			}
		}
		for _, a := range f.answers {
			if f.o.role(a.engine) != "decode" || a.prefill != a.engine && f.o.role(a.prefill) != "prefill" {
				t.Fatalf("%s: computed by %d and answered by %d", policy, a.prefill, a.engine)
			}
			if a.prefill != a.engine {
				split++
			}
		}
		if split == 0 {
			t.Errorf("%s: no prompt is computed elsewhere", policy)
		}
		if left := f.router.pool.Loads(); fmt.Sprint(left) != fmt.Sprint(idle(left)) {
			t.Errorf("%s: the ledger keeps %v", policy, left)
		}
		if n := len(f.network.flows); n != 0 {
			t.Errorf("%s: %d transfers never end", policy, n)
		}
	}
}

func idle[T any](loads map[string]T) map[string]T {
	none := map[string]T{}
	for id := range loads {
		var zero T
		none[id] = zero
	}
	return none
}

func TestSplitRunsAreReproducible(t *testing.T) {
	for _, policy := range []string{"warm", "precise-2026", "power-of-two"} {
		a, _ := run(t, apart(policy), small(3))
		b, _ := run(t, apart(policy), small(3))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two runs differ: %+v, %+v", policy, a.Metrics, b.Metrics)
		}
	}
}

// fifth is the goodput, at 2 s and 25 ms, of the first 200 requests of W6 at a fifth of its rate, and the share of
// prompts that another engine computes.
func fifth(t *testing.T, policy string, both, prefill, decode int) (goodput, split float64) {
	w := fresh("W6", 1, 9, 5000, 250)
	w.Stages[0].Sessions = w.Stages[0].Sessions[:200]
	r, f := run(t, Options{Pods: both, Prefill: prefill, Decode: decode, Policy: policy, Seed: 1,
		SLO: SLO{TTFT: 2 * time.Second, ITL: 25 * time.Millisecond}}, w)
	for _, a := range f.answers {
		if a.prefill != a.engine {
			split += 1 / float64(len(f.answers))
		}
	}
	return r.Metrics.Goodput, split
}

// Where decodes must not be stalled, five engines with roles keep what five without cannot. Ours is as good as policies
// that send all prompts away where there are enough prefill engines, and much better where there are not.
func TestWhereTheSplitPays(t *testing.T) {
	if together, _ := fifth(t, "warm", 5, 0, 0); together > .3 {
		t.Errorf("five engines of role both: goodput %v; the scene is too easy to tell", together)
	}
	for _, c := range []struct {
		prefill, decode int
		warm, others    float64 // at least, at most
		least, most     float64 // share that warm splits
	}{{3, 2, .98, 1, .95, 1}, {2, 3, .95, .6, .6, .95}} {
		warm, split := fifth(t, "warm", 0, c.prefill, c.decode)
		if warm < c.warm || split < c.least || split > c.most {
			t.Errorf("%d + %d: goodput %v, %v computed elsewhere", c.prefill, c.decode, warm, split)
		}
		for _, policy := range []string{"least-tokens", "dynamo"} {
			other, all := fifth(t, policy, 0, c.prefill, c.decode)
			if other > c.others || warm < .98*other || all < .999 {
				t.Errorf("%d + %d: %s has goodput %v and computes %v elsewhere; warm has %v", c.prefill, c.decode, policy, other, all, warm)
			}
		}
	}
}
