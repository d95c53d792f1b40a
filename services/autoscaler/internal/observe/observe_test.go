package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

const patience = 20 * time.Second

// exposition is an engine of two ranks.
func exposition(running0, running1, usage string) string {
	text := ""
	for rank, running := range []string{running0, running1} {
		l := fmt.Sprintf(`engine="%d",model_name="m"`, rank)
		text += fmt.Sprintf("vllm:num_requests_running{%[1]s} %[2]s\nvllm:num_requests_waiting{%[1]s} 2\nvllm:kv_cache_usage_perc{%[1]s} %[3]s\n"+
			"vllm:generation_tokens_total{%[1]s} 100\nvllm:num_preemptions_total{%[1]s} 1\n"+
			"vllm:cache_config_info{%[1]s,block_size=\"16\",num_gpu_blocks=\"1000\"} 1\n", l, running, usage)
	}
	return text
}

func view(engines ...fleet.Engine) *fleet.View {
	v := &fleet.View{Pools: map[string]fleet.Pool{"p": {ID: "p"}}, Engines: map[string]fleet.Engine{}, Draining: map[string]bool{}, Drains: map[string]fleet.DrainMark{}}
	for _, e := range engines {
		e.Pool = "p"
		v.Engines[e.ID] = e
	}
	return v
}

func mark(v *fleet.View, reason string, ids ...string) {
	for _, id := range ids {
		v.Draining[id] = true
		v.Drains[id] = fleet.DrainMark{Pool: "p", DrainRecord: fleet.DrainRecord{Reason: reason}}
	}
}

// scraper runs a Scraper until the test ends.
func scraper(t *testing.T, v func() *fleet.View) (*Scraper, *atomic.Int64) {
	var failed atomic.Int64
	s := &Scraper{Key: "secret", Every: 2 * time.Millisecond, Failed: func() { failed.Add(1) }, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, v) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, &failed
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Ranks are summed; what cannot be read leaves what was last read, with its time.
func TestAnEngineIsScrapedAsAWhole(t *testing.T) {
	var page atomic.Pointer[string]
	show := func(text string) { page.Store(&text) }
	show(exposition("3", "4", "0.5"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" || r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, *page.Load())
	}))
	defer server.Close()
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hung.Close()
	v := view(fleet.Engine{ID: "e0", URL: server.URL, Ranks: 2}, fleet.Engine{ID: "e1", URL: server.URL, Rank: 1, Ranks: 2},
		fleet.Engine{ID: "hung", URL: hung.URL, Ranks: 1})
	var now atomic.Pointer[fleet.View]
	now.Store(v)
	s, failed := scraper(t, now.Load)
	eventually(t, "a scrape", func() bool { return s.last(server.URL) != decide.Scrape{} })
	got := s.last(server.URL)
	if want := (decide.Scrape{At: got.At, Running: 7, Waiting: 4, KVUsage: .5, KVTokens: 32_000, Preemptions: 2, Generated: 200}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{exposition("NaN", "4", "0.5"), exposition("3", "4", "NaN"), "go_goroutines 7\n", "", "{"} {
		show(bad)
		eventually(t, "three failures", func() bool { return failed.Load() >= 3 })
		before := s.last(server.URL)
		failed.Store(0)
		eventually(t, "three more", func() bool { return failed.Load() >= 3 })
		if got := s.last(server.URL); got != before || got.Running != 7 {
			t.Errorf("after %.30q: %+v, before %+v", bad, got, before)
		}
		failed.Store(0)
	}
	show(exposition("0", "1", "0"))
	eventually(t, "a new scrape", func() bool { return s.last(server.URL).Running == 1 })
	if got := s.last(hung.URL); got != (decide.Scrape{}) {
		t.Errorf("an engine that never answered says %+v", got)
	}
	now.Store(view())
	eventually(t, "to be forgotten", func() bool { return s.last(server.URL) == decide.Scrape{} })
}

func TestWhatIsSeenOfEngines(t *testing.T) {
	v := view(
		fleet.Engine{ID: "a", URL: "http://a", Role: fleet.Prefill, Ranks: 1, State: fleet.OK},
		fleet.Engine{ID: "b-r1", URL: "http://b", Role: fleet.Decode, Rank: 1, Ranks: 2, State: fleet.Blind},
		fleet.Engine{ID: "b-r0", URL: "http://b", Role: fleet.Decode, Rank: 0, Ranks: 2, State: fleet.OK},
		fleet.Engine{ID: "c", URL: "http://c", Role: fleet.Decode, Ranks: 1, State: fleet.OK},
		fleet.Engine{ID: "d", URL: "http://d", Role: fleet.Decode, Ranks: 1, State: fleet.OK},
		fleet.Engine{ID: "gone", URL: "http://e", Role: fleet.Decode, Ranks: 1, State: fleet.Gone},
		fleet.Engine{ID: "operator", URL: "http://f", Role: fleet.Decode, Ranks: 1, State: fleet.OK},
	)
	mark(v, replica.ReasonDrains, "b-r0", "c")
	mark(v, replica.ReasonLeaves, "d")
	mark(v, "maintenance", "operator")
	v.Members = []fleet.Member{{Service: "router", Instance: "r1"}, {Service: "scorer", Instance: "s"}}
	o := Observer{Scrapes: &Scraper{}}
	now := begin
	for _, report := range []string{
		`{"router":"r1","pool":"p","seq":1,"arrivals":5,"engines":{}}`,
		`{"router":"r1","pool":"p","seq":2,"arrivals":7,"engines":{"a":{"inflight":1},"b-r0":{"inflight":1,"decoding":1,"draining":true},
			"b-r1":{"inflight":2,"decoding":2},"c":{"inflight":3,"draining":true}}}`,
	} {
		if got, err := o.Report(v, []byte(report), now); got != Taken || err != nil {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if got, _ := o.Report(v, []byte(`{"router":"r1","pool":"other"}`), now); got != Malformed {
		t.Errorf("a report of an unknown pool is %v", got)
	}
	if got, _ := o.Record(v, "other", []byte(`{}`)); got != Malformed {
		t.Errorf("a record of an unknown pool is %v", got)
	}
	if got, err := o.Record(v, "p", []byte(`{"prompt_tokens":9,"status":200,"outcome":"ok"}`)); got != Taken || err != nil {
		t.Errorf("a record is %v, %v", got, err)
	}
	seen := o.Observe(v, "p", now)
	want := []decide.Engine{
		{ID: "a", Role: decide.Prefill, Serving: true, Inflight: 1},
		{ID: "b-r0", Role: decide.Decode, Serving: true, Inflight: 3, Decoding: 3}, // one rank of two is marked
		{ID: "c", Role: decide.Decode, Serving: true, Draining: true, Inflight: 3},
		{ID: "operator", Role: decide.Decode, Serving: true, Draining: true, Operator: true, Inflight: 1}, // nor has it of this one
	}
	if fmt.Sprint(seen.Engines) != fmt.Sprint(want) {
		t.Errorf("engines\n%+v, want\n%+v", seen.Engines, want)
	}
	if r := seen.Routers; r.Alive != 1 || r.Reporting != 1 || r.Arrivals != 2 || len(r.Ended) != 1 || !r.Heard.Equal(now) {
		t.Errorf("routers %+v", r)
	}
	if again := o.Observe(v, "p", now); len(again.Routers.Ended) != 0 {
		t.Error("a request ended twice")
	}
	mark(v, replica.ReasonDrains, "b-r1")
	if e := o.Observe(v, "p", now).Engines[1]; !e.Draining || e.Inflight != 4 { // r1 has not said that b-r1 drains
		t.Errorf("both ranks are marked: %+v", e)
	}
	o.Forget(&fleet.View{})
	if len(o.pools) != 0 {
		t.Error("a pool that is no more is remembered")
	}
}

// What routers do not tell, the engine does: a router that is cut off from us may still use one that drains.
func TestADrainingEngineIsBusyByItsOwnWord(t *testing.T) {
	at := begin
	v := view(fleet.Engine{ID: "e", URL: "http://e", Role: fleet.Decode, Ranks: 1, State: fleet.OK})
	s := &Scraper{pages: map[string]*page{"http://e": {}}}
	o := Observer{Scrapes: s}
	inflight := func(scrape decide.Scrape, marked time.Time) int {
		v.Draining["e"] = true
		v.Drains["e"] = fleet.DrainMark{Pool: "p", DrainRecord: fleet.DrainRecord{Since: marked, Reason: replica.ReasonDrains}}
		s.pages["http://e"].last = scrape
		return o.Observe(v, "p", at).Engines[0].Inflight
	}
	word := func(after time.Duration, running, waiting float64) decide.Scrape {
		return decide.Scrape{At: at.Add(after), Running: running, Waiting: waiting}
	}
	for name, c := range map[string]struct {
		scrape decide.Scrape
		marked time.Duration
		want   int
	}{
		"it never said anything":      {decide.Scrape{}, -time.Minute, 1},
		"it was idle before it":       {word(-2*time.Minute, 0, 0), -time.Minute, 1},
		"it is idle":                  {word(-time.Second, 0, 0), -time.Minute, 0},
		"it has some":                 {word(-time.Second, 2, 1), -time.Minute, 3},
		"it says what cannot be":      {word(-time.Second, 1e300, 0), -time.Minute, 1e6},
		"a clock was wrong, and idle": {word(-time.Second, 0, 0), time.Hour, 0},
	} {
		if got := inflight(c.scrape, at.Add(c.marked)); got != c.want {
			t.Errorf("%s: %d in flight, want %d", name, got, c.want)
		}
	}
	if delete(v.Drains, "e"); o.Observe(v, "p", at).Engines[0].Inflight != 0 {
		t.Error("what serves is judged by its routers")
	}
}

// A fleet that runs n times as fast, seen by a clock that does too, looks like one in real time.
func TestAFasterClockSeesTheSame(t *testing.T) {
	const speed = 20
	see := func(after, took time.Duration, sum float64) decide.Observation {
		at := epoch.Add(after)
		return decide.Observation{
			Routers:  decide.Routers{Heard: at, Arrivals: 7, Ended: []decide.Request{{Waited: took, Prefill: took, TTFT: took, ITL: took}}},
			Engines:  []decide.Engine{{Gaps: sum, Tokens: 5, Scrape: decide.Scrape{At: at}}, {}},
			Replicas: map[decide.Role]decide.Replicas{decide.Both: {Read: at, Starting: []decide.Starting{{Created: at}}, Starts: []time.Duration{took}}},
		}
	}
	fast := see(time.Hour, 2*time.Millisecond, 1.5)
	c := Clock{speed}
	got, want := c.Observation(fast), see(speed*time.Hour, speed*2*time.Millisecond, speed*1.5)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
	if at := c.Time(epoch.Add(time.Second)); !at.Equal(epoch.Add(speed * time.Second)) {
		t.Errorf("a second later it is %v", at)
	}
	if o := (Clock{}).Observation(see(1, 1, 1)); fmt.Sprint(o) != fmt.Sprint(see(1, 1, 1)) {
		t.Error("the zero Clock changes something")
	}
	if now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC); c.Time(now).Sub(epoch).Hours() != math.Round(now.Sub(epoch).Hours()*speed) {
		t.Errorf("in four years it is %v", c.Time(now))
	}
}
