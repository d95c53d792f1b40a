package enginesim

import "slices"

// schedule decides what one step computes: first a share for every running sequence, in order of admission, then new
// ones, in order of arrival. It follows vLLM V1's scheduler: a token budget, chunks of prefill beside decodes,
// preemption of the last running sequence, and nobody overtakes the head of the queue.
func (c *Core) schedule() Load {
	c.step = c.step[:0]
	var load Load
	budget, preempted := c.continueRunning(c.o.TokenBudget, &load)
	if !preempted {
		c.admit(budget, &load)
	}
	return load
}

// continueRunning gives running sequences what they lack, and returns the budget that is left.
func (c *Core) continueRunning(budget int, load *Load) (left int, preempted bool) {
	if g := &c.glide; g.on {
		left, preempted = c.continueEach(g.fresh, c.glides(budget, load), load)
		if preempted {
			g.fresh = append(g.fresh[:0], c.running...)
		}
		return left, preempted
	}
	return c.continueEach(c.running, budget, load)
}

// continueEach gives each of the running sequences what it lacks.
func (c *Core) continueEach(running []*sequence, budget int, load *Load) (left int, preempted bool) {
	for i := 0; i < len(running) && i < len(c.running) && budget > 0; i++ { // the last may be preempted meanwhile
		s := running[i]
		if s.done < s.edge && s.done+1 == s.length && s.decodes { // what most sequences do in most steps
			s.n = 1
			load.add(1, s.done, true)
			c.step = append(c.step, s)
			budget--
			continue
		}
		n := min(s.length-s.done, budget)
		for c.lacks(s, n) > c.pool.free {
			last := c.running[len(c.running)-1]
			c.running = c.running[:len(c.running)-1]
			c.preempt(last)
			preempted = true
			if last == s {
				return budget, true
			}
		}
		c.compute(s, n, load)
		budget -= n
	}
	return budget, preempted
}

// admit moves waiting sequences to running while budget, seats and blocks last.
func (c *Core) admit(budget int, load *Load) {
	for len(c.waiting) > 0 && budget > 0 && len(c.running) < c.o.MaxSeqs {
		s := c.waiting[0]
		if s.req.Remote && !s.seen {
			if !c.pull(s) {
				return
			}
			continue
		}
		if !s.pulled && !c.reuse(s, budget) {
			return
		}
		s.pulled = false
		n := min(s.length-s.done, budget)
		if !s.seen {
			s.seen, s.hit = true, s.done
			c.stats.Queries += int64(len(s.req.Prompt))
			c.stats.Hits += int64(s.cached * c.o.BlockSize)
		}
		c.waiting = c.waiting[1:]
		c.running = append(c.running, s)
		if c.glide.on {
			c.glide.fresh = append(c.glide.fresh, s)
		}
		c.compute(s, n, load)
		budget -= n
	}
}

// reuse gives s the longest cached prefix, if there are free blocks for it and what of the rest the budget computes.
func (c *Core) reuse(s *sequence, budget int) bool {
	idle := c.find(s)
	if c.lacks(s, min(s.length-s.done, budget))+idle > c.pool.free {
		s.rewind()
		return false
	}
	for _, id := range s.blocks {
		c.pool.touch(id)
	}
	return true
}

// find looks up the longest cached prefix of s, and returns how many of its blocks lie in the free queue. The last
// token is never taken from the cache: one must be computed to generate the next.
func (c *Core) find(s *sequence) (idle int) {
	full := (s.length - 1) / c.o.BlockSize
	if c.o.NoPrefixCache {
		full = 0
	}
	c.hashBlocks(s, full)
	for _, hash := range s.hashes[:full] {
		id, ok := c.pool.lookup(hash)
		if !ok {
			break
		}
		if c.pool.idle(id) {
			idle++
		}
		s.blocks = append(s.blocks, id)
	}
	s.cached = len(s.blocks)
	s.done = s.cached * c.o.BlockSize
	return idle
}

// lacks returns how many more blocks s needs for n more tokens.
func (c *Core) lacks(s *sequence, n int) int {
	return (s.done+n+c.o.BlockSize-1)/c.o.BlockSize - len(s.blocks)
}

// compute schedules n tokens of s: it allocates their blocks, and enters and announces those that will be full.
// There must be enough free blocks.
func (c *Core) compute(s *sequence, n int, load *Load) {
	if lacks := c.lacks(s, n); lacks > 0 {
		for range lacks {
			s.blocks = append(s.blocks, c.pool.take())
		}
		c.removed()
	}
	s.n = n
	load.add(n, s.done, s.decodes && n == 1)
	c.step = append(c.step, s)
	end := s.done + n
	full := end / c.o.BlockSize
	s.edge = end
	if full*c.o.BlockSize < end {
		s.edge = (full+1)*c.o.BlockSize - 1
	}
	if full <= s.cached || c.o.NoPrefixCache {
		return
	}
	c.hashBlocks(s, full)
	for i := s.cached; i < full; i++ {
		c.pool.cache(s.blocks[i], s.hashes[i])
	}
	c.stored(s, s.cached, full)
	s.cached = full
}

// preempt frees all blocks of a running sequence and puts it first in the queue.
func (c *Core) preempt(s *sequence) {
	c.pool.release(s.blocks)
	s.rewind()
	c.waiting = slices.Insert(c.waiting, 0, s)
	c.stats.Preemptions++
}
