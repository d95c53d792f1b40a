package index

import (
	"fmt"
	"math"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// ownedBuckets is the set of buckets of one shard of several, bit b for bucket b.
func ownedBuckets(shards, shard int) (uint64, error) {
	if shards == 0 && shard == 0 {
		shards = 1
	}
	if shards < 1 || shards > fleet.Buckets || shard < 0 || shard >= shards {
		return 0, fmt.Errorf("shard %d of %d: there are 1 to %d shards, counted from 0", shard, shards, fleet.Buckets)
	}
	var set uint64
	for b := shard; b < fleet.Buckets; b += shards {
		set |= 1 << b
	}
	return set, nil
}

// subjectsOf names what to read for a set of buckets.
func subjectsOf(buckets uint64) []string {
	if buckets == math.MaxUint64 {
		return []string{bus.AllEvents}
	}
	var subjects []string
	for b := range fleet.Buckets {
		if buckets>>b&1 == 1 {
			subjects = append(subjects, bus.EventSubject("*", b))
		}
	}
	return subjects
}
