package prefix

import (
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
)

// member is one engine of an Index. Only the writer uses it, but for id and told.
type member struct {
	id       string
	info     EngineInfo
	gpu      holder
	beside   holder // of keys that only another tier holds; noHolder until the first
	position int    // in Index.order
	told     notice
}

// A roster says whom answers name. It never changes; the writer publishes another one. A Match has one all along.
type roster struct {
	blank   []Depth // what a Match of nothing answers
	members []*member
	seats   []seat   // by holder
	live    []uint64 // bitset of holders that answers may name
	tiers   uint64   // see Match
}

// A seat is where in an answer a holder's engine stands.
type seat struct {
	position uint32
	gpu      bool
}

// publish shows readers the members as they are now.
func (x *Index) publish() {
	r := &roster{blank: make([]Depth, len(x.order)), members: slices.Clone(x.order), tiers: x.tiers}
	for i, m := range x.order {
		m.position = i
		r.blank[i].Engine = m.id
		r.seat(m.gpu, seat{uint32(i), true})
		r.seat(m.beside, seat{uint32(i), false})
	}
	x.roster.Store(r)
}

func (r *roster) seat(n holder, s seat) {
	if n == noHolder {
		return
	}
	if more := int(n) + 1 - len(r.seats); more > 0 {
		r.seats = append(r.seats, make([]seat, more)...)
	}
	if more := int(n)/64 + 1 - len(r.live); more > 0 {
		r.live = append(r.live, make([]uint64, more)...)
	}
	r.seats[n] = s
	r.live[n/64] |= 1 << (n % 64)
}

// find returns the member with this id, or nil.
func (r *roster) find(id string) *member {
	i, ok := slices.BinarySearchFunc(r.blank, id, func(d Depth, id string) int { return strings.Compare(d.Engine, id) })
	if !ok {
		return nil
	}
	return r.members[i]
}

// mask is the live holders among the first 64.
func (r *roster) mask() uint64 {
	if len(r.live) == 0 {
		return 0
	}
	return r.live[0]
}

// member finds an engine or adds it.
func (x *Index) member(id string) *member {
	m := x.members[id]
	if m == nil {
		m = x.newMember(id, 0)
		x.add(m)
	}
	return m
}

// newMember makes a member that is in no roster.
func (x *Index) newMember(id string, generation uint64) *member {
	id = strings.Clone(id)
	return &member{id: id, info: EngineInfo{ID: id, Generation: generation}, gpu: x.holder(), beside: noHolder}
}

// add makes a member known.
func (x *Index) add(m *member) {
	m.told.put(&m.info)
	x.members[m.id] = m
	at, _ := slices.BinarySearchFunc(x.order, m.id, func(m *member, id string) int { return strings.Compare(m.id, id) })
	x.order = slices.Insert(x.order, at, m)
	x.publish()
}

// holder takes a holder number and makes sets wide enough for it.
func (x *Index) holder() holder {
	n := x.holders.take()
	words := (x.holders.numbers + 63) / 64
	switch {
	case x.sets != nil:
		x.sets.widen(words)
	case words > 1:
		x.sets = newSets(words)
	}
	return n
}

// retire takes a member's holders from it. The caller publishes.
func (x *Index) retire(m *member) {
	now := x.epochs.now.Load()
	x.holders.kill(m.gpu, now)
	x.holders.kill(m.beside, now)
}

// A notice is an EngineInfo that one goroutine changes and others read, whole.
type notice struct {
	version atomic.Uint64 // odd while it changes
	words   [7]atomic.Uint64
}

func (n *notice) put(i *EngineInfo) {
	words := [...]uint64{i.Generation, uint64(i.VisibleGPU), uint64(i.VisibleAny), i.Digest, 0, i.Surplus, i.Missing}
	if i.Evicted {
		words[4] = 1
	}
	version := n.version.Load()
	n.version.Store(version + 1)
	for j, w := range words {
		if n.words[j].Load() != w { // a load is cheaper than a store
			n.words[j].Store(w)
		}
	}
	n.version.Store(version + 2)
}

func (n *notice) get() EngineInfo {
	for {
		version := n.version.Load()
		i := EngineInfo{Generation: n.words[0].Load(), VisibleGPU: int(n.words[1].Load()),
			VisibleAny: int(n.words[2].Load()), Digest: n.words[3].Load(), Evicted: n.words[4].Load() != 0,
			Surplus: n.words[5].Load(), Missing: n.words[6].Load()}
		if version&1 == 0 && n.version.Load() == version {
			return i
		}
		runtime.Gosched()
	}
}
