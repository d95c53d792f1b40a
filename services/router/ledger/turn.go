package ledger

import "time"

// remains is how many of the held leading keys, cached on the engine or under way to be, it will still hold when the
// turn of a prompt that is sent now comes. What waits there takes its room from empty blocks first and then from those
// used longest ago. What this router sent last, as much as the cache holds, is younger than those. The age of anything
// else is not known, as other routers sent it, or this one before it restarted: each block of it is as likely to go as
// any other. With nothing waiting all of it remains.
func (w *row) remains(keys []uint64, held, blockSize int) int {
	blocks := float64(w.engine.Blocks)
	if held == 0 || blocks <= 0 || blockSize <= 0 {
		return held
	}
	evicted := float64(w.uncached+w.coming.tokens+w.beside().uncached)/float64(blockSize) - max(0, blocks-float64(w.mapped))
	if evicted <= 0 {
		return held
	}
	old := int(float64(held) * max(0, 1-evicted/blocks))
	return min(held, max(old, w.recent.Depth(keys)))
}

// begin is a new life of the engine: its cache is empty, and what was sent to an earlier one is forgotten with its
// number.
func (w *row) begin(number uint32) {
	w.number, w.recent = number, nil
	w.mapped, w.evicted, w.scraped = 0, false, time.Time{}
}
