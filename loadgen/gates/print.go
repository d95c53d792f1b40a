package gates

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes all figures as a table, then what was not run and, once more, what failed, then totals by group of gates.
func (r *Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tFIGURE\tEXPECTED\tGOT\tOFF\tTOLERANCE\tFITTED\tGATE\tNOTE")
	for i := range r.Gates {
		r.Gates[i].print(w, "FAIL")
	}
	for i := range r.Reported {
		r.Reported[i].print(w, "off")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, reason := range r.NotRun {
		fmt.Fprintln(out, "NOT RUN", reason)
	}
	for i := range r.Gates {
		if row := &r.Gates[i]; !row.Pass {
			fmt.Fprintf(out, "FAIL %s: %s: expected %.5g, got %.5g\n", row.ID, row.Name, row.Expected, row.Got)
		}
	}
	for _, group := range []string{"2.1", "2.2", "2.3"} {
		all, passed, fitted := 0, 0, 0
		for i := range r.Gates {
			if row := &r.Gates[i]; strings.HasPrefix(row.ID, group) {
				all, passed, fitted = all+1, passed+count(row.Pass), fitted+count(row.Fitted)
			}
		}
		if all > 0 {
			fmt.Fprintf(out, "%s: %d of %d figures pass; constants were chosen with %d of them in view\n", group, passed, all, fitted)
		}
	}
	return nil
}

func (r *Row) print(w io.Writer, otherwise string) {
	verdict := "pass"
	if !r.Pass {
		verdict = otherwise
	}
	off := ""
	if r.Expected != 0 {
		off = fmt.Sprintf("%+.1f %%", 100*(r.Got/r.Expected-1))
	}
	fitted := ""
	if r.Fitted {
		fitted = "fitted"
	}
	fmt.Fprintf(w, "%s\t%s\t%.5g\t%.5g\t%s\t%.3g %%\t%s\t%s\t%s\n",
		verdict, r.Name, r.Expected, r.Got, off, 100*r.Tolerance, fitted, r.ID, r.Note)
}
