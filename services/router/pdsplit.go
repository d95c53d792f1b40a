package router

import (
	"encoding/json"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Why a prompt is computed where it is: a word, a colon, and a sentence for people.
const (
	splitCheaper  policy.Reason = "split: another engine computes the prompt; that costs the fleet less"
	splitNamed    policy.Reason = "split: the prefill engine is given"
	wholeCheaper  policy.Reason = "local: to compute the prompt where it is decoded costs the fleet less"
	wholeShort    policy.Reason = "local: less than a block of the prompt is not cached"
	wholeAnswers  policy.Reason = "local: several answers to one prompt (n, best_of, beam search)"
	wholeEcho     policy.Reason = "local: the prompt itself is asked back (echo, prompt_logprobs)"
	wholePrompts  policy.Reason = "local: not one prompt of tokens"
	wholeOwn      policy.Reason = "local: the request has kv_transfer_params of its own"
	wholeNobody   policy.Reason = "local: no engine computes prompts for others now"
	wholeFallback policy.Reason = "local: no prefill engine handed the prompt over"
)

// What came of a request in a pool that has engines which compute prompts for others.
const (
	splitLocal     = "local"     // computed where it is decoded, as decided
	splitRemote    = "remote"    // computed by the prefill engine that was chosen
	splitRetried   = "retried"   // computed by another prefill engine, after one failed
	splitFallback  = "fallback"  // computed where it is decoded, after prefill engines failed
	splitSidecar   = "sidecar"   // left to the decode engine's sidecar
	splitCancelled = "cancelled" // the client left before a decode engine was asked
)

// split is where a request's prompt is computed and what came of it. It belongs to the request's goroutine.
type split struct {
	asked  bool // the pool has engines that compute prompts for others
	reason policy.Reason
	named  string     // id of the prefill engine that must be taken, if it can be
	line   *splitLine // nil where nobody was asked

	params   []byte        // what the prefill engine handed over for the decode engine
	sent     atomic.Bool   // a decode engine may have read params
	by       fleet.Engine  // whose params they are
	usage    *openai.Usage // of that engine, the zero value where it tells none; nil where the prompt is computed here
	computed time.Time
}

// splitLine is what decision line and record say of a split.
type splitLine struct {
	Prefill string        `json:"prefill,omitempty"` // name of the engine that computes the prompt
	Cost    float64       `json:"cost,omitempty"`    // of that, as the policy prices it
	Reason  policy.Reason `json:"reason"`

	// Of the record only.
	Engine          string   `json:"engine,omitempty"` // its id
	Generation      uint64   `json:"generation,omitempty"`
	CachedPredicted int      `json:"cached_predicted,omitempty"`
	CachedMeasured  *int     `json:"cached_measured,omitempty"`
	Seconds         float64  `json:"prefill_s,omitempty"`  // of the prefill leg
	Transfer        *float64 `json:"transfer_s,omitempty"` // from its end to the first byte of a stream
	Outcome         string   `json:"outcome,omitempty"`
}

// splitter is the rule by which the ledger splits the request; nil for what has no prompt that we know.
func (x *exchange) splitter() ledger.Splitter {
	if x.q.kind == scorerv1.Kind_KIND_UNSPECIFIED {
		return nil
	}
	x.apart.named = x.q.prefiller(x.rt.fleet.View())
	return x.divide
}

// divide is a ledger.Splitter; it notes why it decides so.
func (x *exchange) divide(s *policy.State, decode, prefill *policy.Observation, random uint64, last policy.Pair) policy.Pair {
	d := &x.apart
	d.asked, d.reason = true, x.q.whole()
	named := slices.IndexFunc(prefill.Candidates, func(c policy.Candidate) bool { return c.Engine == d.named })
	if d.reason != "" || named >= 0 {
		pair := policy.Pair{Decode: policy.Pick(x.rt.policy, s, decode, random, last.Decode.Costs), Prefill: policy.Choice{Index: -1}}
		switch {
		case d.reason != "":
		case policy.Splittable(decode, &decode.Candidates[pair.Decode.Index], &prefill.Candidates[named]):
			d.reason, pair.Prefill = splitNamed, policy.Choice{Index: named, Reason: splitNamed}
		default:
			d.reason = wholeShort
		}
		return pair
	}
	pair := policy.Split(x.rt.policy, s, decode, prefill, random, last)
	chosen := &decode.Candidates[pair.Decode.Index]
	switch {
	case pair.Prefill.Index >= 0:
		d.reason = splitCheaper
	case !policy.Splittable(decode, chosen, &policy.Candidate{}):
		d.reason = wholeShort
	default:
		d.reason = wholeCheaper
	}
	return pair
}

// decided notes a decision for line and record.
func (s *split) decided(d *ledger.Decision) *splitLine {
	if !s.asked {
		return nil
	}
	s.line = &splitLine{Reason: s.reason, Outcome: splitLocal}
	s.line.chosen(d.Prefill)
	return s.line
}

// chosen notes who computes the prompt; nil is the decode engine.
func (l *splitLine) chosen(p *ledger.Decision) {
	if p == nil {
		return
	}
	l.Prefill, l.Engine, l.Generation = p.Engine.Name, p.Engine.ID, p.Engine.Generation
	if i := slices.Index(p.Names, l.Prefill); i >= 0 && i < len(p.Costs) {
		l.Cost = p.Costs[i]
	}
}

// whole says why one engine must compute and decode the request; empty where two may.
func (q *request) whole() policy.Reason {
	b := &q.scan
	switch {
	case b.Value(transferParams) != nil && q.caller.trusted():
		return wholeOwn
	case more(b.Value("n")), more(b.Value("best_of")), isTrue(b.Value("use_beam_search")):
		return wholeAnswers
	case isTrue(b.Value("echo")), b.Value("prompt_logprobs") != nil:
		return wholeEcho
	case b.Value("prompt_embeds") != nil, q.kind == scorerv1.Kind_KIND_COMPLETIONS && !onePrompt(b.Value("prompt")):
		return wholePrompts
	}
	return ""
}

// more says that a number is not known to be one.
func more(raw []byte) bool {
	n, err := openai.ReadInt(raw)
	return raw != nil && (err != nil || n != 1)
}

// isTrue takes what is no bool for true: who asks for what we cannot read gets it from one engine.
func isTrue(raw []byte) bool {
	yes, err := openai.ReadBool(raw)
	return raw != nil && (err != nil || yes)
}

// onePrompt says whether a prompt is a text or token ids, or a list of one such.
func onePrompt(raw []byte) bool {
	if len(raw) == 0 || raw[0] != '[' {
		return len(raw) > 0
	}
	if first := strings.TrimLeft(string(raw[1:min(len(raw), 64)]), " \t\r\n"); first != "" && first[0] != '"' && first[0] != '[' {
		return first[0] >= '0' && first[0] <= '9'
	}
	var list []json.RawMessage
	return json.Unmarshal(raw, &list) == nil && len(list) == 1
}

// prefiller is the id of the prefill engine that a trusted request names by its address, as llm-d's clients do: one of
// the request's pool, or empty. Of a list the first that is known is taken.
func (q *request) prefiller(v *fleet.View) string {
	if !q.caller.trusted() {
		return ""
	}
	for address := range strings.SplitSeq(q.header.Get(prefillerHeader), ",") {
		address = strings.TrimSpace(address)
		if address == "" {
			continue
		}
		for _, e := range v.InPool(q.pool.ID) {
			if hostPort(e.URL) == address {
				return e.ID
			}
		}
	}
	return ""
}

// hostPort is the address in an engine's URL; empty where it has none.
func hostPort(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
