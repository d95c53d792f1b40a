package decide

import "slices"

// Steps says what to do next for a decision, given what was observed: engines that drain are called back before
// replicas are ordered; those that start are cancelled before others drain; and a replica goes only when its engine
// has nothing in flight, by fresh reports. In modes other than On and UpOnly there is nothing to do.
func Steps(p Policy, o Observation, d Decision) []Step {
	if p.Mode != On && p.Mode != UpOnly {
		return nil
	}
	var all []Step
	v := look(&o, d.At)
	for _, role := range roles() {
		r, ok := o.Replicas[role]
		out, decided := d.Roles[role]
		if !ok || !decided || r.Conflict != "" || !r.fresh(d.At) {
			continue
		}
		switch {
		case out.Target > out.Now:
			all = up(all, role, &o, &r, &out)
		case p.Mode == On && v.down == "":
			all = down(all, role, &o, &r, &out)
		}
	}
	return all
}

// up calls back the busiest of those that drain: they cost nothing. Those that an operator drains stay.
func up(all []Step, role Role, o *Observation, r *Replicas, d *RoleDecision) []Step {
	more := d.Target - d.Now
	drained := draining(o, role, d.Leaving)
	order := d.Target + len(drained)
	slices.SortStableFunc(drained, func(a, b *Engine) int { return -lighter(a, b) })
	for _, e := range drained {
		if more == 0 {
			break
		}
		if !e.Operator && e.Serving {
			all = append(all, Step{Do: Undrain, Role: role, Engine: e.ID})
			more, order = more-1, order-1
		}
	}
	if order > r.Desired {
		all = append(all, Step{Do: Scale, Role: role, From: r.Desired, To: order})
	}
	return all
}

// down cancels, drains and takes away. While others start nothing that has drained is taken away: whoever deletes
// would take those that start.
func down(all []Step, role Role, o *Observation, r *Replicas, d *RoleDecision) []Step {
	less := d.Now - d.Target
	drained := draining(o, role, d.Leaving)
	unready := max(r.Desired-r.Ready, len(r.Starting))
	cancelled := min(less, unready)
	var free []*Engine
	for i := range o.Engines {
		if e := &o.Engines[i]; e.Role == role && e.Serving && !e.Draining {
			free = append(free, e)
		}
	}
	slices.SortStableFunc(free, lighter)
	for _, e := range free[:min(less-cancelled, len(free))] {
		all = append(all, Step{Do: Drain, Role: role, Engine: e.ID})
	}
	step := Step{Do: Scale, Role: role, From: r.Desired, To: r.Desired - cancelled, Starting: cancelled}
	if d.Now+len(drained) != r.Desired {
		return all // an order is under way
	}
	if cancelled == unready {
		for _, e := range drained {
			if !e.Operator && e.Inflight <= 0 && e.Decoding <= 0 && e.Backlog <= 0 && step.To > 0 {
				step.Victims, step.To = append(step.Victims, e.ID), step.To-1
			}
		}
	}
	if step.To < step.From {
		all = append(all, step)
	}
	return all
}

func draining(o *Observation, role Role, leaving []string) []*Engine {
	var all []*Engine
	for i := range o.Engines {
		if e := &o.Engines[i]; e.Role == role && e.Draining && !contains(leaving, e.ID) {
			all = append(all, e)
		}
	}
	return all
}

// lighter orders engines by what they have to finish, then by what their caches hold for it.
func lighter(a, b *Engine) int {
	for _, d := range [...]int{a.Inflight - b.Inflight, a.Decoding - b.Decoding, a.Context - b.Context} {
		if d != 0 {
			return d
		}
	}
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}
