package fanout

import (
	"math/bits"
	"testing"

	"pgregory.net/rapid"

	"github.com/warmpath/warmpath/libs/fleet"
)

// residue is the buckets of one shard of several.
func residue(shards, shard int) uint64 {
	var buckets uint64
	for b := shard; b < fleet.Buckets; b += shards {
		buckets |= 1 << b
	}
	return buckets
}

func drawMembers(t *rapid.T) []fleet.Member {
	n := rapid.IntRange(0, 9).Draw(t, "members")
	members := make([]fleet.Member, n)
	for i := range members {
		buckets := rapid.Uint64().Draw(t, "buckets")
		if shards := rapid.IntRange(0, 8).Draw(t, "shards"); shards > 0 {
			buckets = residue(shards, rapid.IntRange(0, shards-1).Draw(t, "shard"))
		}
		members[i] = fleet.Member{
			Instance: string(rune('a' + i)), Buckets: buckets, Applied: rapid.Uint64Range(1, 4).Draw(t, "applied"),
		}
	}
	return members
}

func TestCoverCoversWithoutOverlapOrWaste(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t)
		want := rapid.Uint64().Draw(t, "want")
		skipped := rapid.Uint64().Draw(t, "skipped")
		skip := func(i int) bool { return skipped>>i&1 == 1 }
		asks := cover(members, want, skip)
		possible, got := uint64(0), uint64(0)
		for i, m := range members {
			if !skip(i) {
				possible |= m.Buckets & want
			}
		}
		for i, a := range asks {
			if skip(a.member) || a.buckets&^members[a.member].Buckets != 0 || a.buckets&got != 0 || a.buckets == 0 {
				t.Fatalf("ask %d is %+v after %x", i, a, got)
			}
			got |= a.buckets
			others := uint64(0)
			for j, b := range asks {
				if j != i {
					others |= members[b.member].Buckets
				}
			}
			if members[a.member].Buckets&want&^others == 0 {
				t.Fatalf("member %d is redundant in %+v", a.member, asks)
			}
		}
		if got != possible {
			t.Fatalf("covers %x of %x", got, possible)
		}
		// A greedy cover of n things is at most H(n) times the smallest; H(64) is 4.74.
		if least := fewest(members, possible, skip); len(asks) > 5*least {
			t.Fatalf("%d members where %d are enough", len(asks), least)
		}
	})
}

// fewest tries all sets of members.
func fewest(members []fleet.Member, want uint64, skip func(int) bool) int {
	best := len(members)
	for set := range 1 << len(members) {
		got := uint64(0)
		for i, m := range members {
			if set>>i&1 == 1 && !skip(i) {
				got |= m.Buckets
			}
		}
		if want&^got == 0 {
			best = min(best, bits.OnesCount(uint(set)))
		}
	}
	return best
}

func TestCoverOfShardsAndReplicas(t *testing.T) {
	for _, shards := range []int{1, 3, 8} {
		var members []fleet.Member
		for replica := range 3 {
			for shard := range shards {
				members = append(members, fleet.Member{
					Instance: string(rune('a' + replica)), Buckets: residue(shards, shard), Applied: uint64(10 + (replica+shard)%3),
				})
			}
		}
		asks := cover(members, All, nil)
		if len(asks) != shards {
			t.Fatalf("%d shards: asks %d members", shards, len(asks))
		}
		for _, a := range asks {
			if members[a.member].Applied != 12 {
				t.Fatalf("%d shards: asks a replica at %d, another is at 12", shards, members[a.member].Applied)
			}
		}
	}
}

// While shards are split, the old ones and the new ones are there together.
func TestCoverWhileSharding(t *testing.T) {
	members := []fleet.Member{
		{Instance: "old", Buckets: residue(2, 0), Applied: 5},
		{Instance: "new-0", Buckets: residue(4, 0), Applied: 9}, {Instance: "new-1", Buckets: residue(4, 1), Applied: 9},
		{Instance: "new-3", Buckets: residue(4, 3), Applied: 9},
	}
	asks := cover(members, All, nil)
	if len(asks) != 3 {
		t.Fatalf("asks %+v", asks)
	}
}

// The greedy first choice may turn out to be redundant: halves beside thirds.
func TestCoverDropsWhatOthersMakeRedundant(t *testing.T) {
	members := []fleet.Member{{Instance: "half", Buckets: residue(2, 0)}}
	for shard := range 3 {
		members = append(members, fleet.Member{Instance: string(rune('a' + shard)), Buckets: residue(3, shard)})
	}
	asks := cover(members, All, nil)
	if len(asks) != 3 || asks[0].member == 0 {
		t.Fatalf("asks %+v, want the three thirds", asks)
	}
}
