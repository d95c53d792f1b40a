package enginefleet

import (
	"testing"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// Those that start go before any that serves, wherever they stand in the order.
func TestThoseThatStartGoFirst(t *testing.T) {
	starts := func() *replica { return &replica{} }
	runs := func(id string) *replica { return &replica{id: id, engine: &enginesim.Engine{}} }
	for name, c := range map[string]struct {
		all     []*replica
		victims []string
		want    int
	}{
		"a victim first":     {[]*replica{starts(), runs("a"), runs("b")}, []string{"b"}, 2},
		"the latest start":   {[]*replica{starts(), starts(), runs("a")}, nil, 1},
		"the oldest started": {[]*replica{starts(), runs("a"), runs("b")}, nil, 0},
		"the latest":         {[]*replica{runs("a"), runs("b")}, nil, 1},
	} {
		if got := victim(c.all, c.victims); got != c.want {
			t.Errorf("%s: %d goes", name, got)
		}
	}
}
