package gates

import (
	"fmt"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// SiliconFile is the name under which the silicon sample is kept.
const SiliconFile = "aic_h100_silicon_sample.csv.gz"

// frontEnd is what a bare vLLM server takes before its scheduler sees a request. In a closed loop it is what makes a
// client's next request miss the step that follows its last answer.
const frontEnd = 15 * time.Millisecond

// silicon is a measurement on real GPUs: a closed loop of clients against one engine.
type silicon struct {
	id                     string
	vllm                   bool // or another engine, with a scheduler of its own
	clients, input, output int
	ttft, tpot             float64 // seconds
	profile                enginesim.Profile
}

// profileOf returns the constants that were fitted to measurements of a model, quantised as told, on so many GPUs.
func profileOf(backend, model, gemm string, gpus int) (p enginesim.Profile, ok bool) {
	switch fmt.Sprintf("%s %s %s %d", backend, model, gemm, gpus) {
	case "vllm Qwen/Qwen3-32B  2":
		return enginesim.Qwen3_32B_TP2_H100, true
	case "vllm Qwen/Qwen3-32B  4":
		return enginesim.Qwen3_32B_TP4, true
	case "vllm Qwen/Qwen3-32B  8":
		return enginesim.Qwen3_32B_TP8, true
	case "vllm meta-llama/Llama-3.1-70B fp8 2":
		return enginesim.Llama31_70B_FP8_TP2, true
	case "vllm meta-llama/Llama-3.1-70B fp8 4":
		return enginesim.Llama31_70B_FP8_TP4, true
	case "vllm meta-llama/Llama-3.1-70B fp8 8":
		return enginesim.Llama31_70B_FP8_TP8, true
	case "trtllm meta-llama/Llama-3.1-8B-Instruct  1":
		return enginesim.Llama31_8B_TP1, true
	}
	return p, false
}

// readSilicon reads the rows of aiconfigurator's silicon sample that a profile covers: one engine for prefill and
// decode, of a model and a number of GPUs that we have constants for. The file may be compressed.
func readSilicon(path string) (all []silicon, err error) {
	t, err := readTable(path)
	if err != nil {
		return nil, err
	}
	for t.next() {
		if t.text("mode") != "agg" || t.text("tp_size") == "" {
			continue
		}
		p, ok := profileOf(t.text("backend"), t.text("model_path"), t.text("gemm_quant_mode"), t.whole("tp_size"))
		if !ok {
			continue
		}
		all = append(all, silicon{
			id: t.text("id"), vllm: t.text("backend") == "vllm", clients: t.whole("batch_size"), input: t.whole("isl"), output: t.whole("osl"),
			ttft: t.number("silicon_ttft_ms") / 1000, tpot: t.number("silicon_tpot_ms") / 1000, profile: p,
		})
	}
	return all, t.err
}

// Silicon returns the gates of 2.2, one for each measured row that a profile covers. path is the file of the sample,
// empty without it.
func Silicon(path string) ([]Gate, error) {
	if path == "" {
		return []Gate{{ID: "2.2", Missing: "the silicon sample is not at hand"}}, nil
	}
	rows, err := readSilicon(path)
	if err != nil {
		return nil, err
	}
	var all []Gate
	for _, s := range rows {
		tokens := float64(2 * 8 * s.clients * (s.output + s.input/50))
		all = append(all, Gate{ID: "2.2/" + s.id, Weight: tokens / 5e6, Run: s.run})
		if s.vllm {
			all = append(all, Gate{ID: "2.2/" + s.id, Weight: tokens / 5e6, Run: s.fromCold, Reported: true})
		}
	}
	return all, nil
}

// saturated tells whether the clients' sequences are more than the KV cache holds.
func (s *silicon) saturated() bool { return s.clients*(s.input+s.output) > s.profile.KVTokens }

// run compares TPOT with lengths jittered by a fifth, and TTFT with what lies between such lengths and lockstep: the
// sample does not say how its lengths were drawn.
func (s *silicon) run() ([]Row, error) {
	jittered, lockstep, err := s.measure(6, false)
	if err != nil {
		return nil, err
	}
	tpotTolerance, ttftTolerance, note := .12, .30, ""
	if s.saturated() {
		tpotTolerance, ttftTolerance, note = .20, .25, "; more than the KV cache holds"
	}
	tpot := near("TPOT, s", s.tpot, jittered.tpot, tpotTolerance)
	tpot.Fitted, tpot.Note = true, fmt.Sprintf("lockstep %.4f%s", lockstep.tpot, note)
	if !s.vllm {
		return []Row{tpot}, nil // when a first token comes is the scheduler's doing, and this one is not vLLM's
	}
	return []Row{tpot, s.ttftRow("TTFT, s", jittered, lockstep, ttftTolerance, note)}, nil
}

// fromCold is TTFT over ten answers of each client, the first of which all come at once. It is reported, not gated:
// the sample does not say whether it counts them, and ten was chosen because it explains the sample best.
func (s *silicon) fromCold() ([]Row, error) {
	jittered, lockstep, err := s.measure(10, true)
	if err != nil {
		return nil, err
	}
	r := s.ttftRow("TTFT with the first wave counted, s", jittered, lockstep, .30, "")
	r.Fitted = true
	return []Row{r}, nil
}

// measure makes the closed loop with lengths jittered by a fifth, and in lockstep.
func (s *silicon) measure(rounds int, cold bool) (jittered, lockstep loopResult, err error) {
	l := loop{clients: s.clients, input: s.input, output: s.output, jitter: .2, rounds: rounds, frontEnd: frontEnd, cold: cold}
	l.engine = enginesim.CoreOptions{Profile: s.profile, TokenBudget: 8192, Hash: enginesim.QuickHash{}, Seed: 1}
	if jittered, err = l.run(); err != nil {
		return jittered, lockstep, err
	}
	l.jitter = 0
	lockstep, err = l.run()
	return jittered, lockstep, err
}

func (s *silicon) ttftRow(name string, jittered, lockstep loopResult, tolerance float64, note string) Row {
	low, high := min(jittered.ttft, lockstep.ttft), max(jittered.ttft, lockstep.ttft)
	r := near(name, s.ttft, min(max(s.ttft, low), high), tolerance)
	r.Note = fmt.Sprintf("%.3f to %.3f between jittered and lockstep lengths%s", low, high, note)
	return r
}
