package hop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

const (
	modelID   = "bench/model-7b"
	blockSize = 16
	byteToken = 4 // bytes of text that count as one token

	// What the router must add to a stream whose client did not ask for usage, before the closing brace.
	addition = `,"stream_options":{"include_usage":true}`
)

// payload is one request body and all that must come of it on its way: equal for client, engine and scorer, which each
// make it themselves, so that nobody has to believe another.
type payload struct {
	name    string // of the body, for the header that tells which one it is
	plain   []byte // as the client sends it
	patched []byte // as the router must send it on
	prompt  []byte // the span that the scorer must see
	score   *scorerv1.ScoreResponse
}

// variants are the different bodies of one size.
const variants = 8

func payloadName(size, variant int) string { return fmt.Sprintf("%d/%d", size, variant) }

// newPayload makes a chat body of exactly size bytes. Text, escapes and key order are such that decoding and encoding
// it again would change bytes.
func newPayload(size, variant, engines int) *payload {
	head := fmt.Sprintf(`{"temperature":7e-1, "model":%q ,"messages":`, modelID)
	const tail = `,"max_tokens":1000,"stream":true,"user":"\u0041"}`
	open := fmt.Sprintf(`[{"role":"system","content":"Variant %d is \u00e9l\/ite."},{"role":"user","content":"`, variant)
	const end = `"}]`
	random := rand.New(rand.NewPCG(uint64(size), uint64(variant)))
	p := &payload{name: payloadName(size, variant), prompt: []byte(open)}
	text := prose(random, size-len(head)-len(open)-len(end)-len(tail))
	p.prompt = append(append(p.prompt, text...), end...)
	p.plain = append(append([]byte(head), p.prompt...), tail...)
	p.patched = append(append(bytes.Clone(p.plain[:len(p.plain)-1]), addition...), '}')
	p.score = scored(random, len(p.prompt)/byteToken, engines)
	return p
}

// prose is n bytes of words and line breaks, escaped for JSON.
func prose(random *rand.Rand, n int) []byte {
	words := []string{"the ", "cache ", "is ", "warm ", "where ", "prompts ", "begin ", `alike;\n`, `\"quoted\" `, "über "}
	text := make([]byte, 0, n)
	for len(text) < n {
		word := words[random.IntN(len(words))]
		if len(text)+len(word) > n {
			word = "x"
		}
		text = append(text, word...)
	}
	return text
}

// scored is the answer of a scorer: all blocks of the prompt, of which each engine holds some.
func scored(random *rand.Rand, tokens, engines int) *scorerv1.ScoreResponse {
	r := &scorerv1.ScoreResponse{
		PromptTokens: uint32(tokens), Source: "ids", BlockSize: blockSize,
		Shards: []*scorerv1.Shard{{Member: "index-0", Buckets: ^uint64(0), Applied: 1000, Begun: 1}},
	}
	for range tokens / blockSize {
		r.Keys = append(r.Keys, random.Uint64())
	}
	for i := range engines {
		depth := uint32(random.IntN(len(r.Keys) + 1))
		r.Engines = append(r.Engines, &scorerv1.EngineScore{
			Engine: engineID(i), Gpu: depth, Any: depth, Visible: 20_000, Evicted: true, Generation: 1,
		})
	}
	return r
}

func engineID(i int) string { return "bench-" + strconv.Itoa(i) }

// answer is the stream that an engine gives to request n: so many chunks of one token. usage adds the chunk that
// clients get only if they ask.
func answer(n uint64, chunks int, usage bool) (events [][]byte) {
	for i := range chunks {
		events = append(events, fmt.Appendf(nil, `data: {"id":"chatcmpl-%016x","object":"chat.completion.chunk","created":1790000000,`+
			`"model":%q,"choices":[{"index":0,"delta":{"content":" t%d"},"logprobs":null,"finish_reason":null}]}`+"\n\n", n, modelID, i))
	}
	if usage {
		events = append(events, fmt.Appendf(nil, `data: {"id":"chatcmpl-%016x","object":"chat.completion.chunk","created":1790000000,`+
			`"model":%q,"choices":[],"usage":{"prompt_tokens":1000,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":16}}}`+"\n\n",
			n, modelID, 1000+chunks, chunks))
	}
	return append(events, []byte("data: [DONE]\n\n"))
}
