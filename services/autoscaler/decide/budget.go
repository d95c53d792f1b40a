package decide

// share grants what the budget of GPUs allows: one replica at a time to the role whose predicted violations fall most
// by it for each GPU, from the least that each role keeps (autoscaler, section 7.6). What still drains takes GPUs, too.
func (c *core) share(all []choice) {
	budget := c.p.GPUs
	if budget == 0 || c.fits(all, budget) {
		return
	}
	c.concede(all, budget)
	var grants [3]grant
	used := 0
	for i := range all {
		x := &all[i]
		g := &grants[i]
		*g = grant{n: x.least, want: x.out.Target, gpus: x.bounds.GPUs}
		g.look(c, x)
		used += g.n * g.gpus
	}
	for {
		best := -1
		for i := range all {
			g := &grants[i]
			if g.n >= g.want || used+g.gpus > budget {
				continue
			}
			if best < 0 || g.drop > grants[best].drop || g.drop == grants[best].drop && g.part() < grants[best].part() {
				best = i
			}
		}
		if best < 0 {
			break
		}
		g := &grants[best]
		g.n++
		used += g.gpus
		g.look(c, &all[best])
	}
	for i := range all {
		all[i].out.Target = grants[i].n
	}
	c.await(all, budget)
	for i := range all {
		x := &all[i]
		if short := grants[i].want - x.out.Target; short > 0 {
			x.out.Short, x.out.Rule = short, "budget"
			x.block(count(short) + " more: the budget is " + count(budget) + " GPUs")
		}
	}
}

// grant is how many replicas of a role the budget allows so far.
type grant struct {
	n, want, gpus int
	drop          float64 // of predicted violations by one more, a GPU
}

func (g *grant) look(c *core, x *choice) {
	if g.n < g.want {
		g.drop = (c.violations(x, g.n) - c.violations(x, g.n+1)) / float64(g.gpus)
	}
}

// part is of what it wants, by which equal drops are told apart.
func (g *grant) part() float64 { return float64(g.n) / float64(g.want) }

// ordered is what is ordered of a role, and will be when it has its target.
func (x *choice) ordered() int {
	return max(x.out.Target, x.run.now+x.run.draining)
}

func (c *core) fits(all []choice, budget int) bool {
	used := 0
	for i := range all {
		used += all[i].ordered() * all[i].bounds.GPUs
	}
	return used <= budget
}

// concede lowers what the roles keep to one each where the budget does not even have that, if anything may be taken
// away.
func (c *core) concede(all []choice, budget int) {
	kept := 0
	for i := range all {
		kept += all[i].least * all[i].bounds.GPUs
	}
	for i := range all {
		x := &all[i]
		if kept > budget && c.v.down == "" && c.p.Mode != UpOnly && x.run.coming == 0 && x.out.Rule != "blind" {
			kept -= (x.least - min(x.least, 1)) * x.bounds.GPUs
			x.least = min(x.least, 1)
		}
	}
}

// await takes back what would have to run beside replicas that have yet to go.
func (c *core) await(all []choice, budget int) {
	for !c.fits(all, budget) {
		most := -1
		for i := range all {
			x := &all[i]
			if up := x.out.Target - x.run.now - x.run.draining; up > 0 &&
				(most < 0 || up > all[most].out.Target-all[most].run.now-all[most].run.draining) {
				most = i
			}
		}
		if most < 0 {
			return
		}
		all[most].out.Target--
	}
}
