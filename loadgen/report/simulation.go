package report

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/warmpath/warmpath/loadgen/sim"
)

//go:embed simulation.html
var simulationText string

// Page is a page of HTML that needs nothing else.
type Page interface{ HTML(w io.Writer) error }

// Simulation is a comparison of policies in virtual time.
type Simulation struct {
	Header
	SLO   sim.SLO
	Parts []Part
}

// Part is one workload on one fleet.
type Part struct {
	Name, What string
	Setup      sim.Setup
	Records    []sim.Record // of all policies and seeds
}

// section is a part as the page shows it.
type section struct {
	Name, What, Fleet string
	Columns           []string
	Rows              [][]string
	Legend            []entry
	Left              string // policies that the lines leave out
	Plots             []figure
	Loads             []figure
}

// HTML writes the page.
func (s *Simulation) HTML(w io.Writer) error {
	data := struct {
		Header   Header
		SLO      string
		Sections []section
	}{Header: s.Header, SLO: fmt.Sprintf("%v to the first token, %v between two tokens", s.SLO.TTFT, s.SLO.ITL)}
	for i := range s.Parts {
		section, err := s.Parts[i].section()
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.Parts[i].Name, err)
		}
		data.Sections = append(data.Sections, section)
	}
	return execute(w, simulationText, data)
}

func execute(w io.Writer, text string, data any) error {
	t, err := template.New("page").Parse(text)
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	if _, err := t.New("style").Parse(styleText); err != nil {
		return fmt.Errorf("read style: %w", err)
	}
	if err := t.Execute(w, data); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

//go:embed style.html
var styleText string

func (p *Part) section() (section, error) {
	v := newView(p)
	s := section{Name: p.Name, What: p.What, Fleet: p.fleet(), Columns: simColumns(), Rows: v.rows(), Legend: v.legend()}
	s.Left = strings.Join(v.left, ", ")
	for _, f := range []struct {
		caption string
		draw    func() (string, error)
	}{
		{"Median time to first token against offered load", v.ttft(func(p *sim.Point) float64 { return p.TTFTP50 })},
		{"90th percentile of time to first token against offered load", v.ttft(func(p *sim.Point) float64 { return p.TTFTP90 })},
		{"Output tokens: difference to warm, on the same arrivals", v.throughputAgainstWarm},
		{"Goodput: difference to warm, on the same arrivals", v.goodputAgainstWarm},
		{"Prompt tokens found in the prefix cache", v.hits},
		{"Goodput", v.goodput},
	} {
		drawn, err := f.draw()
		if err != nil {
			return s, err
		}
		if drawn != "" {
			s.Plots = append(s.Plots, figure{f.caption, template.HTML(drawn)})
		}
	}
	var err error
	s.Loads, err = v.loads()
	return s, err
}

// fleet says what the policies ran on.
func (p *Part) fleet() string {
	o, roles := p.Setup.Fleet, ""
	if o.Prefill+o.Decode > 0 {
		roles = fmt.Sprintf(" (%d for prefill, %d for decode)", o.Prefill, o.Decode)
	}
	said := []string{
		fmt.Sprintf("%d engines of %s%s", o.Engines(), o.Profile.Name, roles),
		fmt.Sprintf("%s KV tokens each in blocks of %d", thousands(int(float64(o.Profile.KVTokens)*o.KV)), o.BlockSize),
		fmt.Sprintf("step times x%g", p.Setup.Scale), fmt.Sprintf("index lag %v", o.Lag),
	}
	if o.Loss > 0 {
		said = append(said, fmt.Sprintf("%g %% of event batches lost", 100*o.Loss))
	}
	if len(o.Slow) > 0 {
		said = append(said, fmt.Sprintf("%d slow", len(o.Slow)))
	}
	return strings.Join(said, ", ") + ". Arrivals: " + p.Setup.Arrivals + "."
}

// view is a part with what its plots share.
type view struct {
	part     *Part
	summary  []sim.Summary
	policies []string // warm first, then by the main metric, best first
	shown    []string // of these, the ones that have lines
	left     []string
	colours  map[string]int
	main     string // metric that orders policies
}

const mostLines = 7

func newView(p *Part) *view {
	v := &view{part: p, summary: sim.Summarize(p.Records), main: "goodput"}
	if len(p.Records) > 0 && len(p.Records[0].ByLoad) > 0 && p.Records[0].ByLoad[0].OutputTokS > 0 {
		v.main = "output_tok_s" // stages, most of them above what the fleet can serve
	}
	for _, r := range p.Records {
		if !slices.Contains(v.policies, r.Policy) {
			v.policies = append(v.policies, r.Policy)
		}
	}
	slices.SortStableFunc(v.policies, func(a, b string) int {
		switch {
		case a == ours:
			return -1
		case b == ours:
			return 1
		}
		x, y := v.figure(a, v.main).Mean, v.figure(b, v.main).Mean
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	v.shown, v.left = choose(v.policies)
	v.colours = paint(v.shown)
	return v
}

// choose picks what has lines where there are too many for the eye: ours, the simplest two and the best of the others.
func choose(policies []string) (shown, left []string) {
	if len(policies) <= mostLines {
		return policies, nil
	}
	keep := map[string]bool{ours: true, "least-tokens": true, "round-robin": true}
	n := 0
	for _, p := range policies {
		if keep[p] {
			n++
		}
	}
	for _, p := range policies {
		if !keep[p] && p != "oracle" && n < mostLines {
			keep[p] = true
			n++
		}
	}
	for _, p := range policies {
		if keep[p] {
			shown = append(shown, p)
		} else {
			left = append(left, p)
		}
	}
	return shown, left
}

func (v *view) figure(policy, metric string) sim.Summary {
	i := slices.IndexFunc(v.summary, func(s sim.Summary) bool { return s.Policy == policy && s.Metric == metric })
	if i < 0 {
		return sim.Summary{}
	}
	return v.summary[i]
}

func (v *view) legend() (all []entry) {
	for _, p := range v.shown {
		all = append(all, entry{p, hex(colours[v.colours[p]])})
	}
	return all
}

func simColumns() []string {
	return []string{"policy", "output tok/s", "goodput", "TTFT p50", "TTFT p90", "TTFT p99", "TPOT", "hit ratio", "busiest/mean", "seeds"}
}

func (v *view) rows() (rows [][]string) {
	for _, p := range v.policies {
		f := func(metric, format string) string {
			s := v.figure(p, metric)
			text := fmt.Sprintf(format, s.Mean)
			if half := (s.CI95[1] - s.CI95[0]) / 2; s.Seeds > 1 {
				text += " ± " + fmt.Sprintf(format, half)
			}
			return text
		}
		tokens := v.figure(p, "output_tok_s")
		output := thousands(int(tokens.Mean + .5))
		if tokens.Seeds > 1 {
			output += " ± " + thousands(int((tokens.CI95[1]-tokens.CI95[0])/2+.5))
		}
		rows = append(rows, []string{p, output, f("goodput", "%.4f"), seconds(v.figure(p, "ttft_p50_s").Mean),
			seconds(v.figure(p, "ttft_p90_s").Mean), seconds(v.figure(p, "ttft_p99_s").Mean),
			fmt.Sprintf("%.1f ms", 1000*v.figure(p, "tpot_mean_s").Mean), f("hit_ratio", "%.3f"),
			fmt.Sprintf("%.2f", v.figure(p, "busy_max_over_mean").Mean), fmt.Sprint(tokens.Seeds)})
	}
	return rows
}
