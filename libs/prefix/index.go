package prefix

import (
	"slices"
	"sync/atomic"
)

// EngineInfo is what an Index knows of one engine.
type EngineInfo struct {
	ID         string
	Generation uint64 // as given to Reset or Replace
	VisibleGPU int    // index keys in the gpu set
	VisibleAny int    // index keys in the any set
	Digest     uint64 // of both sets, comparable with EngineStats.Digest
	Evicted    bool   // a gpu copy was removed in this life, as far as the runs applied say
	Surplus    uint64 // keys shown that were shown already
	Missing    uint64 // keys hidden that were not shown
}

// Index holds the visible blocks of all engines of a pool.
//
// One goroutine at a time may change it: Apply, Reset, Replace, Drop, Sweep. Any number may ask meanwhile: Match,
// Engine, Engines, Rows. They take no lock, allocate nothing, and never hold up the writer; nor does it them. What a
// reader could still see is not used for anything else until that reader is done (epochs).
type Index struct {
	epochs epochs
	roster atomic.Pointer[roster]
	tables [segments]atomic.Pointer[table]
	told   atomic.Int64 // rows

	// What follows is the writer's.
	_        [64]byte
	segments [segments]segment
	rows     int
	sets     *sets // while there are more than 64 holders; a table follows when it is next written
	members  map[string]*member
	order    []*member // by id
	holders  holders
	tiers    uint64 // times that an engine got its second holder in the midst of a life
	cursor   int    // next segment to sweep
	retired  int    // what waits for epochs to pass, roughly
}

// NewIndex returns an Index that knows no engine.
func NewIndex() *Index {
	x := &Index{members: map[string]*member{}}
	x.roster.Store(&roster{})
	empty := &table{rows: make([]row, 1)}
	for i := range x.segments {
		x.segments[i].table = empty
		x.tables[i].Store(empty)
	}
	return x
}

const ahead = 16 // keys whose rows are fetched at once

// Apply shows and hides what the run says. An unknown engine is added. What cannot be, such as a key hidden that was
// not shown, changes nothing and is counted. Readers may see a run applied in part; Engine tells of whole ones.
func (x *Index) Apply(engine string, r *Run) {
	m := x.member(engine)
	x.apply(m, r, true)
	m.told.put(&m.info)
	x.tellRows()
}

// apply is Apply for a member; with live unset its holders are in no roster yet.
func (x *Index) apply(m *member, r *Run, live bool) {
	if r.Clear {
		x.clear(m, live)
		m.info.Evicted = true
		return
	}
	if r.Copy == Removed && r.Tier == GPU {
		m.info.Evicted = true
	}
	keys := r.Keys
	if r.Split {
		keys = r.Shown
	}
	if r.GPU == Unchanged && r.Any == Unchanged {
		return
	}
	for len(keys) > 0 {
		n := min(ahead, len(keys))
		for _, key := range keys[:n] {
			seg, word := spread(key)
			x.segments[seg].touch(word)
		}
		for _, key := range keys[:n] {
			x.turn(m, key, r.GPU, r.Any, live)
		}
		keys = keys[n:]
		if x.retired >= moveAfter {
			x.move()
		}
	}
}

// turn applies one key's change of sets.
func (x *Index) turn(m *member, key uint64, gpu, any Change, live bool) {
	w := x.write(key)
	inGPU := w.has(m.gpu)
	inAny := inGPU || m.beside != noHolder && w.has(m.beside)
	nowGPU, nowAny := inGPU, inAny
	switch {
	case gpu == Added && inGPU || any == Added && inAny:
		m.info.Surplus++
	case gpu == Removed && !inGPU || any == Removed && !inAny:
		m.info.Missing++
	}
	if gpu != Unchanged {
		nowGPU = gpu == Added
	}
	if any != Unchanged {
		nowAny = any == Added
	}
	switch {
	case gpu == Unchanged && any == Removed && inGPU: // gpu memory still holds it
		m.info.Missing++
		nowAny = true
	case nowGPU:
		nowAny = true
	}
	if nowAny && !nowGPU && m.beside == noHolder {
		if !x.addBeside(m, live) {
			nowAny = false
		}
		w = x.write(key) // sets may be wide now
	}
	if m.gpu == noHolder {
		m.info.Missing++
		return
	}
	w.turn(m.gpu, nowGPU)
	if m.beside != noHolder {
		w.turn(m.beside, nowAny && !nowGPU)
	}
	w.done()
	m.info.count(key, inGPU, nowGPU, inAny, nowAny)
}

// count keeps an engine's counts and digest.
func (i *EngineInfo) count(key uint64, inGPU, nowGPU, inAny, nowAny bool) {
	switch {
	case nowGPU && !inGPU:
		i.VisibleGPU++
		i.Digest += digestGPU(key)
	case inGPU && !nowGPU:
		i.VisibleGPU--
		i.Digest -= digestGPU(key)
	}
	switch {
	case nowAny && !inAny:
		i.VisibleAny++
		i.Digest += digestAny(key)
	case inAny && !nowAny:
		i.VisibleAny--
		i.Digest -= digestAny(key)
	}
}

// addBeside gives a member its second holder, before any row names it.
func (x *Index) addBeside(m *member, live bool) bool {
	m.beside = x.holder()
	if live && m.beside != noHolder {
		x.tiers++
		x.publish()
	}
	return m.beside != noHolder
}

// clear takes all keys from a member by giving it new holders, a second one if it had one: so a Match sees an engine
// get one in the midst of a life at most once.
func (x *Index) clear(m *member, live bool) {
	if m.info.VisibleAny == 0 {
		return
	}
	x.retire(m)
	m.gpu = x.holder()
	if m.beside != noHolder {
		m.beside = x.holder()
	}
	m.info.VisibleGPU, m.info.VisibleAny, m.info.Digest = 0, 0, 0
	if live {
		x.publish()
	}
}

// Reset begins a new life of an engine: its blocks vanish from all answers at once. An unknown engine is added.
func (x *Index) Reset(engine string, generation uint64) {
	m := x.member(engine)
	x.clear(m, true)
	m.info = EngineInfo{ID: m.id, Generation: generation}
	m.told.put(&m.info)
}

// Replace is Reset followed by Apply of each run, but readers see the old state until the new one is complete.
func (x *Index) Replace(engine string, generation uint64, runs func(yield func(*Run) bool)) {
	next := x.newMember(engine, generation)
	for r := range runs {
		x.apply(next, r, false)
	}
	x.tellRows()
	m := x.members[engine]
	if m == nil {
		x.add(next)
		return
	}
	x.retire(m)
	m.info, m.gpu, m.beside = next.info, next.gpu, next.beside
	m.told.put(&m.info)
	x.publish()
}

// Drop forgets an engine: it vanishes from all answers at once. Its rows are freed by Sweep.
func (x *Index) Drop(engine string) {
	m := x.members[engine]
	if m == nil {
		return
	}
	x.retire(m)
	delete(x.members, m.id)
	x.order = slices.Delete(x.order, m.position, m.position+1)
	x.publish()
}

// move begins the next epoch, if readers let it, and frees what nobody can see any more.
func (x *Index) move() bool {
	if !x.epochs.move() {
		x.retired = moveAfter / 2 // try again, but not at every step
		return false
	}
	x.retired = 0
	if x.sets != nil {
		x.sets.age()
	}
	return true
}

func (x *Index) tellRows() {
	if x.told.Load() != int64(x.rows) {
		x.told.Store(int64(x.rows))
	}
}

// Engine tells of one engine, if it is known.
func (x *Index) Engine(id string) (EngineInfo, bool) {
	m := x.roster.Load().find(id)
	if m == nil {
		return EngineInfo{}, false
	}
	i := m.told.get()
	i.ID = m.id
	return i, true
}

// Engines appends the ids of all known engines, in order.
func (x *Index) Engines(dst []string) []string {
	for _, d := range x.roster.Load().blank {
		dst = append(dst, d.Engine)
	}
	return dst
}

// Rows is the number of different keys held, those of past lives that Sweep has not freed yet among them.
func (x *Index) Rows() int { return int(x.told.Load()) }
