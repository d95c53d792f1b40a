package router

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestReportsCountSinceTheStart(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	g.scorer.say(scoreOf(100, map[string]uint32{"id-a": 60}))
	for range 3 {
		g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model))
	}
	g.idle()
	g.rt.sendReports()
	var r report
	raw := g.mail.sent["report."+poolRecord.ID+".r1"]
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	want := report{
		Router: "r1", Started: g.rt.started.Unix(), Seq: 1, Pool: poolRecord.ID, Arrivals: 3, PromptTokens: 3 * 1603, UncachedTokens: 1603 - 960 + 3 + 3, // the second and third prompt count as placed
		OutputTokens: 15, Finished: 3,
	}
	load, ok := r.Engines["id-a"]
	if r.Engines = nil; !ok || load != (engineLoad{}) || fmt.Sprint(r) != fmt.Sprint(want) {
		t.Errorf("report %s", raw)
	}
	for _, field := range []string{"router", "started", "seq", "pool", "held", "queued_uncached", "arrivals", "prompt_tokens", "uncached_tokens", "output_tokens", "queued", "inflight", "finished", "engines"} {
		if !strings.Contains(string(raw), `"`+field+`":`) {
			t.Errorf("no field %s in %s", field, raw)
		}
	}
}
