package bench

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
)

// Table writes the figures, taken with so many rows, a line a rival, and then how the stand-ins compare with their originals.
func Table(w io.Writer, figures []Figures, rows int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "match of 500 blocks, us\tsame depth\tsame, hot\t16 depths\tmiss\tallocs\t1 core, /s\t2 cores\tbeside writer p50\tp99\twritten/s\t")
	for _, f := range figures {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.0f\t%d\tx%.2f\t%s\t%s\t%d\t\n", f.Rival, short(f.MatchUS.Same), short(f.MatchUS.Hot),
			short(f.MatchUS.Distinct), short(f.MatchUS.Miss), f.Allocs, f.PerS[0], ratio(float64(f.PerS[1]), float64(f.PerS[0])),
			short(f.Beside.P50US), short(f.Beside.P99US), f.Beside.WrittenPerS)
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "a (block, engine)\tstore, ns\tremove\tmixed\tstore, 16 engines\tB, 1 holder\tB, 16\tGC ms cpu, 1\t16\tdrop, ms\tfreed, ms\twrong in order 8 / 16 engines\twith holes\t")
	for _, f := range figures {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s / %s\t%s\t\n", f.Rival, short(f.ApplyNS.Store), short(f.ApplyNS.Remove),
			short(f.ApplyNS.Mixed), short(f.ApplyNS.Shared), short(f.One.Bytes), short(f.Sixteen.Bytes), short(f.One.GCCPU), short(f.Sixteen.GCCPU),
			short(f.DropMS), short(f.SweepMS), percent(f.InOrder8), percent(f.InOrder16), percent(f.Holes8))
	}
	if reaches := Reaches(figures, rows); len(reaches) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "stand-in\tfigure\toriginal, measured elsewhere\there\tof it\t")
		for _, r := range reaches {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t\n", r.Rival, r.Figure, short(r.Elsewhere), short(r.Here), ratio(r.Here, r.Elsewhere))
		}
	}
	return t.Flush()
}

// short has three digits that count.
func short(v float64) string {
	if v == 0 {
		return "-"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return strconv.FormatFloat(v, 'f', min(digits, 4), 64)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func percent(v Verdict) string {
	if v.Wrong == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f %%", 100*v.Share)
}
