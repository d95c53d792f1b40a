package report

import (
	"cmp"
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"slices"

	"github.com/warmpath/warmpath/loadgen/elastic"
)

//go:embed autoscale.html
var autoscaleText string

// Autoscale is a comparison of autoscalers in virtual time.
type Autoscale struct {
	Header
	SLO     string
	Records []elastic.Record
	Fronts  []elastic.Front
}

// scene is the runs of one workload, start-up time and order of service.
type scene struct {
	Name, What string
	Columns    []string
	Rows       []row
	Verdict    string
	Plots      []figure
	Times      []timeline

	policies  []string // with their variants, ours first
	summaries []elastic.Summary
	records   []elastic.Record
	front     *elastic.Front
}

// row is one policy of a table.
type row struct {
	Ours, Beats bool
	Cells       []string
}

// timeline is one run over time.
type timeline struct {
	Name      string
	Ours      bool
	Plots     []figure
	Decisions []elastic.Decided
}

// HTML writes the page.
func (a *Autoscale) HTML(w io.Writer) error {
	scenes := a.scenes()
	for _, s := range scenes {
		if err := s.draw(); err != nil {
			return fmt.Errorf("draw %s: %w", s.Name, err)
		}
	}
	return execute(w, autoscaleText, struct {
		Header Header
		SLO    string
		Scenes []*scene
	}{a.Header, a.SLO, scenes})
}

// scenes puts records together that can be compared.
func (a *Autoscale) scenes() (all []*scene) {
	at := map[string]*scene{}
	for _, r := range a.Records {
		name := fmt.Sprintf("%s, start-up %g s, service %s", r.Workload, r.Startup, r.Service)
		s := at[name+r.Setup]
		if s == nil {
			s = &scene{Name: name, What: r.Arrivals, Columns: scalingColumns()}
			for i := range a.Fronts {
				if f := &a.Fronts[i]; f.Workload == r.Workload && f.Startup == r.Startup && f.Service == r.Service && f.Setup == r.Setup {
					s.front = f
				}
			}
			at[name+r.Setup] = s
			all = append(all, s)
		}
		s.records = append(s.records, r)
		if p := called(&r); r.Headroom == 0 && !slices.Contains(s.policies, p) {
			s.policies = append(s.policies, p)
		}
	}
	for _, s := range all {
		s.summaries = elastic.Summarize(s.records)
	}
	return all
}

// called is a record's policy with its variant.
func called(r *elastic.Record) string {
	if r.Variant == elastic.Tuned {
		return r.Policy + " (tuned)"
	}
	return r.Policy
}

// figure is one metric of a policy.
func (s *scene) figure(policy, metric string) elastic.Summary {
	i := slices.IndexFunc(s.summaries, func(x elastic.Summary) bool {
		return x.Headroom == 0 && x.Metric == metric && called(&elastic.Record{Policy: x.Policy, Variant: x.Variant}) == policy
	})
	if i < 0 {
		return elastic.Summary{}
	}
	return s.summaries[i]
}

func scalingColumns() []string {
	return []string{"autoscaler", "good", "of feasible", "GPU h", "of ours", "replicas", "flips/h", "worst 5 min", "TTFT p99.9", "lost", "seeds"}
}

// draw makes the tables and figures.
func (s *scene) draw() error {
	s.rows()
	pareto, err := s.pareto()
	if err != nil {
		return err
	}
	s.Plots = append(s.Plots, figure{"Cost and attainment: further left and higher is better", template.HTML(pareto)})
	for _, p := range s.policies {
		i := slices.IndexFunc(s.records, func(r elastic.Record) bool { return called(&r) == p && r.Series != nil })
		if i < 0 {
			continue
		}
		t, err := newTimeline(&s.records[i])
		if err != nil {
			return err
		}
		s.Times = append(s.Times, t)
	}
	return nil
}

// rows makes the table and says where ours loses: to whom keeps more requests at no more cost, or as many at less.
func (s *scene) rows() {
	mine := [2]float64{s.figure(elastic.Ours, "joint_attainment_feasible").Mean, s.figure(elastic.Ours, "gpu_s").Mean}
	var beaten []string
	for _, p := range s.policies {
		good, gpu := s.figure(p, "joint_attainment_feasible"), s.figure(p, "gpu_s")
		r := row{Ours: p == elastic.Ours}
		if mine[1] > 0 && !r.Ours && good.Mean >= mine[0] && gpu.Mean <= mine[1] {
			r.Beats = true
			beaten = append(beaten, p)
		}
		share := "1"
		if gpu.Paired != nil {
			share = fmt.Sprintf("%.2f", gpu.Paired.Share)
		}
		r.Cells = []string{
			p, percent(s.figure(p, "joint_attainment")), percent(good), hours(gpu), share,
			fmt.Sprintf("%.1f", s.figure(p, "avg_replicas").Mean), fmt.Sprintf("%.1f", s.figure(p, "flips_per_h").Mean),
			percent(s.figure(p, "worst_5min")), fmt.Sprintf("%.1f s", s.figure(p, "ttft_p999_s").Mean),
			fmt.Sprintf("%.0f", s.figure(p, "lost_requests").Mean), fmt.Sprint(good.Seeds),
		}
		s.Rows = append(s.Rows, r)
	}
	if len(beaten) > 0 {
		s.Verdict = fmt.Sprintf("Here %s loses to %s: at least as many good answers for no more GPU time.", elastic.Ours, join(beaten))
	}
}

func join(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	text := names[0]
	for _, n := range names[1 : len(names)-1] {
		text += ", " + n
	}
	return text + " and " + names[len(names)-1]
}

// percent is a share with its interval.
func percent(s elastic.Summary) string {
	if s.Seeds > 1 {
		return fmt.Sprintf("%.2f ± %.2f %%", 100*s.Mean, 50*(s.CI95[1]-s.CI95[0]))
	}
	return fmt.Sprintf("%.2f %%", 100*s.Mean)
}

func hours(s elastic.Summary) string {
	if s.Seeds > 1 {
		return fmt.Sprintf("%.1f ± %.1f", s.Mean/3600, (s.CI95[1]-s.CI95[0])/7200)
	}
	return fmt.Sprintf("%.1f", s.Mean/3600)
}

// newTimeline draws one run over time.
func newTimeline(r *elastic.Record) (timeline, error) {
	t := timeline{Name: called(r), Ours: r.Policy == elastic.Ours}
	for _, f := range []struct {
		caption string
		draw    func() (string, error)
	}{
		{"Prefill: replicas, and those that the arrivals keep busy", func() (string, error) { return capacity(r.Series, "prefill") }},
		{"Decode: replicas, and those that the arrivals keep busy", func() (string, error) { return capacity(r.Series, "decode") }},
		{"Good answers, by arrival", func() (string, error) { return attained(r.Series) }},
	} {
		drawn, err := f.draw()
		if err != nil {
			return t, err
		}
		t.Plots = append(t.Plots, figure{f.caption, template.HTML(drawn)})
	}
	if t.Ours {
		t.Decisions = r.Series.Decisions
	}
	return t, nil
}

// byCost orders points for a line.
func byCost(points []elastic.Point) []elastic.Point {
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b elastic.Point) int { return cmp.Compare(a.GPU, b.GPU) })
	return points
}
