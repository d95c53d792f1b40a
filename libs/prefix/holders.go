package prefix

import (
	"slices"
	"strings"
)

// A holder is a bit in the sets of rows. An engine has one for its gpu set and, once it shows a key in another tier
// only, a second one for those; so it holds a key in the any set where either bit is set.
type holder = uint16

const noHolder holder = 1<<16 - 1

// maxHolders bounds holder numbers; past it an engine's blocks are counted as missing and not shown.
const maxHolders = 1 << 14

// member is one engine of an Index.
type member struct {
	info     EngineInfo
	gpu      holder
	beside   holder // of keys that only another tier holds; noHolder until the first
	position int    // in Index.order
}

// holders hands out holder numbers.
type holders struct {
	owner    []*member // by holder; nil where free or dead
	live     []uint64  // bitset of holders that answers may name
	dead     []holder  // wait for a sweep to begin
	sweeping []holder  // rows are being freed of these
	free     []holder
}

// take hands out the lowest free number, so that sets stay small.
func (h *holders) take(m *member, live bool) holder {
	var n holder
	switch {
	case len(h.free) > 0:
		i := 0
		for j, f := range h.free {
			if f < h.free[i] {
				i = j
			}
		}
		n = h.free[i]
		h.free = slices.Delete(h.free, i, i+1)
	case len(h.owner) >= maxHolders:
		return noHolder
	default:
		n = holder(len(h.owner))
		h.owner = append(h.owner, nil)
		if len(h.owner) > 64*len(h.live) {
			h.live = append(h.live, 0)
		}
	}
	h.owner[n] = m
	if live {
		h.live[n/64] |= 1 << (n % 64)
	}
	return n
}

// kill masks a holder out of all answers and leaves its rows to the next sweep.
func (h *holders) kill(n holder) {
	if n != noHolder {
		h.live[n/64] &^= 1 << (n % 64)
		h.owner[n] = nil
		h.dead = append(h.dead, n)
	}
}

func (h *holders) enliven(n holder) {
	if n != noHolder {
		h.live[n/64] |= 1 << (n % 64)
	}
}

// member finds an engine or adds it.
func (x *Index) member(id string) *member {
	if m := x.members[id]; m != nil {
		return m
	}
	id = strings.Clone(id)
	m := &member{info: EngineInfo{ID: id}, beside: noHolder}
	m.gpu = x.holder(m, true)
	x.members[id] = m
	at, _ := slices.BinarySearchFunc(x.order, id, func(m *member, id string) int { return strings.Compare(m.info.ID, id) })
	x.order = slices.Insert(x.order, at, m)
	x.number(at)
	return m
}

// holder takes a holder number for a member and makes sets wide enough for it.
func (x *Index) holder(m *member, live bool) holder {
	n := x.holders.take(m, live)
	words := len(x.holders.live)
	switch {
	case words <= 1:
	case x.sets == nil:
		x.sets = newSets(words)
	default:
		x.sets.widen(words)
	}
	return n
}

func (x *Index) number(from int) {
	for i := from; i < len(x.order); i++ {
		x.order[i].position = i
	}
}

// forget takes an engine out of the Index.
func (x *Index) forget(m *member) {
	x.holders.kill(m.gpu)
	x.holders.kill(m.beside)
	delete(x.members, m.info.ID)
	x.order = slices.Delete(x.order, m.position, m.position+1)
	x.number(m.position)
}
