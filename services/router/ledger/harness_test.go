package ledger

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/policy"
)

const model = "org/model-7b"

var poolRecord = fleet.Pool{ID: fleet.PoolID(model), Model: model, BlockSize: 16}

// named is the Picker of a policy, as the router has it.
func named(name policy.Name) Picker {
	return func(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
		return policy.Pick(name, s, o, random, costs)
	}
}

func warmPool(now time.Time) *Pool { return NewPool(poolRecord.ID, named(policy.Warm), 1, now) }

// view of n engines without any HTTP.
func viewOf(n int) *fleet.View {
	v := &fleet.View{Engines: map[string]fleet.Engine{}, Pools: map[string]fleet.Pool{poolRecord.ID: poolRecord}, Draining: map[string]bool{}}
	for i := range n {
		id := fmt.Sprintf("e%02d", i)
		v.Engines[id] = fleet.Engine{
			ID: id, Name: id, Pool: poolRecord.ID, Role: fleet.Both, Blocks: 10_000, BlockSize: 16, State: fleet.OK, Models: []fleet.Model{{ID: model}},
		}
	}
	return v
}

func wishOf(keys []uint64, held map[string]uint32, streams bool) *Wish {
	score := &scorerv1.ScoreResponse{PromptTokens: uint32(len(keys)*16 + 1), BlockSize: 16, Keys: keys}
	for e, n := range held {
		score.Engines = append(score.Engines, &scorerv1.EngineScore{Engine: e, Gpu: n, Any: n})
	}
	return &Wish{Score: score, Streams: streams, Model: model}
}

func keysOf(seed uint64, n int) []uint64 {
	r := rand.New(rand.NewPCG(seed, 0))
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = r.Uint64()
	}
	return keys
}
