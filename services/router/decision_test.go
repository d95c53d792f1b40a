package router

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/scorers"
)

// scoreOf answers with n keys of a prompt, held to a depth by each engine.
func scoreOf(n int, held map[string]uint32) func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	return func(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		resp := &scorerv1.ScoreResponse{
			PromptTokens: uint32(16*n + 3), BlockSize: 16, Source: "tokenize", TokenizeUs: 77,
			Shards: []*scorerv1.Shard{{Member: "i1", Buckets: ^uint64(0), Applied: 41, Begun: 42}},
		}
		for i := range n {
			resp.Keys = append(resp.Keys, uint64(i)<<8|uint64(r.Spans[0].Value[1]))
		}
		for e, blocks := range held {
			resp.Engines = append(resp.Engines, &scorerv1.EngineScore{Engine: e, Gpu: blocks, Any: blocks, Generation: 1, Visible: 100})
		}
		return resp, nil
	}
}

func TestTheWarmEngineIsChosenAndTheDecisionExplained(t *testing.T) {
	g := newRig(t, Config{})
	for _, name := range []string{"a", "b", "c"} {
		g.addEngine(name, plain(okAnswer))
	}
	g.addScorer()
	var spans []*scorerv1.Span
	answer := scoreOf(200, map[string]uint32{"id-b": 150, "id-c": 20})
	g.scorer.say(func(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		spans = r.Spans
		return answer(r)
	})
	body := `{"model":"` + model + `", "tools": [ {} ],"messages":[ {"role":"user", "content":"caf\u00e9"} ]}`
	resp, _ := g.post("/v1/chat/completions", body, func(r *http.Request) { r.Header.Set("X-Request-Id", "me") })
	if e := resp.Header.Get("X-Warmpath-Engine"); e != "b" {
		t.Errorf("chose %s", e)
	}
	if len(spans) != 2 || string(spans[0].Value) != `[ {"role":"user", "content":"caf\u00e9"} ]` || spans[1].Name != "tools" {
		t.Errorf("spans %v", spans)
	}
	lines := g.logs.lines("Got pod scores")
	if len(lines) != 1 {
		t.Fatalf("%d decision lines", len(lines))
	}
	line := lines[0]
	scores, us, costs := line["scores"].(map[string]any), line["us"].(map[string]any), line["costs"].(map[string]any)
	if line["x-request-id"] != "me" || line["model"] != model || line["resolvedTargetModel"] != model || line["priority"] != 0. ||
		len(scores) != 2 || scores["b"] != 150. || scores["c"] != 20. || line["chosen"] != "b" || line["unknown"] != false ||
		line["partial"] != false || us["tokenize"] != 77. || len(costs) != 3 || !strings.Contains(line["reason"].(string), "longest prefix") {
		t.Errorf("line %v", line)
	}
	g.idle()
	r := g.mail.last()
	if len(r.Keys) != 200*8 || binary.LittleEndian.Uint64(r.Keys[8:]) != 1<<8|' ' || len(r.Depths) != 2 || r.Shards[0] != (shard{"i1", ^uint64(0), 41, 42}) ||
		r.Generation != 1 || r.CachedPredicted != 2400 || string(r.Scores) != `{"b":150,"c":20}` || r.Engine != "id-b" || r.API != "/v1/chat/completions" {
		t.Errorf("record %+v", r)
	}
}

func TestWithoutAScorerRequestsAreServedAndStayTogether(t *testing.T) {
	g := newRig(t, Config{})
	for _, name := range []string{"a", "b", "c", "d"} {
		g.addEngine(name, plain(okAnswer))
	}
	g.fleet.set(func(v *fleet.View) { // a member that is not there
		v.Members = append(v.Members, fleet.Member{Service: "scorer", Instance: "dead", Address: "127.0.0.1:1", Ready: true})
	})
	prompt := strings.Repeat("The same long system prompt. ", 400)
	var first string
	for i := range 12 {
		resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"%s question %d"}`, model, prompt, i))
		e := resp.Header.Get("X-Warmpath-Engine")
		if resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		if first == "" {
			first = e
		}
		if e != first {
			t.Errorf("request %d went to %s, not %s", i, e, first)
		}
	}
	for _, line := range g.logs.lines("Got pod scores") {
		if line["unknown"] != true || line["scores"] != nil {
			t.Fatalf("line %v", line)
		}
	}
	g.idle()
}

func TestALateScorerIsNotWaitedFor(t *testing.T) {
	g := newRig(t, Config{})
	g.rt.scorers.Least = scorers.LeastTime
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	release := make(chan struct{})
	g.scorer.say(func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		<-release
		return &scorerv1.ScoreResponse{}, nil
	})
	if resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model)); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	close(release)
	g.idle()
	if r := g.mail.last(); !r.Unknown || r.PromptTokens != 7 {
		t.Errorf("record %+v", r)
	}
}

func TestALargeBodyIsServedUnscored(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	body := fmt.Sprintf(`{"model":%q,"prompt":"%s"}`, model, strings.Repeat("x", scorers.MostBytes))
	if resp, answer := g.post("/v1/completions", body); resp.StatusCode != 200 || answer != okAnswer {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
	g.idle()
	if r := g.mail.last(); !r.Unknown || g.scorer.asked.Load() != 0 {
		t.Errorf("scorer asked %d times; record %+v", g.scorer.asked.Load(), r)
	}
}

func TestRanksOfOneURLAreToldApart(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	var ranks []string
	server := g.addEngine("r0", func(w http.ResponseWriter, r *http.Request) {
		ranks = append(ranks, r.Header.Get("X-Data-Parallel-Rank"))
		_, _ = io.WriteString(w, okAnswer)
	}, func(e *fleet.Engine) { e.Ranks = 2 })
	g.fleet.set(func(v *fleet.View) {
		second := v.Engines["id-r0"]
		second.ID, second.Name, second.Rank = "id-r1", "r1", 1
		v.Engines[second.ID] = second
	})
	for _, want := range []string{"r0", "r1", "r0"} {
		resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model))
		if got := resp.Header.Get("X-Warmpath-Engine"); got != want {
			t.Errorf("chose %s, want %s", got, want)
		}
	}
	if !slices.Equal(ranks, []string{"0", "1", "0"}) {
		t.Errorf("%s got ranks %v", server.URL, ranks)
	}
	g.idle()
}

func TestPoliciesDiffer(t *testing.T) {
	for name, want := range map[string][]string{
		"round-robin": {"a", "b", "c", "a"}, "warm": {"c", "c", "c", "c"}, "least-tokens": nil, "random": nil,
	} {
		g := newRig(t, Config{Policy: name, Seed: 3})
		for _, e := range []string{"a", "b", "c"} {
			g.addEngine(e, plain(okAnswer))
		}
		g.addScorer()
		g.scorer.say(scoreOf(200, map[string]uint32{"id-c": 200}))
		var got []string
		for range 4 {
			resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model))
			got = append(got, resp.Header.Get("X-Warmpath-Engine"))
		}
		if want != nil && !slices.Equal(got, want) || want == nil && slices.Equal(got, []string{"c", "c", "c", "c"}) {
			t.Errorf("%s: %v", name, got)
		}
		g.idle()
		if r := g.mail.last(); r.Policy != name || (name == "random" || name == "round-robin") != (string(r.Costs) == "null") {
			t.Errorf("%s: record %+v", name, r)
		}
	}
}

func TestNATSAwayDropsRecordsNotRequests(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.mail.away = true
	if resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model)); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	g.idle()
	if g.rt.records.flush(); len(g.mail.records) != 0 {
		t.Error("a record while away")
	}
}

// A member that changes which tokens the engine sees must reach the scorer, or it would key another prompt.
func TestMembersThatChangeThePromptReachTheScorer(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	var names []string
	g.scorer.say(func(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		names = nil
		for _, s := range r.Spans {
			names = append(names, s.Name)
		}
		return &scorerv1.ScoreResponse{Unknown: true}, nil
	})
	for _, c := range []struct{ path, prompt, member string }{
		{"/v1/completions", `"prompt":"x"`, "prompt_embeds"},
		{"/v1/completions", `"prompt":"x"`, "suffix"},
		{"/v1/completions", `"prompt":"x"`, "truncate_prompt_tokens"},
		{"/v1/chat/completions", `"messages":[{"role":"user","content":"x"}]`, "documents"},
		{"/v1/chat/completions", `"messages":[{"role":"user","content":"x"}]`, "truncate_prompt_tokens"},
	} {
		g.post(c.path, `{"model":"`+model+`",`+c.prompt+`,"`+c.member+`":1}`)
		if !slices.Contains(names, c.member) {
			t.Errorf("%s: %s did not reach the scorer: %v", c.path, c.member, names)
		}
	}
}
