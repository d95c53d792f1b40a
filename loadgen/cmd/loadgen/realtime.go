package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/warmpath/warmpath/libs/daemon"
	fleetapi "github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/realtime"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
)

// realtimeCheck sends a trace through everything in real time, and through the simulator.
type realtimeCheck struct {
	trace   traceOptions
	engines int
	profile enginesim.Profile
	out     string
}

const checkModel = "Qwen/Qwen3-32B"

func realtimeCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen realtime", flag.ContinueOnError)
	c := realtimeCheck{profile: enginesim.Qwen3_32B_TP2_H100}
	c.trace.register(fs, 600)
	must(fs.Set("jitter", "3"))
	fs.IntVar(&c.engines, "engines", 8, "number of engines")
	fs.IntVar(&c.profile.KVTokens, "kv-tokens", c.profile.KVTokens, "KV cache of each engine in tokens")
	fs.StringVar(&c.out, "json", "bench/realtime.json", "file to write the figures to; the services' log goes beside it")
	return &ffcli.Command{
		Name:       "realtime",
		ShortUsage: "loadgen realtime [flags]",
		ShortHelp:  "Compare real time with virtual time on one trace",
		LongHelp: `Sends a trace through the five services to simulated engines, all in this process, at its own pace (time scale 1,
round-robin), then simulates the same in virtual time, and compares TTFT and TPOT request by request. What HTTP, the
router and reading bodies take on idle engines is measured first, and added to each TTFT in virtual time. Ctrl-C
compares what there is.`,
		FlagSet: fs,
		Exec:    c.run,
	}
}

// realtimeResult is bench/realtime.json.
type realtimeResult struct {
	report.Header
	realtime.Report
}

func (c *realtimeCheck) run(ctx context.Context, _ []string) error {
	started := time.Now()
	trace, err := c.trace.load()
	if err != nil {
		return err
	}
	if c.engines < 1 || c.profile.KVTokens < realtime.BlockSize {
		return fmt.Errorf("--engines %d, --kv-tokens %d: at least one engine of one block is needed", c.engines, c.profile.KVTokens)
	}
	if err := os.MkdirAll(filepath.Dir(c.out), 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(filepath.Dir(c.out), "realtime.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(os.Stderr, "%d requests of %s, %d engines: about %s\n", len(trace.Requests), trace.Name, c.engines,
		(time.Duration(c.trace.seconds*float64(time.Second)) + 40*time.Second).Round(10*time.Second))
	r, err := c.compare(ctx, trace, log)
	if r == nil {
		return err
	}
	if writeErr := daemon.WriteJSON(c.out, realtimeResult{report.NewHeader(1, started), *r}); writeErr != nil {
		return writeErr
	}
	if printErr := c.print(r); printErr != nil {
		return printErr
	}
	return err
}

func (c *realtimeCheck) print(r *realtime.Report) error {
	name := r.Trace
	if name == workload.Generated {
		name = "generated (a stand-in for the conversation trace)"
	}
	fmt.Printf("trace %s, %.0f s of it at time scale 1, arrivals later by up to %g s; %d engines of %d KV tokens, %s\n\n",
		name, r.Seconds, c.trace.jitter, c.engines, c.profile.KVTokens, realtime.Policy)
	if err := r.Table(os.Stdout); err != nil {
		return err
	}
	verdict := "agree"
	if !r.Agree {
		verdict = "DO NOT agree"
	}
	fmt.Printf("\nmeans of TTFT and TPOT %s within %.0f %%\nfigures  %s\n", verdict, 100*realtime.Tolerance, c.out)
	return nil
}

// compare measures and simulates. Where ctx ends it compares what was answered until then, and returns that with
// ctx's error.
func (c *realtimeCheck) compare(ctx context.Context, trace workload.Trace, log io.Writer) (*realtime.Report, error) {
	frontEnd, err := c.frontEnd(ctx, trace, log)
	if err != nil {
		return nil, fmt.Errorf("measure the path to idle engines: %w", err)
	}
	measured, err := c.serve(ctx, c.profile, trace, run.Options{}, log)
	if measured == nil {
		return nil, err
	}
	virtual, simErr := realtime.Virtual(trace, c.engines, c.profile, frontEnd)
	if simErr != nil {
		return nil, simErr
	}
	r := realtime.Compare(virtual, measured, c.engines, frontEnd)
	r.Trace, r.Seconds = trace.Name, c.trace.seconds
	return &r, err
}

// The unloaded path is measured with at most sampled of the trace's prompts, after some that open connections.
const (
	sampled = 256
	opening = 16
)

// frontEnd is the mean time from client to first token where engines compute in no time and have nothing else to do.
func (c *realtimeCheck) frontEnd(ctx context.Context, trace workload.Trace, log io.Writer) (time.Duration, error) {
	sample := workload.Trace{Name: "unloaded path"}
	for i := range opening {
		sample.Requests = append(sample.Requests, trace.Requests[i%len(trace.Requests)])
	}
	for i := 0; i < len(trace.Requests); i += len(trace.Requests)/sampled + 1 {
		sample.Requests = append(sample.Requests, trace.Requests[i])
	}
	for i := range sample.Requests {
		sample.Requests[i].At, sample.Requests[i].Output = 0, 1
	}
	instant := enginesim.Instant
	instant.KVTokens = c.profile.KVTokens
	m, err := c.serve(ctx, instant, sample, run.Options{Concurrency: 1}, log)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, out := range m.Result.Outcomes {
		if out.Err != nil {
			return 0, out.Err
		}
		if out.Request >= opening {
			sum += out.First - out.Sent
		}
	}
	return sum / time.Duration(len(sample.Requests)-opening), nil
}

// serve sends a trace through engines and services of its own. It returns what was measured with ctx's error where ctx
// has ended meanwhile.
func (c *realtimeCheck) serve(
	ctx context.Context, p enginesim.Profile, trace workload.Trace, o run.Options, log io.Writer,
) (*realtime.Measured, error) {
	m := &realtime.Measured{Gate: realtime.NewGate(len(trace.Requests))}
	var late steps
	engines, err := c.start(ctx, p, m.Gate, &late)
	if err != nil {
		return nil, err
	}
	defer engines.close()
	urls := map[string]string{}
	for i, e := range engines {
		urls[engineName(i)] = e.URL()
	}
	if m.Seats, err = realtime.Seats(urls); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "warmpath-realtime-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	services := up.Config{DataDir: dir, Listen: "127.0.0.1:0", Policy: realtime.Policy}
	err = together(ctx, log, engines, services, func(ctx context.Context, a up.Addresses) error {
		late.reset()
		took := realtime.Watch()
		var err error
		o.URL, o.Model = a.Router, checkModel
		m.Result, err = c.send(ctx, o, trace, m.Gate)
		m.Took, m.Steps, m.Stages = took(), late.seconds(), stages(context.WithoutCancel(ctx), a.Router)
		return err
	})
	if m.Result == nil {
		return nil, err
	}
	return m, err
}

// send drives the router with the trace, in its order.
func (c *realtimeCheck) send(ctx context.Context, o run.Options, trace workload.Trace, gate *realtime.Gate) (*run.Result, error) {
	show, finish := progress(trace.Name, len(trace.Requests))
	defer finish()
	o.RequestID, o.Sent = gate.ID, gate.Wait
	o.Progress = func(done, all int, last run.Outcome) {
		gate.Ended(last.Request)
		show(done, all, last)
	}
	return run.Drive(ctx, o, trace)
}

// start runs the engines on free loopback ports.
func (c *realtimeCheck) start(ctx context.Context, p enginesim.Profile, gate *realtime.Gate, late *steps) (fleet, error) {
	var engines fleet
	for i := range c.engines {
		e, err := enginesim.Start(ctx, enginesim.Options{
			Model: checkModel, Name: engineName(i), Profile: p, BlockSize: realtime.BlockSize, MaxModelLen: realtime.MaxModelLen,
			Blocks: p.KVTokens / realtime.BlockSize, Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0",
			Submitted: gate.Submitted, Stepped: late.add,
		})
		if err != nil {
			engines.close()
			return nil, fmt.Errorf("start engine %d: %w", i, err)
		}
		engines = append(engines, player{e, fleetapi.Both})
	}
	return engines, nil
}

// steps gathers how late steps ended. Safe for concurrent use.
type steps struct {
	mu   sync.Mutex
	late []float64
}

func (s *steps) add(late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, late.Seconds())
}

func (s *steps) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.late[:0]
}

// seconds takes what was gathered.
func (s *steps) seconds() []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.late
	s.late = nil
	return out
}

// stages reads the mean seconds of the router's stages from its metrics; none where it does not answer any more.
func stages(ctx context.Context, router string) map[string]float64 {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(scrape(ctx, router)))
	if err != nil {
		return nil
	}
	means := map[string]float64{}
	for _, m := range families["warmpath_router_stage_seconds"].GetMetric() {
		if h := m.GetHistogram(); h.GetSampleCount() > 0 {
			means[m.GetLabel()[0].GetValue()] = h.GetSampleSum() / float64(h.GetSampleCount())
		}
	}
	return means
}

// scrape reads a service's metrics; nothing where it does not answer.
func scrape(ctx context.Context, url string) []byte {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil
	}
	return text
}
