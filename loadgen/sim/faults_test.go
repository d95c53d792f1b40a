package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// shaken is tight with an engine that is lost in the midst of small.
func shaken(policy string) Options {
	o := tight(policy)
	o.Outages = []Outage{{Engine: 1, From: 4 * time.Second, To: 8 * time.Second}}
	return o
}

// No request vanishes when an engine is lost, whatever the policy: each is answered or counted as not.
func TestNoRequestVanishesWithAnEngine(t *testing.T) {
	for _, policy := range Policies() {
		w := small(3)
		offered := 0
		for _, stage := range w.Stages {
			if !stage.WarmUp {
				offered += len(stage.Sessions)
			}
		}
		r, f := run(t, shaken(policy), w)
		m := r.Metrics
		if m.Offered != offered || m.Completed+m.Shed != m.Offered || m.Shed == 0 || m.Shed > offered/8 {
			t.Errorf("%s: %d offered of %d, %d completed, %d shed", policy, m.Offered, offered, m.Completed, m.Shed)
		}
		if len(f.answers) != w.Requests() {
			t.Errorf("%s: %d answers of %d", policy, len(f.answers), w.Requests())
		}
		for id, load := range f.router.pool.Loads() {
			if load.Active != 0 {
				t.Errorf("%s: %s ends with %+v", policy, id, load)
			}
		}
		for _, e := range f.engines {
			if s := e.core.Stats(); s.Running+s.Waiting != 0 || s.Free != s.Blocks || len(e.calls) != 0 || e.down {
				t.Errorf("%s: engine %d ends with %+v, %d calls", policy, e.number, s, len(e.calls))
			}
		}
	}
}

// An engine that returns has an empty cache, gets requests again, and the index is told of its new life alone.
func TestAReturnedEngineBeginsAnew(t *testing.T) {
	w := small(3)
	o, err := shaken("warm").withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f, err := newWorld(o, &w)
	if err != nil {
		t.Fatal(err)
	}
	f.client = client{f: f, w: &w, stage: -1}
	var before, first int
	var back time.Duration
	told := false
	e := f.engines[1]
	f.o.Answered = func(a Answer) {
		if x := f.router.index; x.lives[1] == 2 && !told {
			told = true
			if info, _ := x.x.Engine(x.ids[1]); info.VisibleGPU > e.core.Stats().Cached || info.Generation != 2 {
				t.Errorf("the new life begins with %+v, its cache with %d blocks", info, e.core.Stats().Cached)
			}
		}
		if a.Engine != 1 || a.Refused {
			return
		}
		switch now := f.clock.now; {
		case now < 4*time.Second:
			before++
		case now < 8*time.Second:
			t.Errorf("request %d is answered by the lost engine at %v", a.Request, now)
		case back == 0:
			back, first = now, a.Hit
		}
	}
	f.run(&w)
	if before == 0 || back == 0 || first != 0 || e.core.Stats().Cached == 0 {
		t.Errorf("%d answers before, one at %v with %d tokens cached, %d blocks at the end", before, back, first, e.core.Stats().Cached)
	}
	if !told || e.life != 2 || f.router.view.Engines["engine-0001"].Generation != 2 || f.router.view.Engines["engine-0001"].State != fleet.OK {
		t.Errorf("life %d, record %+v", e.life, f.router.view.Engines["engine-0001"])
	}
	indexIsTheCaches(t, f, &w)
}

// What one engine leaves in the lurch others answer, as far as the router's bounds on trying again go.
func TestWaitingRequestsAreSentElsewhere(t *testing.T) {
	var w Workload
	var stage Stage
	for i := range 9 {
		stage.Sessions = append(stage.Sessions, one(time.Duration(i), Prompt{{uint64(i + 1), 2000}}, 400))
	}
	w.Stages = []Stage{stage}
	o := tight("round-robin")
	o.Profile.KVTokens = 100_000
	o.Outages = []Outage{{Engine: 0, From: 10 * time.Millisecond}}
	r, f := run(t, o, w)
	if r.Metrics.Completed != 9 || r.PerEngine[0].Requests != 0 || r.PerEngine[1].Requests+r.PerEngine[2].Requests != 9 {
		t.Errorf("%+v, %+v", r.Metrics, r.PerEngine)
	}
	if f.router.view.Engines["engine-0000"].State == fleet.Gone {
		t.Error("the registry knows within seconds")
	}
	o.Outages[0].From = 5 * time.Second // all have their first byte
	if r, _ = run(t, o, w); r.Metrics.Shed != 3 {
		t.Errorf("%d are cut in the midst of their answers, want 3", r.Metrics.Shed)
	}
	o.Outages = []Outage{{Engine: 0}, {Engine: 1}, {Engine: 2}}
	if r, _ = run(t, o, w); r.Metrics.Shed != 9 || r.Metrics.Completed != 0 {
		t.Errorf("without engines: %+v", r.Metrics)
	}
}

// A registry that has seen that an engine is gone keeps requests from it.
func TestAGoneEngineGetsNothing(t *testing.T) {
	w := Workload{}
	var stage Stage
	for i := range 60 {
		stage.Sessions = append(stage.Sessions, one(time.Duration(i)*time.Second, Prompt{{uint64(i + 1), 100}}, 5))
	}
	w.Stages = []Stage{stage}
	o := tight("random")
	o.Outages = []Outage{{Engine: 2, From: time.Second}}
	r, f := run(t, o, w)
	if f.router.view.Engines["engine-0002"].State != fleet.Gone || r.Metrics.Completed != 60 {
		t.Errorf("%+v, %+v", f.router.view.Engines["engine-0002"], r.Metrics)
	}
}

func TestOutagesAreReproducible(t *testing.T) {
	a, _ := run(t, shaken("warm"), small(3))
	b, _ := run(t, shaken("warm"), small(3))
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%+v and %+v", a.Metrics, b.Metrics)
	}
	plain := shaken("warm")
	plain.Outages[0].From = time.Hour // after the end
	late, _ := run(t, plain, small(3))
	never, _ := run(t, tight("warm"), small(3))
	if late.Metrics != never.Metrics {
		t.Errorf("an outage that does not come changes %+v to %+v", never.Metrics, late.Metrics)
	}
	for _, bad := range []Options{
		{Outages: []Outage{{Engine: 8}}}, {Outages: []Outage{{Engine: -1}}}, {Outages: []Outage{{From: -1}}},
		{Prefill: 1, Decode: 1, Outages: []Outage{{Engine: 0}}},
	} {
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%+v is accepted", bad.Outages)
		}
	}
}

// What an engine had under way when it was lost changes nothing in its next life: neither events nor a step's end.
func TestWhatIsLeftOfALifeIsIgnored(t *testing.T) {
	o, err := tight("warm").withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	w := small(1)
	f, err := newWorld(o, &w)
	if err != nil {
		t.Fatal(err)
	}
	e, x := f.engines[0], f.router.index
	stored := []kvevent.Event{{Kind: kvevent.Stored, Hashes: []uint64{7}, Tokens: make([]uint32, 16), BlockSize: 16, Medium: "GPU",
		HasGroup: true, SpecKind: "full_attention"}}
	late := x.fold(0, 1, stored)
	f.client.w = &w
	f.crash(e)
	f.restore(e)
	f.show(&batch{engine: 0, life: 2})
	f.show(late)
	if info, _ := x.x.Engine(x.ids[0]); info.VisibleGPU != 0 || info.Generation != 2 {
		t.Errorf("%+v", info)
	}
	e.busy, e.due = true, time.Second
	e.step.Events = stored
	f.clock.now = time.Millisecond
	if f.stepped(e); !e.busy || x.folds[0].Stats().Blocks != 0 {
		t.Error("a step of the last life ends one of this")
	}
}
