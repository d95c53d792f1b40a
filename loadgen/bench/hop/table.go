package hop

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table writes the figures, those with a target beside it.
func (f *Figures) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "body\tconnections\ta second\tdirect p50\tp99\trouted p50\tp99\tscore p50\tp99\tadded p50\tp99\ttarget\trouter CPU\tallocations\terrors\t")
	for _, r := range f.Results {
		fmt.Fprintf(t, "%d\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t%.0f us\t%.0f\t%d\t\n", r.Bytes, r.Connections, r.Rate,
			r.Direct.P50, r.Direct.P99, r.Router.P50, r.Router.P99, r.Score.P50, r.Score.P99, r.Added.P50, r.Added.P99, target(&r),
			r.CPU, r.Allocations, r.Errors)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	f.others(t)
	return t.Flush()
}

// target is what the time that the router adds to such a row is held to, in microseconds.
func target(r *Row) string {
	p50, p99 := 1500.0, 5000.0
	switch {
	case r.Bytes <= 8192:
		p50, p99 = 150, 1000
	case r.Bytes <= 220_000:
		p50, p99 = 800, 3000
	}
	return fmt.Sprintf("<= %.0f; %.0f %s", p50, p99, verdict(r.Added.P50 <= p50 && r.Added.P99 <= p99 && r.Errors == 0))
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func (f *Figures) others(w io.Writer) {
	most := func(what string, value, target float64, unit string) {
		fmt.Fprintf(w, "%s\t%.4g %s\t<= %g %s\t%s\n", what, value, unit, target, unit, verdict(value <= target))
	}
	if f.ChunkUS > 0 {
		most("processor time of an SSE chunk", f.ChunkUS, 10, "us")
	}
	for _, size := range []string{"8192", "220000"} {
		if rps := f.MaxRPS[size]; rps > 0 {
			least := map[string]float64{"8192": 1250, "220000": 250}[size]
			core := f.CoreRPS[size]
			fmt.Fprintf(w, "requests/s of %s bytes, all on this machine\t%.0f, %.1f %% scored late\t\t\n", size, rps, 100*f.Unscored[size])
			fmt.Fprintf(w, "  for each core of the router\t%.0f\t>= %.0f\t%s\n", core, least, verdict(core >= least))
		}
	}
	for _, p := range f.Floors {
		fmt.Fprintf(w, "proxy %q: added at 8192 bytes, p50; p99\t%.0f; %.0f us at %.0f/s\t\t\n", p.Proxy, p.Added.P50, p.Added.P99, p.Rate)
		fmt.Fprintf(w, "  processor time of a request; of an SSE chunk\t%.0f; %.1f us\t\t\n", p.CPU, p.ChunkUS)
	}
	if f.Allocations > 0 {
		fmt.Fprintf(w, "allocations of a request\t%.0f\t\t\n", f.Allocations)
	}
	if f.RequestCPU > 0 {
		most("processor time of 100k tokens in, 1k out", f.RequestCPU, .02, "s")
	}
	if f.IdleCores != nil {
		most("idle, 100 engines", *f.IdleCores, .2, "cores")
	}
	if d := f.Decision; d != nil {
		most("decision, 100 engines, p50", d.P50, 20, "us")
		most("  p99", d.P99, 100, "us")
	}
	if s := f.Streams; s != nil {
		fmt.Fprintf(w, "streams at once\t%d\t\t\n", s.Concurrent)
		fmt.Fprintf(w, "  lost\t%d\t0\t%s\n", s.Lost, verdict(s.Lost == 0))
		fmt.Fprintf(w, "  growth of the router\t%.1f MB\t\t\n", float64(s.Growth)/1e6)
	}
}
