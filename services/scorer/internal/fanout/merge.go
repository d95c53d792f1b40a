package fanout

import (
	"cmp"
	"slices"

	"github.com/warmpath/warmpath/libs/fleet"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// Result is what the index knows of a chain: the engines of the buckets that were answered for, in no promised order.
// Engines that the index does not know are not in it.
type Result struct {
	Covered uint64 // buckets answered for
	Shards  []*scorerv1.Shard
	Engines []*scorerv1.EngineScore
}

// answer is a member's reply.
type answer struct {
	member string
	*indexv1.MatchResponse
}

// merge joins answers. Each bucket is taken whole from the answer with the latest state of the event log that has it:
// an engine that two members answered for keeps the later depths, and one that the later no longer knows is gone.
// Which answer came first makes no difference. A Shard bears the buckets taken from it.
func merge(answers []answer) Result {
	slices.SortFunc(answers, func(a, b answer) int {
		return cmp.Or(cmp.Compare(b.GetApplied(), a.GetApplied()), cmp.Compare(b.GetBegun(), a.GetBegun()),
			cmp.Compare(a.member, b.member))
	})
	n := 0
	for _, a := range answers {
		n += len(a.GetEngines())
	}
	r := Result{Engines: make([]*scorerv1.EngineScore, 0, n)}
	scores := make([]scorerv1.EngineScore, n)
	for _, a := range answers {
		won := a.GetBuckets() &^ r.Covered
		if won == 0 {
			continue
		}
		r.Covered |= won
		r.Shards = append(r.Shards, &scorerv1.Shard{
			Member: a.member, Buckets: won, Applied: a.GetApplied(), Begun: a.GetBegun(),
		})
		for _, e := range a.GetEngines() {
			if won>>fleet.Bucket(e.GetEngine())&1 == 0 {
				continue
			}
			s := &scores[len(r.Engines)]
			s.Engine, s.Gpu, s.Any = e.GetEngine(), e.GetGpu(), e.GetAny()
			s.Visible, s.Evicted, s.Generation, s.LagUs = e.GetVisible(), e.GetEvicted(), e.GetGeneration(), e.GetLagUs()
			r.Engines = append(r.Engines, s)
		}
	}
	return r
}
