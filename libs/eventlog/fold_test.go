package eventlog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// writer writes a bucket's log as an owner may, and remembers what each engine held after each batch.
type writer struct {
	t       *testing.T
	r       *rand.Rand
	fold    *Fold
	owner   string
	counter uint64
	seq     uint64
	engines map[string]*written
}

type written struct {
	cache      *prefix.Engine
	generation uint64
	batch      uint64
	held       []uint64
	next       uint64
	truth      map[string]map[uint64]int // by generation and batch
	sound      bool                      // nothing of it was lost or cut off since its last reset or snapshot
	owes       bool                      // its owner knows that a snapshot is due
	torn       bool                      // a part of a batch is in the log whose end is not
}

func empty(string) *prefix.Engine {
	return prefix.NewEngine(prefix.EngineOptions{Pool: "p", BlockSize: 4})
}

func (w *writer) message(parts ...*eventsv1.Part) []byte {
	w.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: Version, Owner: w.owner, Counter: w.counter, Parts: parts})
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

func (w *writer) writes(parts ...*eventsv1.Part) { w.raw(w.message(parts...)) }

func (w *writer) raw(data []byte) {
	w.seq++
	_ = w.fold.Message(w.seq, time.Unix(int64(w.seq), 0), data)
}

func at(generation, batch uint64) string { return fmt.Sprint(generation, "/", batch) }

func copiesOf(e *prefix.Engine) map[uint64]int {
	c := map[uint64]int{}
	e.Copies(func(_ prefix.Tier, _ int, hash uint64, n int) bool {
		c[hash] += n
		return true
	})
	return c
}

func (w *writer) claim(owner string) {
	w.owner, w.counter = owner, w.counter/2 // another's count begins anywhere
	w.writes(&eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}})
}

func (w *writer) reset(id string) {
	e := &written{cache: empty(id), generation: w.seq + 1, next: w.r.Uint64() >> 20, truth: map[string]map[uint64]int{}, sound: true}
	if old := w.engines[id]; old != nil {
		e.truth = old.truth
	}
	e.truth[at(e.generation, 0)] = map[uint64]int{}
	w.engines[id] = e
	w.writes(&eventsv1.Part{Engine: id, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{Reason: "test"}}})
}

// fill folds a batch and returns its runs.
func (w *writer) fill(e *written) (runs []prefix.Run) {
	e.batch++
	for range 1 + w.r.IntN(6) {
		ev := kvevent.Event{Kind: kvevent.Removed}
		if n := len(e.held); n > 20 || n > 0 && w.r.IntN(3) == 0 {
			i := w.r.IntN(n)
			ev.Hashes, e.held = []uint64{e.held[i]}, slices.Delete(e.held, i, i+1)
		} else {
			ev = kvevent.Event{Kind: kvevent.Stored, BlockSize: 4, Tokens: []uint32{1, 2, 3, uint32(e.next)}, Hashes: []uint64{e.next}}
			if n > 0 && w.r.IntN(2) == 0 {
				ev.Parent, ev.HasParent = e.held[w.r.IntN(n)], true
			}
			e.held = append(e.held, e.next)
			e.next++
		}
		runs = e.cache.Fold(&ev, runs)
	}
	e.truth[at(e.generation, e.batch)] = copiesOf(e.cache)
	return runs
}

func delta(id string, b *eventsv1.Batch, runs []prefix.Run) *eventsv1.Part {
	d := &eventsv1.Delta{Batch: b, Received: 1}
	for i := range runs {
		d.Runs = append(d.Runs, Logged(&runs[i]))
	}
	return &eventsv1.Part{Engine: id, Body: &eventsv1.Part_Delta{Delta: d}}
}

// batch writes a batch, cut as often as it can be, whole only if whole is set.
func (w *writer) batch(id string, cut, whole bool) {
	e := w.engines[id]
	runs := w.fill(e)
	b := &eventsv1.Batch{Sequence: e.batch, Ts: float64(e.batch)}
	for i := 0; cut && i < len(runs)-1; i++ {
		w.writes(delta(id, &eventsv1.Batch{Sequence: b.Sequence, Ts: b.Ts, Operations: uint32(i + 1)}, runs[i:i+1]))
	}
	switch {
	case !whole:
		e.sound, e.owes, e.torn = false, true, e.torn || cut && len(runs) > 1
	case cut:
		w.writes(delta(id, b, runs[max(len(runs)-1, 0):]))
	default:
		w.writes(delta(id, b, runs))
	}
}

// lose writes a batch that nobody can read, and its owner does not know.
func (w *writer) lose(id string) {
	e := w.engines[id]
	runs := w.fill(e)
	data := w.message(delta(id, &eventsv1.Batch{Sequence: e.batch, Ts: float64(e.batch)}, runs))
	switch w.r.IntN(4) {
	case 0:
		w.seq++ // it is not there at all, which only its owner's next one tells
		w.writes()
	case 1:
		w.raw(data[:len(data)-1])
	case 2:
		w.raw([]byte("\xffgarbage"))
	case 3:
		data[1] = Version + 1
		w.raw(data)
	}
	for _, e := range w.engines {
		e.sound = false
	}
}

// snapshot writes so many of the parts of a snapshot; something else of the same owner may come between.
func (w *writer) snapshot(id string, whole bool, between func()) {
	e := w.engines[id]
	var parts []*eventsv1.Snapshot
	for r := range e.cache.Snapshot {
		parts = append(parts, &eventsv1.Snapshot{Runs: []*eventsv1.Run{Logged(&r)}})
	}
	parts = append(parts, &eventsv1.Snapshot{})
	stats := e.cache.Stats()
	for i, s := range parts {
		s.Part, s.Parts, s.Generation = uint32(i+1), uint32(len(parts)), e.generation
		if e.batch > 0 {
			s.Batch = &eventsv1.Batch{Sequence: e.batch, Ts: float64(e.batch)}
		}
		if i == len(parts)-1 {
			s.Count, s.Digest = uint64(stats.VisibleAny), stats.Digest
			if !whole {
				return
			}
		}
		w.writes(&eventsv1.Part{Engine: id, Body: &eventsv1.Part_Snapshot{Snapshot: s}})
		between()
	}
	e.sound, e.owes, e.torn = true, false, false
}

func (w *writer) digest(id string) {
	e := w.engines[id]
	if !e.sound {
		return // the owner has something to say first
	}
	stats := e.cache.Stats()
	w.writes(&eventsv1.Part{Engine: id, Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{
		Batch: &eventsv1.Batch{Sequence: e.batch, Ts: float64(e.batch)}, Count: uint64(stats.VisibleAny), Digest: stats.Digest}}})
}

// check holds the fold to what the engines held: exactly that at the batch that it names, and the last one unless
// something was lost.
func (w *writer) check(seed uint64) {
	got := w.fold.Engines()
	for id, e := range w.engines {
		f := got[id]
		if f == nil {
			w.t.Fatalf("seed %d: nothing told of %s", seed, id)
		}
		if want, known := e.truth[at(f.Generation, f.Batch.GetSequence())]; !known || !maps.Equal(copiesOf(f.Cache), want) {
			w.t.Fatalf("seed %d: %s at batch %d holds %v, not %v", seed, id, f.Batch.GetSequence(), copiesOf(f.Cache), want)
		}
		if e.sound && (f.Behind || f.Batch.GetSequence() != e.batch || f.Generation != e.generation) {
			w.t.Fatalf("seed %d: %s is at batch %d of %d, behind %t, sound %t", seed, id, f.Batch.GetSequence(), e.batch, f.Behind, e.sound)
		}
		if e.torn && !f.Behind {
			w.t.Fatalf("seed %d: readers hold more of %s than its last whole batch, and it is not said", seed, id)
		}
		if f.From.Sequence == 0 || f.From.Sequence > w.seq {
			w.t.Fatalf("seed %d: %s begins at %d", seed, id, f.From.Sequence)
		}
	}
}

// Whatever owners write and leave unfinished, whatever is damaged: each engine is exactly where it was at some batch,
// the last one unless that was cut off.
func TestFoldAgainstModel(t *testing.T) {
	for seed := range uint64(400) {
		w := &writer{t: t, r: rand.New(rand.NewPCG(seed, 9)), fold: &Fold{New: empty}, owner: "a", engines: map[string]*written{}}
		ids := []string{"x", "y", "z"}
		w.claim("a")
		for _, id := range ids {
			w.reset(id)
		}
		quiet := seed%4 == 0 // no faults
		for range 40 {
			id := ids[w.r.IntN(len(ids))]
			other := ids[w.r.IntN(len(ids))]
			between := func() {
				if w.engines[other].sound && other != id {
					w.batch(other, false, true)
				}
			}
			e := w.engines[id]
			switch k := w.r.IntN(16); {
			case k == 0:
				w.reset(id)
			case k <= 2 || !e.sound && k < 8:
				w.snapshot(id, true, between)
			case k == 3:
				w.snapshot(id, false, between)
			case k == 4:
				w.digest(id)
			case k == 5 && !quiet && e.sound: // it dies in the middle of a batch
				w.batch(id, true, false)
				w.claim("b")
			case k <= 7 && k >= 6 && !quiet && !e.owes:
				w.lose(id)
			case k == 8: // the same message again
				data := w.message()
				w.raw(data)
				w.raw(data)
			case k == 9: // of an owner who was superseded
				stale := *w
				stale.owner = "stale"
				data := stale.message(&eventsv1.Part{Engine: id, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{}}})
				if w.seq++; w.fold.owner != "" {
					_ = w.fold.Message(w.seq, time.Time{}, data)
				}
			case k == 10:
				w.claim("c")
			case e.owes:
			default:
				w.batch(id, w.r.IntN(2) == 0, true)
			}
		}
		w.check(seed)
	}
}

func TestFoldCounts(t *testing.T) {
	w := &writer{t: t, r: rand.New(rand.NewPCG(1, 1)), fold: &Fold{New: empty}, owner: "a", engines: map[string]*written{}}
	w.claim("a")
	w.reset("x")
	for range 10 {
		w.batch("x", false, true)
	}
	if f := w.fold; f.Messages != 12 || f.Operations < 10 || f.Bytes == 0 || f.Refused != 0 || f.Unequal != 0 {
		t.Errorf("%+v", f)
	}
	wrong := w.engines["x"].cache.Stats()
	w.writes(&eventsv1.Part{Engine: "x", Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{Count: 1, Digest: wrong.Digest + 1}}})
	if got := w.fold.Engines()["x"]; got != nil || w.fold.Unequal != 1 {
		t.Errorf("an engine that differs from its digest is relied on: %+v", got)
	}
	w.fold.New = func(string) *prefix.Engine { return nil }
	w.reset("y")
	w.batch("y", false, true)
	if got := w.fold.Engines()["y"]; got != nil {
		t.Errorf("an engine of no interest is kept: %+v", got)
	}
}

// FuzzFold: no log can crash a reader.
func FuzzFold(f *testing.F) {
	for _, p := range []*eventsv1.Part{
		{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}},
		{Engine: "x", Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{}}},
		{Engine: "x", Body: &eventsv1.Part_Snapshot{Snapshot: &eventsv1.Snapshot{Part: 1, Parts: 1}}},
		{Engine: "x", Body: &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Batch: &eventsv1.Batch{}, Runs: []*eventsv1.Run{{Copy: 1, Hashes: []uint64{1}, Keys: []uint64{2}}}}}},
		{Engine: "x"},
	} {
		data, err := proto.Marshal(&eventsv1.Message{Version: 1, Owner: "a", Counter: 1, Parts: []*eventsv1.Part{p}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fold := &Fold{New: empty}
		reset, _ := proto.Marshal(&eventsv1.Message{Version: 1, Owner: "a", Parts: []*eventsv1.Part{
			{Engine: "x", Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{}}}}})
		_ = fold.Message(1, time.Time{}, reset)
		for i := range uint64(3) {
			_ = fold.Message(2+i, time.Time{}, data)
		}
		fold.Engines()
	})
}
