package oracle

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// counted is the sum of the samples of a metric that have these labels: name, value, name, value.
func (w *world) counted(metric string, labels ...string) (sum float64) {
	w.t.Helper()
	families, err := w.process.Registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, sample := range family.GetMetric() {
			has := map[string]string{}
			for _, l := range sample.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			fits := true
			for i := 0; i < len(labels); i += 2 {
				fits = fits && has[labels[i]] == labels[i+1]
			}
			if fits {
				sum += sample.GetCounter().GetValue() + sample.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// chats are the talks of some traffic that have turns, with an adapter, salts and tools among them.
func chats(seed uint64, n int) (some []talk) {
	has := map[string]bool{}
	for _, k := range traffic(seed, 40*n) {
		kind := fmt.Sprint(k.lora != "", k.salt != "", k.tools != "", len(k.turns) > 1)
		if len(k.turns) > 0 && (!has[kind] || len(some) < n) {
			has[kind] = true
			some = append(some, k)
		}
	}
	return some
}

// Engines render chats where they can, and only tokenize them where not. Either way the depth that the index gave for
// the chosen engine is what the engine then found in its cache, request by request.
func TestChatsAreReadAsEnginesReadThem(t *testing.T) {
	for name, c := range map[string]struct{ source, lacks string }{
		"engines that render": {"render", "tokenize"},
		"engines that do not": {"tokenize", "render"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup{engines: 2, engine: func(_ int, o *enginesim.Options) { o.NoRender = c.source != "render" }}.start(t)
			requests := 0
			for i, k := range chats(5, 8) {
				for turn, answers := 0, []string(nil); turn < len(k.turns); turn++ {
					id := fmt.Sprint("chat-", i, "-", turn)
					answer, err := w.ask(id, k.turn(answers), 20, i%2 == 0)
					if err != nil {
						t.Fatal(err)
					}
					answers = append(answers, answer.text)
					requests++
					if lines := w.settle(deadline); len(lines) > 0 {
						t.Fatalf("after %s: %s", id, lines[0])
					}
				}
			}
			_, records := w.history(requests)
			judged, found := w.judge(records)
			if lines := w.misread(records); len(lines) > 0 {
				t.Fatal(lines[0])
			}
			if judged < requests/4 || found == 0 { // a busy machine lets some scores come too late
				t.Fatalf("of %d requests %d were scored, %d tokens found in caches", requests, judged, found)
			}
			bySource := func(source string) float64 { return w.counted("warmpath_scorer_scores_total", "source", source) }
			if bySource(c.source) < float64(judged)/2 || bySource(c.lacks) != 0 {
				t.Fatalf("%v prompts by %s, %v by %s", bySource(c.source), c.source, bySource(c.lacks), c.lacks)
			}
		})
	}
}

// judge holds the depth of each record's engine against what that engine found in its cache, as it told in the usage.
func (w *world) judge(records []Record) (judged, found int) {
	w.t.Helper()
	for _, r := range records {
		if r.Unknown || r.Partial {
			continue
		}
		said := 0
		for _, d := range r.Depths {
			if d.Engine == r.Engine {
				said = min(d.GPU, (r.Prompt-1)/blockSize) * blockSize // its last token an engine always computes
			}
		}
		cached := -1
		if r.Cached != nil {
			cached = *r.Cached
		}
		if said != cached {
			w.t.Errorf("request %s, tokens by %s: %d tokens matched at %s, which found %d", r.RequestID, r.Source, said, r.Engine, cached)
			continue
		}
		judged++
		found += said
	}
	return judged, found
}

// Engines that hang over render keep nobody waiting: the chats are routed unscored, and that is counted.
func TestNobodyWaitsForARender(t *testing.T) {
	var asked atomic.Int64
	hang := func(r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	}
	w := setup{engines: 2, engine: func(_ int, o *enginesim.Options) { o.Rendering = hang }}.start(t)
	talks := chats(6, 96)
	ask := func(i int) {
		if _, err := w.ask(fmt.Sprint("slow-", i), talks[i%len(talks)].turn(nil), 4, true); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup
	for i := range talks {
		all.Go(func() { ask(i) })
	}
	all.Wait()
	// On a busy machine all of these may be given up before they begin.
	sent := len(talks)
	for end := time.Now().Add(time.Minute); asked.Load() == 0 && time.Now().Before(end); sent++ {
		ask(sent)
	}
	_, records := w.history(sent)
	for _, r := range records {
		if !r.Unknown {
			t.Errorf("%s was scored with tokens by %s", r.RequestID, r.Source)
		}
	}
	slow := w.counted("warmpath_scorer_unknown_total", "reason", "tokenizer too slow")
	unscored := w.counted("warmpath_router_unknown_scores_total")
	if slow == 0 || unscored != float64(sent) { // a score that the router gave up before it began is counted there alone
		t.Errorf("of %d chats %v were counted as too slow, %v as unscored", sent, slow, unscored)
	}
	if asked.Load() == 0 {
		t.Error("no engine was asked to render")
	}
}
