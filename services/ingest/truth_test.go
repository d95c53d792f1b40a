package ingest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/libs/prefix"
)

// report is a request record of an engine: so many blocks claimed by the index, so many tokens measured, -1 for none.
func report(engine string, generation uint64, blocks, measured int) map[string]any {
	r := map[string]any{"v": 1, "engine": engine, "generation": generation, "block_size": 16, "cached_predicted": blocks * 16,
		"cached_measured": nil, "outcome": "ok",
		"depths": []map[string]any{{"engine": "other", "gpu": 1000, "generation": 1}, {"engine": engine, "gpu": blocks, "generation": generation}}}
	if measured >= 0 {
		r["cached_measured"] = measured
	}
	return r
}

func parsed(t *testing.T, r map[string]any) *record {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	read, err := readRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	return &read
}

// What makes a cache count as wiped, and above all what does not.
func TestTruthCheck(t *testing.T) {
	empty := func(n int) (all []map[string]any) {
		for range n {
			all = append(all, report("e", 7, 64, 0))
		}
		return all
	}
	with := func(key string, value any) map[string]any {
		r := report("e", 7, 64, 0)
		r[key] = value
		return r
	}
	split := func(n int, engine string) (all []map[string]any) { // computed for another, which tells nothing
		for range n {
			r := report("e", 7, 64, -1)
			r["engine"] = "decodes"
			r["split"] = map[string]any{"engine": engine, "generation": 7, "cached_predicted": 1024, "cached_measured": 0}
			all = append(all, r)
		}
		return all
	}
	for name, c := range map[string]struct {
		reports []map[string]any
		late    bool
		wiped   bool
	}{
		"five":                   {reports: empty(5), wiped: true},
		"four":                   {reports: empty(4)},
		"computed elsewhere":     {reports: split(5, "x")},
		"computed for another":   {reports: split(5, "e"), wiped: true},
		"four, a hit, four":      {reports: append(append(empty(4), report("e", 7, 64, 16)), empty(4)...)},
		"a small one tells not":  {reports: append(append(empty(4), report("e", 7, 2, 0)), empty(1)...), wiped: true},
		"below 64 blocks":        {reports: []map[string]any{report("e", 7, 63, 0), report("e", 7, 63, 0), report("e", 7, 63, 0), report("e", 7, 63, 0), report("e", 7, 63, 0)}},
		"no claim of the index":  {reports: append(empty(4), with("depths", nil))},
		"a claim of another":     {reports: append(empty(4), with("depths", []map[string]any{{"engine": "x", "gpu": 99, "generation": 7}}))},
		"of another life":        {reports: append(empty(4), with("depths", []map[string]any{{"engine": "e", "gpu": 99, "generation": 6}}))},
		"two lives":              {reports: append(empty(4), report("e", 8, 64, 0))},
		"while we are late":      {reports: empty(9), late: true},
		"less predicted":         {reports: append(empty(4), with("cached_predicted", 63*16))},
		"twice as many, once":    {reports: empty(9), wiped: true},
		"larger blocks, claimed": {reports: append(empty(4), with("block_size", 32))},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			cache := newCache("e", prefix.EngineOptions{BlockSize: 16}, func() {})
			cache.adopt(nil)
			if c.late {
				cache.apply(stamp{0, 1}, now.Add(-truthLag), []kvevent.Event{{Kind: kvevent.Cleared}})
			}
			s := newSession(rank{}, cache, quiet(), newMetrics(nil), times{})
			for _, r := range c.reports {
				s.compare(parsed(t, r), now)
			}
			if got := len(s.wiped) > 0; got != c.wiped {
				t.Errorf("wiped: %t, want %t", got, c.wiped)
			}
		})
	}
}

// A report that comes while what we know is old ends the row.
func TestLagEndsTheRow(t *testing.T) {
	cache := newCache("e", prefix.EngineOptions{BlockSize: 16}, func() {})
	cache.adopt(nil)
	folded := time.Unix(1000, 0)
	cache.apply(stamp{0, 1}, folded, []kvevent.Event{{Kind: kvevent.Cleared}})
	s := newSession(rank{}, cache, quiet(), newMetrics(nil), times{})
	r := parsed(t, report("e", 7, 64, 0))
	for _, lag := range []time.Duration{0, 0, 0, truthLag - 1, truthLag, 0, 0, 0, 0} {
		s.compare(r, folded.Add(lag))
	}
	if len(s.wiped) > 0 {
		t.Error("a row goes on across a time without knowledge")
	}
	if s.compare(r, folded); len(s.wiped) == 0 {
		t.Error("five reports in a row do not tell")
	}
}

// longChain announces so many blocks.
func (e *engine) longChain(blocks int) (kvevent.Event, copies) {
	var hashes []uint64
	for i := range blocks {
		hashes = append(hashes, uint64(1000+i))
	}
	return e.stored(0, hashes...), held(hashes...)
}

func (p *plane) send(r any) {
	p.t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.conn.Send(bus.RequestSubject(fleet.PoolID(model)), data); err != nil {
		p.t.Fatal(err)
	}
}

// A cache that was wiped in silence is dropped once requests tell, and what is stored from then on is known. Neither the
// engine's replay buffer nor a takeover brings back what was wiped.
func TestASilentlyWipedCacheIsDropped(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	chain, all := e.longChain(64)
	e.publish(chain)
	first := p.exact(e, all, 0)
	records := 0.0
	say := func(blocks, measured int, generation uint64) {
		p.send(report(e.id, generation, blocks, measured))
		if measured >= 0 && generation == first {
			records++
		}
	}
	for range 4 {
		say(64, 0, first)
	}
	say(64, 64*16, first)
	for range 9 { // none of these tells
		say(64, -1, first)
		say(63, 0, first)
		say(64, 0, first-1)
	}
	for range 4 {
		say(64, 0, first)
	}
	for _, garbage := range []string{"", "null and void", `{"engine":7}`, `{"engine":"x","cached_predicted":-1}`, `[]`} {
		if err := p.conn.Send(bus.RequestSubject("any"), []byte(garbage)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the reports are read", func() bool {
		return p.count("bad_records_total") >= 4 && p.histogram("warmpath_prediction_error_tokens") == records
	})
	if g := p.holds(e, all); g != first || p.count("wipes_total") != 0 {
		t.Fatalf("generation %d after %d, %v wipes", g, first, p.count("wipes_total"))
	}
	say(64, 0, first)
	second := p.holds(e, held())
	p.record(e, "late", func(r fleet.Engine) bool { return r.State == fleet.Partial && r.Generation == second })
	e.publish(e.stored(0, 1, 2))
	p.holds(e, held(1, 2))
	e.pub.DropLive(1) // healed by a replay, from where the cache was found wiped
	e.publish(e.stored(2, 3))
	if g := p.holds(e, held(1, 2, 3)); g != second {
		t.Errorf("generation %d after %d", g, second)
	}
	stop()
	p.ingest("b", e)
	e.publish(e.stored(3, 4))
	if g := p.holds(e, held(1, 2, 3, 4)); g != second || g == first {
		t.Errorf("generation %d after %d", g, second)
	}
}

// An owner that dies right after it found a cache wiped leaves a log from which nothing is replayed that was before.
func TestTakeoverRightAfterAWipe(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.times.digest = time.Hour
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	chain, all := e.longChain(64)
	e.publish(chain)
	first := p.exact(e, all, 0)
	for range truthRow {
		p.send(report(e.id, first, 64, 0))
	}
	second := p.holds(e, held())
	stop()
	p.ingest("b", e)
	eventually(t, "the engine has replayed", func() bool { return p.count("replays_total", "outcome=complete") > 0 })
	e.publish(e.stored(0, 1))
	if g := p.holds(e, held(1)); g != second {
		t.Errorf("generation %d after %d", g, second)
	}
}

// A sleep that discards the cache voids it, once, and the next one again.
func TestASleepThatDiscardsTheCache(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	last := p.exact(e, held(1, 2), 0)
	for i := range uint64(2) {
		e.asleep.Store(true)
		asleep := p.exact(e, held(), 0)
		if asleep <= last {
			t.Errorf("generation %d after %d", asleep, last)
		}
		e.publish(e.stored(0, 10+i)) // it may store while its page still says so: once is enough
		p.exact(e, held(10+i), asleep)
		n := p.count("wipes_total")
		seen := e.pages.Load()
		eventually(t, "looks at the engine", func() bool { return e.pages.Load() > seen+6 })
		if p.count("wipes_total") != n {
			t.Error("one sleep voids the cache twice")
		}
		e.asleep.Store(false)
		seen = e.pages.Load()
		eventually(t, "looks at the engine", func() bool { return e.pages.Load() > seen+4 })
		last = p.exact(e, held(10+i), asleep)
	}
}

// A block of so many tokens that no message could tell of it is refused, loudly, and the bucket goes on.
func TestAHugeBlockIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1))
	p.holds(e, held(1))
	event := func(hash uint64, keys int) kvevent.Event {
		return kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{hash}, BlockSize: 16 * keys, Medium: "GPU", Tokens: make([]uint32, 16*keys)}
	}
	e.publish(event(8, maxKeys+1), e.stored(0, 2))
	e.publish(event(9, maxKeys))
	p.holds(e, held(1, 2, 9))
	p.record(e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial })
	if p.count("bad_total", "reason=block_size") != 1 || p.log.biggest() > maxMessage {
		t.Errorf("%v refused, messages of up to %d bytes", p.count("bad_total", "reason=block_size"), p.log.biggest())
	}
	var all []kvevent.Event
	want := held(1, 2, 9)
	for h := range uint64(40) { // together more than a message, in a batch that is cut
		all = append(all, event(100+h, maxKeys))
		want[copyKey(100+h, 0)]++
	}
	e.publish(all...)
	p.holds(e, want)
	eventually(t, "a snapshot", func() bool {
		_ = p.conn.Send(bus.AskSubject(fleet.PoolID(model), fleet.Bucket(e.id)), nil)
		return p.log.seen("snapshot") > 1
	})
	p.holds(e, want)
	if n := p.log.biggest(); n > maxMessage {
		t.Errorf("messages of up to %d bytes", n)
	}
}

// histogram counts what a histogram of any name has observed.
func (p *plane) histogram(name string) float64 {
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return float64(f.Metric[0].GetHistogram().GetSampleCount())
		}
	}
	p.t.Fatal(fmt.Sprintf("no metric %s", name))
	return 0
}
