package enginesim

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrUnknownProfile is wrapped by ProfileByName for a name that Profiles does not hold.
var ErrUnknownProfile = errors.New("enginesim: unknown profile")

// Profile holds the constants of one model on one machine. A step takes
//
//	Base + Prefill*P + Decode*D + Context*K/1000 + Pairs*A/1e6   milliseconds
//
// with P prefill tokens in the step, D decoding sequences, K the sum of their context tokens, and A the sum over
// prefill chunks of n tokens of n*(tokens before + n/2). The constants are fits to measured vLLM and TensorRT-LLM
// figures on H100 SXM, BF16. The zero value is Instant.
type Profile struct {
	Name                                  string
	Base, Prefill, Decode, Context, Pairs float64
	KVTokens                              int // tokens of KV cache in GPU memory; 0 leaves it to the options
	KVBytes                               int // KV of one token, all layers, BF16; 0 moves between engines for nothing
}

// The profiles that ProfileByName knows. Underscores keep models and parallelism apart.
var (
	// Instant computes every step in no time.
	Instant = Profile{Name: "instant"}
	// Qwen3_32B_TP2_H100 is Qwen3-32B on two H100: 17.9k prompt tokens a second at most.
	Qwen3_32B_TP2_H100 = Profile{"qwen3-32b-tp2-h100", 13.99, 0.04705, 0.0764, 0.0450, 1.70, 307_328, 262_144}
	// Qwen3_32B_TP4 is Qwen3-32B on four H100; its KV capacity follows from that of two.
	Qwen3_32B_TP4 = Profile{"qwen3-32b-tp4", 9.26, 0.02722, 0.0638, 0.0247, 0.87, 864_000, 262_144}
	// Qwen3_32B_TP8 is Qwen3-32B on eight H100; KV capacity as of four.
	Qwen3_32B_TP8 = Profile{"qwen3-32b-tp8", 7.02, 0.01690, 0.0638, 0.0125, 0.45, 1_980_000, 262_144}
	// Llama31_70B_TP4 is Llama-3.1-70B on four H100; a sum of kernel times, not a fit.
	Llama31_70B_TP4 = Profile{"llama-3.1-70b-tp4", 16.0, 0.0585, 0.050, 0.0309, 1.08, 461_376, 327_680}
	// Llama31_70B_FP8_TP2, TP4 and TP8 are Llama-3.1-70B with weights of 8 bits on two, four and eight H100. Their KV
	// capacity follows from that of 16 bits: what smaller weights leave free.
	Llama31_70B_FP8_TP2 = Profile{"llama-3.1-70b-fp8-tp2", 16.56, 0.0609, 0.051, 0.0560, 2.12, 230_000, 327_680}
	Llama31_70B_FP8_TP4 = Profile{"llama-3.1-70b-fp8-tp4", 11.01, 0.0382, 0.049, 0.0309, 1.08, 676_000, 327_680}
	Llama31_70B_FP8_TP8 = Profile{"llama-3.1-70b-fp8-tp8", 8.82, 0.0250, 0.052, 0.0155, 0.55, 1_570_000, 327_680}
	// Reference is the model of one replica on two GPUs that the autoscaler's proof is made with: a prompt of u tokens
	// takes 14 ms + u/16,000 s, a step of n sequences with kv tokens of context 14 + .05 n + 5.6e-5 kv ms. It is no fit.
	Reference = Profile{"reference", 14, 0.0625, 0.05, 0.056, 0, 300_000, 262_144}
	// Llama31_8B_TP1 is Llama-3.1-8B on one H100.
	Llama31_8B_TP1 = Profile{"llama-3.1-8b-tp1", 6.45, 0.01893, 0.0092, 0.0432, 0.87, 420_000, 131_072}
)

// Profiles returns the named profiles, Instant first.
func Profiles() []Profile {
	return []Profile{
		Instant, Qwen3_32B_TP2_H100, Qwen3_32B_TP4, Qwen3_32B_TP8, Llama31_70B_TP4,
		Llama31_70B_FP8_TP2, Llama31_70B_FP8_TP4, Llama31_70B_FP8_TP8, Llama31_8B_TP1, Reference,
	}
}

// ProfileByName returns the profile of that name, or an error that lists the names.
func ProfileByName(name string) (Profile, error) {
	var names []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Profile{}, fmt.Errorf("%w %q (known: %s)", ErrUnknownProfile, name, strings.Join(names, ", "))
}

// Scale returns the profile with every step factor times as long. 1.13 matches figures published for vLLM 0.19.
func (p Profile) Scale(factor float64) Profile {
	p.Base *= factor
	p.Prefill *= factor
	p.Decode *= factor
	p.Context *= factor
	p.Pairs *= factor
	return p
}

// Load is what one step has to compute.
type Load struct {
	PrefillTokens int     // P
	Decodes       int     // D
	ContextTokens int     // K
	TokenPairs    float64 // A
}

// add counts a chunk of n tokens behind ctx computed ones.
func (l *Load) add(n, ctx int, decode bool) {
	if decode {
		l.Decodes++
		l.ContextTokens += ctx + n
		return
	}
	l.PrefillTokens += n
	l.TokenPairs += float64(n) * (float64(ctx) + float64(n)/2)
}

// StepTime returns how long a step with this load takes, to the nanosecond.
func (p Profile) StepTime(l Load) time.Duration {
	ms := p.Base + p.Prefill*float64(l.PrefillTokens) + p.Decode*float64(l.Decodes) +
		p.Context*float64(l.ContextTokens)/1000 + p.Pairs*l.TokenPairs/1e6
	return time.Duration(ms * float64(time.Millisecond))
}
