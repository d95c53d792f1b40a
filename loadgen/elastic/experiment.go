package elastic

import (
	"context"
	"fmt"
	"hash/fnv"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/loadgen/sim"
)

// Record is one run as the JSON has it.
type Record struct {
	Workload string  `json:"workload"`
	Policy   string  `json:"policy"`
	Variant  string  `json:"variant"`
	Service  Service `json:"service"`
	Startup  float64 `json:"startup_s"`
	Seed     uint64  `json:"seed"`
	Headroom float64 `json:"headroom,omitempty"` // of ours; absent is its default
	Rate     float64 `json:"rate_scale"`
	Arrivals string  `json:"arrivals"` // in words
	Setup    string  `json:"setup"`    // a name of all that the result depends on beside the fields above and the code
	Code     string  `json:"code,omitempty"`
	Took     float64 `json:"took_s"` // wall time, with others beside it
	Metrics  Metrics `json:"metrics"`
	Series   *Series `json:"series,omitempty"` // of seed 1 alone
}

// Series is a run over time, in at most maxPoints steps: what of each step is the mean, and of replicas the greatest.
type Series struct {
	Step      float64              `json:"step_s"`
	Rate      []float64            `json:"rate"`   // requests/s
	Good      []float64            `json:"good"`   // share of these; -1 where none came
	Queued    []int                `json:"queued"` // requests in the router
	Demand    map[string][]float64 `json:"demand"` // replicas that the arrivals keep busy at the engines' true speed
	Serving   map[string][]int     `json:"serving"`
	Starting  map[string][]int     `json:"starting"`
	Draining  map[string][]int     `json:"draining"`
	Decisions []Decided            `json:"decisions,omitempty"`
}

// Decided is a change of what is ordered.
type Decided struct {
	At   float64 `json:"t"`
	Role string  `json:"role"`
	From int     `json:"from"`
	To   int     `json:"to"`
	Rule string  `json:"rule,omitempty"`
}

// setup names what a cell's result depends on beside what a Record says in words.
func (c *Cell) setup() string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s|%g|%v|%v|%v", c.Work.What, c.Work.Rate, c.Work.Until, c.SLO, c.Work.Shared)
	return fmt.Sprintf("%016x", h.Sum64())
}

type identity struct {
	workload, policy, variant string
	service                   Service
	startup, headroom         float64
	seed                      uint64
	setup                     string
}

func (c *Cell) identity() identity {
	return identity{c.Work.Name, c.Policy, c.Variant, c.Service, c.Startup.Seconds(), c.Headroom, c.Seed, c.setup()}
}

func (r *Record) identity() identity {
	return identity{r.Workload, r.Policy, r.Variant, r.Service, r.Startup, r.Headroom, r.Seed, r.Setup}
}

// Experiment runs cells, as many at once as there are processors.
type Experiment struct {
	Cells    []Cell
	Code     string   // names the code that runs; runs of other code are not known
	Known    []Record // need not be run again
	Progress func(cell string, done, all int)
	Ended    func(Record) // called after each run, one at a time
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

// Run runs the cells that are not known and returns the records of all cells in their order; those that have ended, if it
// fails.
func (e *Experiment) Run(ctx context.Context) ([]Record, error) {
	var mu sync.Mutex
	ended := e.known()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range e.Missing() {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r, err := e.cell(ctx, &c)
			if err != nil {
				return err
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
	err := group.Wait()
	var records []Record
	for i := range e.Cells {
		if r := ended[e.Cells[i].identity()]; r != nil {
			records = append(records, *r)
		}
	}
	return records, err
}

func (e *Experiment) cell(ctx context.Context, c *Cell) (Record, error) {
	var progress func(done, all int)
	if e.Progress != nil {
		progress = func(done, all int) { e.Progress(c.Name(), done, all) }
	}
	began := time.Now()
	result, err := c.Run(ctx, progress)
	if err != nil {
		return Record{}, err
	}
	r := Record{
		Workload: c.Work.Name, Policy: c.Policy, Variant: c.Variant, Service: c.Service, Startup: c.Startup.Seconds(), Seed: c.Seed,
		Headroom: c.Headroom, Rate: c.Work.Rate, Arrivals: c.Work.What, Setup: c.setup(), Code: e.Code,
		Took: time.Since(began).Seconds(), Metrics: result.Metrics,
	}
	if c.Seed == 1 && c.Headroom == 0 {
		r.Series = series(result.Samples)
	}
	return r, nil
}

// Grid is the cells of an experiment.
type Grid struct {
	Works    []Work
	Policies []string
	Variants []string
	Services []Service
	Startups []time.Duration
	Seeds    int // 1 to Seeds
	SLO      sim.SLO
	Headroom []float64 // of ours, beside its default
}

// Cells are those of the grid. Runs of one workload, start-up time and seed have the same requests, engines and
// start-up times, whatever the policy.
func (g *Grid) Cells() (cells []Cell) {
	for _, w := range g.Works {
		for _, startup := range g.Startups {
			for seed := range uint64(max(0, g.Seeds)) {
				for _, service := range g.Services {
					for _, policy := range g.Policies {
						c := Cell{Work: w, Policy: policy, Service: service, Startup: startup, Seed: seed + 1, SLO: g.SLO}
						cells = append(cells, g.variants(c)...)
					}
				}
			}
		}
	}
	return cells
}

// variants are those of one cell's policy.
func (g *Grid) variants(c Cell) (cells []Cell) {
	for _, v := range g.Variants {
		if v == Default || Tunable(c.Policy) {
			c.Variant = v
			cells = append(cells, c)
		}
	}
	if c.Policy == Ours {
		c.Variant = Default
		for _, h := range g.Headroom {
			c.Headroom = h
			cells = append(cells, c)
		}
	}
	return cells
}

// searchRuns is about how many runs a search for a plan takes, those that are cut short counted as what they are.
const searchRuns = 100

// trialTime is virtual time of the run that tells how long runs take.
const trialTime = 3 * time.Minute

// Expected is how long cells take together on the machine's processors, from a trial of the first one's beginning: by
// tokens that are generated, and requests.
func Expected(cells []Cell) (time.Duration, error) {
	trial := cells[0]
	trial.Work.Until = min(trialTime, trial.Work.Until)
	trial.Policy, trial.Variant, trial.Service = "static-peak", Default, FCFS
	began := time.Now()
	if _, err := trial.Run(context.Background(), nil); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds() / max(1, trial.Work.size())
	sizes, all := map[string]float64{}, 0.
	for i := range cells {
		w := &cells[i].Work
		if sizes[w.Name] == 0 {
			sizes[w.Name] = w.size()
		}
		all += took * sizes[w.Name]
		if cells[i].Policy == offline {
			all += searchRuns * took * sizes[w.Name]
		}
	}
	d := time.Duration(all / float64(min(len(cells), runtime.GOMAXPROCS(0))) * float64(time.Second))
	return max(d.Round(time.Second), time.Second), nil
}

// size is how much a run has to do, in tokens: a request costs about as much as 200.
func (w *Work) size() (n float64) {
	w.each(func(r *Request) {
		n += float64(200 + r.Output)
		if w.Shared { // its prompts are hashed, and the index is kept
			n += float64(r.Prompt) / 2
		}
	})
	return n
}
