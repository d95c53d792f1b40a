package router

import (
	"bytes"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/parity"
)

// readings judge a pool's tokens, for each of the APIs whose prompts are scored.
type readings struct{ completions, chat parity.Judge }

// of returns the judge of an API and its name in metrics; nil for one that is not scored.
func (r *readings) of(kind scorerv1.Kind) (judge *parity.Judge, api string) {
	switch kind {
	case scorerv1.Kind_KIND_COMPLETIONS:
		return &r.completions, "completions"
	case scorerv1.Kind_KIND_CHAT:
		return &r.chat, "chat"
	}
	return nil, ""
}

// trusted keeps a score to itself, as if the tokens were unknown, while the pool's engines count other tokens for this
// API than are foreseen. It goes on to be asked for: what engines count tells when it is right again.
func (rt *router) trusted(q *request, score *scorerv1.ScoreResponse) *scorerv1.ScoreResponse {
	if score == nil || score.Source == "ids" {
		return score
	}
	q.foreseen = int(score.PromptTokens)
	if judge, _ := rt.pool(q.pool.ID).reads.of(q.kind); judge != nil && !judge.Trusted() {
		rt.metrics.unknown.WithLabelValues("tokens differ").Inc()
		return nil
	}
	return score
}

// compare holds the tokens that were foreseen against those that the engine counted, where it has. The engine's count
// for a list of prompts is that of all; the first alone was foreseen.
func (x *exchange) compare() {
	q := x.q
	judge, api := x.pool.reads.of(q.kind)
	if judge == nil || q.foreseen == 0 || x.usage == nil || x.usage.Prompt <= 0 || isList(q.scan.Value("prompt")) {
		return
	}
	outcome, m := "same", x.rt.metrics
	if x.usage.Prompt != q.foreseen {
		outcome = "different"
	}
	m.parity.WithLabelValues(x.pool.id, api, outcome).Inc()
	trusted, changed := judge.Count(q.foreseen, x.usage.Prompt)
	switch {
	case !changed:
	case trusted:
		m.distrusted.WithLabelValues(x.pool.id, api).Set(0)
		x.rt.log.Info("prompts have the tokens that engines count again; they are scored", "pool", x.pool.id, "api", api)
	default:
		m.distrusted.WithLabelValues(x.pool.id, api).Set(1)
		x.rt.log.Error("engines count other tokens than are foreseen in over 1 % of the prompts; they are routed unscored",
			"pool", x.pool.id, "api", api, "foreseen", q.foreseen, "counted", x.usage.Prompt)
	}
}

// isList says that a prompt is a list of texts or of lists.
func isList(prompt []byte) bool {
	prompt = bytes.TrimLeft(prompt, " \t\r\n")
	if len(prompt) == 0 || prompt[0] != '[' {
		return false
	}
	first := bytes.TrimLeft(prompt[1:], " \t\r\n")
	return len(first) > 0 && (first[0] == '"' || first[0] == '[')
}
