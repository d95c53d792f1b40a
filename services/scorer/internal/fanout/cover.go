package fanout

import (
	"math/bits"

	"github.com/warmpath/warmpath/libs/fleet"
)

// All is the set of all buckets: bit b for bucket b.
const All = ^uint64(0)

// ask is a member and the buckets that it is to answer for.
type ask struct {
	member  int // index into the members
	buckets uint64
}

// cover chooses few members that together answer for the wanted buckets, as far as any do, and gives each bucket to
// one of them; skipped members are not chosen. It is greedy: most buckets first, of equals the one that has applied
// the most, then the first by name; members that turn out to be redundant are left out again. Where all members follow
// one scheme of shards that is the smallest set; while schemes change it is near. Cost: members times chosen.
func cover(members []fleet.Member, want uint64, skip func(int) bool) []ask {
	var chosen []ask
	for left := want; left != 0; {
		best := -1
		for i := range members {
			if members[i].Buckets&left == 0 || skip != nil && skip(i) {
				continue
			}
			if best < 0 || better(&members[i], &members[best], left) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		chosen = append(chosen, ask{best, members[best].Buckets & want})
		left &^= members[best].Buckets
	}
	return share(prune(chosen))
}

func better(a, b *fleet.Member, left uint64) bool {
	if x, y := bits.OnesCount64(a.Buckets&left), bits.OnesCount64(b.Buckets&left); x != y {
		return x > y
	}
	if a.Applied != b.Applied {
		return a.Applied > b.Applied
	}
	return a.Instance < b.Instance
}

// prune drops the members whose buckets the others have too.
func prune(chosen []ask) []ask {
	for i := 0; i < len(chosen) && len(chosen) > 1; {
		others := uint64(0)
		for j := range chosen {
			if j != i {
				others |= chosen[j].buckets
			}
		}
		if chosen[i].buckets&^others != 0 {
			i++
			continue
		}
		chosen = append(chosen[:i], chosen[i+1:]...)
	}
	return chosen
}

// share leaves each bucket with the first that has it.
func share(chosen []ask) []ask {
	taken := uint64(0)
	for i := range chosen {
		chosen[i].buckets &^= taken
		taken |= chosen[i].buckets
	}
	return chosen
}
