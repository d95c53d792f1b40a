package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// example has four arms over one workload; the later ones are slower and hit less.
func example() *Comparison {
	c := &Comparison{Trace: workload.Conversation, Seconds: 300, TimeScale: 10, Model: "qwen3-32b-tp2-h100", KVTokens: 1_000_000}
	for i := range 8 {
		c.Engines = append(c.Engines, fmt.Sprintf("engine-%d", i))
	}
	trace := workload.Generate(300*time.Second, 1)
	for arm, policy := range []string{"warm", "least-tokens", "round-robin", "random"} {
		rng := rand.New(rand.NewPCG(uint64(arm), 0))
		r := &run.Result{TimeScale: c.TimeScale}
		for i, q := range trace.Requests {
			prefill := time.Duration(float64(q.Input) * (60 + 25*float64(arm)) * float64(time.Microsecond) * math.Exp(.7*rng.NormFloat64()))
			o := run.Outcome{Request: i, Intended: q.At, Sent: q.At, First: q.At + 30*time.Millisecond + prefill, Prompt: q.Input, Output: q.Output}
			o.Cached = int(float64(q.Input) * .4 / float64(arm+1) * rng.Float64())
			o.Last = o.First + time.Duration(q.Output)*9*time.Millisecond
			o.Engine = c.Engines[min(rng.IntN(8), rng.IntN(8+arm))]
			r.Outcomes = append(r.Outcomes, o)
		}
		c.Arms = append(c.Arms, Arm{policy, r})
	}
	return c
}

func TestTable(t *testing.T) {
	c := example()
	c.Arms = c.Arms[:2]
	c.Arms[1].Result.Outcomes[3].Err = errors.New("refused")
	var buf bytes.Buffer
	if err := c.Table(&buf); err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	for _, want := range []string{
		"trace mooncake-conversation, 300 s of it at time scale 10, 8 engines of 1,000,000 KV tokens; times are unscaled\n",
		"policy", "hit ratio", "TTFT p90", "busiest/mean", "307k KV tokens",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("table lacks %q:\n%s", want, text)
		}
	}
	s := c.Arms[1].Result.Summary()
	row := fmt.Sprintf(`(?m)^ *least-tokens +%s +1 +%.1f %% `, thousands(s.Requests), 100*s.HitRatio)
	if !regexp.MustCompile(row).MatchString(text) {
		t.Errorf("no row %s in\n%s", row, text)
	}
	if strings.Contains(text, "warning") {
		t.Errorf("warns of a fair comparison:\n%s", text)
	}
}

func TestWarnings(t *testing.T) {
	c := example()
	if !c.ArrivalsEqual() || len(c.warnings()) != 0 {
		t.Fatalf("equal arms: %v", c.warnings())
	}
	c.Arms[2].Result.Outcomes[5].Sent += time.Minute
	if w := strings.Join(c.warnings(), "\n"); !strings.Contains(w, "round-robin: 1 requests were sent late, by 60.00 s") {
		t.Errorf("late request: %q", w)
	}
	c.Arms[2].Result.Outcomes[5].Intended++
	if c.ArrivalsEqual() {
		t.Error("another arrival time passes for equal")
	}
	c.Arms[2].Result.Outcomes = c.Arms[2].Result.Outcomes[:5]
	if c.ArrivalsEqual() || !strings.Contains(strings.Join(c.warnings(), "\n"), "same requests") {
		t.Error("missing requests pass for equal")
	}
}

func TestDemoHasTheAgreedShape(t *testing.T) {
	raw, err := json.Marshal(example().Demo("bench/demo.html"))
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d["trace"] != "mooncake-conversation" || d["arrivals_equal"] != true || d["report"] != "bench/demo.html" {
		t.Errorf("demo %s", raw)
	}
	warm, _ := d["policies"].(map[string]any)["warm"].(map[string]any)
	for _, key := range []string{"requests", "hit_ratio", "ttft_p50_s", "ttft_p90_s", "itl_p50_s", "output_tok_s", "per_engine"} {
		if warm[key] == nil {
			t.Errorf("policy lacks %s: %v", key, warm)
		}
	}
	if n := len(warm["per_engine"].([]any)); n != 8 {
		t.Errorf("%d engines in per_engine, want 8", n)
	}
}

func TestPageIsSelfContainedAndWhole(t *testing.T) {
	c := example()
	c.Arms[0].Policy = `<b>"warm" & co</b>`
	page := render(t, c)
	if outside := regexp.MustCompile(`(?i)(src|href)\s*=|url\(|@import|<script|<link`).FindString(page); outside != "" {
		t.Errorf("page refers to something outside: %s", outside)
	}
	if strings.Contains(page, "<b>") {
		t.Error("a policy name is taken for HTML")
	}
	plots := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(plots) != 4 {
		t.Fatalf("%d plots, want 4", len(plots))
	}
	for i, p := range plots {
		d := xml.NewDecoder(strings.NewReader(p))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("plot %d is not XML: %v", i, err)
			}
		}
		if strings.Contains(p, "NaN") || strings.Contains(p, "Inf") {
			t.Errorf("plot %d has coordinates that are no numbers", i)
		}
	}
	for _, a := range c.Arms[1:] {
		if n := strings.Count(page, ">"+a.Policy+"<"); n != 3 {
			t.Errorf("%s stands %d times in table, legend and bars, want 3", a.Policy, n)
		}
	}
	for _, want := range []string{"Apache-2.0", "307k", "time scale 10", "300 s", "1,000,000 KV tokens"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestGeneratedWorkloadSaysSo(t *testing.T) {
	c := example()
	c.Trace = workload.Generated
	if page := render(t, c); !strings.Contains(page, "generated workload") || strings.Contains(page, "Mooncake") {
		t.Error("page passes a generated workload for the trace")
	}
}

// Nothing served, no engine named, no arm at all: a page all the same.
func TestPageOfNothing(t *testing.T) {
	failed := run.Result{TimeScale: 1, Outcomes: []run.Outcome{{Cached: -1, Err: io.EOF}}}
	for name, c := range map[string]*Comparison{
		"no arms":    {},
		"no request": {Seconds: 1, Engines: []string{"e"}, Arms: []Arm{{"a", &run.Result{}}, {"b", &run.Result{}}}},
		"all failed": {Seconds: 1, Arms: []Arm{{"a", &failed}}},
		"one engine, one request": {Seconds: 1, Engines: []string{"e"}, Arms: []Arm{
			{"a", &run.Result{Outcomes: []run.Outcome{{Engine: "e", First: time.Second, Last: time.Second}}}},
		}},
	} {
		t.Run(name, func(t *testing.T) { render(t, c) })
	}
}

func render(t *testing.T, c *Comparison) string {
	t.Helper()
	var buf bytes.Buffer
	if err := c.HTML(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestNumbersAreReadable(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 307328: "307,328", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) is %s, want %s", n, got, want)
		}
	}
	got := []string{seconds(0), seconds(.0123), seconds(.999), seconds(1), seconds(12.345), imbalance(nil), imbalance([]int{0, 0}), imbalance([]int{3, 1})}
	if want := []string{"0 ms", "12 ms", "999 ms", "1.00 s", "12.35 s", "-", "-", "1.50"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTicksAreRoundAndFew(t *testing.T) {
	for _, high := range []float64{1e-3, .07, 1, 3, 9.99, 10, 20.1, 244, 255, 300, 1e6} {
		ticks := (evenTicks{}).Ticks(0, high)
		if len(ticks) < 5 || len(ticks) > 11 || ticks[0].Label != "0" || ticks[len(ticks)-1].Value > high*1.001 {
			t.Errorf("0 to %v: %v", high, ticks)
		}
	}
	if got := fmt.Sprint((evenTicks{percent: true}).Ticks(0, 1)); got != "[{0 0 %} {0.2 20 %} {0.4 40 %} {0.6000000000000001 60 %} {0.8 80 %} {1 100 %}]" {
		t.Errorf("shares: %s", got)
	}
	if got := fmt.Sprint((decadeTicks{}).Ticks(.04, 2)); got != "[{0.05 0.05} {0.1 0.1} {0.2 0.2} {0.5 0.5} {1 1} {2 2}]" {
		t.Errorf("decades: %s", got)
	}
}
