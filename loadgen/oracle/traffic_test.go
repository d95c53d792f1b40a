package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// talk is what one client asks: token ids, a text, or a chat of several turns whose answers are part of what follows.
type talk struct {
	lora, salt string
	ids        []uint32 // token ids, unless a text or a chat
	text       string   // of a completion, or the system message of a chat
	listed     bool     // the prompt is the only one of a list, or contents are lists of parts
	tools      string   // JSON
	turns      []string // what the user says; none is a completion
}

// request is one request of a talk and the truth about it.
type request struct {
	Prompt
	path string
	body map[string]any
}

// requests is how many requests a talk has.
func (k *talk) requests() int { return max(1, len(k.turns)) }

// completion is the request of a talk that is no chat.
func (k *talk) completion() request {
	r := request{path: "/v1/completions", Prompt: Prompt{Tokens: k.ids, LoRA: k.lora, Salt: k.salt}}
	switch {
	case k.text == "":
		r.body = map[string]any{"prompt": k.ids}
	case k.listed:
		r.body = map[string]any{"prompt": []string{k.text}}
	default:
		r.body = map[string]any{"prompt": k.text}
	}
	if k.text != "" {
		r.Tokens = enginesim.Tokenize(nil, k.text)
	}
	return r
}

// turn is the request of a chat after these answers.
func (k *talk) turn(answers []string) request {
	messages := []enginesim.Message{{Role: "system", Content: k.text}}
	for i, answer := range answers {
		messages = append(messages, enginesim.Message{Role: "user", Content: k.turns[i]}, enginesim.Message{Role: "assistant", Content: answer})
	}
	messages = append(messages, enginesim.Message{Role: "user", Content: k.turns[len(answers)]})
	var wire []any
	for _, m := range messages {
		var content any = m.Content
		if k.listed {
			content = []any{map[string]any{"type": "text", "text": m.Content}}
		}
		wire = append(wire, map[string]any{"role": m.Role, "content": content})
	}
	tokens := enginesim.TokenizeChat(nil, messages, enginesim.Template{Tools: k.tools, Generate: true})
	r := request{
		path: "/v1/chat/completions", body: map[string]any{"messages": wire},
		Prompt: Prompt{Tokens: tokens, LoRA: k.lora, Salt: k.salt},
	}
	if k.tools != "" {
		r.body["tools"] = json.RawMessage(k.tools)
	}
	return r
}

// source draws a seeded workload.
type source struct{ *rand.Rand }

func (s source) ids(length int) []uint32 {
	tokens := make([]uint32, length)
	for i := range tokens {
		tokens[i] = 300 + s.Uint32N(enginesim.VocabSize-300)
	}
	return tokens
}

// words draws a text of so many tokens: each word is one.
func (s source) words(length int) string {
	var b strings.Builder
	for range length {
		b.WriteByte(' ')
		for range 3 {
			b.WriteByte('a' + byte(s.IntN(26)))
		}
	}
	return b.String()
}

// behind is how many tokens follow a shared prefix: none, so that the prompt is whole blocks, a block, or any number.
func (s source) behind() int {
	switch s.IntN(6) {
	case 0:
		return 0
	case 1:
		return blockSize
	}
	return 1 + s.IntN(200)
}

// traffic makes a seeded workload of n requests or a few more: hot shared prefixes in ids, text and chat, prompts that
// are whole blocks, equal talks side by side, an adapter, cache salts, tools, and chats that grow by their answers.
func traffic(seed uint64, n int) (talks []talk) {
	s := source{rand.New(rand.NewPCG(seed, 1))}
	var ids [][]uint32
	var texts []string
	for range 8 {
		ids = append(ids, s.ids(blockSize*(2+s.IntN(16))))
		texts = append(texts, s.words(blockSize*(2+s.IntN(12))))
	}
	for n > 0 {
		k := talk{listed: s.IntN(4) == 0}
		switch s.IntN(5) {
		case 0, 1:
			k.ids = slices.Concat(ids[s.IntN(len(ids))], s.ids(s.behind()))
		case 2, 3:
			k.text = texts[s.IntN(len(texts))] + s.words(s.behind())
		default:
			k.text = texts[s.IntN(len(texts))]
			for range 1 + s.IntN(4) {
				k.turns = append(k.turns, "Und \"wie\"\n"+s.words(s.IntN(60)))
			}
			if s.IntN(3) == 0 {
				k.tools = `[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}]`
			}
		}
		switch s.IntN(8) {
		case 0:
			k.lora = adapter
		case 1:
			k.salt = fmt.Sprint("tenant-", s.IntN(2))
		}
		talks = append(talks, k)
		if s.IntN(5) == 0 { // a second one of the same, at the same time
			talks = append(talks, k)
			n -= k.requests()
		}
		n -= k.requests()
	}
	return talks
}

// reply is what an answer said.
type reply struct {
	text   string
	prompt int // prompt tokens that the engine counted; -1 is not told
}

// readReply reads a whole answer or a stream.
func readReply(in io.Reader, stream bool) (reply, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return reply{}, err
	}
	if !stream {
		return add(reply{prompt: -1}, data)
	}
	r := reply{prompt: -1}
	for event := range strings.SplitSeq(string(data), "\n\n") {
		chunk, ok := strings.CutPrefix(event, "data: ")
		if !ok || chunk == "[DONE]" {
			continue
		}
		if r, err = add(r, []byte(chunk)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// add reads one object of an answer, which is the whole of it or a chunk.
func add(r reply, data []byte) (reply, error) {
	var wire struct {
		Error   json.RawMessage
		Choices []struct {
			Text           string
			Message, Delta struct{ Content string }
		}
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return r, fmt.Errorf("decode %.100q: %w", data, err)
	}
	if wire.Error != nil {
		return r, fmt.Errorf("the engine failed: %s", wire.Error)
	}
	for _, c := range wire.Choices {
		r.text += c.Text + c.Message.Content + c.Delta.Content
	}
	var b openai.Body
	if err := b.Scan(data); err != nil {
		return r, err
	}
	if u, ok := openai.ReadUsage(&b); ok {
		r.prompt = u.Prompt
	}
	return r, nil
}
