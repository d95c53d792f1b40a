package decide_test

import (
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func TestSentences(t *testing.T) {
	at := time.Date(2026, 1, 1, 10, 0, 5, 0, time.UTC)
	d := decide.Decision{
		At: at, Mode: decide.Shadow, Blind: "1 of 2 routers report: none is taken away", Ages: decide.Ages{Routers: 1, Engines: 2.1, Cluster: -1},
		Roles: map[decide.Role]decide.RoleDecision{
			decide.Prefill: {
				Now: 4, Need: 7, Target: 6, Rule: "budget", Candidates: []decide.Candidate{{Rule: "arrivals", N: 5}, {Rule: "held", N: 7}},
				Blocked: []string{"1 more: the budget is 20 GPUs"}, Short: 1,
				Demand: decide.Demand{Arrivals: 25, Tokens: 50_000, Busy: 3.5, Forecast: 3.6, Held: 5.2, Burst: 1.5, Infeasible: .04},
				Model: decide.Learned{
					Model: decide.Model{Overhead: .015, Rate: 16_000}, Startup: 121, Confidence: .87,
				},
				Predicted: []decide.Prediction{{N: 5, Violations: .12}, {N: 6, Violations: .031}, {N: 7, Violations: .006}},
				Realised:  &decide.Realised{At: at.Add(-2 * time.Minute), Forecast: 3.4, Came: 3.52},
			},
			decide.Decode: {Now: 3, Need: 3, Target: 3, Rule: "blind", Blocked: []string{"no router was heard"}},
		},
	}
	want := `At 10:00:05 chat goes up from 4 to 6 replicas for prefill: rule "budget" asks for 7; shadow mode, so nothing is ordered.
Not all is seen: 1 of 2 routers report: none is taken away.
The routers were heard 1.0 s ago, the engines 2.1 s ago, what runs was read never.
25.0 requests/s bring 50000 uncached tokens/s, work for 3.50 replicas; 3.60 are foreseen, 5.20 were at most of late, and arrivals vary 1.5 times as much as by chance.
A replica computes 16000 tokens/s beside 15 ms a prompt; it starts in 121 s; 87 % of this is learned.
Rule "arrivals" asks for 5, "held" asks for 7.
4 % of the prompts are too long to be served in time by any number of replicas; none is added for them.
Not done: 1 more: the budget is 20 GPUs.
Predicted to miss the objective: 12.0 % with 5, 3.1 % with 6, 0.6 % with 7.
The decision of 09:58:05 foresaw 3.40 busy replicas for now; 3.52 came.`
	if got := strings.Join(d.Sentences("chat", decide.Prefill), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `At 10:00:05 chat stays at 3 replicas for decode: rule "blind"; shadow mode, so nothing is ordered.
Not all is seen: 1 of 2 routers report: none is taken away.
The routers were heard 1.0 s ago, the engines 2.1 s ago, what runs was read never.
Not done: no router was heard.`
	if got := strings.Join(d.Sentences("chat", decide.Decode), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := d.Sentences("chat", decide.Both); got != nil {
		t.Errorf("a role that it is not about: %q", got)
	}
}

// Every decision of a pool in its stride explains itself whole.
func TestDecisionsExplainThemselves(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(2, 2))
	p.run(10*time.Minute, steady())
	for _, role := range []decide.Role{decide.Prefill, decide.Decode} {
		text := strings.Join(p.last.Sentences("chat", role), "\n")
		for _, words := range []string{"requests/s", "A replica", "asks for", "Predicted to miss", "foresaw", "heard 1.0 s ago"} {
			if !strings.Contains(text, words) {
				t.Errorf("%s: no %q in\n%s", role, words, text)
			}
		}
	}
}
