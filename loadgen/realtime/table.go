package realtime

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes the report for a terminal.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintf(t, "%s\t\n", strings.Join(cells, "\t")) }
	row("", "virtual", "real", "ratio")
	v, a := &r.Virtual, &r.Real
	for _, l := range []struct {
		name          string
		virtual, real float64
		unit          string
	}{
		{"TTFT mean", v.TTFTMean, a.TTFTMean, "s"},
		{"TTFT p50", v.TTFTP50, a.TTFTP50, "s"},
		{"TTFT p90", v.TTFTP90, a.TTFTP90, "s"},
		{"TPOT mean", 1000 * v.TPOTMean, 1000 * a.TPOTMean, "ms"},
		{"TPOT p50", 1000 * v.TPOTP50, 1000 * a.TPOTP50, "ms"},
		{"TPOT p90", 1000 * v.TPOTP90, 1000 * a.TPOTP90, "ms"},
		{"hit ratio", 100 * v.HitRatio, 100 * a.HitRatio, "%"},
	} {
		row(l.name, fmt.Sprintf("%.3f %s", l.virtual, l.unit), fmt.Sprintf("%.3f %s", l.real, l.unit),
			fmt.Sprintf("%.4f", ratio(l.real, l.virtual)))
	}
	row("failed", fmt.Sprint(v.Failed), fmt.Sprint(a.Failed), "")
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprintf(w, "requests per engine: virtual %v, real %v\n\n", v.PerEngine, a.PerEngine)
	return r.Explained.table(w, r.Requests)
}

// table says where the difference comes from.
func (e *Explained) table(w io.Writer, requests int) error {
	fmt.Fprintf(w, "%d requests in both; %d of them on the same engine, %d with the same cached tokens. Real less virtual, in ms:\n",
		requests, e.SameEngine, e.SameHit)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tmean\tp10\tp50\tp90\tp99\tmax\t")
	for _, l := range []struct {
		name string
		s    *Spread
	}{
		{"TTFT, front end in both", &e.TTFT},
		{"  sent late", &e.Late},
		{"  path to the engine", &e.Path},
		{"  in the engine and back", &e.Rest},
		{"TPOT", &e.TPOT},
		{"steps ended late", &e.Steps},
	} {
		s := l.s
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t\n", l.name, s.Mean, s.P10, s.P50, s.P90, s.P99, s.Max)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprint(w, "The means of the three indented lines, less the front end, add up to that of TTFT.\n\npath by prompt")
	for _, p := range e.ByPrompt {
		bound := fmt.Sprintf("up to %d", p.Tokens)
		if p.Tokens == 0 {
			bound = "longer"
		}
		fmt.Fprintf(w, "  %s: %.2f ms (%d)", bound, p.Mean, p.Requests)
	}
	p := &e.Process
	_, err := fmt.Fprintf(w, `
front end      %.2f ms from client to queue and back on idle engines, measured before; in virtual time a part of each TTFT
router stages  read %.2f, score %.2f, pick %.3f ms, on average
processors     %.2f busy with this process (%.2f of them collecting garbage), %.2f with others
goroutines     waited for a processor %.3f ms (p50), %.2f ms (p99); longest stop for garbage %.2f ms
`, e.FrontEnd, e.Stages.Read, e.Stages.Score, e.Stages.Pick, p.Cores, p.GCCores, p.OtherCores, p.RunQueue50, p.RunQueue99, p.GCPause)
	return err
}
