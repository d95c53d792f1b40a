package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

func completion(spans ...string) *scorerv1.ScoreRequest {
	return request(scorerv1.Kind_KIND_COMPLETIONS, spans...)
}

func chat(spans ...string) *scorerv1.ScoreRequest { return request(scorerv1.Kind_KIND_CHAT, spans...) }

func request(kind scorerv1.Kind, spans ...string) *scorerv1.ScoreRequest {
	r := &scorerv1.ScoreRequest{Pool: "pool", Model: `m/"odd"`, Kind: kind}
	for i := 0; i < len(spans); i += 2 {
		r.Spans = append(r.Spans, &scorerv1.Span{Name: spans[i], Value: []byte(spans[i+1])})
	}
	return r
}

func TestIDsInTheRequest(t *testing.T) {
	cases := map[string][]uint32{
		`[1,2,3]`:                 {1, 2, 3},
		" [ 0 ,\n2147483647\t] ":  {0, math.MaxInt32},
		`[[7,8],[9]]`:             {7, 8},
		` [ [ 7 ] , ["any", {}]]`: {7},
	}
	for value, want := range cases {
		p, why := read(completion("prompt", value))
		if why != nil || !slices.Equal(p.ids, want) {
			t.Errorf("%s: %v, %v; want %v", value, p.ids, why, want)
		}
	}
}

func TestPromptsThatAreUnknown(t *testing.T) {
	big := `"` + strings.Repeat("x", MaxPrompt) + `"`
	cases := []struct {
		request *scorerv1.ScoreRequest
		want    Reason
	}{
		{completion(), NoPrompt},
		{completion("prompt", "null"), NoPrompt},
		{completion("prompt", `""`), NoPrompt},
		{completion("prompt", `[]`), NoPrompt},
		{completion("prompt", `[[]]`), NoPrompt},
		{completion("prompt", `[""]`), NoPrompt},
		{completion("prompt", big), TooLarge},
		{completion("prompt", `""`, "add_special_tokens", big), TooLarge},
		{completion("prompt", `{"prompt":"x"}`), Malformed},
		{completion("prompt", `17`), Malformed},
		{completion("prompt", ``), Malformed},
		{completion("prompt", `[1.0]`), Malformed},
		{completion("prompt", `[1e3]`), Malformed},
		{completion("prompt", `[-1]`), Malformed},
		{completion("prompt", `[01]`), Malformed},
		{completion("prompt", `[2147483648]`), Malformed},
		{completion("prompt", `[99999999999999999999999999]`), Malformed},
		{completion("prompt", `[1,]`), Malformed},
		{completion("prompt", `[1 2]`), Malformed},
		{completion("prompt", `[1] 2`), Malformed},
		{completion("prompt", `[1,"a"]`), Malformed},
		{completion("prompt", `[true]`), Malformed},
		{completion("prompt", "[1,\x00]"), Malformed},
		{completion("prompt", `"open`), Malformed},
		{completion("prompt", `"open\"`), Malformed},
		{completion("prompt", `"a","model":"b"`), Malformed},
		{completion("prompt", `"a"`, "add_special_tokens", `true,"model":"b"`), Malformed},
		{completion("prompt", `"a"`, "prompt_embeds", `"AAAA"`), NonText},
		{completion("prompt", `"a"`, "suffix", `"b"`), Field},
		{completion("messages", `[]`), Field},
		{chat(), NoPrompt},
		{chat("messages", `[]`), NoPrompt},
		{chat("messages", `["x"]`), Malformed},
		{chat("messages", `[{"role":"user","content":"x"}`), Malformed},
		{chat("messages", `[{"role":"user","content":"x"}],"model":"b"`), Malformed},
		{chat("messages", `[{"role":"user","content":5}]`), Malformed},
		{chat("messages", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]`), NonText},
		{chat("messages", `[{"role":"user","content":[{"type":"text","text":"x"},{"type":"input_audio"}]}]`), NonText},
		{chat("messages", `[{"role":"user","content":[{"type":"text","type":"video_url"}]}]`), NonText},
		{chat("messages", `[{"role":"user","content":[{"image_url":"u"}]}]`), NonText},
		{chat("messages", `[{"role":"user","content":[{"typ\u0065":"image_url","type":"text"}]}]`), NonText},
		{chat("messages", `[{"role":"user","cont\u0065nt":[{"type":"image_url"}]}]`), Field},
		{chat("messages", `[{"role":"user","content":"x"}]`, "documents", `[]`), Field},
		{chat("messages", `[{"role":"user","content":"x"}]`, "tools", `[`), Malformed},
		{request(scorerv1.Kind_KIND_UNSPECIFIED, "prompt", `"x"`), Kind},
		{request(77, "prompt", `"x"`), Kind},
	}
	for _, c := range cases {
		name := fmt.Sprintf("%.120s", c.request.GetSpans())
		if _, why := read(c.request); why == nil || why.Reason != c.want {
			t.Errorf("%s: %v, want %q", name, why, c.want)
		}
	}
}

func TestBodiesKeepEveryByteOfTheSpans(t *testing.T) {
	messages := "[ {\"role\" : \"user\", \"content\":[{\"type\":\"text\",\"text\":\"\\u00e9 \\\"é\\\" 1.0e2 \"} , \"s\"], \"x\":[1,{\"y\":null}]},\n{\"content\":null,\"tool_calls\":[{\"f\":{\"a\":\"{}\"}}]}]"
	cases := []struct {
		request *scorerv1.ScoreRequest
		want    string
	}{
		{completion("prompt", `"a\u0062\/"`), `{"model":"m/\"odd\"","prompt":"a\u0062\/","add_special_tokens":true}`},
		{completion("prompt", `["one", "two"]`), `{"model":"m/\"odd\"","prompt":"one","add_special_tokens":true}`},
		{
			completion("add_special_tokens", " false", "prompt", `"\\"`, "prompt_embeds", "null"),
			`{"model":"m/\"odd\"","prompt":"\\","add_special_tokens": false}`,
		},
		{
			chat("messages", messages),
			`{"model":"m/\"odd\"","messages":` + messages + `,"add_special_tokens":false,"add_generation_prompt":true}`,
		},
		{
			chat("messages", `[{}]`, "tools", `[{"b":1, "a":2}]`, "add_generation_prompt", `false`, "chat_template_kwargs", `{"k": 1.0}`),
			`{"model":"m/\"odd\"","messages":[{}],"tools":[{"b":1, "a":2}],"add_generation_prompt":false,` +
				`"chat_template_kwargs":{"k": 1.0},"add_special_tokens":false}`,
		},
	}
	for _, c := range cases {
		p, why := read(c.request)
		if why != nil {
			t.Errorf("%s: %v", c.want, why)
			continue
		}
		if got := string(body(c.request, &p)); got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// What the strict reader takes, encoding/json takes with the same result; and it takes all that a strict list may be.
func FuzzIDs(f *testing.F) {
	for _, seed := range []string{`[1,2]`, `[ ]`, `[0]`, `[00]`, `[1.5]`, `[-0]`, `[2147483647]`, `[2147483648]`, `[1,,2]`, `[`, `[1]]`, "[1,\x002]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := cursor{data: data}
		got, ok := c.ids()
		rest := bytes.TrimLeft(data[c.at:], " \t\r\n")
		var want []uint32
		strict := json.Unmarshal(data, &want) == nil && !bytes.Contains(data, []byte("null")) &&
			!slices.ContainsFunc(want, func(v uint32) bool { return v > math.MaxInt32 }) && data[bytes.IndexAny(data, "[n")] == '['
		if strict && (!ok || !slices.Equal(got, want)) {
			t.Fatalf("%q: %v, %v; want %v", data, got, ok, want)
		}
		if ok && len(rest) == 0 && !strict {
			t.Fatalf("%q is taken for %v", data, got)
		}
	})
}

// Whatever the spans are, the body is valid JSON or so broken that no engine takes it: in a valid one each span is
// the whole value of its member, so that a prompt cannot add members.
func FuzzBodyCannotBeEscaped(f *testing.F) {
	f.Add(true, []byte(`[{"content":"x"}]`), []byte(`[]`))
	f.Add(true, []byte(`[{"content":[{"type":"text","text":"]}"}]}]`), []byte(`{"a":"\\"}`))
	f.Add(true, []byte(`[{}],"tools":[]`), []byte(`1`))
	f.Add(false, []byte(`"a","model":"b"`), []byte(`true`))
	f.Add(false, []byte(`["a","b"]`), []byte(`true`))
	f.Add(true, []byte(`[{"a":}],"model":[{"b":1}]`), []byte(`1`))
	f.Fuzz(func(t *testing.T, isChat bool, value, extra []byte) {
		r := completion("prompt", string(value), "add_special_tokens", string(extra))
		want := []string{"add_special_tokens", "model", "prompt"}
		if isChat {
			r = chat("messages", string(value), "tools", string(extra))
			want = []string{"add_generation_prompt", "add_special_tokens", "messages", "model", "tools"}
		}
		p, why := read(r)
		if why != nil || p.ids != nil || len(p.rest) == 0 {
			return
		}
		var got map[string]json.RawMessage
		if json.Unmarshal(body(r, &p), &got) != nil {
			return
		}
		var names []string
		for name := range got {
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) || !bytes.Equal(bytes.TrimSpace(got["model"]), []byte(`"m/\"odd\""`)) {
			t.Fatalf("%s has members %v, want %v", body(r, &p), names, want)
		}
	})
}

func TestUnknownIsAnErrorWithItsCause(t *testing.T) {
	cause := errors.New("cause")
	err := error(&UnknownError{Failed, cause})
	if !errors.Is(err, cause) || err.Error() != "tokenizer failed: cause" {
		t.Fatal(err)
	}
}

func BenchmarkIDs8k(b *testing.B) {
	list := []byte("[" + strings.Repeat("123456,", 8191) + "7]")
	b.ReportAllocs()
	b.SetBytes(int64(len(list)))
	for b.Loop() {
		c := cursor{data: list}
		if ids, ok := c.ids(); !ok || len(ids) != 8192 {
			b.Fatal("not read")
		}
	}
}

func BenchmarkMessages220KB(b *testing.B) {
	r := chat("messages", `[{"role":"user","content":"`+strings.Repeat(`some words, \"quoted\" `, 10_000)+`"}]`)
	b.ReportAllocs()
	b.SetBytes(int64(len(r.GetSpans()[0].GetValue())))
	for b.Loop() {
		p, why := read(r)
		if why != nil {
			b.Fatal(why)
		}
		digestOf(1, r, &p)
	}
}
