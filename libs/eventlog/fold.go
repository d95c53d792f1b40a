package eventlog

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// Fold folds the log of one bucket, message by message, into what it tells of each engine: the state in which somebody
// who takes the bucket over, or looks back, finds it. Unlike an index it keeps an engine at its last whole batch: the
// beginning of a batch is held back until its end has come. What cannot be read leaves the engines that it may be about
// where they were, marked Behind, until their next reset or whole snapshot. Memory only; not safe for concurrent use.
type Fold struct {
	// New makes an empty engine for an id, to be folded into; nil where nobody wants to know of it.
	New func(id string) *prefix.Engine

	Messages   int
	Bytes      int // of all messages
	Operations int // copies added and removed, those in snapshots too
	Refused    int // messages and parts that could not be used
	Unequal    int // states that were not what their owner had published

	owner   string // of the last message, empty where nothing is known
	counter uint64
	tracks  map[string]*track
}

// Engine is what the log tells of one engine.
type Engine struct {
	Cache      *prefix.Engine
	Generation uint64
	Batch      *eventsv1.Batch // the last one folded; nil where the life has none yet
	From       Place           // the state begins there: with a reset, or the first part of a snapshot
	// Behind: later parts were cut off or could not be read, so other readers may hold more than this state or less.
	Behind bool
}

// Place is a message in the log.
type Place struct {
	Sequence uint64
	Time     time.Time // when it was stored
	Bytes    int       // of messages folded before it
}

// track is one engine on its way.
type track struct {
	known    *Engine
	held     []prefix.Run // of the batch that has sequence, whose end has not come
	sequence uint64
	arriving *arriving
}

// arriving is a snapshot whose last part has not come.
type arriving struct {
	Engine
	next, parts uint32
}

// Engines returns those of which the log has told a reset or a whole snapshot. A Fold must not go on after that.
func (f *Fold) Engines() map[string]*Engine {
	all := map[string]*Engine{}
	for id, t := range f.tracks {
		t.cut()
		if t.known != nil {
			all[id] = t.known
		}
	}
	return all
}

// Message folds the next message. An error says what of it could not be used; the fold goes on.
func (f *Fold) Message(sequence uint64, stored time.Time, data []byte) error {
	at := Place{Sequence: sequence, Time: stored, Bytes: f.Bytes}
	f.Messages, f.Bytes = f.Messages+1, f.Bytes+len(data)
	m, err := Decode(data)
	if err != nil {
		f.Refused++
		f.owner = ""
		f.doubt()
		return err
	}
	claim := Claims(m)
	switch {
	case f.owner == "" || claim:
	case m.Owner != f.owner || m.Counter == f.counter:
		return nil // of a superseded owner, or sent twice
	case m.Counter != f.counter+1:
		err = fmt.Errorf("message %d of %s follows message %d", m.Counter, m.Owner, f.counter)
		f.doubt()
	}
	f.owner, f.counter = m.Owner, m.Counter
	if claim {
		for _, t := range f.tracks {
			t.cut()
		}
	}
	for _, p := range m.Parts {
		if refused := f.part(at, p); refused != nil {
			f.Refused++
			err = errors.Join(err, fmt.Errorf("engine %s: %w", p.Engine, refused))
		}
	}
	return err
}

// Decode reads a message; an error where it is damaged, nobody's, or of a layout that we do not know.
func Decode(data []byte) (*eventsv1.Message, error) {
	m := new(eventsv1.Message)
	switch err := proto.Unmarshal(data, m); {
	case err != nil:
		return nil, fmt.Errorf("decode message: %w", err)
	case m.Version == 0 || m.Version > Version:
		return nil, fmt.Errorf("decode message: layout %d, this is %d", m.Version, Version)
	case m.Owner == "":
		return nil, errors.New("decode message: it names no owner")
	}
	return m, nil
}

// Claims says whether a message announces a new owner.
func Claims(m *eventsv1.Message) bool {
	for _, p := range m.Parts {
		if p.GetClaim() != nil {
			return true
		}
	}
	return false
}

// doubt notes that something is missing of which nobody knows what it was about.
func (f *Fold) doubt() {
	for _, t := range f.tracks {
		t.doubt()
	}
}

func (t *track) doubt() {
	t.held, t.arriving = nil, nil
	if t.known != nil {
		t.known.Behind = true
	}
}

// cut forgets what never came to its end.
func (t *track) cut() {
	if t.arriving = nil; t.held != nil {
		t.doubt()
	}
}

func (f *Fold) part(at Place, p *eventsv1.Part) error {
	if p.GetClaim() != nil {
		return nil
	}
	t := f.tracks[p.Engine]
	if t == nil {
		t = &track{}
		if f.tracks == nil {
			f.tracks = map[string]*track{}
		}
		f.tracks[p.Engine] = t
	}
	if p.GetSnapshot() == nil {
		t.arriving = nil
	}
	switch body := p.Body.(type) {
	case *eventsv1.Part_Reset_:
		*t = track{}
		if cache := f.New(p.Engine); cache != nil {
			t.known = &Engine{Cache: cache, Generation: at.Sequence, From: at}
		}
	case *eventsv1.Part_Delta:
		return f.delta(t, body.Delta)
	case *eventsv1.Part_Snapshot:
		return f.snapshot(at, t, p.Engine, body.Snapshot)
	case *eventsv1.Part_Digest:
		f.compare(t, body.Digest)
	default:
		t.doubt()
		return errors.New("a part of no known kind")
	}
	return nil
}

func (f *Fold) delta(t *track, d *eventsv1.Delta) error {
	if t.known == nil || t.known.Behind {
		return nil
	}
	runs, err := f.runs(d.Runs)
	if err == nil && d.Batch == nil {
		err = errors.New("a delta of no batch")
	}
	if err != nil {
		t.doubt()
		return err
	}
	if t.held != nil && t.sequence != d.Batch.Sequence {
		t.doubt() // the end of that batch never came
		return nil
	}
	if d.Batch.Operations != 0 {
		t.held, t.sequence = append(t.held, runs...), d.Batch.Sequence
		return nil
	}
	restore(t.known.Cache, t.held)
	restore(t.known.Cache, runs)
	t.held, t.known.Batch = nil, d.Batch
	return nil
}

func (f *Fold) snapshot(at Place, t *track, id string, s *eventsv1.Snapshot) error {
	if s.Part == 1 {
		t.arriving = nil
		if cache := f.New(id); cache != nil {
			t.arriving = &arriving{Engine{Cache: cache, Generation: s.Generation, From: at}, 1, s.Parts}
		}
	}
	a := t.arriving
	if a == nil || s.Part != a.next || s.Parts != a.parts || s.Generation != a.Generation {
		t.arriving = nil // its beginning was cut off, or is not of interest
		return nil
	}
	runs, err := f.runs(s.Runs)
	if err != nil {
		t.doubt()
		return err
	}
	restore(a.Cache, runs)
	if a.next++; a.next <= a.parts {
		return nil
	}
	if stats := a.Cache.Stats(); stats.Digest != s.Digest || uint64(stats.VisibleAny) != s.Count {
		f.Unequal++
		t.doubt()
		return errors.New("a snapshot that differs from its digest")
	}
	a.Batch = s.Batch
	*t = track{known: &a.Engine}
	return nil
}

// compare checks a state. One that differs from what its owner published is not to be relied on at all.
func (f *Fold) compare(t *track, d *eventsv1.Digest) {
	if t.known == nil || t.known.Behind || t.held != nil {
		return
	}
	if stats := t.known.Cache.Stats(); stats.Digest != d.Digest || uint64(stats.VisibleAny) != d.Count {
		f.Unequal++
		t.known = nil
	} else {
		t.known.Batch = d.Batch
	}
}

// runs converts all runs, or none.
func (f *Fold) runs(logged []*eventsv1.Run) ([]prefix.Run, error) {
	runs := make([]prefix.Run, 0, len(logged))
	for _, l := range logged {
		r, err := Run(l)
		if err != nil {
			return nil, err
		}
		runs, f.Operations = append(runs, r), f.Operations+Operations(&r)
	}
	return runs, nil
}

func restore(e *prefix.Engine, runs []prefix.Run) {
	for i := range runs {
		e.Restore(&runs[i])
	}
}

// Operations counts the copies that a run adds or removes.
func Operations(r *prefix.Run) int {
	if r.Copy == prefix.Unchanged {
		return 0
	}
	return max(len(r.Hashes), len(r.Keys))
}
