package sim

import (
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// BenchmarkSimulate runs a reference workload under our policy; one op is the whole run, its prompts hashed for it
// alone. Rates are for each second of processor time, the garbage collector's included, since a run has one goroutine.
// W8 is an hour of conversations on 16 engines, its arrivals off their grid.
func BenchmarkSimulate(b *testing.B) {
	w1, _ := Find(Catalogue(), "W1")
	benchmarkScene(b, "W1", w1)
	name, trace := "W8-generated", workload.Generate(time.Hour, 1)
	if path, ok := workload.Find("."); ok {
		t, err := workload.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		name, trace = "W8", t
	}
	benchmarkScene(b, name, Replay(name, trace, 16, 1, 3*time.Second))
}

func benchmarkScene(b *testing.B, name string, s Scene) {
	b.Run(name, func(b *testing.B) {
		w := s.Make(1)
		o := s.Fleet
		o.Profile, o.Policy, o.Seed = o.Profile.Scale(s.Scale), "warm", 1
		blocks := 0
		for _, stage := range w.Stages {
			for _, session := range stage.Sessions {
				for _, t := range session.Turns {
					blocks += t.Prompt.Len() / 16
				}
			}
		}
		debug.FreeOSMemory()
		tokens, before := 0, cpu()
		b.ReportAllocs()
		for b.Loop() {
			_, f := runWorld(b, o, &w)
			for i := range f.answers {
				tokens += f.answers[i].output
			}
		}
		spent := (cpu() - before).Seconds()
		b.ReportMetric(spent/float64(b.N), "cpu-s/op")
		b.ReportMetric(float64(tokens)/spent, "decode-tok/s")
		b.ReportMetric(float64(blocks)*float64(b.N)/spent, "prompt-blocks/s")
	})
}

// cpu is the processor time that this process has had.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func runWorld(b *testing.B, o Options, w *Workload) (*Result, *world) {
	o, err := o.withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	f, err := newWorld(o, w)
	if err != nil {
		b.Fatal(err)
	}
	f.run(w)
	return f.result(w), f
}
