package prefix

import "github.com/warmpath/warmpath/libs/kvevent"

// A fetch reads the memory that coming hashes need, step by step for all of them: what one step reads does not depend
// on the others, so the processor waits once for many. It changes nothing.
type fetch struct {
	hashes [window]uint64
	at     [window]uint32 // block that the hash is likely to mean, 0 for none
	n      int
	seen   uint64 // so that the compiler keeps the loops
}

// window is how many hashes are fetched at once: their memory should still be there when it is used.
const window = 64

// ahead fetches for the hashes of one event, unless that was done for all events around it.
func (e *Engine) ahead(hashes []uint64) {
	if e.fetched == 0 {
		e.fetch.n = copy(e.fetch.hashes[:], hashes)
		e.fetchHashes()
	}
	e.fetched--
}

// fetchEvents fetches for the events from i on and returns the first one for which it did not.
func (e *Engine) fetchEvents(events []kvevent.Event, i int) int {
	f := &e.fetch
	f.n = 0
	for ; i < len(events) && f.n+len(events[i].Hashes) <= window; i++ {
		f.n += copy(f.hashes[f.n:], events[i].Hashes)
	}
	e.fetchHashes()
	return i
}

func (e *Engine) fetchHashes() {
	f := &e.fetch
	e.fetched = f.n
	for i, hash := range f.hashes[:f.n] {
		f.at[i] = e.names.guess(hash)
	}
	for i, at := range f.at[:f.n] {
		f.hashes[i] = e.blocks[at].key
	}
	for _, key := range f.hashes[:f.n] {
		f.seen += uint64(e.keys.guess(key))
	}
}
