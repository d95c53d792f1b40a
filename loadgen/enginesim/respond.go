package enginesim

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// usage is the accounting at the end of a response.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Total      int `json:"total_tokens"`
	Completion int `json:"completion_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// count takes a token into account. Choices of one prompt share its tokens: they count once.
func (u *usage) count(t emitted, choicesPerPrompt int) {
	u.Completion++
	if t.index == 0 && t.choice%choicesPerPrompt == 0 {
		u.Details.Cached += t.hit
	}
}

// choicesPerPrompt is n of the body.
func (a *answer) choicesPerPrompt() int {
	if a.body.N == nil {
		return 1
	}
	return *a.body.N
}

func (a *answer) usage() usage {
	return usage{Prompt: a.prompts}
}

// reason is why a choice ended.
func (a *answer) reason(index int) string {
	if a.requests[index].Tag.(*choice).stops {
		return "stop"
	}
	return "length"
}

// stream answers with server-sent events: one chunk a token, one write a step.
func (a *answer) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	out := http.NewResponseController(w)
	if out.Flush() != nil {
		return
	}
	var (
		tokens []emitted
		buf    []byte
		open   = len(a.requests)
		used   = a.usage()
		head   = a.head()
	)
	for open > 0 {
		select {
		case <-a.call.ready:
		case <-r.Context().Done():
			return
		}
		var err error
		tokens, err = a.call.take(tokens[:0])
		buf = buf[:0]
		for _, t := range tokens {
			used.count(t, a.choicesPerPrompt())
			buf = a.chunk(buf, head, t)
			if t.last {
				open--
			}
		}
		if err != nil {
			buf = append(append(append(buf, "data: "...), asAPI(err).object()...), "\n\n"...)
			open = 0
		} else if open == 0 && a.body.StreamOptions != nil && a.body.StreamOptions.IncludeUsage {
			buf = a.last(buf, used)
		}
		if open == 0 {
			buf = append(buf, "data: [DONE]\n\n"...)
		}
		if _, err := w.Write(buf); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
	}
}

// head is what every chunk begins with, up to the choice's index.
func (a *answer) head() []byte {
	object := "text_completion"
	if a.chat {
		object = "chat.completion.chunk"
	}
	b := a.envelope([]byte("data: "), object)
	return append(b, `"choices":[`...)
}

// envelope begins the object that any response is: its id, kind, time and model.
func (a *answer) envelope(b []byte, object string) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, a.id)
	b = append(append(append(b, `,"object":"`...), object...), `","created":`...)
	b = strconv.AppendInt(b, a.created, 10)
	b = append(b, `,"model":`...)
	b = appendString(b, a.body.Model)
	return append(b, ',')
}

// chunk appends the event of one token. Generated text is words of letters: it needs no escaping.
func (a *answer) chunk(b, head []byte, t emitted) []byte {
	if a.chat && t.index == 0 {
		b = append(append(b, head...), `{"index":`...)
		b = strconv.AppendInt(b, int64(t.choice), 10)
		b = append(b, `,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}`+"\n\n"...)
	}
	b = append(append(b, head...), `{"index":`...)
	b = strconv.AppendInt(b, int64(t.choice), 10)
	if a.chat {
		b = append(b, `,"delta":{"content":"`...)
		b = append(Detokenize(b, t.token), `"},"logprobs":null,"finish_reason":`...)
	} else {
		b = append(b, `,"text":"`...)
		b = append(Detokenize(b, t.token), `","logprobs":null,"finish_reason":`...)
	}
	if t.last {
		b = append(append(append(b, '"'), a.reason(t.choice)...), '"')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"stop_reason":null`...)
	if a.body.ReturnTokenIDs {
		b = append(b, `,"token_ids":[`...)
		b = append(strconv.AppendUint(b, uint64(t.token), 10), ']')
	}
	return append(b, "}]}\n\n"...)
}

// last appends the event that carries the usage.
func (a *answer) last(b []byte, u usage) []byte {
	u.Total = u.Prompt + u.Completion
	text, _ := json.Marshal(u)
	b = append(append(b, a.head()...), `],"usage":`...)
	return append(append(b, text...), "}\n\n"...)
}

// whole answers with one JSON object once all choices are complete.
func (a *answer) whole(w http.ResponseWriter, r *http.Request) {
	var (
		tokens []emitted
		open   = len(a.requests)
		used   = a.usage()
		parts  = make([][]uint32, len(a.requests))
	)
	for open > 0 {
		select {
		case <-a.call.ready:
		case <-r.Context().Done():
			return
		}
		var err error
		tokens, err = a.call.take(tokens[:0])
		if err != nil {
			writeError(w, err)
			return
		}
		for _, t := range tokens {
			used.count(t, a.choicesPerPrompt())
			parts[t.choice] = append(parts[t.choice], t.token)
			if t.last {
				open--
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a.object(parts, used))
}

// object is the response that is not streamed.
func (a *answer) object(parts [][]uint32, u usage) []byte {
	u.Total = u.Prompt + u.Completion
	object := "text_completion"
	if a.chat {
		object = "chat.completion"
	}
	b := append(a.envelope(nil, object), `"choices":[`...)
	for i, tokens := range parts {
		c := map[string]any{"index": i, "logprobs": nil, "finish_reason": a.reason(i), "stop_reason": nil}
		text := string(Detokenize(nil, tokens...))
		if a.chat {
			c["message"] = map[string]any{"role": "assistant", "content": text}
		} else {
			c["text"] = text
		}
		if a.body.ReturnTokenIDs {
			c["token_ids"], c["prompt_token_ids"] = tokens, a.requests[i].Prompt
		}
		if i > 0 {
			b = append(b, ',')
		}
		one, _ := json.Marshal(c)
		b = append(b, one...)
	}
	text, _ := json.Marshal(u)
	b = append(append(b, `],"usage":`...), text...)
	if a.handed != nil {
		b = append(append(b, `,"kv_transfer_params":`...), a.handed.params...)
	}
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	text, _ := json.Marshal(s)
	return append(b, text...)
}
