package gates

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// errTame says that a run had nothing in it for its gate to judge.
var errTame = errors.New("gates: the run did not do what it is there for")

// crowded is an engine too small for mixed traffic: it preempts and evicts.
func crowded(seed uint64) enginesim.CoreOptions {
	return enginesim.CoreOptions{Profile: slow, Blocks: 60 + 40*int(seed%8), MaxModelLen: 600, TokenBudget: 256, Seed: seed}
}

// conservation is gate 2.1.1: what is stored and not removed is mapped, nothing is removed that was not stored, no
// child comes before its parent, and at the end no block is in use.
func conservation(rounds int) ([]Row, error) {
	unbalanced, orphans, unknown, used, stats := 0, 0, 0, 0, enginesim.Stats{}
	for seed := range uint64(4 * rounds) {
		c, f := enginesim.NewCore(crowded(seed)), newFold()
		_, err := drive(c, mixed(seed, 300, true), func(_, _ time.Duration, r *enginesim.StepResult) {
			f.add(r.Events)
			if f.stored-f.removed != c.Stats().Cached {
				unbalanced++
			}
		})
		if err != nil {
			return nil, err
		}
		s := c.Stats()
		orphans, unknown, used = orphans+f.orphans, unknown+f.unknown, used+s.Blocks-s.Free
		if !c.Reset() {
			used++
		}
		stats.Preemptions, stats.Hits, stats.Finished = stats.Preemptions+s.Preemptions, stats.Hits+s.Hits, stats.Finished+s.Finished
		if f.removed == 0 {
			return nil, errTame
		}
	}
	if stats.Preemptions == 0 || stats.Hits == 0 || stats.Finished != int64(1200*rounds) {
		return nil, fmt.Errorf("%w: %+v", errTame, stats)
	}
	return []Row{
		none("steps after which stored less removed blocks are not those mapped", unbalanced),
		none("removals of blocks that are not held", unknown),
		none("blocks stored before their parent", orphans),
		none("blocks in use when all is answered", used),
	}, nil
}

// replayed is gate 2.1.2: the events add up to the cache, in a plain map and in the product's own fold.
func replayed(rounds int) ([]Row, error) {
	plain, product, steps := 0, 0, 0
	for seed := range uint64(4 * rounds) {
		c, f := enginesim.NewCore(crowded(seed)), newFold()
		e := prefix.NewEngine(prefix.EngineOptions{Pool: "gates", BlockSize: 16, Blocks: c.Options().Blocks})
		_, err := drive(c, mixed(100+seed, 300, true), func(_, _ time.Duration, r *enginesim.StepResult) {
			steps++
			f.add(r.Events)
			cached := c.Cached()
			if !maps.Equal(cached, f.copies) {
				plain++
			}
			if !maps.Equal(cached, productFold(e, r.Events)) {
				product++
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if steps == 0 {
		return nil, errTame
	}
	return []Row{
		none("steps after which a map of the events differs from the cache", plain),
		none("steps after which prefix.Engine differs from the cache", product),
	}, nil
}

// loose hashes each block by its own tokens and place, without what comes before: prompts that differ in the middle
// then have blocks cached behind a gap, which real hashes do not let happen.
type loose struct{ enginesim.QuickHash }

func (loose) Next(dst, parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte {
	return enginesim.QuickHash{}.Next(dst, make([]byte, len(parent)), tokens, extra)
}

// hits is gate 2.1.3: hit and computed tokens are the prompt, hits are the longest prefix without a gap, and never the
// last token.
func hits(rounds int) ([]Row, error) {
	chained, err := oneByOne(enginesim.QuickHash{}, rounds)
	if err != nil {
		return nil, err
	}
	gappy, err := oneByOne(loose{}, rounds)
	if err != nil {
		return nil, err
	}
	together, err := computedTogether(rounds)
	if err != nil {
		return nil, err
	}
	if chained.hit == 0 || gappy.behind == 0 {
		return nil, errTame
	}
	return []Row{
		none("requests, one by one, whose hit and computed tokens are not the prompt", chained.unequal+gappy.unequal),
		none("hits that are not the longest prefix held", chained.wrong),
		none("hits that are not, where blocks lie behind a gap", gappy.wrong),
		none("blocks that eviction leaves behind a gap", chained.behind),
		none("hits that include the last token", chained.last+gappy.last),
		none("prompt tokens, many at once, that are neither hit nor computed", together),
	}, nil
}

// hitCounts are requests of a kind.
type hitCounts struct{ hit, unequal, wrong, last, behind int }

// oneByOne compares the hits of requests that come one after another with what the events say is held.
func oneByOne(h enginesim.Hasher, rounds int) (n hitCounts, err error) {
	c, f := enginesim.NewCore(enginesim.CoreOptions{Blocks: 64, MaxModelLen: 600, Seed: 3, Hash: h}), newFold()
	var r enginesim.StepResult
	for _, a := range mixed(7, 2000*rounds, false) {
		if _, same := h.(loose); same {
			a.r.Prompt = holed(a.r)
		}
		longest, behind := held(h, f, a.r.Prompt)
		n.behind += behind
		if err := c.Submit(a.r); err != nil {
			return n, err
		}
		computed := 0
		for c.Step(&r) {
			f.add(r.Events)
			computed += r.Load.PrefillTokens
			for _, o := range r.Outputs {
				if o.Index > 0 {
					continue
				}
				n.hit += o.Hit
				n.unequal += count(o.Hit+computed != len(a.r.Prompt))
				n.wrong += count(o.Hit != longest*16)
				n.last += count(o.Hit >= len(a.r.Prompt))
			}
		}
	}
	return n, nil
}

// holed gives a prompt another block in the middle.
func holed(r *enginesim.Request) []uint32 {
	p := append([]uint32(nil), r.Prompt...)
	at := r.MaxTokens % 5 * 16
	for i := at; i < min(at+16, len(p)); i++ {
		p[i] += 100_000 * uint32(1+len(p)%3)
	}
	return p
}

// held returns how many leading blocks of a prompt are held, the last token's aside, and how many behind the first gap.
func held(h enginesim.Hasher, f *fold, prompt []uint32) (longest, behind int) {
	digest := h.Root()
	gap := false
	for i := 0; (i+1)*16 < len(prompt); i++ {
		digest = h.Next(nil, digest, prompt[i*16:(i+1)*16], nil)
		switch ok := f.copies[blockkey.Low64(digest)] > 0; {
		case !ok:
			gap = true
		case gap:
			behind++
		default:
			longest++
		}
	}
	return longest, behind
}

// computedTogether returns the prompt tokens that are not accounted for when requests run beside each other on an engine
// that evicts but never preempts.
func computedTogether(rounds int) (missing int, err error) {
	c := enginesim.NewCore(enginesim.CoreOptions{
		Profile: slow, Blocks: 200, MaxModelLen: 600, TokenBudget: 256, MaxSeqs: 4, Hash: enginesim.QuickHash{},
	})
	computed, asked := 0, 0
	arrivals := mixed(9, 500*rounds, true)
	for _, a := range arrivals {
		asked += len(a.r.Prompt)
	}
	if _, err := drive(c, arrivals, func(_, _ time.Duration, r *enginesim.StepResult) { computed += r.Load.PrefillTokens }); err != nil {
		return 0, err
	}
	if s := c.Stats(); s.Preemptions > 0 || s.Hits == 0 || s.Queries != int64(asked) {
		return 0, fmt.Errorf("%w: %+v", errTame, s)
	}
	return max(asked-computed-int(c.Stats().Hits), computed+int(c.Stats().Hits)-asked), nil
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
