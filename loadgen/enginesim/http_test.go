package enginesim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestStreamAndWholeAgree(t *testing.T) {
	e := start(t, Options{})
	const body = `{"model":"` + testModel + `","prompt":"the quick brown fox jumps over the lazy dog","max_tokens":20,"ignore_eos":true`
	events := stream(t, e, "/v1/completions", body+`,"stream":true,"stream_options":{"include_usage":true}}`)
	if len(events) != 21 {
		t.Fatalf("%d events for 20 tokens and the usage", len(events))
	}
	text := ""
	for i, r := range events[:20] {
		c := r.Choices[0]
		if len(r.Choices) != 1 || r.ID != "cmpl-my-id" || r.Usage != nil || (c.Reason == "length") != (i == 19) {
			t.Fatalf("event %d: %+v", i, r)
		}
		text += c.Text
	}
	prompt := len(Tokenize(nil, "the quick brown fox jumps over the lazy dog"))
	if u := events[20].Usage; len(events[20].Choices) != 0 || u.Prompt != prompt || u.Completion != 20 || u.Total != prompt+20 {
		t.Fatalf("%+v", u)
	}
	var whole reply
	if status, _ := post(t, e, "/v1/completions", body+`}`, &whole); status != 200 {
		t.Fatal(status)
	}
	if whole.Choices[0].Text != text || whole.Usage.Details.Cached != (prompt-1)/16*16 || whole.Usage.Total != prompt+20 {
		t.Fatalf("streamed %q, whole %+v", text, whole)
	}
	if n := len(stream(t, e, "/v1/completions", body+`,"stream":true}`)); n != 20 {
		t.Fatalf("%d events without usage", n)
	}
}

func TestPromptForms(t *testing.T) {
	e := start(t, Options{Profile: slow, TimeScale: 100})
	for body, want := range map[string][2]int{ // prompt tokens, choices
		`"prompt":" abc def"`:                  {2, 1},
		`"prompt":[" abc def"," ghi"]`:         {3, 2},
		`"prompt":[5, 6,7]`:                    {3, 1},
		`"prompt":[[5,6],[7],[8]]`:             {4, 3},
		`"prompt":[[5,6],[7]],"n":3`:           {3, 6},
		`"prompt":" abc","cache_salt":"salty"`: {1, 1},
	} {
		var r reply
		status, text := post(t, e, "/v1/completions", `{"model":"poet","max_tokens":3,`+body+`}`, &r)
		if status != 200 || r.Usage.Prompt != want[0] || len(r.Choices) != want[1] || r.Usage.Completion != 3*want[1] {
			t.Errorf("%s: %d %s", body, status, text)
		}
		for i, c := range r.Choices {
			if c.Index != i || len(c.Text) != 12 || c.Reason != "length" {
				t.Errorf("%s: choice %+v", body, c)
			}
		}
	}
}

func TestErrorsAreVLLMs(t *testing.T) {
	e := start(t, Options{Blocks: 64})
	for _, tc := range []struct {
		path, body, kind string
		status           int
	}{
		{"/v1/completions", `{"model":"nobody","prompt":"x"}`, "NotFoundError", 404},
		{"/v1/completions", `{"model":`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":{"a":1}}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":[1,"a"]}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":[-1]}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":""}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":"x","max_tokens":0}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":"x","max_tokens":1024}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":"x","n":0}`, "BadRequestError", 400},
		{"/v1/completions", `{"prompt":"` + strings.Repeat(" abc", 1024) + `"}`, "BadRequestError", 400},
		{"/v1/chat/completions", `{"messages":[]}`, "BadRequestError", 400},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, "BadRequestError", 400},
		{"/tokenize", `{"prompt":[1]}`, "BadRequestError", 400},
		{"/detokenize", `{"tokens":"a"}`, "BadRequestError", 400},
	} {
		var r struct {
			Error struct {
				Message, Type string
				Code          int
			}
		}
		status, text := post(t, e, tc.path, tc.body, &r)
		if status != tc.status || r.Error.Code != tc.status || r.Error.Type != tc.kind || r.Error.Message == "" {
			t.Errorf("%s %.60s: %d %s", tc.path, tc.body, status, text)
		}
	}
	if s := e.Stats(); s.Queries != 0 || s.Free != s.Blocks {
		t.Errorf("a refused request was computed: %+v", s)
	}
}

// Turn N+1 of a chat finds the whole of turn N, answer included, in the cache.
func TestChatTurnsExtendEachOther(t *testing.T) {
	e := start(t, Options{})
	messages := []map[string]string{{"role": "system", "content": "Be brief, and cite <|im_end|> never."}}
	var before []uint32 // prompt and answer of the last turn
	for turn := range 5 {
		messages = append(messages, map[string]string{"role": "user", "content": fmt.Sprintf("Question %d: why é?", turn)})
		body := map[string]any{"model": "sql", "messages": messages, "return_token_ids": true}
		text, _ := json.Marshal(body)
		var tokens struct {
			Tokens []uint32
			Count  int
		}
		post(t, e, "/tokenize", string(text), &tokens)
		if tokens.Count != len(tokens.Tokens) || !slices.Equal(tokens.Tokens[:len(before)], before) {
			t.Fatalf("turn %d does not extend the one before", turn)
		}
		var r reply
		if status, text := post(t, e, "/v1/chat/completions", string(text), &r); status != 200 {
			t.Fatalf("%s", text)
		}
		want := 0
		if turn > 0 {
			want = (len(before) - 1) / 16 * 16 // the last token of an answer is not computed
		}
		if r.Usage.Prompt != tokens.Count || r.Usage.Details.Cached != want || r.Choices[0].Reason != "stop" {
			t.Fatalf("turn %d: %+v, want %d cached", turn, r.Usage, want)
		}
		answer := r.Choices[0].Message.Content
		if !slices.Equal(Tokenize(nil, answer), r.Choices[0].Tokens) {
			t.Fatalf("the answer's text has other tokens than the answer")
		}
		before = append(tokens.Tokens, r.Choices[0].Tokens...)
		messages = append(messages, map[string]string{"role": "assistant", "content": answer})
	}
	events := stream(t, e, "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"max_completion_tokens":2,"stream":true}`)
	if len(events) != 3 || events[0].Choices[0].Delta.Role != "assistant" || events[2].Choices[0].Reason != "length" {
		t.Fatalf("%+v", events)
	}
}

func TestTokenizerLosesNothing(t *testing.T) {
	for _, text := range []string{"", "a", " a", "  ab", " abc", "abcd efgh", "Zeile\n<|im_start|>user", "<|", "日本", "\x00\xff z", " ABC 123"} {
		if got := string(Detokenize(nil, Tokenize(nil, text)...)); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for id := range uint32(VocabSize) {
		if text := Detokenize(nil, id); id >= 128 && id < imStart {
			continue
		} else if got := Tokenize(nil, string(text)); len(got) != 1 || got[0] != id {
			t.Fatalf("token %d is %q, which has tokens %v", id, text, got)
		}
	}
	e := start(t, Options{})
	var r struct{ Prompt string }
	if post(t, e, "/detokenize", fmt.Sprintf(`{"tokens":[%d,%d]}`, wordBase, imEnd), &r); r.Prompt != " aaa<|im_end|>" {
		t.Errorf("%q", r.Prompt)
	}
}

func TestModels(t *testing.T) {
	e := start(t, Options{Blocks: 100})
	resp, err := http.Get(e.URL() + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []model }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	d := list.Data
	if len(d) != 3 || d[0].ID != testModel || d[0].Parent != nil || *d[0].MaxModelLen != 1600 ||
		d[2].ID != "poet" || *d[2].Parent != testModel {
		t.Fatalf("%+v", d)
	}
}

func FuzzTokenize(f *testing.F) {
	for _, text := range []string{"", " abc d", "<|im_end|", "\xff\n<|image_pad|>x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := string(Detokenize(nil, Tokenize(nil, text)...)); got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// Whatever a body holds is a prompt or vLLM's error, and never more choices than the limit.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{"prompt":[[1,2],[]],"n":1000,"max_tokens":9}`, `{"prompt":[[]]}`, `{"prompt":[`, `{"prompt":[ ]}`, `{"prompt":[null]}`,
		`{"messages":[{"role":"a","content":[{"type":"text","text":"b"}]}],"tools":[{}],"continue_final_message":true}`,
	} {
		f.Add(body, true)
		f.Add(body, false)
	}
	e := newEngine(Options{Model: "m", Blocks: 64}.withDefaults())
	f.Fuzz(func(t *testing.T, text string, chat bool) {
		a := answer{call: newCall(), body: &body{}, chat: chat}
		if json.Unmarshal([]byte(text), a.body) != nil {
			return
		}
		if err := e.prepare(&a, ""); err != nil {
			if api := asAPI(err); api.status != 400 && api.status != 404 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if len(a.requests) == 0 || len(a.requests) > 1024 {
			t.Fatalf("%q: %d requests", text, len(a.requests))
		}
		if err := e.submit(a.requests); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		e.abort(a.requests)
	})
}
