package ledger

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// turns is a pool of one engine of 10,000 blocks that tells what the policy saw.
type turns struct {
	t    *testing.T
	pool *Pool
	view *fleet.View
	now  time.Time
	seen policy.Candidate
}

func newTurns(t *testing.T) *turns {
	h := &turns{t: t, view: viewOf(1), now: time.Unix(50_000, 0)}
	h.pool = NewPool(poolRecord.ID, func(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
		h.seen = o.Candidates[0]
		return policy.Choice{}
	}, 1, h.now)
	return h
}

// send sends a prompt of so many blocks, of which the index knows some on an engine whose cache is full.
func (h *turns) send(seed uint64, blocks, known int) *Reservation {
	w := wishOf(keysOf(seed, blocks), map[string]uint32{"e00": uint32(known)}, true)
	w.Score.Engines[0].Visible, w.Score.Engines[0].Evicted = 10_000, true
	r, _ := h.pool.Reserve(h.view, w, h.now)
	return r
}

// check says how many blocks the last prompt will find, and how many that are there or under way will be gone.
func (h *turns) check(when string, matched, placed, leaving int) {
	h.t.Helper()
	if c := h.seen; c.Matched != matched*16 || c.Placed != placed*16 || c.Leaving != leaving*16 {
		h.t.Errorf("%s: matched %d placed %d leaving %d blocks, want %d %d %d", when, c.Matched/16, c.Placed/16, c.Leaving/16, matched, placed, leaving)
	}
}

func TestAMatchIsWhatIsLeftAtThePromptsTurn(t *testing.T) {
	h := newTurns(t)
	h.send(1, 1000, 1000)
	h.check("nothing waits", 1000, 0, 0)
	var sent []*Reservation
	for seed := uint64(2); seed <= 5; seed++ {
		sent = append(sent, h.send(seed, 1000, 0)) // 1000 blocks and a token each
	}
	h.send(1, 1000, 1000)
	h.check("known and sent lately", 1000, 0, 0)
	h.send(99, 1000, 1000)
	h.check("known only: of 10,000 blocks 4,000 go first", 599, 0, 401)
	h.send(2, 1000, 0)
	h.check("under way", 1000, 1000, 0)
	for seed := uint64(6); seed <= 15; seed++ {
		h.send(seed, 1000, 0)
	}
	h.send(3, 1000, 0)
	h.check("under way, but evicted again before this one's turn", 0, 0, 1000)
	h.send(100, 1000, 1000)
	h.check("known only, and more waits than the cache holds", 0, 0, 1000)
	h.send(3, 1000, 0)
	h.check("to be computed once more by the prompt before", 1000, 1000, 0)
	for _, r := range sent {
		r.FirstByte(h.now)
		r.Release(h.now, true, true)
	}
}

// What is to be computed again counts as placed, though the index still knows it.
func TestWhatWillBeEvictedIsPlacedAgain(t *testing.T) {
	h := newTurns(t)
	for seed := uint64(1); seed <= 12; seed++ {
		h.send(seed, 1000, 0)
	}
	if r := h.send(50, 1000, 1000); r.Cached != 0 || r.Uncached != 16_001 {
		t.Errorf("cached %d, uncached %d of a prompt that the cache will have lost", r.Cached, r.Uncached)
	}
	h.send(50, 1000, 0) // it is gone by now
	h.check("gone and under way", 1000, 1000, 0)
}

func TestNothingIsLeavingWhereThereIsRoomOrNobodyKnows(t *testing.T) {
	h := newTurns(t)
	for seed := uint64(1); seed <= 5; seed++ {
		h.send(seed, 1000, 0)
	}
	w := wishOf(keysOf(70, 1000), map[string]uint32{"e00": 1000}, true)
	w.Score.Engines[0].Visible = 4_000
	h.pool.Reserve(h.view, w, h.now)
	h.check("6,000 blocks are empty", 1000, 0, 0)
	e := h.view.Engines["e00"]
	e.Blocks = 0
	h.view = viewOf(1)
	h.view.Engines["e00"] = e
	h.send(71, 1000, 1000)
	h.check("capacity unknown", 1000, 0, 0)
	e.Blocks, e.Generation = 10_000, 1
	h.view = viewOf(1)
	h.view.Engines["e00"] = e
	h.send(2, 1000, 0)
	h.check("a new life has nothing of the one before", 0, 0, 0)
}
