package index

import (
	"math/bits"
	"strings"
	"testing"
)

func TestShardOfAnOrdinal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shards    int
		pod, host string
		want      int
	}{
		{1, "", "laptop", 0},
		{0, "", "", 0},
		{3, "index-0", "other-1", 0},
		{3, "index-2", "", 2},
		{3, "index-5", "", 2}, // a second replica of shard 2
		{3, "", "index-4", 1},
		{3, "web", "index-4", 1},
		{3, "warm-path-index-31", "", 1},
		{64, "index-63", "", 63},
		{2, "index-1", "index-0", 1}, // the pod's name counts first
	} {
		if got, err := ShardOf(c.shards, c.pod, c.host); err != nil || got != c.want {
			t.Errorf("%d shards, pod %q, host %q: shard %d (%v), want %d", c.shards, c.pod, c.host, got, err, c.want)
		}
	}
	for _, name := range []string{"", "laptop", "index-", "index-x", "index-1.example", "7", "index--", "index-99999999999999999999"} {
		if got, err := ShardOf(2, "", name); err == nil || !strings.Contains(err.Error(), "--shard") {
			t.Errorf("host %q: shard %d (%v), want an error that names the flag", name, got, err)
		}
	}
}

// Whatever S is, ordinals 0 to S-1 cover each bucket once, and the next S do so again.
func TestOrdinalsCoverAllBuckets(t *testing.T) {
	t.Parallel()
	for shards := 1; shards <= 64; shards++ {
		for replica := range 2 {
			var all uint64
			for ordinal := replica * shards; ordinal < (replica+1)*shards; ordinal++ {
				shard := ordinal % shards
				owned, err := ownedBuckets(shards, shard)
				if err != nil || owned&all != 0 || bits.OnesCount64(owned) < 64/shards {
					t.Fatalf("shard %d of %d owns %016x beside %016x: %v", shard, shards, owned, all, err)
				}
				all |= owned
			}
			if all != 1<<64-1 {
				t.Errorf("%d shards cover %016x", shards, all)
			}
		}
	}
}
