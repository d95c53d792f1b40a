package router

import (
	"context"
	"log/slog"

	"github.com/warmpath/warmpath/services/router/ledger"
)

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
	Split    *splitLine         `json:"split,omitempty"` // where the pool has engines that compute prompts for others
	Us       stages             `json:"us"`
}

// stages are the times of a decision in microseconds.
type stages struct {
	Tokenize int64 `json:"tokenize"`
	Score    int64 `json:"score"`
	Pick     int64 `json:"pick"`
}

// newLine says what the ledger decided on a wish: engines by name.
func newLine(w *ledger.Wish, d *ledger.Decision) line {
	l := line{
		Model: w.Model, Resolved: w.Model, Chosen: d.Engine.Name, Reason: string(d.Reason),
		Unknown: w.Score == nil, Partial: w.Score.GetPartial(),
	}
	if d.Costs != nil {
		l.Costs = make(map[string]float64, len(d.Names))
	}
	for i, name := range d.Names {
		if d.Costs != nil {
			l.Costs[name] = d.Costs[i]
		}
		if d.Matched[i] > 0 {
			if l.Scores == nil {
				l.Scores = make(map[string]int)
			}
			l.Scores[name] = d.Matched[i]
		}
	}
	return l
}

// log writes the decision line.
func (l *line) log(ctx context.Context, log *slog.Logger) {
	attrs := []slog.Attr{
		slog.String("x-request-id", l.ID),
		slog.String("model", l.Model),
		slog.String("resolvedTargetModel", l.Resolved),
		slog.Int("priority", l.Priority),
		slog.Any("scores", l.Scores),
		slog.Any("costs", l.Costs),
		slog.String("chosen", l.Chosen),
		slog.String("reason", l.Reason),
		slog.Bool("unknown", l.Unknown),
		slog.Bool("partial", l.Partial),
		slog.Any("us", l.Us),
	}
	if l.Split != nil {
		attrs = append(attrs, slog.Any("split", l.Split))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "Got pod scores", attrs...)
}
