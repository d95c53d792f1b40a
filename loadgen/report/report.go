// Package report compares policies that served the same workload: a table for the terminal, figures for programs, and
// one self-contained page of HTML with plots.
//
// It computes nothing that run.Summary does not say, draws no conclusions, and loads nothing from anywhere: the page
// has no script, and its plots are SVG inside it.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Comparison is what the arms of a comparison have in common, and the arms.
type Comparison struct {
	Trace     string  // workload.Conversation, workload.Generated, or a file's name
	Seconds   float64 // of the trace that were replayed
	TimeScale float64
	Model     string   // name of the engines' profile
	KVTokens  int      // KV cache of one engine
	Engines   []string // names, in the order of the plots
	Arms      []Arm
}

// Arm is the run of one policy.
type Arm struct {
	Policy string
	Result *run.Result
}

// Demo is the part of bench/demo.json that the comparison knows.
type Demo struct {
	Trace         string                 `json:"trace"`
	ArrivalsEqual bool                   `json:"arrivals_equal"` // every arm had the same requests at the same times
	Policies      map[string]run.Summary `json:"policies"`
	Report        string                 `json:"report"` // path of the page
}

// Demo returns the figures; page is where the HTML lies.
func (c *Comparison) Demo(page string) Demo {
	d := Demo{Trace: c.Trace, ArrivalsEqual: c.ArrivalsEqual(), Policies: map[string]run.Summary{}, Report: page}
	for _, a := range c.Arms {
		d.Policies[a.Policy] = a.Result.Summary(c.Engines...)
	}
	return d
}

// ArrivalsEqual says whether all arms had the same requests due at the same times.
func (c *Comparison) ArrivalsEqual() bool {
	same := func(a, b run.Outcome) bool { return a.Request == b.Request && a.Intended == b.Intended }
	for _, a := range c.Arms {
		if !slices.EqualFunc(a.Result.Outcomes, c.Arms[0].Result.Outcomes, same) {
			return false
		}
	}
	return true
}

// smallProfileNote goes with every comparison, so that nobody takes the demo's gap for that of another machine.
const smallProfileNote = "How much warm routing gains depends on the size of the caches. " +
	"Engines with 307k KV tokens, as Qwen3-32B has on two H100, keep fewer conversations: there the gap is smaller."

// Title says what was replayed and how.
func (c *Comparison) Title() string {
	kind := "trace " + c.Trace
	if c.Trace == workload.Generated {
		kind = "generated workload (a stand-in, not the public trace)"
	}
	return fmt.Sprintf("%s, %.0f s of it at time scale %g, %d engines of %s KV tokens", kind, c.Seconds, c.TimeScale, len(c.Engines), thousands(c.KVTokens))
}

// columns of both tables; each row is one policy.
var columns = []string{"policy", "requests", "errors", "hit ratio", "TTFT p50", "TTFT p90", "ITL p50", "output tok/s", "busiest/mean", "requests per engine"}

func (c *Comparison) rows() [][]string {
	var rows [][]string
	for _, a := range c.Arms {
		s := a.Result.Summary(c.Engines...)
		rows = append(rows, []string{
			a.Policy, thousands(s.Requests), thousands(s.Errors), fmt.Sprintf("%.1f %%", 100*s.HitRatio),
			seconds(s.TTFTP50), seconds(s.TTFTP90), fmt.Sprintf("%.1f ms", 1000*s.ITLP50),
			thousands(int(s.OutputTok + .5)), imbalance(s.PerEngine), strings.Trim(fmt.Sprint(s.PerEngine), "[]"),
		})
	}
	return rows
}

// Table writes the comparison for a terminal.
func (c *Comparison) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s; times are unscaled\n\n", c.Title())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range append([][]string{columns}, c.rows()...) {
		fmt.Fprintf(t, "%s\t\n", strings.Join(row, "\t"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, warning := range c.warnings() {
		fmt.Fprintf(w, "\nwarning: %s\n", warning)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", smallProfileNote)
	return err
}

// warnings say what makes the comparison less than fair or exact.
func (c *Comparison) warnings() (out []string) {
	if !c.ArrivalsEqual() {
		out = append(out, "the arms did not have the same requests at the same times")
	}
	for _, a := range c.Arms {
		if s := a.Result.Summary(); s.Late > 0 {
			out = append(out, fmt.Sprintf("%s: %d requests were sent late, by %s at most; TTFT counts from when they were due", a.Policy, s.Late, seconds(s.LateMaxS)))
		}
	}
	return out
}

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0f ms", 1000*s)
	}
	return fmt.Sprintf("%.2f s", s)
}

func imbalance(perEngine []int) string {
	sum, most := 0, 0
	for _, n := range perEngine {
		sum, most = sum+n, max(most, n)
	}
	if sum == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(most*len(perEngine))/float64(sum))
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
