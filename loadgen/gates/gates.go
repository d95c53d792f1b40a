// Package gates holds the simulator to account: its invariants and closed forms, times measured on real GPUs, and the
// published results of other people's routing policies. Each gate is an experiment that yields figures, and each figure
// has an expected value and a tolerance that were set before it was measured.
//
// A figure that fails stays failed. Whether a constant of the simulator was chosen with that very figure in view is
// said of each (Row.Fitted): what was fitted shows that the model can describe the measurement, not that it predicts it.
package gates

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Row is one figure. Rows of one gate share its id and differ in name.
type Row struct {
	ID       string  `json:"id"`
	Name     string  `json:"name"`
	Expected float64 `json:"expected"`
	// Got is what was found. Where a measurement need only lie in a range of results it is the result that is nearest.
	Got       float64 `json:"got"`
	Tolerance float64 `json:"tolerance"` // largest |Got-Expected| that passes, as a share of Expected
	Pass      bool    `json:"pass"`
	Fitted    bool    `json:"fitted"` // a constant was chosen with this figure in view
	// Note is what a reader of the table wants beside the figure.
	Note string `json:"-"`
}

// Gate is one experiment. Only one of Run and Missing is set.
type Gate struct {
	ID      string
	Weight  float64 // seconds on one core, roughly
	Missing string  // why it cannot be run
	// Run makes the experiment, in the same way each time.
	Run func() ([]Row, error)
	// Reported gates are run and shown, but nothing hangs on them.
	Reported bool
}

// Result is what came of gates.
type Result struct {
	Gates    []Row    `json:"gates"`
	Reported []Row    `json:"reported,omitempty"` // nothing hangs on these
	NotRun   []string `json:"not_run,omitempty"`  // ids, each with the reason
}

// Failed counts the gated figures that do not pass.
func (r *Result) Failed() (n int) {
	for i := range r.Gates {
		if !r.Gates[i].Pass {
			n++
		}
	}
	return n
}

// Run runs gates, as many at once as there are processors and the longest first, and returns their rows in the order
// of the gates. A gate that ends in an error is a row that failed. done, if not nil, is told after each gate; it may
// be called from several goroutines. The error is ctx's.
func Run(ctx context.Context, all []Gate, done func(*Gate)) (*Result, error) {
	rows := make([][]Row, len(all))
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(all[b].Weight, all[a].Weight) })
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range order {
		g := &all[i]
		if g.Missing != "" {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rows[i] = g.rows()
			if done != nil {
				done(g)
			}
			return nil
		})
	}
	err := group.Wait()
	return gather(all, rows), err
}

func (g *Gate) rows() []Row {
	rows, err := g.Run()
	if err != nil {
		rows = append(rows, Row{ID: g.ID, Name: "the experiment can be made", Expected: 1, Note: err.Error()})
	}
	for i := range rows {
		rows[i].ID = cmp.Or(rows[i].ID, g.ID)
	}
	return rows
}

func gather(all []Gate, rows [][]Row) *Result {
	r := &Result{Gates: []Row{}}
	for i := range all {
		switch g := &all[i]; {
		case g.Missing != "":
			r.NotRun = append(r.NotRun, g.ID+": "+g.Missing)
		case g.Reported:
			r.Reported = append(r.Reported, rows[i]...)
		default:
			r.Gates = append(r.Gates, rows[i]...)
		}
	}
	return r
}

// Only returns the gates whose id begins with one of the prefixes in a list divided by commas; of an empty list, all.
// 2.1.1 is not the beginning of 2.1.10.
func Only(all []Gate, list string) []Gate {
	return slices.DeleteFunc(slices.Clone(all), func(g Gate) bool {
		for prefix := range strings.SplitSeq(list, ",") {
			rest, ok := strings.CutPrefix(g.ID, prefix)
			if ok && (prefix == "" || rest == "" || rest[0] == '.' || rest[0] == '/' || strings.HasSuffix(prefix, "/")) {
				return false
			}
		}
		return true
	})
}

// near is a figure that is to be within a share of what is expected; 0 is exactly that.
func near(name string, expected, got, tolerance float64) Row {
	return Row{
		Name: name, Expected: expected, Got: got, Tolerance: tolerance,
		Pass: math.Abs(got-expected) <= tolerance*math.Abs(expected),
	}
}

// between is a figure that is to lie in a range; expected is its middle.
func between(name string, low, high, got float64) Row {
	middle := (low + high) / 2
	r := near(name, middle, got, (high-low)/2/middle)
	r.Pass = got >= low && got <= high
	return r
}

// none is a count of what must not happen.
func none(name string, got int) Row { return near(name, 0, float64(got), 0) }

// holds is a statement, 1 where it is true.
func holds(name string, ok bool, format string, args ...any) Row {
	got := 0.
	if ok {
		got = 1
	}
	r := near(name, 1, got, 0)
	r.Note = fmt.Sprintf(format, args...)
	return r
}
