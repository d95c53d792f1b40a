// Package hop measures what the router adds to a request: time to the first byte, processor time, allocations.
//
// Engines that answer at once, a scorer that knows the answer already, NATS and the router run in processes of their
// own, so that what the router costs can be told from what the rest costs; the client is in the process that measures.
// All share the machine's cores. Requests go straight to an engine and through the router in turns of a second or less,
// so that both meet the same neighbours. Nobody is believed: the engine compares every body with the one that must
// arrive, the scorer every prompt, the client every answer, and every routed request must have left a record that says
// that it was scored.
package hop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

var errPart = errors.New("no such part")

// Options of Run. Self is required; other zero values are the defaults named here.
type Options struct {
	Parts    []string // of Parts; nil is all
	Self     []string // command that calls Serve with the argument that is added to it; required
	Requests int      // of each row and way; 2,000
	Seconds  float64  // of each part that has a length; 8
	Streams  int      // at once; 1,000
	Late     float64  // share of requests that the scorer may answer too late for want of a core; .01
	Profile  string   // folder for processor profiles of the router, one a part; "" is none

	// Before is called before each part.
	Before func(part string)
	// After is called with the figures after each part.
	After func(*Figures) error
}

// Figures are the results, as bench/router.json has them. A part that was not run is absent.
type Figures struct {
	Results []Row `json:"results"`
	// ChunkUS is the router's processor time for each event of a stream, in microseconds.
	ChunkUS float64 `json:"sse_chunk_us,omitempty"`
	// MaxRPS are requests a second by bytes of body, with the cores shared by client, router, scorer, NATS and engines.
	MaxRPS map[string]float64 `json:"max_rps,omitempty"`
	// CoreRPS are requests for each second of processor time of the router alone, then.
	CoreRPS map[string]float64 `json:"rps_per_router_core,omitempty"`
	// Unscored is the share of these requests that a scorer without a core to run on answered too late.
	Unscored map[string]float64 `json:"max_rps_unscored,omitempty"`
	// Allocations are the router's for each request of 8,192 bytes.
	Allocations float64 `json:"allocs_per_request,omitempty"`
	// RequestCPU is the router's processor time, in seconds, for a prompt of 100,000 tokens with 1,000 tokens of output.
	RequestCPU float64 `json:"cpu_s_per_100k_token_request,omitempty"`
	// IdleCores is what the router uses of a core with 100 engines and no request.
	IdleCores *float64 `json:"idle_cores_100_engines,omitempty"`
	// Decision is the choice among 100 engines with its reservation, from the records.
	Decision *Quantiles `json:"decision_us_100_engines,omitempty"`
	Streams  *Streams   `json:"streams,omitempty"`
	// Floors are what proxies cost that do nothing else.
	Floors []Floor `json:"floors,omitempty"`
}

// Quantiles are in microseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// quantiles sorts its argument.
func quantiles(us []float64) Quantiles {
	if len(us) == 0 {
		return Quantiles{}
	}
	slices.Sort(us)
	at := func(q float64) float64 { return us[min(int(q*float64(len(us))), len(us)-1)] }
	return Quantiles{P50: at(.5), P99: at(.99)}
}

// part is one measurement.
type part struct {
	name    string
	seconds func(Options) float64 // that it takes on two quiet cores, about
	engines int
	sizes   []int
	run     func(context.Context, *lab, Options, *Figures) error
	there   func(*Figures) bool
}

const labSeconds = 2 // to start and stop everything

func parts() []part {
	var all []part
	for _, size := range []int{2048, 8192, 220_000, 800_000} {
		for _, connections := range []int{1, 20} {
			all = append(all, rowPart(size, connections))
		}
	}
	length := func(times float64) func(Options) float64 {
		return func(o Options) float64 { return labSeconds + times*o.Seconds }
	}
	return append(all,
		part{"chunks", length(1.2), 8, []int{2048}, chunks, func(f *Figures) bool { return f.ChunkUS > 0 }},
		part{"rps", length(2), 8, []int{8192, 220_000}, most, func(f *Figures) bool { return f.MaxRPS != nil }},
		part{"request", length(1.5), 8, []int{400_000}, request, func(f *Figures) bool { return f.RequestCPU > 0 }},
		part{"idle", length(1), 100, []int{2048}, idle, func(f *Figures) bool { return f.IdleCores != nil }},
		part{"decision", length(1.5), 100, []int{8192}, decision, func(f *Figures) bool { return f.Decision != nil }},
		part{"floor", length(4), 8, []int{2048, 8192}, floor, func(f *Figures) bool { return len(f.Floors) > 0 }},
		part{"streams", length(3), 8, []int{2048}, streams, func(f *Figures) bool { return f.Streams != nil }},
	)
}

// Parts are the names of all parts, in the order in which they run.
func Parts() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func (o Options) complete() (Options, error) {
	for _, name := range o.Parts {
		if !slices.Contains(Parts(), name) {
			return o, fmt.Errorf("part %q: %w; there are %s", name, errPart, strings.Join(Parts(), ", "))
		}
	}
	if o.Parts == nil {
		o.Parts = Parts()
	}
	if o.Requests == 0 {
		o.Requests = 2000
	}
	if o.Late == 0 {
		o.Late = .01
	}
	if o.Seconds == 0 {
		o.Seconds = 8
	}
	if o.Streams == 0 {
		o.Streams = 1000
	}
	return o, nil
}

// missing are the parts that are asked for and not in f.
func (o Options) missing(f *Figures) (left []part) {
	for _, p := range parts() {
		if slices.Contains(o.Parts, p.name) && !p.there(f) {
			left = append(left, p)
		}
	}
	return left
}

// Expected is how long Run takes on two quiet cores, about.
func Expected(o Options, f *Figures) (time.Duration, error) {
	o, err := o.complete()
	if err != nil {
		return 0, err
	}
	seconds := 0.0
	for _, p := range o.missing(f) {
		seconds += p.seconds(o)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Run measures the parts that f lacks, each in a lab of its own, and adds them to f. A part in which a request failed is
// in f with its errors where it has room for them, and makes Run fail at the end.
func Run(ctx context.Context, o Options, f *Figures) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	if f.Results == nil {
		f.Results = []Row{}
	}
	var failed error
	for _, p := range o.missing(f) {
		if o.Before != nil {
			o.Before(p.name)
		}
		if err := runPart(ctx, p, o, f); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		if o.After != nil {
			if err := o.After(f); err != nil {
				return errors.Join(failed, err)
			}
		}
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
	}
	return failed
}

func runPart(ctx context.Context, p part, o Options, f *Figures) error {
	l, err := newLab(ctx, o, load{Sizes: p.sizes, Engines: p.engines})
	if err != nil {
		return err
	}
	defer l.close()
	if o.Profile != "" {
		path := o.Profile + "/router-" + p.name + ".pprof"
		if err := l.router.Ask("profile", path, nil); err != nil {
			return err
		}
		defer func() { _ = l.router.Ask("profile", nil, nil) }()
	}
	return p.run(ctx, l, o, f)
}

func sizeName(size int) string { return strconv.Itoa(size) }
