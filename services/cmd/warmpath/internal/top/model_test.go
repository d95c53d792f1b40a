package top

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// say is a report of one router at a second: its counters are multiples of n.
func (w *world) say(router string, started int64, second, n int) {
	data := fmt.Sprintf(`{"router":%q,"started":%d,"pool":"p","arrivals":%d,"prompt_tokens":%d,"uncached_tokens":%d,
		"output_tokens":%d,"shed":%d,"queued":3,"inflight":5,"engines":{"e":{"inflight":2,"uncached_tokens":7}}}`,
		router, started, n, 100*n, 25*n, 10*n, n)
	w.model.Report([]byte(data), begin.Add(time.Duration(second)*time.Second))
}

func (w *world) rates(t *testing.T, arrivals float64) {
	t.Helper()
	r := w.model.Picture().Pools[0].Rates
	if r == nil {
		t.Fatalf("no rates, want %v/s", arrivals)
	}
	for name, got := range map[string]float64{"arrivals": r.Arrivals, "prompt": r.Prompt / 100, "uncached": r.Uncached / 25, "output": r.Output / 10, "shed": r.Shed} {
		if math.Abs(got-arrivals) > 1e-9 {
			t.Errorf("%s: %v/s, want %v/s", name, got, arrivals)
		}
	}
	if r.Hit == nil != (arrivals == 0) || r.Hit != nil && math.Abs(*r.Hit-.75) > 1e-9 {
		t.Errorf("hit ratio %v", r.Hit)
	}
}

func TestRatesGoOnThroughRestarts(t *testing.T) {
	w := newWorld()
	w.say("router-0", 50, 0, 1_000_000) // it has run for days
	if p := w.model.Picture().Pools[0]; p.Rates != nil || p.Gauges == nil {
		t.Errorf("one report gives rates %+v, gauges %+v", p.Rates, p.Gauges)
	}
	w.say("router-0", 50, 2, 1_000_020)
	w.rates(t, 10)
	w.say("router-1", 70, 2, 500)
	w.rates(t, 10)
	w.say("router-1", 70, 4, 504) // 2/s
	w.say("router-0", 50, 4, 1_000_020)
	w.rates(t, 20./4+2)
	w.say("router-0", 99, 5, 10) // restarted: counts from zero
	w.rates(t, 30./5+2)
	w.say("router-0", 50, 6, 1_000_021) // a late word of its earlier life
	w.rates(t, 30./5+2)
	w.say("router-0", 99, 6, 4) // counters that fall without a restart count for nothing
	w.rates(t, 30./6+2)
	w.say("router-0", 99, 16, 4) // ten seconds of nothing: since second 6
	w.rates(t, 0+2)
}

func TestRestartWithinOneSecond(t *testing.T) {
	w := newWorld()
	report := func(second, seq, n int) {
		w.model.Report(fmt.Appendf(nil, `{"router":"router-0","started":9,"seq":%d,"pool":"p","arrivals":%d}`, seq, n), begin.Add(time.Duration(second)*time.Second))
	}
	report(0, 7, 100)
	report(1, 8, 110)
	report(2, 1, 30)
	if got := w.model.Picture().Pools[0].Rates.Arrivals; got != 20 {
		t.Errorf("%v arrivals/s, want 10 and 30 in 2 s", got)
	}
}

func TestWhatIsNotKnownIsNotZero(t *testing.T) {
	w := newWorld()
	w.engine("e", fleet.Decode, fleet.OK)
	w.engine("idle", fleet.Decode, fleet.OK)
	e := w.model.Picture().Pools[0].Engines[0]
	if e.Inflight != nil || e.Backlog != nil || e.Decoding != nil || e.KV != nil || e.Load != nil {
		t.Errorf("before any report: %+v", e)
	}
	w.say("router-0", 1, 0, 1) // of a release that does not tell what decodes
	p := w.model.Picture().Pools[0]
	e, idle := p.Engines[0], p.Engines[1]
	if *e.Inflight != 2 || *e.Backlog != 7 || e.Decoding != nil || e.KV != nil {
		t.Errorf("of an older router: %+v", e)
	}
	if *idle.Inflight != 0 || idle.Decoding != nil {
		t.Errorf("an engine that it does not name: %+v", idle)
	}
	if p.Gauges.Held != nil || p.Gauges.Queued != 3 || p.Routers != 2 || p.Reporting != 1 || p.Decision != nil || p.Roles[0].Starting != nil {
		t.Errorf("%+v of %+v", p.Gauges, p)
	}
	w.report("router-1", 0, 0)
	idle = w.model.Picture().Pools[0].Engines[1]
	if idle.Decoding == nil || *idle.Decoding != 0 || idle.KV == nil || *idle.KV != 0 {
		t.Errorf("an engine that a newer router does not name: %+v", idle)
	}
	w.tick(4, "") // nobody reports any more
	p = w.model.Picture().Pools[0]
	if p.Gauges != nil || p.Rates != nil || p.Reporting != 0 || p.Engines[0].Inflight != nil {
		t.Errorf("after 4 s of silence: %+v, %+v", p.Gauges, p.Engines[0])
	}
}

// A router that has left takes its gauges with it; one that is only silent may come back and goes on where it was.
func TestRoutersLeave(t *testing.T) {
	w := newWorld()
	for s := range 4 {
		w.tick(s, "")
		w.say("router-0", 1, s, s)
		if s < 2 {
			w.say("router-1", 1, s, s)
			w.say("ghost", 1, s, s)
		}
	}
	w.tick(5, "")
	if p := w.model.Picture().Pools[0]; p.Reporting != 1 || p.Gauges.Queued != 3 {
		t.Errorf("%d report, %d queued", p.Reporting, p.Gauges.Queued)
	}
	if known := w.model.pools["p"].routers; len(known) != 2 || known["ghost"] != nil {
		t.Errorf("knows %v: only the ghost is no member", known)
	}
}

// While NATS is away the picture stands still, its routers included, however long that lasts.
func TestThePictureStaysWhileNATSIsAway(t *testing.T) {
	w := newWorld()
	for s := range 3 {
		w.tick(s, "")
		w.report("router-0", s, 0)
	}
	before := w.model.Picture()
	w.tick(3, "gone")
	w.tick(3600, "gone")
	after := w.model.Picture()
	if after.NATS.Up || after.NATS.Away != 3598 || after.NATS.Why != "gone" {
		t.Errorf("%+v", after.NATS)
	}
	after.NATS = before.NATS
	if a, b := string(encode(before)), string(encode(after)); a != b {
		t.Errorf("before\n%s\nafter\n%s", a, b)
	}
	w.tick(3601, "")
	w.tick(3602, "")
	p := w.model.Picture()
	if !p.NATS.Up || p.Pools[0].Reporting != 1 {
		t.Errorf("back for a second: %+v, %d report", p.NATS, p.Pools[0].Reporting)
	}
	w.report("router-0", 3602, 0)
	if r := w.model.Picture().Pools[0].Rates; r != nil {
		t.Errorf("rates over an hour: %+v", r)
	}
	w.tick(3606, "")
	if p := w.model.Picture().Pools[0]; p.Reporting != 0 {
		t.Error("ages stand still after NATS is back")
	}
}

func TestHostileReports(t *testing.T) {
	w := newWorld()
	for _, data := range []string{
		``, `x`, `[]`, `{}`, `{"router":"r"}`, `{"pool":"p"}`, `{"router":"r","pool":"p","arrivals":-1}`, `{"router":"r","pool":"p","queued":1e99}`,
		`{"router":"r","pool":"p","engines":{"e":{"inflight":-1}}}`,
	} {
		w.model.Report([]byte(data), begin)
	}
	if len(w.model.pools) != 0 {
		t.Errorf("taken: %v", w.model.pools)
	}
	for i := range maxPools + 10 {
		w.model.Report(fmt.Appendf(nil, `{"router":"r","pool":"x%d"}`, i), begin)
	}
	for i := range maxRouters + 10 {
		w.model.Report(fmt.Appendf(nil, `{"router":"r%d","pool":"x1"}`, i), begin)
	}
	if len(w.model.pools) != maxPools || len(w.model.pools["x1"].routers) != maxRouters {
		t.Errorf("%d pools, %d routers", len(w.model.pools), len(w.model.pools["x1"].routers))
	}
}

func TestDecisionsAreBounded(t *testing.T) {
	w := newWorld()
	role := func(n int) map[decide.Role]decide.RoleDecision {
		return map[decide.Role]decide.RoleDecision{decide.Both: {Now: n, Target: n}}
	}
	for s := range 3 * maxRecords {
		w.decide(begin.Add(time.Duration(s)*time.Millisecond), decide.On, role(s))
	}
	w.decide(begin, decide.On, role(-1)) // read again
	p := w.model.Picture().Pools[0]
	if len(p.History) != maxRecords || len(p.Decisions) != maxChanges || p.Roles[0].Decision.Now != 3*maxRecords-1 {
		t.Errorf("%d in history, %d changes, now %d", len(p.History), len(p.Decisions), p.Roles[0].Decision.Now)
	}
	w.decide(begin.Add(history+time.Minute), decide.On, role(7))
	if h := w.model.Picture().Pools[0].History; len(h) != 2 || !h[0].At.Before(h[1].At.Add(-history)) {
		t.Errorf("an old decision and a new one: %v", h)
	}
}

// A replica of several ranks is one; of one that drains none is missed, of one that has gone one is.
func TestReplicasAreCountedOnce(t *testing.T) {
	w := newWorld()
	for i, state := range []fleet.State{fleet.OK, fleet.OK, fleet.Blind, fleet.Gone, fleet.OK} {
		name := fmt.Sprint("e", i)
		w.engine(name, fleet.Decode, state)
		if i == 1 {
			e := w.view.Engines[name]
			e.Rank = 1
			w.view.Engines[name] = e
		}
	}
	w.view.Draining["e4"] = true
	w.decide(begin, decide.On, map[decide.Role]decide.RoleDecision{decide.Decode: {Now: 3, Target: 9}})
	r := w.model.Picture().Pools[0].Roles
	if len(r) != 1 || r[0].Serving != 2 || r[0].Draining != 1 || *r[0].Starting != 1 {
		t.Errorf("%s", encode(r))
	}
}

func TestChanges(t *testing.T) {
	w := newWorld()
	for i, c := range []struct {
		mode   decide.Mode
		blind  string
		target int
	}{{decide.On, "", 1}, {decide.On, "", 1}, {decide.On, "", 3}, {decide.On, "routers", 3}, {decide.Shadow, "", 2}} {
		d := decide.RoleDecision{Now: 1, Target: c.target, Rule: "r"}
		r := map[decide.Role]decide.RoleDecision{decide.Decode: d}
		w.decide(begin.Add(time.Duration(i)*time.Second), c.mode, r)
		w.model.pools["p"].records[i].Blind = c.blind
	}
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	want := []Change{
		{At: at(4), Role: decide.Decode, From: 3, To: 2, Rule: "r", Mode: decide.Shadow},
		{At: at(4), Mode: decide.Shadow},
		{At: at(3), Mode: decide.On, Blind: "routers"},
		{At: at(2), Role: decide.Decode, From: 1, To: 3, Rule: "r", Mode: decide.On},
	}
	if got := w.model.Picture().Pools[0].Decisions; !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", encode(got), encode(want))
	}
}
