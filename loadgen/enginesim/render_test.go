package enginesim

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const renderMembers = "cache_salt features kv_transfer_params model priority request_id sampling_params stream token_ids"

// What is rendered are the ids that the engine computes for the same body.
func TestRenderIsWhatIsComputed(t *testing.T) {
	e := start(t, Options{Profile: slow, TimeScale: 1000})
	const user = `{"role":"user","content":"why é?"}`
	for body, prompts := range map[string]int{
		`"messages":[{"role":"system","content":"be <|im_end|> brief"},` + user + `]`:                                              0,
		`"messages":[` + user + `,{"role":"assistant","content":"so"},` + user + `],"tools":[{"type":"function"}]`:                 0,
		`"messages":[{"role":"user","content":[{"type":"text","text":"a b"},{"type":"text","text":"c"}]}],"model":"sql"`:           0,
		`"messages":[` + user + `,{"role":"assistant","content":"be"}],"continue_final_message":true,"cache_salt":"s"`:             0,
		`"messages":[` + user + `],"add_generation_prompt":false,"stream":false,"max_completion_tokens":2,"seed":4,"model":"poet"`: 0,
		`"prompt":" abc def"`:                          1,
		`"prompt":[" abc def"," ghi"],"n":2`:           2,
		`"prompt":[5, 6,7],"model":"sql"`:              1,
		`"prompt":[[5,6],[7],[8]],"cache_salt":"salt"`: 3,
	} {
		path := "/v1/chat/completions"
		if prompts > 0 {
			path = "/v1/completions"
		}
		body = `{"max_tokens":2,"return_token_ids":true,` + body + `}`
		var computed struct {
			Choices []struct {
				Prompt []uint32 `json:"prompt_token_ids"`
			}
		}
		if status, text := post(t, e, path, body, &computed); status != 200 {
			t.Fatalf("%s: %s", body, text)
		}
		list := []map[string]json.RawMessage{{}}
		var into any = &list
		if prompts == 0 {
			into = &list[0]
		}
		before := e.Stats()
		status, text := post(t, e, path+"/render", body, into)
		if status != 200 || len(list) != max(1, prompts) || e.Stats() != before {
			t.Fatalf("%s: %d %s", body, status, text)
		}
		var said struct {
			Model string
			Salt  *string `json:"cache_salt"`
		}
		if err := json.Unmarshal([]byte(body), &said); err != nil {
			t.Fatal(err)
		}
		for i, one := range list {
			if got := strings.Join(slices.Sorted(maps.Keys(one)), " "); got != renderMembers {
				t.Errorf("%s: members %s", body, got)
			}
			var r rendered
			again, _ := json.Marshal(one)
			if err := json.Unmarshal(again, &r); err != nil {
				t.Fatal(err)
			}
			same := r.Salt == said.Salt || r.Salt != nil && said.Salt != nil && *r.Salt == *said.Salt
			if want := computed.Choices[i*len(computed.Choices)/len(list)].Prompt; len(want) == 0 || !slices.Equal(r.Tokens, want) ||
				string(one["features"]) != "null" || r.Sampling.MaxTokens != 2 || !same || said.Model != "" && r.Model != said.Model {
				t.Errorf("%s: rendered %s, computed %v", body, text, want)
			}
		}
	}
}

func TestRenderRefusesWhatTheEngineRefuses(t *testing.T) {
	e := start(t, Options{Blocks: 64})
	for _, path := range []string{"/v1/completions", "/v1/chat/completions"} {
		for _, body := range []string{
			`{"model":"nobody","prompt":"x","messages":[{}]}`, `{`, `{}`, `{"prompt":{},"messages":{}}`,
			`{"prompt":"x","messages":[{"role":"user","content":[{"type":"image_url"}]}],"n":0}`,
			`{"prompt":"` + strings.Repeat(" abc", 1024) + `","messages":[{"content":"` + strings.Repeat(" abc", 1024) + `"}]}`,
		} {
			want, text := post(t, e, path, body, nil)
			got, same := post(t, e, path+"/render", body, nil)
			if want < 400 || got != want || string(same) != string(text) {
				t.Errorf("%s %.60s: %d %s, rendered %d %s", path, body, want, text, got, same)
			}
		}
	}
}

// An engine of before render has all but that; one whose tokens are others has them everywhere.
func TestRenderOptions(t *testing.T) {
	bytes := func(dst []uint32, text string) []uint32 {
		for i := range len(text) {
			dst = append(dst, uint32(text[i]))
		}
		return dst
	}
	asked := make(chan string, 1)
	old, e := start(t, Options{NoRender: true}), start(t, Options{Tokenize: bytes, Rendering: func(r *http.Request) { asked <- r.URL.Path }})
	const body = `{"prompt":" abc","messages":[{"role":"user","content":" abc"}],"max_tokens":1}`
	for _, path := range []string{"/v1/completions", "/v1/chat/completions"} {
		if status, _ := post(t, old, path+"/render", body, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d of an old engine", path, status)
		}
		var ours, theirs reply
		post(t, old, path, body, &theirs)
		if post(t, e, path, body, &ours); theirs.Usage.Prompt == 0 || ours.Usage.Prompt <= theirs.Usage.Prompt {
			t.Errorf("%s: %d tokens, %d bytes", path, theirs.Usage.Prompt, ours.Usage.Prompt)
		}
		_, text := post(t, e, path+"/render", body, nil)
		if n := strings.Count(string(text), "97,98,99"); n != 1 || <-asked != path+"/render" {
			t.Errorf("%s: %s", path, text)
		}
	}
	var r struct{ Tokens []uint32 }
	if post(t, e, "/tokenize", `{"prompt":"ab"}`, &r); fmt.Sprint(r.Tokens) != "[97 98]" {
		t.Errorf("%v", r)
	}
}
