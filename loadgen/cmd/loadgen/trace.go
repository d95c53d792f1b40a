package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// traceOptions are the flags that say which requests to send.
type traceOptions struct {
	file    string
	seconds float64
	jitter  float64
	seed    uint64
}

func (o *traceOptions) register(fs *flag.FlagSet, seconds float64) {
	fs.StringVar(&o.file, "trace", "", "trace in the Mooncake format, plain or .gz; default is the conversation trace where it is found, else a generated one")
	fs.Float64Var(&o.seconds, "seconds", seconds, "seconds of trace to replay, from its start")
	fs.Float64Var(&o.jitter, "jitter", 0, "add up to so many seconds to each arrival, at random")
	fs.Uint64Var(&o.seed, "arrival-seed", 1, "seed of the jitter and of the generated workload")
}

// load reads the trace, or generates one where none is at hand, and says on standard error which it was.
func (o *traceOptions) load() (workload.Trace, error) {
	length := time.Duration(o.seconds * float64(time.Second))
	if length <= 0 {
		return workload.Trace{}, fmt.Errorf("--seconds %g: must be positive", o.seconds)
	}
	path := o.file
	if path == "" {
		path, _ = workload.Find(".")
	}
	var trace workload.Trace
	if path == "" {
		fmt.Fprintln(os.Stderr, "The public conversation trace is not at hand: a generated workload stands in for it.")
		trace = workload.Generate(length, o.seed)
	} else {
		var err error
		if trace, err = workload.Open(path); err != nil {
			return trace, err
		}
		trace = trace.Slice(0, length)
	}
	if o.jitter > 0 {
		trace = trace.Jitter(time.Duration(o.jitter*float64(time.Second)), o.seed)
	}
	if len(trace.Requests) == 0 {
		return trace, fmt.Errorf("no request in the first %g s of %s", o.seconds, trace.Name)
	}
	return trace, nil
}
