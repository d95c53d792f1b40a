package gates

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
)

// same is gate 2.1.11: equal seeds give equal bytes, whatever order maps are walked in. Go draws that order anew in
// each loop over a map, and the seed of its hashes for each map; ids that came and went change where entries lie.
func same(rounds int) ([]Row, error) {
	differ, shuffled, equal := 0, 0, 0
	for seed := range uint64(rounds) {
		first, err := eventBytes(seed, 0)
		if err != nil {
			return nil, err
		}
		for i := range 3 {
			again, err := eventBytes(seed, 0)
			if err != nil {
				return nil, err
			}
			differ += count(again != first)
			if again, err = eventBytes(seed, 10<<(3*i)); err != nil {
				return nil, err
			}
			shuffled += count(again != first)
		}
		other, err := eventBytes(seed+1000, 0)
		if err != nil {
			return nil, err
		}
		equal += count(other == first)
	}
	fleets, err := sameFleets()
	return []Row{
		none("runs whose event bytes differ from another's of the same seed", differ),
		none("runs whose event bytes differ after other ids have come and gone", shuffled),
		none("runs of other seeds with equal event bytes", equal),
		none("simulated fleets whose results differ from another's of the same seed", fleets),
	}, err
}

// eventBytes is the sum over all event bytes of a run, before which so many requests were sent and taken back.
func eventBytes(seed uint64, before int) (sum [32]byte, err error) {
	c := enginesim.NewCore(enginesim.CoreOptions{Profile: slow, Blocks: 120, MaxModelLen: 600, Noise: 0.03, Seed: seed})
	for i := range before {
		if err := c.Submit(&enginesim.Request{ID: fmt.Sprint("gone ", i), Prompt: counted(i, 40), MaxTokens: 1}); err != nil {
			return sum, err
		}
	}
	for i := range before {
		c.Abort(fmt.Sprint("gone ", i))
	}
	h := sha256.New()
	_, err = drive(c, mixed(1, 300, true), func(_, end time.Duration, r *enginesim.StepResult) {
		batch := kvevent.Batch{TS: end.Seconds(), HasRank: true, Events: r.Events}
		h.Write(kvevent.Append(nil, &batch, kvevent.MapForm))
	})
	return [32]byte(h.Sum(nil)), err
}

// sameFleets runs a small fleet twice under policies that remember, draw and guess.
func sameFleets() (differ int, err error) {
	w := fleetWork()
	p := enginesim.Qwen3_32B_TP2_H100
	p.KVTokens = 6400
	for _, policy := range []string{"warm", "precise-2025", "approx-2025", "power-of-two"} {
		var results []*sim.Result
		for range 3 {
			r, err := sim.Run(sim.Options{Pods: 3, Profile: p, Policy: policy, Seed: 1}, &w, nil)
			if err != nil {
				return differ, err
			}
			results = append(results, r)
		}
		differ += count(!reflect.DeepEqual(results[0], results[1])) + count(!reflect.DeepEqual(results[0], results[2]))
	}
	return differ, nil
}

// fleetWork is requests of 12 groups that fill small caches several times.
func fleetWork() sim.Workload {
	var stage sim.Stage
	for i := range 300 {
		group := uint64(i * i % 12)
		prompt := sim.Prompt{{ID: 1 + group, Tokens: 640}, {ID: 1<<32 + uint64(i%36), Tokens: 200}}
		stage.Sessions = append(stage.Sessions, sim.Session{
			At: time.Duration(i) * 25 * time.Millisecond, Turns: []sim.Turn{{Prompt: prompt, Output: 40}},
		})
	}
	return sim.Workload{Name: "small", Stages: []sim.Stage{stage}, InFlight: 60}
}
