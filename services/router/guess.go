package router

import (
	"cmp"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/door"
)

const (
	guessedOutput = 256 // tokens, before any request has ended
	bytesPerToken = 4
)

// cost guesses what a request costs: a token for four bytes, of which as many are cached as usual, and as many come out
// as usual unless the client wants fewer.
func (p *pool) cost(q *request) (g door.Guess) {
	text := q.text()
	if text == nil {
		text = q.body.Raw
	}
	g.Prompt = len(text) / bytesPerToken
	p.mu.Lock()
	g.Uncached = int(float64(g.Prompt) * float64(p.total.uncached+1) / float64(p.total.prompt+1))
	p.mu.Unlock()
	g.Output = cmp.Or(p.Output(), guessedOutput)
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if n, err := openai.ReadInt(q.scan.Value(name)); err == nil && q.scan.Value(name) != nil {
			g.Output = min(g.Output, int(n))
		}
	}
	return g
}
