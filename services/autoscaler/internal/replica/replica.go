// Package replica sees the engines of a pool as what is started and stopped: one process of one or several ranks, and
// how it is marked in KV drain.
package replica

import (
	"cmp"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The reasons of the autoscaler's own marks in KV drain. Any other is foreign.
const (
	ReasonDrains = "autoscaler"
	ReasonLeaves = "autoscaler: to go" // the order that takes it away has been given
)

// LeavesFor is how long an engine may be there after the order that takes it away; after that it was another that went.
const LeavesFor = 10 * time.Minute

// Mark is how a replica is marked.
type Mark int

// The marks. A replica of several ranks drains when all of them do.
const (
	None     Mark = iota
	Draining      // by the autoscaler
	Leaving       // it is to go
	Foreign       // by an operator, in part or whole
)

// Replica is an engine of one rank or of several, which start, drain and stop together.
type Replica struct {
	ID    string // of its first rank
	URL   string
	Role  decide.Role
	Mark  Mark
	Since time.Time // of its latest mark; zero without any
	Ranks []string  // ids, in their order
}

// List lists what a pool has that is not gone, sorted by id.
func List(v *fleet.View, pool string) []Replica {
	engines := v.InPool(pool)
	slices.SortStableFunc(engines, func(a, b fleet.Engine) int { return cmp.Compare(a.Rank, b.Rank) })
	var list []Replica
	at := make(map[string]int) // by URL, of those of several ranks
	for i := range engines {
		e := &engines[i]
		if e.State == fleet.Gone {
			continue
		}
		n, known := at[e.URL]
		if !known || e.Ranks <= 1 {
			n = len(list)
			list = append(list, Replica{ID: e.ID, URL: e.URL, Role: decide.Role(e.Role)})
			if e.Ranks > 1 {
				at[e.URL] = n
			}
		}
		list[n].Ranks = append(list[n].Ranks, e.ID)
	}
	for i := range list {
		list[i].read(v)
	}
	slices.SortFunc(list, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// read reads the marks of the ranks.
func (r *Replica) read(v *fleet.View) {
	var by [Foreign + 1]int
	for _, id := range r.Ranks {
		m := OfMark(v, id)
		by[m]++
		if since := v.Drains[id].Since; m != None && since.After(r.Since) {
			r.Since = since
		}
	}
	switch {
	case by[Foreign] > 0:
		r.Mark = Foreign
	case by[Leaving] > 0:
		r.Mark = Leaving
	case by[Draining] == len(r.Ranks):
		r.Mark = Draining
	}
}

// OfMark is how one rank is marked.
func OfMark(v *fleet.View, engine string) Mark {
	m, marked := v.Drains[engine]
	switch {
	case !marked:
		return None
	case m.Reason == ReasonDrains:
		return Draining
	case m.Reason == ReasonLeaves:
		return Leaving
	}
	return Foreign
}
