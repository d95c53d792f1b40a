package decide

import (
	"hash/fnv"
	"math"
	"time"
)

// mostKnown engines are learned from: it bounds what is kept, and more teach nothing new.
const mostKnown = 256

// known is what an engine had counted at the last tick.
type known struct {
	ID          uint64  `json:"id"` // hash
	Gaps        float64 `json:"gaps"`
	Tokens      float64 `json:"tokens"`
	Preemptions float64 `json:"preemptions"`
	Decoding    float64 `json:"decoding"`
	Context     float64 `json:"context"`
}

func hashed(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}

// ended learns from requests that ended: how long they are, and what a prefill takes.
func (s *memory) ended(all []Request, r rates, m *Model) {
	now, good, prompt, output := s.Prefills.fit(m), 0., 0., 0.
	for i := range all[:min(len(all), 512)] {
		e := &all[i]
		if e.Failed || e.Prompt < 0 || e.Output < 0 || e.Uncached < 0 {
			continue
		}
		good, prompt, output = good+1, prompt+float64(e.Prompt), output+float64(e.Output)
		s.Sizes.put(e.Uncached)
		if e.Prefill > 0 && e.Prefill < time.Hour {
			s.Prefills.learn(e.Uncached, e.Prefill, now, m)
		}
	}
	s.Lengths.decay(r.seconds / tick)
	if good == 0 && r.finished > 0 && r.arrivals > 0 { // no records, but the totals know
		good = r.finished * r.seconds
		prompt, output = good*r.prompt/r.arrivals, r.output*r.seconds
	}
	s.Lengths.add(good, prompt, output)
}

// engines learns the decode model from what each engine did since the tick before, and how full a cache may be from
// their preemptions. prefill is thousands of tokens/s computed by an engine for both roles.
func (s *memory) engines(o *Observation, now time.Time, seconds, prefill float64, model *itl) {
	next := make([]known, 0, min(len(o.Engines), mostKnown))
	at, preempted := 0, false
	for i := range o.Engines {
		e := &o.Engines[i]
		if e.Role == Prefill || len(next) == mostKnown || !number(e.Gaps) || !number(e.Tokens) {
			continue
		}
		k := known{hashed(e.ID), e.Gaps, e.Tokens, 0, float64(max(e.Decoding, 0)), float64(max(e.Context, 0))}
		if e.Scrape.fresh(now) && number(e.Scrape.Preemptions) {
			k.Preemptions = e.Scrape.Preemptions
		}
		next = append(next, k)
		before := find(s.Engines, k.ID, &at)
		if before == nil || seconds <= 0 {
			continue
		}
		fell := before.Preemptions > 0 && k.Preemptions > before.Preemptions
		preempted = preempted || fell
		tokens, gaps := k.Tokens-before.Tokens, k.Gaps-before.Gaps
		n, kv := (k.Decoding+before.Decoding)/2, (k.Context+before.Context)/2
		if fell || full(e, n, kv, &model.prior, now) { // sequences that wait for room make no tokens
			continue
		}
		swing := math.Abs(k.Decoding-before.Decoding) > .3*n || math.Abs(k.Context-before.Context) > .3*kv
		if swing || tokens < 20 || gaps <= 0 || n < 1 || n > 1e5 || kv > 1e10 { // the mean of a swing is no state
			continue
		}
		x := vector{1, n, kv / 1000, 0}
		if e.Role == Both {
			x[3] = prefill
		}
		s.Steps.learn(x, min(1000*gaps/tokens, 1e5), seconds, model)
	}
	s.Engines = next
	s.Steps.forget(max(seconds, 0))
	if preempted {
		s.Full = max(s.Full*.98, .7)
	} else {
		s.Full = min(s.Full+.0002, kvShare)
	}
}

// full says whether an engine may have no room for all that the routers sent it.
func full(e *Engine, n, kv float64, m *Model, now time.Time) bool {
	tokens := float64(m.KVTokens)
	if e.Scrape.KVTokens > 0 {
		tokens = float64(e.Scrape.KVTokens)
	}
	return kv > kvShare*tokens || n >= float64(m.MaxSeqs) || e.Scrape.fresh(now) && e.Scrape.Waiting > 0
}

// find looks where the engine was, which is where the one before it was and one on, or else everywhere.
func find(all []known, id uint64, at *int) *known {
	for range all {
		if *at >= len(all) {
			*at = 0
		}
		k := &all[*at]
		*at++
		if k.ID == id {
			return k
		}
	}
	return nil
}

// capacity is the least cache of the engines that decode, as they say, or else the prior's.
func capacity(engines []Engine, m *Model) float64 {
	least := math.Inf(1)
	for i := range engines {
		if e := &engines[i]; e.Role != Prefill && e.Serving && e.Scrape.KVTokens > 0 {
			least = min(least, float64(e.Scrape.KVTokens))
		}
	}
	if math.IsInf(least, 1) {
		return float64(m.KVTokens)
	}
	return least
}
