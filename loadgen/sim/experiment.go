package sim

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Cell is one run that is wanted.
type Cell struct {
	Scene  Scene
	Policy string
	Seed   uint64
	SLO    SLO
}

// Cross returns a cell for each scene, seed and policy. Seeds run from 1. Runs of one scene and seed have the same
// arrivals and prompts whatever the policy is: common random numbers.
func Cross(scenes []Scene, policies []string, seeds int, slo SLO) (cells []Cell) {
	for _, scene := range scenes {
		for seed := range uint64(max(0, seeds)) {
			for _, policy := range policies {
				cells = append(cells, Cell{scene, policy, seed + 1, slo})
			}
		}
	}
	return cells
}

// Name is what a progress line calls the cell; no two of an experiment have one name.
func (c *Cell) Name() string {
	name := c.Scene.Name
	if c.Scene.Variant != "" {
		name += ", " + c.Scene.Variant + ","
	}
	return fmt.Sprintf("%s %s seed %d", name, c.Policy, c.Seed)
}

// identity is what makes one run another.
type identity struct {
	workload, policy string
	seed             uint64
	setup            string
}

func (c *Cell) identity() identity {
	return identity{c.Scene.Name, c.Policy, c.Seed, c.Scene.Setup(c.SLO).Key()}
}

func (r *Record) identity() identity { return identity{r.Workload, r.Policy, r.Seed, r.Setup} }

// Options are those of the run.
func (c *Cell) Options() Options {
	o := c.Scene.Fleet
	o.Profile = o.profile().Scale(c.Scene.Scale)
	o.Policy, o.Seed, o.SLO = c.Policy, c.Seed, c.SLO
	return o
}

// Experiment runs cells, as many at once as there are processors.
type Experiment struct {
	Cells []Cell
	Code  string // what names the code that runs; runs of other code are not known
	// Known are runs that need not be run again.
	Known []Record
	// Progress, if not nil, is told of answers as they come: done of all in a cell that is named. It may be called from
	// several goroutines.
	Progress func(cell string, done, all int)
	// Ended, if not nil, is called after each run, one at a time.
	Ended func(Record)
}

// Record is one run as the JSON has it.
type Record struct {
	Workload string     `json:"workload"`
	Policy   string     `json:"policy"`
	Seed     uint64     `json:"seed"`
	Pods     int        `json:"pods"` // of all roles
	Prefill  int        `json:"prefill_pods,omitempty"`
	Decode   int        `json:"decode_pods,omitempty"`
	Setup    string     `json:"setup"` // Setup.Key of all that its result depends on beside policy, seed and code
	Code     string     `json:"code,omitempty"`
	Took     float64    `json:"took_s"` // wall time, with others beside it
	Metrics  Metrics    `json:"metrics"`
	ByLoad   []Point    `json:"by_load,omitempty"`
	Load     *FleetLoad `json:"load,omitempty"` // of seed 1 alone

	Result *Result `json:"-"` // with its stages and engines; nil of a known run
}

// Missing returns the cells that are not known, each once.
func (e *Experiment) Missing() (cells []Cell) {
	known := e.known()
	for i := range e.Cells {
		if id := e.Cells[i].identity(); known[id] == nil {
			known[id] = &Record{}
			cells = append(cells, e.Cells[i])
		}
	}
	return cells
}

func (e *Experiment) known() map[identity]*Record {
	all := map[identity]*Record{}
	for i := range e.Known {
		if r := &e.Known[i]; r.Code == e.Code {
			all[r.identity()] = r
		}
	}
	return all
}

// Run runs the cells that are not known and returns the records of all cells in their order, those that have ended if
// it fails. A cell that cannot be run is told before any is. Cells with the same arrivals share them; those of other
// arrivals are not kept meanwhile.
func (e *Experiment) Run(ctx context.Context) ([]Record, error) {
	for i := range e.Cells {
		if _, err := e.Cells[i].Options().withDefaults(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Cells[i].Name(), err)
		}
	}
	var mu sync.Mutex
	ended := e.known()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, cells := range byArrivals(e.Missing()) {
		shared := &arriving{scene: cells[0].Scene, seed: cells[0].Seed, workloads: map[int]*Workload{}, ideal: map[[2]int]float64{}}
		for _, c := range cells {
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r, err := e.cell(&c, shared)
				if err != nil {
					return fmt.Errorf("%s: %w", c.Name(), err)
				}
				mu.Lock()
				defer mu.Unlock()
				ended[r.identity()] = &r
				if e.Ended != nil {
					e.Ended(r)
				}
				return nil
			})
		}
	}
	err := group.Wait()
	var records []Record
	for i := range e.Cells {
		if r := ended[e.Cells[i].identity()]; r != nil {
			records = append(records, *r)
		}
	}
	return records, err
}

// byArrivals puts cells together whose arrivals are the same, in order of the first of each.
func byArrivals(cells []Cell) (all [][]Cell) {
	type arrivals struct {
		name string
		seed uint64
	}
	at := map[arrivals]int{}
	for _, c := range cells {
		key := arrivals{c.Scene.Arrivals, c.Seed}
		i, ok := at[key]
		if !ok {
			i = len(all)
			at[key], all = i, append(all, nil)
		}
		all[i] = append(all[i], c)
	}
	return all
}

// arriving is what arrives: made when the first cell needs them.
type arriving struct {
	scene Scene
	seed  uint64

	mu        sync.Mutex
	workloads map[int]*Workload  // the same, by the block size for which its prompts are hashed
	ideal     map[[2]int]float64 // hit ratio of a pooled cache of so many tokens, in blocks of so many
}

// of returns the arrivals, and the hit ratio that a pooled cache of the fleet's size would have on them.
func (a *arriving) of(o Options) (*Workload, float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, _ = o.withDefaults()
	w := a.workloads[o.BlockSize]
	if w == nil {
		made := Workload{}
		for _, other := range a.workloads {
			made = *other
		}
		if made.Stages == nil {
			made = a.scene.Make(a.seed)
		}
		made.prompts = newPrompts(&made, o.BlockSize)
		w = &made
		a.workloads[o.BlockSize] = w
	}
	size := [2]int{int(float64(o.Engines()*o.Profile.KVTokens) * o.KV), o.BlockSize}
	ideal, ok := a.ideal[size]
	if !ok {
		ideal = Ideal(w, size[0], size[1])
		a.ideal[size] = ideal
	}
	return w, ideal
}

func (e *Experiment) cell(c *Cell, shared *arriving) (Record, error) {
	o := c.Options()
	w, ideal := shared.of(o)
	began := time.Now()
	var progress func(int)
	if all := w.Requests(); e.Progress != nil {
		progress = func(done int) { e.Progress(c.Name(), done, all) }
	}
	result, err := Run(o, w, progress)
	if err != nil {
		return Record{}, err
	}
	if ideal > 0 {
		result.Metrics.CacheEfficiency = result.Metrics.HitRatio / ideal
	}
	r := Record{
		Workload: c.Scene.Name, Policy: c.Policy, Seed: c.Seed, Pods: o.Engines(), Prefill: o.Prefill, Decode: o.Decode,
		Setup: c.Scene.Setup(c.SLO).Key(), Code: e.Code,
		Took: time.Since(began).Seconds(), Metrics: result.Metrics, ByLoad: result.ByLoad, Result: result,
	}
	if c.Seed == 1 {
		r.Load = &result.Load
	}
	return r, nil
}
