package elastic

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Source says where a workload comes from; zero fields are the workload's own.
type Source struct {
	Trace   string        // file
	Lengths string        // file, beside ServeGen rates
	From    time.Duration // of the trace
	To      time.Duration
	Rate    float64 // factor on the rate of requests
	Dir     string  // where public traces are looked for, and in the folders above; empty is here
}

// Find returns a workload by its name. One whose public trace is not at hand is a generated stand-in, and says so.
func Find(name string, s Source) (Work, error) {
	if s.Trace != "" {
		return s.open(name)
	}
	s.Dir = cmp.Or(s.Dir, ".")
	switch name {
	case "azure":
		if s.Rate = cmp.Or(s.Rate, 10); s.find(workload.FindAzure) {
			return s.open(name)
		}
		return s.replay(name, "generated in place of Azure's conversations of 2023", chats(), false), nil
	case "mooncake":
		if s.Rate = cmp.Or(s.Rate, 3); s.find(workload.Find) {
			return s.open(name)
		}
		return s.replay(name, "generated in place of Mooncake's conversations", workload.Generate(time.Hour, 1), true), nil
	case "servegen":
		if s.find(workload.FindServeGen) {
			return s.open(name)
		}
		return s.days(name, "generated in place of ServeGen's m-large", ordinaryDays()), nil
	}
	return Shape(name, s.Rate)
}

func (s *Source) find(in func(dir string) (string, bool)) (ok bool) {
	s.Trace, ok = in(s.Dir)
	return ok
}

// open reads a trace, whichever of the known formats it has.
func (s *Source) open(name string) (w Work, err error) {
	format, err := formatOf(s.Trace)
	if err != nil {
		return w, err
	}
	switch format {
	case "servegen":
		d, err := openDays(s.Trace, s.Lengths)
		if err != nil {
			return w, err
		}
		return s.days(name, "ServeGen rates of "+s.Trace, d), nil
	case "azure":
		t, err := workload.OpenAzure(s.Trace)
		if err != nil {
			return w, fmt.Errorf("trace in the azure format: %w", err)
		}
		return s.replay(name, t.Name, t, false), nil
	}
	t, err := workload.Open(s.Trace)
	if err != nil {
		return w, fmt.Errorf("trace in the mooncake format: %w", err)
	}
	return s.replay(name, t.Name, t, true), nil
}

// ErrFormat is a trace in none of the formats.
var ErrFormat = errors.New("trace is in none of the formats mooncake, azure, servegen")

// formatOf looks at a trace's first line.
func formatOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	r, err := unzipped(f)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	first, _ := r.Peek(64)
	switch first = bytes.TrimSpace(first); {
	case bytes.HasPrefix(first, []byte("{")):
		return "mooncake", nil
	case bytes.HasPrefix(first, []byte("TIMESTAMP,")):
		return "azure", nil
	case bytes.HasPrefix(first, []byte("client,t_s,rate_rps,")):
		return "servegen", nil
	}
	return "", fmt.Errorf("%s: %w", path, ErrFormat)
}

// unzipped reads what may be compressed with gzip.
func unzipped(in io.Reader) (*bufio.Reader, error) {
	r := bufio.NewReader(in)
	if magic, _ := r.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return r, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("unzip: %w", err)
	}
	return bufio.NewReader(z), nil
}

// displaced is by how much copies of a recorded request are moved at most, later.
const displaced = 10 * time.Second

// wantedPeak is how many replicas the busiest minute of a trace of unknown rate shall need, in the role that needs more.
const wantedPeak = 20

// replay is a recorded hour at a multiple of its rate: so many copies of each request, a part of one at random, each
// moved by up to 10 s. A copy's prompts share prefixes among themselves, as the recorded ones do; what all prompts begin
// with, all copies' begin with.
func (s *Source) replay(name, what string, t workload.Trace, shared bool) Work {
	if s.To > 0 {
		t = t.Slice(s.From, s.To)
	}
	w := Work{Name: name, Shared: shared, Rate: s.Rate}
	if len(t.Requests) > 0 {
		w.Until = t.Requests[len(t.Requests)-1].At + displaced
	}
	make := func(seed uint64) func() (Request, bool) {
		all := copies(t, w.Rate, seed, shared)
		next := 0
		return func() (Request, bool) {
			if next == len(all) {
				return Request{}, false
			}
			next++
			return all[next-1], true
		}
	}
	w.Requests = make
	if w.Rate == 0 {
		w.Rate = 1
		prefill, decode := Peak(&w, DefaultSLO())
		w.Rate = wantedPeak / max(prefill, decode, .01)
		w.Requests = make
	}
	w.What = fmt.Sprintf("%s, each request %g times", what, w.Rate)
	return w
}

// copies are the requests of a replay.
func copies(t workload.Trace, rate float64, seed uint64, shared bool) []Request {
	rng := rand.New(rand.NewPCG(seed, 0xc091))
	all := make([]Request, 0, int(rate*float64(len(t.Requests)))+1)
	for _, r := range t.Requests {
		for n := 0; float64(n) < rate; n++ {
			moved := time.Duration(rng.Float64() * float64(displaced))
			if rng.Float64() >= rate-float64(n) {
				break
			}
			one := Request{At: r.At + moved, Prompt: r.Input, Output: r.Output}
			if shared {
				one.Blocks = blocks(&r, n)
			}
			all = append(all, one)
		}
	}
	slices.SortStableFunc(all, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
	if shared {
		reuse(all)
	}
	return all
}

// blocks are the prompt of a copy.
func blocks(r *workload.Request, copied int) sim.Prompt {
	left := r.Input
	p := make(sim.Prompt, 0, len(r.Blocks))
	for _, id := range r.Blocks {
		if id != 0 { // which all prompts begin with
			id += uint64(copied) << 40
		}
		n := min(left, workload.BlockTokens)
		p = append(p, sim.Segment{ID: id, Tokens: n})
		left -= n
	}
	return p
}

// reuse finds what one endless cache would hold of each prompt.
func reuse(all []Request) {
	seen := map[uint64]bool{}
	for i := range all {
		r := &all[i]
		for _, b := range r.Blocks {
			if !seen[b.ID] {
				break
			}
			r.Cached += b.Tokens
		}
		r.Cached = min(r.Cached, r.Prompt-1)
		for _, b := range r.Blocks {
			seen[b.ID] = true
		}
	}
}

// chats are an hour like Azure's conversations: their rate and lengths, without their bursts.
func chats() workload.Trace {
	rng := rand.New(rand.NewPCG(1, 0xa2))
	t := workload.Trace{Name: workload.Generated}
	for at := 0.; at < 3500; at += rng.ExpFloat64() / 5.53 {
		t.Requests = append(t.Requests, workload.Request{At: time.Duration(at * float64(time.Second)),
			Input: wide(rng, 1155, .9), Output: wide(rng, 211, .9)})
	}
	return t
}
