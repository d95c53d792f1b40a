package plane

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table writes the figures, each beside its target on two quiet cores, and whether it was met.
func (f *Figures) Table(w io.Writer) error {
	t := &table{Writer: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row("", "measured", "target", "")
	if f.Live != nil {
		f.Live.rows(t)
	}
	if f.Streams != nil {
		f.Streams.rows(t)
	}
	if f.Shard != nil {
		f.Shard.rows(t)
	}
	if f.Restart != nil {
		f.Restart.rows(t)
	}
	if f.Takeover != nil {
		f.Takeover.rows(t)
	}
	return t.Flush()
}

type table struct{ *tabwriter.Writer }

func (t *table) row(what, measured, target, verdict string) {
	fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", what, measured, target, verdict)
}

func (t *table) note(what, format string, values ...any) {
	t.row(what, fmt.Sprintf(format, values...), "", "")
}

// most is a row whose value must not exceed a target.
func (t *table) most(what string, value, target float64, unit string) {
	t.row(what, fmt.Sprintf("%.2f %s", value, unit), fmt.Sprintf("<= %g %s", target, unit), verdictOf(value <= target))
}

// must is a row that has to hold.
func (t *table) must(what string, holds bool) {
	t.row(what, fmt.Sprint(holds), "true", verdictOf(holds))
}

func verdictOf(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func (r *Live) rows(t *table) {
	t.note("live: engines, each with a real publisher", "%d", r.Engines)
	t.note("  block operations and batches a second, for", "%.0f, %.0f, %.0f s", r.Ops, r.batches, r.Seconds)
	t.most("  received -> visible, p50", r.Lag.P50, 5, "ms")
	t.most("  p99", r.Lag.P99, 25, "ms")
	t.note("  max", "%.2f ms", r.Lag.Max)
	t.note("  "+r.Cores.String(), "")
	t.note("  bytes an operation: vLLM's", "%.1f B", r.Bytes.VLLM)
	t.note("  messages of the log a second, and what the store adds to each", "%.0f, %.0f B", r.messages, r.added)
	t.most("  stored, deltas", r.Bytes.Deltas, 16, "B")
	t.most("  stored, all", r.Bytes.NATS, 24, "B")
	t.note("  of it snapshots", "%.1f B", r.snapshot)
	t.must("  nothing lost", r.Lost == 0)
	t.must("  index equals truth", r.Equal)
}
