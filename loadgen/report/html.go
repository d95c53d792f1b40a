package report

import (
	_ "embed" // the page's template
	"html/template"
	"io"

	"github.com/warmpath/warmpath/loadgen/workload"
)

//go:embed page.html
var pageText string

type page struct {
	Title    string
	Model    string
	Note     string
	Public   bool // replays the public trace, whose licence asks for a line
	Columns  []string
	Rows     [][]string
	Warnings []string
	Plots    []figure
	Engines  []string
	Legend   []entry
}

type entry struct{ Policy, Colour string }

type figure struct {
	Caption string
	SVG     template.HTML // drawn by us; its only texts are policy names, which the plotter escapes
}

// HTML writes the comparison as one page that needs nothing else.
func (c *Comparison) HTML(w io.Writer) error {
	data := page{
		Title: c.Title(), Model: c.Model, Note: smallProfileNote, Public: c.Trace == workload.Conversation,
		Columns: columns, Rows: c.rows(), Warnings: c.warnings(), Engines: c.Engines,
	}
	for i, a := range c.Arms {
		data.Legend = append(data.Legend, entry{a.Policy, hex(colour(i))})
	}
	for _, f := range []struct {
		caption string
		draw    func() (string, error)
	}{
		{"Time to first token (further left is better)", c.ttftCDF},
		{"Prompt tokens found in the prefix cache", c.hitRatios},
		{"Time to first token over the trace", c.ttftOverTime},
		{"Requests served by each engine", c.requestsPerEngine},
	} {
		drawn, err := f.draw()
		if err != nil {
			return err
		}
		data.Plots = append(data.Plots, figure{Caption: f.caption, SVG: template.HTML(drawn)})
	}
	return execute(w, pageText, data)
}
