package prefix

import "sync"

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

// Index holds the visible blocks of all engines of a pool. Safe for concurrent use; one writer at a time.
type Index struct {
	mu       sync.RWMutex
	segments [segments]segment
	rows     int
	sets     *sets // once there are more than 64 holders

	members map[string]*member
	order   []*member // by id
	holders holders
	cursor  int // next segment to sweep
	touched uint64
}

// NewIndex returns an Index that knows no engine.
func NewIndex() *Index { return &Index{members: map[string]*member{}} }

const (
	applyStep = 256 // keys applied at most while readers wait
	ahead     = 16  // keys whose rows are fetched at once
)

// Apply shows and hides what the run says. An unknown engine is added. What cannot be, such as a key hidden that was
// not shown, changes nothing and is counted. Readers may see a run applied in part.
func (x *Index) Apply(engine string, r *Run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.apply(x.member(engine), r, true)
}

// apply is Apply for a member; with live unset its new holders stay masked.
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
	for i, key := range keys {
		if i%ahead == 0 {
			x.touch(keys[i:min(i+ahead, len(keys))])
		}
		if i%applyStep == applyStep-1 && live {
			x.mu.Unlock()
			x.mu.Lock()
			if x.members[m.info.ID] != m {
				return // dropped meanwhile
			}
		}
		x.turn(m, key, r.GPU, r.Any, live)
	}
}

// touch reads where these keys are or will be, none after another, so that the memory they lie in is fetched at once.
func (x *Index) touch(keys []uint64) {
	var sum uint64
	for _, key := range keys {
		seg, rest := spread(key)
		if s := &x.segments[seg]; len(s.rows) > 0 {
			sum += s.rows[s.home(rest)].set
		}
	}
	x.touched = sum // so that the compiler keeps the loop
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
		if m.beside = x.holder(m, live); m.beside == noHolder {
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

// clear takes all keys from a member by giving it a new holder.
func (x *Index) clear(m *member, live bool) {
	if m.info.VisibleAny == 0 {
		return
	}
	x.holders.kill(m.gpu)
	x.holders.kill(m.beside)
	m.beside = noHolder
	m.gpu = x.holder(m, live)
	m.info.VisibleGPU, m.info.VisibleAny, m.info.Digest = 0, 0, 0
}

// Reset begins a new life of an engine: its blocks vanish from all answers at once. An unknown engine is added.
func (x *Index) Reset(engine string, generation uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.member(engine)
	x.clear(m, true)
	m.info = EngineInfo{ID: m.info.ID, Generation: generation}
}

// Replace is Reset followed by Apply of each run, but readers see the old state until the new one is complete.
func (x *Index) Replace(engine string, generation uint64, runs func(yield func(*Run) bool)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.member(engine)
	next := &member{info: EngineInfo{ID: m.info.ID, Generation: generation}, beside: noHolder, position: m.position}
	next.gpu = x.holder(next, false)
	for r := range runs {
		x.apply(next, r, false)
		x.mu.Unlock()
		x.mu.Lock()
	}
	if x.members[m.info.ID] != m { // dropped meanwhile
		x.holders.kill(next.gpu)
		x.holders.kill(next.beside)
		return
	}
	x.holders.kill(m.gpu)
	x.holders.kill(m.beside)
	m.info, m.gpu, m.beside = next.info, next.gpu, next.beside
	for _, n := range []holder{m.gpu, m.beside} {
		if n != noHolder {
			x.holders.owner[n] = m
			x.holders.enliven(n)
		}
	}
}

// Drop forgets an engine: it vanishes from all answers at once. Its rows are freed by Sweep.
func (x *Index) Drop(engine string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.members[engine]; m != nil {
		x.forget(m)
	}
}

// Engine tells of one engine, if it is known.
func (x *Index) Engine(id string) (EngineInfo, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	m := x.members[id]
	if m == nil {
		return EngineInfo{}, false
	}
	return m.info, true
}

// Engines appends the ids of all known engines, in order.
func (x *Index) Engines(dst []string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, m := range x.order {
		dst = append(dst, m.info.ID)
	}
	return dst
}

// Rows is the number of different keys held, those of past lives that Sweep has not freed yet among them.
func (x *Index) Rows() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.rows
}
