package router

import (
	"context"
	"log/slog"

	"github.com/warmpath/warmpath/services/router/policy"
)

// decision is a choice as people and the record see it: engines by name.
type decision struct {
	line
	engineID string
	seen     []seenEngine
}

// seenEngine is a candidate as it was when the choice was made.
type seenEngine struct {
	name    string
	matched int // blocks that the index says it holds
	cost    float64
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

// decided notes a choice. The pool's lock is held, so it only copies; tell does the rest.
func (p *pool) decided(rows []*row, choice policy.Choice) *decision {
	w := rows[choice.Index]
	d := &decision{engineID: w.engine.ID, seen: make([]seenEngine, len(rows))}
	d.Chosen, d.Reason = w.engine.Name, choice.Reason
	for i, w := range rows {
		d.seen[i] = seenEngine{name: w.engine.Name, matched: p.matched[i]}
		if choice.Costs != nil {
			d.seen[i].cost = choice.Costs[i]
		}
	}
	if choice.Costs != nil {
		d.Costs = make(map[string]float64, 0)
	}
	return d
}

// tell fills in what the line says; no lock is needed.
func (d *decision) tell(q *wish) {
	d.Model, d.Resolved = q.model, q.model
	d.Unknown, d.Partial = q.score == nil, q.score.GetPartial()
	for _, e := range d.seen {
		if d.Costs != nil {
			d.Costs[e.name] = e.cost
		}
		if e.matched > 0 {
			if d.Scores == nil {
				d.Scores = make(map[string]int)
			}
			d.Scores[e.name] = e.matched
		}
	}
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
