package bpe

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/pkoukk/tiktoken-go"
	"golang.org/x/text/unicode/norm"
)

// core is an independent implementation: regular expressions by an engine, merges by the rank of what they make.
type core struct {
	ours *Tokenizer
	*tiktoken.Tiktoken
}

// coreOf makes a core of what ours was loaded from. Without added tokens, which it does differently.
func coreOf(t testing.TB, ours *Tokenizer, expression string) core {
	t.Helper()
	ranks := make(map[string]int)
	for piece, id := range ours.merges.whole {
		ranks[piece] = int(id)
	}
	bpe, err := tiktoken.NewCoreBPE(ranks, nil, expression)
	if err != nil {
		t.Fatal(err)
	}
	bare := *ours
	bare.added, bare.later = added{}, added{}
	return core{&bare, tiktoken.NewTiktoken(bpe, &tiktoken.Encoding{}, nil)}
}

func (c core) check(t testing.TB, text string) {
	t.Helper()
	got, err := c.ours.Append(nil, text)
	if err != nil {
		return
	}
	if c.ours.nfc {
		text = norm.NFC.String(text)
	}
	var want []uint32
	for _, id := range c.EncodeOrdinary(text) {
		want = append(want, uint32(id))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%q: %v; the other core has %v", text, got, want)
	}
}

// cores are those of every tokenizer at hand.
func cores(t testing.TB) []core {
	var all []core
	for name, expression := range map[string]string{
		"small-gpt2": gpt2, "small-qwen2": qwen2, "small-llama": llama, "qwen2_5": qwen2, "llama3_1": llama,
	} {
		if tokenizer, ok := loaded(t, name); ok {
			all = append(all, coreOf(t, tokenizer, expression))
		}
	}
	return all
}

func addTexts(f *testing.F) {
	f.Helper()
	for _, v := range vectors(f, "testdata/splits.jsonl")[:200] {
		f.Add(strings.Join(v.Pieces, ""))
	}
}

// Ids are those of an independent core, for any text but the long s after an apostrophe, which that core does not fold.
func FuzzAgainstAnotherCore(f *testing.F) {
	addTexts(f)
	all := cores(f)
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "ſ", "s")
		for _, c := range all {
			c.check(t, text)
		}
	})
}

// A text that is divided where CutBetween allows it has the ids of the whole.
func FuzzCut(f *testing.F) {
	addTexts(f)
	var all []*Tokenizer
	for _, name := range []string{"small-gpt2", "small-qwen2", "small-llama", "qwen2_5", "llama3_1"} {
		if tokenizer, ok := loaded(f, name); ok {
			all = append(all, tokenizer)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "")
		for _, tokenizer := range all {
			whole, err := tokenizer.Append(nil, text)
			if err != nil {
				return
			}
			parts := []uint32(nil)
			for _, part := range cuts(text) {
				parts, _ = tokenizer.Append(parts, part)
			}
			if !slices.Equal(whole, parts) {
				t.Fatalf("%q in parts %q: %v, whole %v", text, cuts(text), parts, whole)
			}
		}
	})
}

func cuts(text string) (parts []string) {
	before, start := rune(-1), 0
	for at, after := range text {
		if CutBetween(before, after) {
			parts, start = append(parts, text[start:at]), at
		}
		before = after
	}
	return append(parts, text[start:])
}

func TestCutsAreFound(t *testing.T) {
	if got := cuts("one two  3\nまた，字。"); len(got) != 6 {
		t.Fatalf("%q", got)
	}
}

// The tables of Go that newer was made against: with others it must be made again, as testdata/README.md says.
func TestTablesAreThoseOfNewer(t *testing.T) {
	if unicode.Version != "15.0.0" {
		t.Fatalf("Unicode %s: compare letters, numbers and spaces with Oniguruma's again", unicode.Version)
	}
}

// BenchmarkEncode compares with the other core, of the texts of the vectors and of prose.
func BenchmarkEncode(b *testing.B) {
	tokenizer, ok := loaded(b, "qwen2_5")
	if !ok {
		tokenizer, _ = loaded(b, "small-qwen2")
	}
	other := coreOf(b, tokenizer, qwen2)
	prose, err := os.ReadFile("../../../../docs/performance.md")
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"prose": string(prose[:16<<10]),
		"Han":   strings.Repeat("中文字符测试没有空格，下一句再来。", 100),
		"run":   strings.Repeat("katomi", 300),
	} {
		b.Run(name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			var ids []uint32
			for b.Loop() {
				ids, _ = tokenizer.Append(ids[:0], text)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
		})
		b.Run(name+"/core", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			var ids []int
			for b.Loop() {
				ids = other.EncodeOrdinary(text)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
		})
	}
}
