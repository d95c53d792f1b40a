package router

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// An API whose prompts have other tokens than engines count is routed unscored until that is over, and no other API is.
func TestTokensThatEnginesDoNotCountAreNotUsed(t *testing.T) {
	g := newRig(t, Config{})
	var source atomic.Value
	source.Store("local")
	g.scorer.say(func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		return &scorerv1.ScoreResponse{
			PromptTokens: 20, BlockSize: 16, Keys: []uint64{1}, Source: source.Load().(string),
			Engines: []*scorerv1.EngineScore{{Engine: "id-a", Gpu: 1, Any: 1}},
		}, nil
	})
	g.addScorer()
	var counted atomic.Int64
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		plain(fmt.Sprintf(`{"usage":{"prompt_tokens":%d,"completion_tokens":1,"total_tokens":1}}`, counted.Load()))(w, r)
	})
	const completions, chat = "/v1/completions", "/v1/chat/completions"
	send := func(path, prompt string) (unknown bool) {
		t.Helper()
		resp, answer := g.post(path, `{"model":"`+model+`",`+prompt+`}`)
		if resp.StatusCode != 200 {
			t.Fatal(answer)
		}
		id := resp.Header.Get("X-Request-Id")
		line := slices.IndexFunc(g.logs.lines("Got pod scores"), func(l map[string]any) bool { return l["x-request-id"] == id })
		return g.logs.lines("Got pod scores")[line]["unknown"].(bool)
	}
	quiet := func(path, prompt string, n int) {
		t.Helper()
		for range n {
			if resp, answer := g.post(path, `{"model":"`+model+`",`+prompt+`}`); resp.StatusCode != 200 {
				t.Fatal(answer)
			}
		}
	}
	distrusted := func() float64 {
		return testutil.ToFloat64(g.rt.metrics.distrusted.WithLabelValues(poolRecord.ID, "completions"))
	}
	const one, messages = `"prompt":"x"`, `"messages":[{"role":"user","content":"x"}]`

	counted.Store(40) // what nobody foresees: lists are counted together, and ids are no reading of ours
	quiet(completions, `"prompt":[ "x","y"]`, 10)
	quiet(completions, `"prompt":[[1],[2]]`, 10)
	source.Store("ids")
	quiet(completions, `"prompt":[1,2]`, 10)
	source.Store("local")
	if send(completions, one) {
		t.Fatal("unscored although nothing can be said against the tokens")
	}
	quiet(completions, one, 4)
	g.eventually("distrust", func() bool { return distrusted() == 1 })
	if !send(completions, one) || send(chat, messages) {
		t.Fatal("completions are scored, or chats are not")
	}
	source.Store("ids")
	if send(completions, `"prompt":[1,2]`) {
		t.Fatal("token ids of the client's own are not used")
	}
	source.Store("local")
	counted.Store(20)
	for range 2000 {
		if quiet(completions, one, 1); distrusted() == 0 {
			break
		}
	}
	if send(completions, one) {
		t.Fatal("unscored although the tokens are right again")
	}
	lost, again := g.logs.lines("engines count other tokens than are foreseen in over 1 % of the prompts; they are routed unscored"),
		g.logs.lines("prompts have the tokens that engines count again; they are scored")
	if len(lost) != 1 || len(again) != 1 || lost[0]["api"] != "completions" || lost[0]["foreseen"] != 20. || lost[0]["counted"] != 40. {
		t.Errorf("logged %v, %v", lost, again)
	}
	if n := testutil.ToFloat64(g.rt.metrics.parity.WithLabelValues(poolRecord.ID, "completions", "different")); n != 6 {
		t.Errorf("%v prompts were counted as different", n)
	}
	g.idle()
}
