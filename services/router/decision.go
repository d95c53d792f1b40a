package router

import (
	"context"
	"log/slog"

	"github.com/warmpath/warmpath/services/router/policy"
)

// decision is a choice as people and the record see it: engines by name, in the order of the pool.
type decision struct {
	line
	engineID string
	ids      []string
	names    []string
}

// line is the decision line; its JSON is stable.
type line struct {
	ID       string             `json:"x-request-id"`
	Model    string             `json:"model"`
	Resolved string             `json:"resolvedTargetModel"`
	Priority int                `json:"priority"`
	Scores   map[string]int     `json:"scores"` // matched blocks by engine name; null when nothing matches
	Costs    map[string]float64 `json:"costs"`
	Chosen   string             `json:"chosen"`
	Reason   string             `json:"reason"`
	Unknown  bool               `json:"unknown"`
	Partial  bool               `json:"partial"`
	Us       stages             `json:"us"`
}

// stages are the times of a decision in microseconds.
type stages struct {
	Tokenize int64 `json:"tokenize"`
	Score    int64 `json:"score"`
	Pick     int64 `json:"pick"`
}

// decided notes a choice. The pool's lock is held.
func (p *pool) decided(q *wish, rows []*row, choice policy.Choice) *decision {
	d := &decision{
		ids: make([]string, len(rows)), names: make([]string, len(rows)),
		engineID: rows[choice.Index].engine.ID,
		line: line{
			Model: q.model, Resolved: q.model, Chosen: rows[choice.Index].engine.Name, Reason: choice.Reason,
			Unknown: q.score == nil, Partial: q.score.GetPartial(),
		},
	}
	for i, w := range rows {
		d.ids[i], d.names[i] = w.engine.ID, w.engine.Name
		if blocks := indexed(q, w.engine.ID); blocks > 0 {
			if d.Scores == nil {
				d.Scores = make(map[string]int)
			}
			d.Scores[w.engine.Name] = blocks
		}
	}
	if choice.Costs != nil {
		d.Costs = make(map[string]float64, len(rows))
		for i, cost := range choice.Costs {
			d.Costs[rows[i].engine.Name] = cost
		}
	}
	return d
}

// log writes the decision line.
func (d *decision) log(ctx context.Context, log *slog.Logger) {
	log.LogAttrs(ctx, slog.LevelInfo, "Got pod scores",
		slog.String("x-request-id", d.ID),
		slog.String("model", d.Model),
		slog.String("resolvedTargetModel", d.Resolved),
		slog.Int("priority", d.Priority),
		slog.Any("scores", d.Scores),
		slog.Any("costs", d.Costs),
		slog.String("chosen", d.Chosen),
		slog.String("reason", d.Reason),
		slog.Bool("unknown", d.Unknown),
		slog.Bool("partial", d.Partial),
		slog.Any("us", d.Us),
	)
}
