package tokens

import (
	"bytes"
	"encoding/json"
	"slices"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// MaxPrompt bounds the bytes of all spans of a request; larger prompts are not scored.
const MaxPrompt = 4 << 20

// prompt is a checked request: token ids, or the body of POST /tokenize in pieces.
type prompt struct {
	ids  []uint32
	text []byte // the JSON value of prompt or messages; nil where ids are given
	rest []*scorerv1.Span
	size int
}

// read checks the spans of a request and finds its first prompt. It copies no text.
func read(r *scorerv1.ScoreRequest) (prompt, *UnknownError) {
	main, others, ok := members(r.GetKind())
	if !ok {
		return prompt{}, unknown(Kind)
	}
	var p prompt
	var value []byte
	for _, span := range r.GetSpans() {
		p.size += len(span.GetValue())
		switch {
		case p.size > MaxPrompt:
			return prompt{}, unknown(TooLarge)
		case string(bytes.TrimSpace(span.GetValue())) == "null": // as if absent
		case span.GetName() == main:
			value = span.GetValue()
		case span.GetName() == "prompt_embeds":
			return prompt{}, unknown(NonText)
		case !slices.Contains(others, span.GetName()):
			return prompt{}, unknown(Field)
		case !json.Valid(span.GetValue()):
			return prompt{}, unknown(Malformed)
		default:
			p.rest = append(p.rest, span)
		}
	}
	if value == nil {
		return prompt{}, unknown(NoPrompt)
	}
	if r.GetKind() == scorerv1.Kind_KIND_CHAT {
		return p, p.messages(value)
	}
	return p, p.first(value)
}

// members names the one member that is the prompt, and those that decide how it is tokenized.
func members(k scorerv1.Kind) (main string, others []string, ok bool) {
	switch k {
	case scorerv1.Kind_KIND_COMPLETIONS:
		return "prompt", []string{"add_special_tokens"}, true
	case scorerv1.Kind_KIND_CHAT:
		return "messages", []string{
			"tools", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
			"mm_processor_kwargs", "add_special_tokens",
		}, true
	case scorerv1.Kind_KIND_UNSPECIFIED:
	}
	return "", nil, false
}

// first reads the value of prompt: string, [string, ...], [id, ...] or [[id, ...], ...]; of several prompts the first.
func (p *prompt) first(value []byte) *UnknownError {
	c := cursor{data: value}
	switch c.peek() {
	case '"':
		return p.take(&c, true)
	case '[':
	default:
		return unknown(Malformed)
	}
	list := c
	c.at++
	switch c.peek() {
	case '"':
		return p.take(&c, false)
	case '[':
		return p.tokens(&c)
	}
	if why := p.tokens(&list); why != nil {
		return why
	}
	if list.peek() != 0 || list.at != len(value) {
		return unknown(Malformed)
	}
	return nil
}

func (p *prompt) take(c *cursor, whole bool) *UnknownError {
	text, ok := c.text()
	if !ok || whole && (c.peek() != 0 || c.at != len(c.data)) {
		return unknown(Malformed)
	}
	if len(text) == len(`""`) {
		return unknown(NoPrompt)
	}
	p.text = text
	return nil
}

func (p *prompt) tokens(c *cursor) *UnknownError {
	ids, ok := c.ids()
	switch {
	case !ok:
		return unknown(Malformed)
	case len(ids) == 0:
		return unknown(NoPrompt)
	}
	p.ids = ids
	return nil
}

// messages checks that every part of every message's content is text.
func (p *prompt) messages(value []byte) *UnknownError {
	c := cursor{data: value}
	why, count := Malformed, 0
	member := func(key []byte) bool {
		switch {
		case bytes.IndexByte(key, '\\') >= 0: // another spelling of some name
			why = Field
			return false
		case string(key) == `"content"`:
			return content(&c, &why)
		}
		return c.skip()
	}
	ok := c.array(func() bool {
		count++
		return c.object(member)
	})
	switch {
	case !ok, c.peek() != 0, c.at != len(value):
		return unknown(why)
	case count == 0:
		return unknown(NoPrompt)
	}
	p.text = value
	return nil
}

func content(c *cursor, why *Reason) bool {
	switch c.peek() {
	case '"', 'n':
		return c.skip()
	case '[':
		return c.array(func() bool { return part(c, why) })
	}
	return false
}

// part takes one part of a message's content: a string, or an object whose type says that it is text.
func part(c *cursor, why *Reason) bool {
	if c.peek() == '"' {
		return c.skip()
	}
	types, foreign := 0, false
	ok := c.object(func(key []byte) bool {
		if string(key) != `"type"` {
			foreign = foreign || bytes.IndexByte(key, '\\') >= 0
			return c.skip()
		}
		kind, ok := c.text()
		types++
		foreign = foreign || !isText(kind)
		return ok
	})
	if ok && (foreign || types == 0) {
		*why = NonText
		return false
	}
	return ok
}

func isText(kind []byte) bool {
	switch string(kind) {
	case `"text"`, `"input_text"`, `"output_text"`, `"refusal"`, `"thinking"`:
		return true
	}
	return false
}
