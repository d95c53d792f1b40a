package enginesim

// Most sequences do the same in most steps: one token more. Where CoreOptions.Interval says that nobody needs to hear of
// each, those are only counted: what a step costs does not depend on how many glide. Times, ends and blocks are those of
// an engine that tells of every token, as a test holds.

// glide is the sequences that do nothing but decode. A sequence lands, so that its fields are true, when anything else
// happens to it.
type glide struct {
	on      bool
	at      int64 // steps so far in which all of them got a token
	n       int
	context int                   // tokens that they have computed, summed
	edges   []int                 // how many begin a block in step at, by at modulo the block size
	ends    map[int64][]*sequence // by the value of at after their last token
	fresh   []*sequence           // running ones that do not glide, in order of admission
	landed  []*sequence           // whose last token is in this step
}

// newGlide starts with none; interval as in CoreOptions.
func newGlide(o *CoreOptions) glide {
	if !o.NoPrefixCache || o.Interval < 2 {
		return glide{}
	}
	return glide{on: true, edges: make([]int, o.BlockSize), ends: map[int64][]*sequence{}}
}

// take lets a sequence glide that has just got a token and waits for the next.
func (g *glide) take(s *sequence) {
	size := int64(len(g.edges))
	s.gliding, s.base = true, g.at
	s.phase = int(((g.at-int64(s.done))%size + size) % size)
	g.edges[s.phase]++
	g.n++
	g.context += s.done
	end := g.at + int64(s.most-s.output)
	g.ends[end] = append(g.ends[end], s)
}

// land makes a sequence's fields true again.
func (c *Core) land(s *sequence) {
	g := &c.glide
	if !s.gliding {
		return
	}
	end := s.base + int64(s.most-s.output)
	k := int(g.at - s.base)
	s.gliding, s.done, s.length, s.output, s.edge = false, s.done+k, s.length+k, s.output+k, 0
	for len(s.blocks)*c.o.BlockSize < s.done {
		s.blocks = append(s.blocks, 0) // taken from the pool when it began
	}
	g.edges[s.phase]--
	g.n--
	g.context -= s.done
	left := g.ends[end][:0]
	for _, other := range g.ends[end] {
		if other != s {
			left = append(left, other)
		}
	}
	if g.ends[end] = left; len(left) == 0 {
		delete(g.ends, end)
	}
}

// glides schedules a token for all that glide. Where blocks may be short they land instead, and take their turns.
func (c *Core) glides(budget int, load *Load) (left int) {
	g := &c.glide
	needs := 0
	if g.n > 0 {
		needs = g.edges[g.at%int64(len(g.edges))]
	}
	short := needs
	for _, s := range g.fresh {
		short += max(0, c.lacks(s, min(s.length-s.done, budget)))
	}
	if short > c.pool.free {
		for _, s := range c.running {
			c.land(s)
		}
		g.fresh = append(g.fresh[:0], c.running...)
		return budget
	}
	c.pool.free -= needs
	load.Decodes += g.n
	load.ContextTokens += g.context + g.n
	return budget - g.n
}

// glided is the end of a step for those that glide: some have ended, and at each Interval all are told of.
func (c *Core) glided(r *StepResult) (ended bool) {
	g := &c.glide
	c.stats.GeneratedTokens += int64(g.n)
	g.at++
	g.context += g.n
	g.landed = append(g.landed[:0], g.ends[g.at]...)
	for _, s := range g.landed {
		c.land(s)
		r.Outputs = append(r.Outputs, Output{Request: s.req, Index: s.output - 1, Hit: s.hit, Finished: true})
		if s.req.Pin {
			c.pin(s)
		}
		c.end(s)
		c.stats.Finished++
		ended = true
	}
	if g.at%int64(c.o.Interval) == 0 {
		for _, s := range c.running {
			if s.gliding {
				r.Outputs = append(r.Outputs, Output{Request: s.req, Index: s.output + int(g.at-s.base) - 1, Hit: s.hit})
			}
		}
	}
	return ended
}

// settle lets those glide that decode from now on.
func (c *Core) settle() {
	g := &c.glide
	fresh := g.fresh[:0]
	for _, s := range g.fresh {
		switch {
		case s.gone || s.gliding:
		case s.decodes && s.done+1 == s.length && len(s.blocks) == (s.done+c.o.BlockSize-1)/c.o.BlockSize:
			g.take(s)
		default:
			fresh = append(fresh, s)
		}
	}
	g.fresh = fresh
}
