package top

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const maxChanges = 50 // that a picture lists

// decided fills in what the log of decisions says, and returns the newest.
func (p *pool) decided(now time.Time, out *Pool) *autoscaler.Record {
	n := len(p.records)
	if n == 0 {
		return nil
	}
	last := &p.records[n-1]
	out.Decision = &Decision{At: last.At, Age: now.Sub(last.At).Seconds(), Mode: last.Mode, Blind: last.Blind, Ages: last.Ages}
	for i := range p.records {
		r := &p.records[i]
		s := Sampling{At: r.At, Roles: make(map[decide.Role]Sampled, len(r.Roles))}
		for role, d := range r.Roles {
			s.Roles[role] = Sampled{Now: d.Now, Target: d.Target, Demand: demand(role, d.Demand)}
		}
		out.History = append(out.History, s)
		if i > 0 {
			out.Decisions = append(out.Decisions, changes(&p.records[i-1], r)...)
		}
	}
	slices.Reverse(out.Decisions)
	out.Decisions = out.Decisions[:min(len(out.Decisions), maxChanges)]
	return last
}

// demand is the work of a role now, in busy replicas: of decode the greater of what is seen and of what flows in.
func demand(role decide.Role, d decide.Demand) float64 {
	switch role {
	case decide.Prefill:
		return d.Busy
	case decide.Decode:
		return max(d.Observed, d.Flow)
	}
	return max(d.Busy, d.Observed, d.Flow)
}

// changes are those of the targets, and of the pool's sight and mode.
func changes(before, after *autoscaler.Record) []Change {
	var all []Change
	if before.Mode != after.Mode || before.Blind != after.Blind {
		all = append(all, Change{At: after.At, Blind: after.Blind, Mode: after.Mode})
	}
	for _, role := range sortedRoles(maps.Keys(after.Roles)) {
		d := after.Roles[role]
		from, known := before.Roles[role]
		if known && from.Target == d.Target {
			continue
		}
		c := Change{At: after.At, Role: role, From: from.Target, To: d.Target, Rule: d.Rule, Blocked: d.Blocked, Mode: after.Mode}
		if !known {
			c.From = d.Now
		}
		all = append(all, c)
	}
	return all
}

// roles are those of the engines and of the newest decision.
func roles(engines []fleet.Engine, draining map[string]bool, last *autoscaler.Record) []Role {
	byRole := make(map[decide.Role]*Role)
	at := func(role decide.Role) *Role {
		if byRole[role] == nil {
			byRole[role] = &Role{Role: role}
		}
		return byRole[role]
	}
	for _, e := range engines {
		if e.Rank != 0 || e.State == fleet.Gone { // a replica of several ranks is one
			continue
		}
		if r := at(decide.Role(e.Role)); draining[e.ID] {
			r.Draining++
		} else {
			r.Serving++
		}
	}
	if last != nil {
		for role, d := range last.Roles {
			r := at(role)
			starting := max(0, d.Now-r.Serving)
			r.Starting, r.Decision = &starting, &d
		}
	}
	all := make([]Role, 0, len(byRole))
	for _, role := range sortedRoles(maps.Keys(byRole)) {
		all = append(all, *byRole[role])
	}
	return all
}

// sortedRoles puts prefill before decode, as requests meet them.
func sortedRoles(seq func(func(decide.Role) bool)) []decide.Role {
	order := []decide.Role{decide.Prefill, decide.Decode, decide.Both}
	return slices.SortedFunc(seq, func(a, b decide.Role) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a), slices.Index(order, b)), cmp.Compare(a, b))
	})
}

// services counts members; those that must be there come first, also without one.
func services(members []fleet.Member) []Service {
	all := []Service{{Name: "router"}, {Name: "scorer"}, {Name: "index"}, {Name: "ingest"}}
	var covered uint64
	for _, m := range members {
		i := slices.IndexFunc(all, func(s Service) bool { return s.Name == m.Service })
		if i < 0 {
			i, all = len(all), append(all, Service{Name: m.Service})
		}
		s := &all[i]
		s.Alive++
		s.Instances = append(s.Instances, m.Instance)
		if m.Ready {
			s.Ready++
			if m.Service == "index" {
				covered |= m.Buckets
			}
		}
	}
	for i := range all {
		if all[i].Instances == nil {
			all[i].Instances = []string{}
		}
		if all[i].Name == "index" {
			all[i].Uncovered = fleet.Buckets - bits.OnesCount64(covered)
		}
	}
	return all
}

func compare(a, b, tieA, tieB string) int { return cmp.Or(cmp.Compare(a, b), cmp.Compare(tieA, tieB)) }
