package enginesim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// tokenizer appends the tokens of a text to dst, as Tokenize does.
type tokenizer func(dst []uint32, text string) []uint32

// body is what the simulator reads of a request to /v1/completions, /v1/chat/completions, their render or /tokenize.
// Everything else that OpenAI and vLLM allow is accepted and changes nothing.
type body struct {
	Model               string          `json:"model"`
	Prompt              json.RawMessage `json:"prompt"`
	Messages            []message       `json:"messages"`
	Tools               json.RawMessage `json:"tools"`
	AddGenerationPrompt *bool           `json:"add_generation_prompt"`
	ContinueFinal       bool            `json:"continue_final_message"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	MinTokens           *int            `json:"min_tokens"`
	IgnoreEOS           bool            `json:"ignore_eos"`
	N                   *int            `json:"n"`
	Stream              bool            `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Salt            string          `json:"cache_salt"`
	Seed            int64           `json:"seed"`
	Transfer        json.RawMessage `json:"kv_transfer_params"`
	ReturnTokenIDs  bool            `json:"return_token_ids"`
	ReturnTokenStrs bool            `json:"return_token_strs"`
}

// message is a chat message whose content is a string or a list of parts.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// completion returns the prompts of a completion: a string, a list of strings, token ids, or a list of lists of them.
func (b *body) completion(tokenize tokenizer) ([][]uint32, error) {
	wrong := badRequest("prompt", "prompt must be a string, a list of strings, a list of token ids or a list of such lists")
	raw := bytes.TrimSpace(b.Prompt)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, badRequest("prompt", "prompt is missing")
	}
	var (
		text  string
		texts []string
		ids   []uint32
		lists [][]uint32
	)
	if raw[0] == '"' {
		if json.Unmarshal(raw, &text) != nil {
			return nil, wrong
		}
		return [][]uint32{tokenize(nil, text)}, nil
	}
	var prompts [][]uint32
	switch first := bytes.TrimLeft(raw[1:], " \t\r\n"); {
	case raw[0] != '[' || len(first) == 0:
		return nil, wrong
	case first[0] == '"':
		if json.Unmarshal(raw, &texts) != nil {
			return nil, wrong
		}
		for _, t := range texts {
			prompts = append(prompts, tokenize(nil, t))
		}
	case first[0] == '[':
		if json.Unmarshal(raw, &lists) != nil {
			return nil, wrong
		}
		prompts = lists
	default:
		if json.Unmarshal(raw, &ids) != nil {
			return nil, wrong
		}
		prompts = [][]uint32{ids}
	}
	return prompts, nil
}

// chat returns the one prompt of a chat.
func (b *body) chat(tokenize tokenizer) ([][]uint32, error) {
	if len(b.Messages) == 0 {
		return nil, badRequest("messages", "messages is missing")
	}
	messages := make([]Message, len(b.Messages))
	for i, m := range b.Messages {
		content, err := m.text()
		if err != nil {
			return nil, err
		}
		messages[i] = Message{Role: m.Role, Content: content}
	}
	t := Template{ContinueFinal: b.ContinueFinal, Generate: b.AddGenerationPrompt == nil || *b.AddGenerationPrompt}
	if b.ContinueFinal && t.Generate {
		if b.AddGenerationPrompt != nil {
			return nil, badRequest("", "continue_final_message and add_generation_prompt exclude each other")
		}
		t.Generate = false
	}
	if tools := string(bytes.TrimSpace(b.Tools)); tools != "null" && tools != "[]" {
		t.Tools = tools
	}
	return [][]uint32{tokenize.chat(nil, messages, t)}, nil
}

// text returns the content of a message; the simulated model reads text only.
func (m message) text() (string, error) {
	raw := bytes.TrimSpace(m.Content)
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", badRequest("messages", "content must be a string or a list of parts")
	}
	var all strings.Builder
	for _, p := range parts {
		if p.Type != "text" {
			return "", badRequest("messages", fmt.Sprintf("content of type %q: this model reads text only", p.Type))
		}
		all.WriteString(p.Text)
	}
	return all.String(), nil
}
