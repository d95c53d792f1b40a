package index

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// ShardOf is the shard of a replica that is told none: the number at the end of its pod's name, as a StatefulSet gives
// it, or where there is none of its host's name, modulo shards. So ordinals from shards on are further replicas.
func ShardOf(shards int, pod, host string) (int, error) {
	if shards <= 1 {
		return 0, nil
	}
	for _, name := range []string{pod, host} {
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			if ordinal, err := strconv.ParseUint(name[i+1:], 10, 31); err == nil {
				return int(ordinal) % shards, nil
			}
		}
	}
	return 0, fmt.Errorf("which of %d shards is this? Neither POD_NAME %q nor the host's name %q ends in -<number>: give --shard", shards, pod, host)
}

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
