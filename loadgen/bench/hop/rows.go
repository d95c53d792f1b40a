package hop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Row is what the router adds to requests of one size on so many connections.
type Row struct {
	Bytes       int `json:"body_bytes"`
	Connections int `json:"connections"`
	Requests    int `json:"requests"` // through the router, and as many straight
	Errors      int `json:"errors"`   // of both; any makes the figures worthless
	Unscored    int `json:"unscored"` // more than one in a hundred is an error
	// Rate is requests a second, half of what closed loops on the same connections reached through the router.
	Rate   float64   `json:"rate"`
	Direct Quantiles `json:"direct_ttfb_us"`
	Router Quantiles `json:"router_ttfb_us"` // scoring included
	Score  Quantiles `json:"score_us"`       // of the latter, the question to the scorer
	// Added are the quantiles of router less score of each request, less those of direct.
	Added       Quantiles `json:"added_ttfb_us"`
	CPU         float64   `json:"router_cpu_us"` // of the router's process, for each request
	Allocations float64   `json:"allocs"`        // likewise
}

// put adds a row in place of an earlier one that had errors.
func (f *Figures) put(r Row) {
	f.Results = slices.DeleteFunc(f.Results, func(old Row) bool { return old.Bytes == r.Bytes && old.Connections == r.Connections })
	f.Results = append(f.Results, r)
}

const rounds = 8 // of each way, in turns

func rowPart(size, connections int) part {
	return part{
		name: fmt.Sprintf("%dx%d", size, connections),
		// A serial request takes about .4 ms and 4.5 ms a megabyte, and half as many a second are sent, each way.
		seconds: func(o Options) float64 {
			return labSeconds + 4*float64(o.Requests)*(.0004+.0045*float64(size)/1e6)*map[bool]float64{true: 1, false: .6}[connections == 1]
		},
		engines: 8, sizes: []int{size},
		run: func(ctx context.Context, l *lab, o Options, f *Figures) error {
			r, err := row(ctx, l, size, connections, o.Requests)
			f.put(r)
			if size == 8192 && connections == 1 {
				f.Allocations = r.Allocations
			}
			return err
		},
		there: func(f *Figures) bool {
			for _, r := range f.Results {
				if r.Bytes == size && r.Connections == connections && r.Errors == 0 {
					return true
				}
			}
			return false
		},
	}
}

// row measures both ways in turns.
func row(ctx context.Context, l *lab, size, connections, requests int) (r Row, err error) {
	r = Row{Bytes: size, Connections: connections}
	if r.Rate, err = capacity(ctx, l, size, connections); err != nil {
		r.Errors++
		return r, err
	}
	r.Rate /= 2
	turns := rounds * connections
	each := (requests + turns - 1) / turns // no fewer than asked for
	var straight, whole, scoring, less []float64
	var failed error
	var used spent
	for range rounds {
		loop := openLoop{lab: l, size: size, connections: connections, each: each, rate: r.Rate}
		for _, s := range loop.run(ctx, direct) {
			if s.err != nil {
				r.Errors, failed = r.Errors+1, s.err
			}
			straight = append(straight, s.us)
		}
		stop, err := l.meter()
		if err != nil {
			return r, err
		}
		samples := loop.run(ctx, routed)
		u, err := stop()
		if err != nil {
			return r, err
		}
		used.cpu, used.allocs = used.cpu+u.cpu, used.allocs+u.allocs
		records, unscored, err := l.records(ctx, len(samples))
		r.Unscored += unscored
		if err != nil {
			r.Errors, failed = r.Errors+1, err
		}
		for _, s := range samples {
			if s.err != nil {
				r.Errors, failed = r.Errors+1, s.err
			}
			score := records[s.id].Us.Score
			whole, scoring, less = append(whole, s.us), append(scoring, score), append(less, s.us-score)
		}
	}
	r.Requests = len(whole)
	if err := l.few(r.Unscored, r.Requests); err != nil {
		r.Errors, failed = r.Errors+1, err
	}
	r.CPU, r.Allocations = 1e6*used.cpu/float64(r.Requests), used.allocs/float64(r.Requests)
	r.Direct, r.Router, r.Score = quantiles(straight), quantiles(whole), quantiles(scoring)
	own := quantiles(less)
	r.Added = Quantiles{P50: own.P50 - r.Direct.P50, P99: own.P99 - r.Direct.P99}
	if failed != nil {
		failed = fmt.Errorf("%d errors, the last: %w", r.Errors, failed)
	}
	return r, failed
}

// capacity is how many requests a second closed loops on so many connections reach through the router.
func capacity(ctx context.Context, l *lab, size, connections int) (rate float64, err error) {
	n := max(200/connections, 10)
	for range 2 { // the first is for connections, pools of buffers and the like
		began := time.Now()
		if err := closedLoops(ctx, l, size, connections, func(done int) bool { return done < n }); err != nil {
			return 0, err
		}
		rate = float64(n*connections) / time.Since(began).Seconds()
		if _, _, err := l.records(ctx, n*connections); err != nil {
			return 0, err
		}
	}
	return rate, nil
}

// closedLoops sends routed requests on each connection, one after another, as long as more says so.
func closedLoops(ctx context.Context, l *lab, size, connections int, more func(done int) bool) error {
	failed := make([]error, connections)
	var wait sync.WaitGroup
	for i := range connections {
		wait.Go(func() {
			c := newConnection(l.address)
			defer c.close()
			for done := 0; more(done) && ctx.Err() == nil && failed[i] == nil; done++ {
				_, failed[i] = c.do(l.task(size, routed))
			}
		})
	}
	wait.Wait()
	return errors.Join(errors.Join(failed...), ctx.Err())
}

// openLoop sends requests on an absolute schedule: each connection one every connections/rate seconds, from a random
// moment on.
type openLoop struct {
	lab         *lab
	size        int
	connections int
	each        int // requests on each connection
	rate        float64
	at          string // address; "" is where the way begins
}

// sample is one request of an open loop.
type sample struct {
	id  string
	us  float64 // to the first byte of the answer
	err error
}

func (o *openLoop) run(ctx context.Context, way string) []sample {
	all := make([]sample, o.connections*o.each)
	start := time.Now().Add(10 * time.Millisecond)
	interval := time.Duration(float64(o.connections) / o.rate * float64(time.Second))
	var wait sync.WaitGroup
	for i := range o.connections {
		wait.Go(func() {
			c := newConnection(cmp.Or(o.at, o.lab.target(way, i)))
			defer c.close()
			due := start.Add(time.Duration(rand.Int64N(int64(interval))))
			for k := range o.each {
				if ctx.Err() != nil {
					all[i*o.each+k].err = ctx.Err()
					continue
				}
				all[i*o.each+k] = o.one(c, way, due)
				due = due.Add(interval)
			}
		})
	}
	wait.Wait()
	return all
}

// one sends a request when it is due. Its time counts from then where the request before held it up, and else from its
// sending: that the client woke up late is no fault of either way.
func (o *openLoop) one(c *connection, way string, due time.Time) sample {
	t := o.lab.task(o.size, way)
	began := due
	if early := time.Until(due); early > 0 {
		time.Sleep(early)
		began = time.Now()
	}
	first, err := c.do(t)
	return sample{t.id(), float64(first.Sub(began).Nanoseconds()) / 1e3, err}
}
