package top

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var begin = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// world is a model with one pool, and what it is told.
type world struct {
	model Model
	view  *fleet.View
}

func newWorld() *world {
	w := &world{model: Model{URL: "nats://nats:4222"}}
	w.view = &fleet.View{
		Engines: map[string]fleet.Engine{}, Draining: map[string]bool{},
		Pools: map[string]fleet.Pool{"p": {ID: "p", Model: "Qwen/Qwen3-32B", BlockSize: 16}},
		Members: []fleet.Member{
			{Service: "index", Instance: "index-0", Ready: true, Buckets: ^uint64(0)},
			{Service: "index", Instance: "index-1"},
			{Service: "ingest", Instance: "ingest-0", Ready: true},
			{Service: "router", Instance: "router-0", Ready: true},
			{Service: "router", Instance: "router-1", Ready: true},
			{Service: "scorer", Instance: "scorer-0", Ready: true},
		},
	}
	w.model.View(w.view)
	w.model.Tick(begin, "")
	return w
}

func (w *world) engine(name string, role fleet.Role, state fleet.State) {
	w.view.Engines[name] = fleet.Engine{ID: name, Name: name, Pool: "p", Role: role, State: state, Blocks: 10_000, BlockSize: 16}
}

func (w *world) tick(second int, why string) {
	w.model.Tick(begin.Add(time.Duration(second)*time.Second), why)
}

// report is that of a router which began 100 s ago, at a second; more is added to its engines' load.
func (w *world) report(router string, second, more int) {
	n := second + 100
	data := fmt.Sprintf(`{"router":%q,"started":%d,"seq":%d,"pool":"p","arrivals":%d,"prompt_tokens":%d,"uncached_tokens":%d,
		"output_tokens":%d,"shed":%d,"queued":2,"held":0,"inflight":9,"engines":{
		"decode-0":{"inflight":%d,"decoding":%d,"context_tokens":%d},"prefill-0":{"inflight":2,"uncached_tokens":%d,"decoding":0,"context_tokens":0}}}`,
		router, begin.Unix()-100, n, 4*n, 4000*n, 1000*n, 800*n, n/4, 40+more, 40+more, 40_000+1000*more, 6000+300*more)
	w.model.Report([]byte(data), begin.Add(time.Duration(second)*time.Second))
}

func (w *world) decide(at time.Time, mode decide.Mode, roles map[decide.Role]decide.RoleDecision) {
	w.model.Decide(autoscaler.Record{Version: 1, Pool: "p", Decision: decide.Decision{
		At: at, Mode: mode, Roles: roles, Ages: decide.Ages{Routers: .4, Engines: 2, Cluster: .1},
	}})
}

func (w *world) prefill(now, target int, busy float64) decide.RoleDecision {
	return decide.RoleDecision{
		Now: now, Need: target, Target: target, Rule: "erlang",
		Candidates: []decide.Candidate{{Rule: "erlang", N: target}, {Rule: "backlog", N: 1}},
		Blocked:    []string{"down: a replica starts"},
		Demand:     decide.Demand{Arrivals: 8, Tokens: 2000, Busy: busy, Observed: 9, Flow: 9, Infeasible: .08, Forecast: busy + .2, Held: busy + .3, Burst: 1.2},
		Model:      decide.Learned{Model: decide.Model{Overhead: .015, Rate: 16_000}, Sequences: 77, Startup: 112, Confidence: .83},
		Predicted:  []decide.Prediction{{N: target - 1, Violations: .12}, {N: target, Violations: .004}, {N: target + 1, Violations: .0002}},
		Realised:   &decide.Realised{At: begin, Forecast: 3.1, Came: 2.9},
	}
}

func (w *world) decode(now, target int, observed float64) decide.RoleDecision {
	return decide.RoleDecision{
		Now: now, Need: target + 1, Target: target, Rule: "budget", Short: 1,
		Demand: decide.Demand{Arrivals: 8, Tokens: 1600, Busy: 9, Observed: observed, Flow: observed * .9, Forecast: observed, Held: observed + .1, Burst: 1.2},
		Model:  decide.Learned{Model: decide.Model{Step: 14, Sequence: .05, Kilo: .056, Rate: 16_000}, Startup: 112, Confidence: .4, Sequences: 100},
	}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
