package router

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
)

// object is a JSON object that is being written. encoding/json writes the same from the struct's tags, which
// TestRecordsAreTheirStructs holds, in three times the time.
type object []byte

func (o object) name(name string) object {
	if o[len(o)-1] != '{' {
		o = append(o, ',')
	}
	return append(append(append(o, '"'), name...), '"', ':')
}

func (o object) text(name, value string) object { return appendName(o.name(name), value) }

func (o object) int(name string, value int64) object {
	return strconv.AppendInt(o.name(name), value, 10)
}

func (o object) uint(name string, value uint64) object {
	return strconv.AppendUint(o.name(name), value, 10)
}

func (o object) bool(name string, value bool) object { return strconv.AppendBool(o.name(name), value) }

// float writes null for what JSON has no number for.
func (o object) float(name string, value float64) object {
	if math.IsInf(value, 0) || math.IsNaN(value) {
		return o.raw(name, nil)
	}
	return strconv.AppendFloat(o.name(name), value, 'g', -1, 64)
}

// floatOr writes null for nil.
func (o object) floatOr(name string, value *float64) object {
	if value == nil {
		return o.raw(name, nil)
	}
	return o.float(name, *value)
}

// raw writes JSON, null for nil.
func (o object) raw(name string, value []byte) object {
	if value == nil {
		value = []byte("null")
	}
	return append(o.name(name), value...)
}

// textIf leaves an empty text out.
func (o object) textIf(name, value string) object {
	if value == "" {
		return o
	}
	return o.text(name, value)
}

// list writes n objects, and nothing for none.
func (o object) list(name string, n int, item func(o object, i int) object) object {
	if n == 0 {
		return o
	}
	o = append(o.name(name), '[')
	for i := range n {
		if i > 0 {
			o = append(o, ',')
		}
		o = append(item(append(o, '{'), i), '}')
	}
	return append(o, ']')
}

// appendJSON appends the record as its tags say.
func (r *record) appendJSON(dst []byte) []byte {
	if dst == nil {
		dst = make([]byte, 0, 1024+len(r.Scores)+len(r.Costs)+base64.StdEncoding.EncodedLen(len(r.Keys))+100*len(r.Depths))
	}
	o := object(append(dst, '{'))
	o = o.int("v", int64(r.Version)).text("router", r.Router).text("pool", r.Pool).textIf("lora", r.LoRA).text("api", r.API)
	o = r.line.append(o.int("arrived_us", r.Arrived))
	o = o.text("engine", r.Engine).uint("generation", r.Generation).text("policy", r.Policy)
	o = o.list("depths", len(r.Depths), func(o object, i int) object { return r.Depths[i].append(o) })
	o = o.list("shards", len(r.Shards), func(o object, i int) object { return r.Shards[i].append(o) })
	if r.BlockSize != 0 {
		o = o.int("block_size", int64(r.BlockSize))
	}
	if len(r.Keys) > 0 {
		o = append(base64.StdEncoding.AppendEncode(append(o.name("keys"), '"'), r.Keys), '"')
	}
	o = o.textIf("source", r.Source).textIf("tenant", r.Tenant).textIf("tier", r.Tier).float("queued_s", r.Waited)
	o = o.int("prompt_tokens", int64(r.PromptTokens)).int("cached_predicted", int64(r.CachedPredicted))
	if r.CachedMeasured != nil {
		o = o.int("cached_measured", int64(*r.CachedMeasured))
	} else {
		o = o.raw("cached_measured", nil)
	}
	o = o.int("computed_tokens", int64(r.Computed)).floatOr("prefill_s", r.Prefill)
	o = o.int("output_tokens", int64(r.OutputTokens)).floatOr("ttft_s", r.TTFT).float("ttft_predicted_s", r.TTFTPredicted)
	o = o.floatOr("itl_s", r.ITL).float("seconds", r.Seconds).int("retries", int64(r.Retries))
	return append(o.int("status", int64(r.Status)).text("outcome", r.Outcome), '}')
}

func (l *line) append(o object) object {
	o = o.text("x-request-id", l.ID).text("model", l.Model).text("resolvedTargetModel", l.Resolved).int("priority", int64(l.Priority))
	o = o.raw("scores", l.Scores).raw("costs", l.Costs).text("chosen", l.Chosen).text("reason", l.Reason)
	o = o.bool("unknown", l.Unknown).bool("partial", l.Partial)
	if l.Split != nil {
		split, err := json.Marshal(l.Split) // of few requests
		if err != nil {
			split = nil
		}
		o = o.raw("split", split)
	}
	us := append(o.name("us"), '{')
	return append(us.int("tokenize", l.Us.Tokenize).int("score", l.Us.Score).int("pick", l.Us.Pick), '}')
}

func (d *depth) append(o object) object {
	return o.text("engine", d.Engine).uint("gpu", uint64(d.GPU)).uint("any", uint64(d.Any)).uint("generation", d.Generation)
}

func (s *shard) append(o object) object {
	return o.text("member", s.Member).uint("buckets", s.Buckets).uint("applied", s.Applied).uint("begun", s.Begun)
}
