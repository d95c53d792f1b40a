package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/enginefleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/router"
)

// What the demo of scaling has: engines on a machine so slow that few requests keep one busy, twenty times faster than
// real time, and a ramp up and down. Times are the engines'.
const (
	scaleSpeed  = 20.
	scaleTTFT   = 5 * time.Second
	scaleITL    = 250 * time.Millisecond
	scalePrompt = 500
	scaleOutput = 20
	sampleEvery = 10 * time.Second
)

// ramp is the demo's rate of requests a second over time.
var ramp = []struct{ at, rate float64 }{{0, .2}, {120, .2}, {420, 1.4}, {600, 1.4}, {720, .2}, {1900, .2}}

// rampTrace draws the arrivals.
func rampTrace(seed uint64) workload.Trace {
	rng := rand.New(rand.NewPCG(seed, 0x72616d70))
	t, block := workload.Trace{Name: "ramp"}, uint64(1)
	for i := 1; i < len(ramp); i++ {
		from, to := ramp[i-1], ramp[i]
		most := max(from.rate, to.rate)
		for at := from.at + rng.ExpFloat64()/most; at < to.at; at += rng.ExpFloat64() / most {
			if rate := from.rate + (to.rate-from.rate)*(at-from.at)/(to.at-from.at); rng.Float64()*most > rate {
				continue
			}
			t.Requests = append(t.Requests, workload.Request{
				At: time.Duration(at * float64(time.Second)), Input: scalePrompt, Output: scaleOutput/2 + rng.IntN(scaleOutput), Blocks: []uint64{block},
			})
			block++
		}
	}
	return t
}

// rampDemo is what came of the demo.
type rampDemo struct {
	samples   []scaleSample
	result    *run.Result
	decisions []autoscaler.Record
	used      map[decide.Role]time.Duration
	lost      int
	start     time.Time
}

type scaleSample struct {
	at     time.Duration
	counts map[decide.Role]enginefleet.Count
}

// autoscale shows engines that follow the load.
func (d *demo) autoscale(ctx context.Context) error {
	trace := rampTrace(d.engines.seed)
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(d.out, "demo-autoscale.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	dir, err := os.MkdirTemp("", "warmpath-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	wall := ramp[len(ramp)-1].at / scaleSpeed
	fmt.Fprintf(os.Stderr, "%d requests, engines %.0f times as fast as real ones: about %.0f s\n", len(trace.Requests), scaleSpeed, wall+10)
	process := daemon.NewProcess("demo", logFile, 0)
	fleet, err := enginefleet.New(ctx, enginefleet.Options{
		Engine: enginesim.Options{
			Model: d.engines.model, Profile: enginesim.Profile{Name: "slow", Base: 60, Prefill: 2, Decode: 40}, BlockSize: 16, Blocks: 4096, TimeScale: scaleSpeed,
		},
		Policy: decide.Policy{
			Mode: decide.On, TTFT: scaleTTFT, ITL: scaleITL, Startup: d.startup,
			Bounds: map[decide.Role]decide.Bounds{decide.Prefill: {Max: 6}, decide.Decode: {Max: 8}},
			Prior:  decide.Model{Overhead: .06, Rate: 400, Step: 70, Sequence: 35, Kilo: .01, KVTokens: 65_536}, // some 20 % wrong
		},
		Initial: map[decide.Role]int{decide.Prefill: 1, decide.Decode: 1},
		Startup: time.Duration(float64(d.startup) / scaleSpeed), Seed: d.engines.seed, Log: process.Log,
	})
	if err != nil {
		return err
	}
	defer fleet.Close()
	s := &rampDemo{}
	err = served(ctx, up.Config{
		DataDir: dir, Listen: "127.0.0.1:0", Engines: fleet.Engines(), Process: process,
		SLO:     router.SLO{TTFT: wallTime(scaleTTFT), ITL: wallTime(scaleITL)},
		Scaling: up.Scaling{Fleet: fleet, Changes: fleet.Changes(), Speed: scaleSpeed, Hold: time.Minute},
	}, func(ctx context.Context, a up.Addresses) error {
		s.start = time.Now()
		sampling, stop := context.WithCancel(ctx)
		group, sampling := errgroup.WithContext(sampling)
		group.Go(func() error { s.sample(sampling, fleet); return nil })
		var err error
		s.result, err = replay(ctx, "autoscale", run.Options{URL: a.Router, Model: d.engines.model, TimeScale: scaleSpeed}, trace)
		stop()
		_ = group.Wait()
		s.used, s.lost = fleet.Used(), fleet.Lost()
		return errors.Join(err, s.read(&process.Pages))
	})
	if err != nil {
		return err
	}
	return s.publish(d.out)
}

func wallTime(d time.Duration) time.Duration { return time.Duration(float64(d) / scaleSpeed) }

// sample notes how many engines there are.
func (s *rampDemo) sample(ctx context.Context, f *enginefleet.Fleet) {
	tick := time.NewTicker(wallTime(sampleEvery))
	defer tick.Stop()
	for {
		s.samples = append(s.samples, scaleSample{s.since(time.Now()), f.Counts()})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// since is the engines' time since the start.
func (s *rampDemo) since(t time.Time) time.Duration {
	return time.Duration(float64(t.Sub(s.start)) * scaleSpeed)
}

// read reads what was decided.
func (s *rampDemo) read(pages http.Handler) error {
	answer := httptest.NewRecorder()
	pages.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/decisions", nil))
	return json.Unmarshal(answer.Body.Bytes(), &s.decisions)
}

// met says how many of the requests due in a stretch of time there were, and met both objectives.
func (s *rampDemo) met(from, to time.Duration) (all, met int) {
	for i := range s.result.Outcomes {
		o := &s.result.Outcomes[i]
		if o.Intended < from || o.Intended >= to {
			continue
		}
		if all++; o.Err == nil && o.TTFT() <= scaleTTFT && (o.Output < 2 || o.ITL() <= scaleITL) {
			met++
		}
	}
	return all, met
}

// publish prints the table and writes the page.
func (s *rampDemo) publish(dir string) error {
	var text strings.Builder
	s.table(&text)
	if _, err := io.WriteString(os.Stdout, text.String()); err != nil {
		return err
	}
	page := filepath.Join(dir, "demo-autoscale.html")
	if err := os.WriteFile(page, []byte(s.page(text.String())), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nreport  %s\nlog     %s\n", page, filepath.Join(dir, "demo-autoscale.log"))
	if failed := s.result.Summary().Errors; failed > 0 || s.lost > 0 {
		return fmt.Errorf("%d requests failed, %d were under way on engines that were stopped", failed, s.lost)
	}
	return nil
}

func (s *rampDemo) table(w io.Writer) {
	const row = 60 * time.Second
	fmt.Fprintf(w, "%8s %9s %8s %8s %10s\n", "time", "requests", "prefill", "decode", "met both")
	for i, x := range s.samples {
		if i%int(row/sampleEvery) != 0 {
			continue
		}
		all, met := s.met(x.at, x.at+row)
		share := "-"
		if all > 0 {
			share = fmt.Sprintf("%.1f %%", 100*float64(met)/float64(all))
		}
		fmt.Fprintf(w, "%6.0f s %9d %8s %8s %10s\n", x.at.Seconds(), all, x.of(decide.Prefill), x.of(decide.Decode), share)
	}
	fmt.Fprintln(w)
	last := map[decide.Role]int{}
	for _, r := range s.decisions {
		for _, role := range []decide.Role{decide.Prefill, decide.Decode} {
			d := r.Roles[role]
			if before, known := last[role]; known && before != d.Target {
				fmt.Fprintf(w, "%6.0f s  %s\n", s.since(r.At).Seconds(), strings.Join(r.Sentences(r.Pool, role)[:1], " "))
			}
			last[role] = d.Target
		}
	}
	all, met := s.met(0, 1<<62)
	seconds := func(role decide.Role) float64 { return s.used[role].Seconds() * scaleSpeed }
	fmt.Fprintf(w, "\n%d requests, %d failed; %.2f %% met both objectives (%v, %v); %.0f prefill and %.0f decode engine-seconds\n",
		all, s.result.Summary().Errors, 100*float64(met)/float64(max(all, 1)), scaleTTFT, scaleITL, seconds(decide.Prefill), seconds(decide.Decode))
}

// of is a role's engines: those that run, and with a plus those that start.
func (x *scaleSample) of(role decide.Role) string {
	c := x.counts[role]
	if c.Ordered > c.Running {
		return fmt.Sprintf("%d+%d", c.Running, c.Ordered-c.Running)
	}
	return fmt.Sprint(c.Running)
}

// page draws the engines over time, above the table.
func (s *rampDemo) page(table string) string {
	const width, height, most = 900., 260., 8.
	end := ramp[len(ramp)-1].at
	line := func(role decide.Role, colour string) string {
		var points strings.Builder
		for _, x := range s.samples {
			fmt.Fprintf(&points, "%.1f,%.1f ", x.at.Seconds()/end*width, height-float64(x.counts[role].Running)/most*height)
		}
		return fmt.Sprintf(`<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`, colour, points.String())
	}
	return fmt.Sprintf(`<!doctype html><meta charset="utf-8"><title>Engines follow the load</title>
<body style="font-family:sans-serif;max-width:60em;margin:2em auto"><h1>Engines follow the load</h1>
<p><span style="color:#1f77b4">prefill</span> and <span style="color:#d62728">decode</span> engines that run, 0 to %.0f, over %.0f s of the engines' time</p>
<svg viewBox="0 0 %.0f %.0f" style="width:100%%;border:1px solid #ccc">%s%s</svg><pre>%s</pre>
`, most, end, width, height, line(decide.Prefill, "#1f77b4"), line(decide.Decode, "#d62728"), html.EscapeString(table))
}
