package router

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"strconv"

	"github.com/warmpath/warmpath/services/router/ledger"
)

// line is the decision line; its JSON is stable.
type line struct {
	ID       string          `json:"x-request-id"`
	Model    string          `json:"model"`
	Resolved string          `json:"resolvedTargetModel"`
	Priority int             `json:"priority"`
	Scores   json.RawMessage `json:"scores"` // matched blocks by engine name; null when nothing matches
	Costs    json.RawMessage `json:"costs"`  // seconds by engine name; null from a policy without prices
	Chosen   string          `json:"chosen"`
	Reason   string          `json:"reason"`
	Unknown  bool            `json:"unknown"`
	Partial  bool            `json:"partial"`
	Split    *splitLine      `json:"split,omitempty"` // where the pool has engines that compute prompts for others
	Us       stages          `json:"us"`
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
	l.Scores = byName(d.Names, func(dst []byte, i int) []byte {
		if d.Matched[i] == 0 {
			return nil
		}
		return strconv.AppendInt(dst, int64(d.Matched[i]), 10)
	})
	if d.Costs != nil {
		l.Costs = byName(d.Names, func(dst []byte, i int) []byte { return appendFloat(dst, d.Costs[i]) })
	}
	return l
}

// byName is the JSON object of what value appends for each name, without those for which it returns nil; nil when none
// is left. It is written for the log and for the record at once: as maps of a hundred engines they would cost more than
// the decision.
func byName(names []string, value func(dst []byte, i int) []byte) json.RawMessage {
	object := make([]byte, 0, 40*len(names))
	for i, name := range names {
		start := len(object)
		object = append(object, ',')
		object = appendName(object, name)
		object = append(object, ':')
		if with := value(object, i); with != nil {
			object = with
		} else {
			object = object[:start]
		}
	}
	if len(object) == 0 {
		return nil
	}
	object[0] = '{'
	return append(object, '}')
}

// appendName appends a JSON string.
func appendName(dst []byte, name string) []byte {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(name) // a string: cannot fail
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), name...), '"')
}

// appendFloat appends a JSON number to six digits, or null for what is none.
func appendFloat(dst []byte, v float64) []byte {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, v, 'g', 6, 64)
}

// log writes the decision line.
func (l *line) log(log *slog.Logger) {
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
		{Key: "us", Value: slog.GroupValue(slog.Int64("tokenize", l.Us.Tokenize), slog.Int64("score", l.Us.Score), slog.Int64("pick", l.Us.Pick))},
	}
	if l.Split != nil {
		attrs = append(attrs, slog.Any("split", l.Split))
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "Got pod scores", attrs...)
}
