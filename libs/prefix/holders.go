package prefix

import "slices"

// A holder is a bit in the sets of rows. An engine has one for its gpu set and, once it shows a key in another tier
// only, a second one for those; so it holds a key in the any set where either bit is set.
type holder = uint16

const noHolder holder = 1<<16 - 1

// maxHolders bounds holder numbers; past it an engine's blocks are counted as missing and not shown.
const maxHolders = 1 << 14

// holders hands out holder numbers. One whose engine has left, or begun a new life, is dead: rosters leave it out.
// When no reader has an older roster a sweep takes it out of all rows, and then it is free.
type holders struct {
	numbers  int // that are not free begin below
	free     []holder
	dead     []deadHolder
	sweeping []holder // rows are being freed of these
}

type deadHolder struct {
	holder
	epoch uint64 // in which it died
}

// take hands out the lowest free number, so that sets stay small.
func (h *holders) take() holder {
	if len(h.free) > 0 {
		least := slices.Min(h.free)
		i := slices.Index(h.free, least)
		h.free = slices.Delete(h.free, i, i+1)
		return least
	}
	if h.numbers >= maxHolders {
		return noHolder
	}
	h.numbers++
	return holder(h.numbers - 1)
}

// kill leaves a holder's rows to a sweep. The caller publishes a roster without it.
func (h *holders) kill(n holder, now uint64) {
	if n != noHolder {
		h.dead = append(h.dead, deadHolder{n, now})
	}
}

// begin starts to sweep the dead that no reader has in its roster, and reports whether there are any.
func (h *holders) begin(now uint64) bool {
	h.dead = slices.DeleteFunc(h.dead, func(d deadHolder) bool {
		ripe := past(d.epoch, now)
		if ripe {
			h.sweeping = append(h.sweeping, d.holder)
		}
		return ripe
	})
	return len(h.sweeping) > 0
}

// end frees what was swept, and forgets the highest numbers if they are free.
func (h *holders) end() {
	h.free = append(h.free, h.sweeping...)
	h.sweeping = h.sweeping[:0]
	slices.Sort(h.free)
	for last := len(h.free) - 1; last >= 0 && int(h.free[last]) == h.numbers-1; last-- {
		h.free = h.free[:last]
		h.numbers--
	}
}
