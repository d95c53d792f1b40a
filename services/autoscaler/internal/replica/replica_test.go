package replica

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

func TestAReplicaIsMarkedAsAllItsRanksAre(t *testing.T) {
	for _, c := range []struct {
		name  string
		marks [2]string // by rank; "" is none
		want  Mark
	}{
		{"none", [2]string{}, None},
		{"one of two", [2]string{ReasonDrains, ""}, None},
		{"both", [2]string{ReasonDrains, ReasonDrains}, Draining},
		{"one is to go", [2]string{ReasonDrains, ReasonLeaves}, Leaving},
		{"an operator's", [2]string{"operator", ReasonDrains}, Foreign},
		{"without a word", [2]string{"?", ""}, Foreign},
	} {
		v := &fleet.View{Engines: map[string]fleet.Engine{}, Drains: map[string]fleet.DrainMark{}}
		for rank, id := range []string{"z-r0", "a-r1"} { // the first rank is not the first id
			v.Engines[id] = fleet.Engine{ID: id, Pool: "p", URL: "u", Rank: rank, Ranks: 2}
			if reason := c.marks[rank]; reason != "" {
				v.Drains[id] = fleet.DrainMark{Pool: "p", DrainRecord: fleet.DrainRecord{Reason: reason, Since: time.Unix(int64(rank+1), 0)}}
			}
		}
		got := List(v, "p")
		if len(got) != 1 || got[0].ID != "z-r0" || len(got[0].Ranks) != 2 || got[0].Mark != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestEnginesOfOneRankAreReplicasOfTheirOwn(t *testing.T) {
	v := &fleet.View{Engines: map[string]fleet.Engine{
		"b": {ID: "b", Pool: "p", URL: "same"}, "a": {ID: "a", Pool: "p", URL: "same"}, "gone": {ID: "gone", Pool: "p", State: fleet.Gone}, "q": {ID: "q", Pool: "q"},
	}}
	if got := List(v, "p"); len(got) != 2 || got[0].ID != "a" || got[1].ID != "b" {
		t.Errorf("%+v", got)
	}
}
