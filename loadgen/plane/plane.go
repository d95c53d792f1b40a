// Package plane measures the event plane whole: what it costs and how late it is with 64 live engines, how many event
// streams it takes, how an index shard of a large fleet keeps up, and how long a restart of an index and the loss of an
// ingest take. Every part starts processes of its own, so that the processor time of each can be told, and ends with a
// comparison of the index with the truth.
//
// Engines are the simulator's engine cores, which are vLLM's scheduler and block pool, behind real ZeroMQ publishers.
// They keep no time of a model: each steps when the rate that it is to publish at says so. NATS is the embedded server
// with a store on files. A log that is written directly is in ingest's form, by package eventlog.
package plane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var (
	errNotEqual = errors.New("the index is not what the engines hold")
	errPart     = errors.New("no such part")
)

// Options of Run. Self is required; other zero values are the defaults named here.
type Options struct {
	Parts   []string // of Parts; nil is all
	Self    []string // command that calls Serve with the argument that is added to it; required
	Engines int      // live and takeover; 64
	Blocks  int      // of each live engine; 8,192
	Running int      // sequences at once on each live engine; 64
	Rate    float64  // block operations a second of all live engines; 100,000
	Seconds float64  // that the live part is measured; 30. The other parts take shares of it.
	// Resident is how many blocks an index shard has when it restarts, and about how many one of a large fleet has;
	// 10,000,000.
	Resident   int
	Fleet      int     // engines of the large fleet, of which the shard has a sixteenth; 10,000
	FullBlocks int     // of each engine whose owner is killed; 60,000
	Streams    int     // engines of the recorded streams; 1,000
	ShardRate  float64 // block operations a second of each of them; 1,562.5, as that of each live engine

	// Before is called before each part.
	Before func(part string)
	// After is called with the figures after each part.
	After func(*Figures) error

	wrongDigests bool // for tests
}

// Figures are the results, as bench/plane.json has them. A part that was not run is nil.
type Figures struct {
	Live     *Live     `json:"live,omitempty"`
	Streams  *Streams  `json:"streams_1000,omitempty"`
	Shard    *Shard    `json:"shard_10000,omitempty"`
	Restart  *Restart  `json:"restart,omitempty"`
	Takeover *Takeover `json:"takeover,omitempty"`
}

// part is one measurement.
type part struct {
	name    string
	seconds func(Options) float64 // that it takes on two quiet cores, about
	run     func(context.Context, *lab, Options, *Figures) error
	there   func(*Figures) bool
}

func parts() []part {
	return []part{
		{"live", func(o Options) float64 { return 12 + o.Seconds }, func(ctx context.Context, l *lab, o Options, f *Figures) (err error) {
			f.Live, err = live(ctx, l, o)
			return err
		}, func(f *Figures) bool { return f.Live != nil }},
		{"streams", func(o Options) float64 { return 40 + 1.3*o.Seconds }, func(ctx context.Context, l *lab, o Options, f *Figures) (err error) {
			f.Streams, err = streams(ctx, l, o)
			return err
		}, func(f *Figures) bool { return f.Streams != nil }},
		{"shard", func(o Options) float64 { return 25 + o.Seconds/3 }, func(ctx context.Context, l *lab, o Options, f *Figures) (err error) {
			f.Shard, err = followed(ctx, l, o)
			return err
		}, func(f *Figures) bool { return f.Shard != nil }},
		{"restart", func(Options) float64 { return 25 }, func(ctx context.Context, l *lab, o Options, f *Figures) (err error) {
			f.Restart, err = restart(ctx, l, o)
			return err
		}, func(f *Figures) bool { return f.Restart != nil }},
		{"takeover", func(Options) float64 { return 40 }, func(ctx context.Context, l *lab, o Options, f *Figures) (err error) {
			f.Takeover, err = takeover(ctx, l, o)
			return err
		}, func(f *Figures) bool { return f.Takeover != nil }},
	}
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
	for _, d := range []struct {
		value   *int
		initial int
	}{{&o.Engines, 64}, {&o.Blocks, 8192}, {&o.Running, 64}, {&o.Resident, 10_000_000}, {&o.Fleet, fleetEngines},
		{&o.FullBlocks, 60_000}, {&o.Streams, 1000}} {
		if *d.value == 0 {
			*d.value = d.initial
		}
	}
	for _, d := range []struct {
		value   *float64
		initial float64
	}{{&o.Rate, 100_000}, {&o.Seconds, 30}, {&o.ShardRate, 1562.5}} {
		if *d.value == 0 {
			*d.value = d.initial
		}
	}
	return o, nil
}

// Expected is how long Run takes on two quiet cores, about.
func Expected(o Options, f *Figures) (time.Duration, error) {
	o, err := o.complete()
	if err != nil {
		return 0, err
	}
	seconds := 0.0
	for _, p := range parts() {
		if slices.Contains(o.Parts, p.name) && !p.there(f) {
			seconds += p.seconds(o)
		}
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Run measures the parts one after another and puts what they found into f. A part that is there already is not run
// again.
func Run(ctx context.Context, o Options, f *Figures) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	for _, p := range parts() {
		if !slices.Contains(o.Parts, p.name) || p.there(f) {
			continue
		}
		if o.Before != nil {
			o.Before(p.name)
		}
		if err := p.in(ctx, o, f); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if o.After != nil {
			if err := o.After(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// in runs a part in a lab of its own.
func (p part) in(ctx context.Context, o Options, f *Figures) error {
	l, err := newLab(ctx, o.Self)
	if err != nil {
		return err
	}
	defer l.close()
	return p.run(ctx, l, o, f)
}
