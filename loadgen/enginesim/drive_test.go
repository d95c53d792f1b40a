package enginesim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// arrival is a request and when it comes.
type arrival struct {
	at time.Duration
	r  *Request
}

// drive runs a core in virtual time over arrivals in order, calls each after every step with the step's start and end,
// and returns when the last one ended.
func drive(t testing.TB, c *Core, arrivals []arrival, each func(begin, end time.Duration, r *StepResult)) time.Duration {
	t.Helper()
	var now time.Duration
	var r StepResult
	for {
		for len(arrivals) > 0 && arrivals[0].at <= now {
			if err := c.Submit(arrivals[0].r); err != nil {
				t.Fatal(err)
			}
			arrivals = arrivals[1:]
		}
		if !c.Step(&r) {
			if len(arrivals) == 0 {
				return now
			}
			now = arrivals[0].at
			continue
		}
		begin := now
		now += r.Duration
		for _, p := range r.Pulls {
			c.Pulled(p.Request.ID)
		}
		if each != nil {
			each(begin, now, &r)
		}
	}
}

// fold is the plain reading of the events: a map of copies.
type fold struct {
	copies          map[uint64]int
	ever            map[uint64]bool
	stored, removed int
}

func newFold() *fold { return &fold{copies: map[uint64]int{}, ever: map[uint64]bool{}} }

func (f *fold) add(t testing.TB, events []kvevent.Event) {
	t.Helper()
	for _, e := range events {
		switch e.Kind {
		case kvevent.Cleared:
			clear(f.copies)
			f.removed = f.stored
		case kvevent.Stored:
			if e.HasParent && !f.ever[e.Parent] {
				t.Fatalf("child %x announced before its parent %x", e.Hashes[0], e.Parent)
			}
			if len(e.Tokens) != len(e.Hashes)*e.BlockSize {
				t.Fatalf("%d tokens for %d blocks of %d", len(e.Tokens), len(e.Hashes), e.BlockSize)
			}
			for _, h := range e.Hashes {
				f.copies[h]++
				f.ever[h] = true
				f.stored++
			}
		case kvevent.Removed:
			if len(e.Hashes) != 1 {
				t.Fatalf("%d hashes in one removal", len(e.Hashes))
			}
			h := e.Hashes[0]
			if f.copies[h] == 0 {
				t.Fatalf("removal of %x, which is not held", h)
			}
			f.removed++
			if f.copies[h]--; f.copies[h] == 0 {
				delete(f.copies, h)
			}
		}
	}
}

// fromIndex folds events into the product's own reading of them, and returns the copies it counts.
func fromIndex(e *prefix.Engine, events []kvevent.Event) map[uint64]int {
	for i := range events {
		e.Fold(&events[i], nil)
	}
	copies := map[uint64]int{}
	e.Copies(func(_ prefix.Tier, _ int, hash uint64, n int) bool {
		copies[hash] += n
		return true
	})
	return copies
}

// mixed returns n requests that share prefixes of each other, in block-sized and odd lengths, with every kind of
// extra key, in bursts.
func mixed(seed uint64, n int) []arrival {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var all []arrival
	at := time.Duration(0)
	for i := range n {
		if rnd.IntN(3) > 0 {
			at += time.Duration(rnd.IntN(60)) * time.Millisecond
		}
		family, length := uint32(rnd.IntN(5)), 1+rnd.IntN(400)
		if rnd.IntN(4) == 0 {
			length = 16 * (1 + rnd.IntN(20))
		}
		r := &Request{ID: fmt.Sprint(i), MaxTokens: 1 + rnd.IntN(60), Answer: uint64(family)}
		for p := range length {
			r.Prompt = append(r.Prompt, family*1000+uint32(p))
		}
		switch rnd.IntN(8) {
		case 0:
			r.LoRA, r.LoRAID = "adapter", 1
		case 1:
			r.Salt = "tenant"
		}
		all = append(all, arrival{at, r})
	}
	return all
}

var slow = Profile{Base: 10, Prefill: 0.05, Decode: 0.08, Context: 0.05, Pairs: 2}

func sequential(first, n int) []uint32 {
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(first + i)
	}
	return p
}
