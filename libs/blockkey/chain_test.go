package blockkey

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func someTokens(seed uint64, n int) []uint32 {
	r := rand.New(rand.NewPCG(seed, 1))
	tokens := make([]uint32, n)
	for i := range tokens {
		tokens[i] = r.Uint32N(150_000)
	}
	return tokens
}

func TestEqualPrefixesHaveEqualKeys(t *testing.T) {
	for _, size := range []int{1, 4, 16, 64, 128} {
		s := Scope{Pool: "p", BlockSize: size}
		a := someTokens(1, 20*size+size/2)
		b := append(slices.Clone(a[:7*size]), someTokens(2, 13*size)...)
		ka, kb := Keys(nil, s, a, nil), Keys(nil, s, b, nil)
		if len(ka) != 20 || len(kb) != 20 {
			t.Fatalf("size %d: %d and %d keys, want 20: full blocks only", size, len(ka), len(kb))
		}
		for i := range ka {
			if (ka[i] == kb[i]) != (i < 7) {
				t.Errorf("size %d, block %d: equal keys %t, equal prefixes %t", size, i, ka[i] == kb[i], i < 7)
			}
		}
	}
}

func TestWhatDiffersChangesEveryKey(t *testing.T) {
	tokens := someTokens(1, 256)
	base := Scope{Pool: "pool", BlockSize: 16, LoRA: "a", Salt: "s"}
	others := map[string]Scope{
		"seed":            {Seed: Seed{31: 1}, Pool: "pool", BlockSize: 16, LoRA: "a", Salt: "s"},
		"pool":            {Pool: "pool2", BlockSize: 16, LoRA: "a", Salt: "s"},
		"block size":      {Pool: "pool", BlockSize: 32, LoRA: "a", Salt: "s"},
		"lora":            {Pool: "pool", BlockSize: 16, LoRA: "b", Salt: "s"},
		"salt":            {Pool: "pool", BlockSize: 16, LoRA: "a", Salt: "t"},
		"lora and salt":   {Pool: "pool", BlockSize: 16, LoRA: "as"},
		"pool and lora":   {Pool: "poola", BlockSize: 16, Salt: "s"},
		"salt for lora":   {Pool: "pool", BlockSize: 16, LoRA: "s", Salt: "a"},
		"nothing but NUL": {Pool: "pool", BlockSize: 16, LoRA: "a\x00", Salt: "s"},
	}
	want := Keys(nil, base, tokens, nil)
	for name, s := range others {
		for _, key := range Keys(nil, s, tokens, nil) {
			if slices.Contains(want, key) {
				t.Errorf("%s: key %x is in both scopes", name, key)
			}
		}
	}
}

func TestItems(t *testing.T) {
	s := Scope{Pool: "p", BlockSize: 16}
	tokens := someTokens(1, 160)
	plain := Keys(nil, s, tokens, nil)
	base := []Item{{"img-a", 37}, {"img-b", 70}}
	want := Keys(nil, s, tokens, base)
	for i := range plain {
		if (plain[i] == want[i]) != (i < 2) {
			t.Errorf("block %d: items enter where they begin, at block 2; equal %t", i, plain[i] == want[i])
		}
	}
	for name, items := range map[string][]Item{
		"other id":       {{"img-c", 37}, {"img-b", 70}},
		"other offset":   {{"img-a", 38}, {"img-b", 70}},
		"swapped":        {{"img-b", 37}, {"img-a", 70}},
		"one more":       {{"img-a", 37}, {"img-a", 38}, {"img-b", 70}},
		"ids run on":     {{"img-ai", 37}, {"mg-b", 70}},
		"first missing":  {{"img-b", 70}},
		"both in one":    {{"img-a", 37}, {"img-b", 38}},
		"other piece":    {{"img-a", 37 + 16}, {"img-b", 70}},
		"embeds instead": nil,
	} {
		got := Keys(nil, s, tokens, items)
		if got[9] == want[9] {
			t.Errorf("%s: same last key", name)
		}
	}
	if got := Keys(nil, s, tokens, []Item{base[1], base[0]}); !slices.Equal(got, want) {
		t.Error("order of the items given changes keys")
	}
	if got := Keys(nil, s, tokens, append(base, Item{"late", 160}, Item{"early", -3})); !slices.Equal(got, want) {
		t.Error("items that do not begin within the full blocks change keys")
	}
}

// An item and a piece of tokens never lead to the same state, nor do a text and a digest of the same bytes.
func TestDomainsAreApart(t *testing.T) {
	seen := map[uint64]string{}
	add := func(name string, state uint64) {
		if other, ok := seen[state]; ok {
			t.Errorf("%s and %s lead to the same state", name, other)
		}
		seen[state] = name
	}
	for n := range 65 {
		raw := bytes.Repeat([]byte{0}, n)
		add(fmt.Sprintf("text of %d", n), Mix(7, string(raw), 0))
		add(fmt.Sprintf("text of %d at its length", n), Mix(7, string(raw), n+100))
		add(fmt.Sprintf("digest of %d", n), MixBytes(7, raw))
		if n <= MaxPiece {
			add(fmt.Sprintf("piece of %d", n), Extend(7, make([]uint32, n)))
		}
	}
}

// A prompt cut into engine blocks of any size that fits, each continued from the state its parent ended in and with
// its items given by their offset in the block, as events carry them, has the same states as in one go.
func TestKeysDoNotDependOnEngineBlockSize(t *testing.T) {
	tokens := someTokens(3, 1024)
	items := []Item{{"a", 0}, {"b", 15}, {"c", 16}, {"d", 100}, {"e", 447}, {"e", 448}, {"f", 1000}}
	for _, canonical := range []int{8, 16, 32, 64} {
		scope := Scope{Pool: "p", BlockSize: canonical}
		want := Keys(nil, scope, tokens, items)
		for _, engine := range []int{8, 16, 32, 64, 128, 256} {
			if CheckSizes(canonical, engine) != nil {
				continue
			}
			if got := keysFromEngineBlocks(scope, engine, tokens, items); !slices.Equal(got, want) {
				t.Errorf("canonical %d, engine blocks of %d: other keys", canonical, engine)
			}
		}
	}
}

func keysFromEngineBlocks(s Scope, size int, tokens []uint32, items []Item) (keys []uint64) {
	piece, state := PieceSize(s.BlockSize), s.Root()
	for start := 0; start < len(tokens); start += size {
		var own []Item
		for _, x := range items { // what vLLM announces: items that overlap the block, each here 20 tokens long
			if x.Start < start+size && x.Start+20 > start {
				own = append(own, Item{x.ID, x.Start - start})
			}
		}
		states := Advance(nil, state, piece, tokens[start:start+size], own)
		for i, st := range states {
			if (start+(i+1)*piece)%s.BlockSize == 0 {
				keys = append(keys, st)
			}
		}
		state = states[len(states)-1]
	}
	return keys
}

func TestCheckSizes(t *testing.T) {
	for _, c := range []struct {
		canonical, engine int
		ok                bool
	}{
		{16, 16, true}, {16, 64, true}, {64, 16, true}, {8, 8, true}, {8, 16, true}, {1, 1, true}, {1, 7, true}, {544, 32, true}, {48, 16, true},
		{16, 8, false}, {16, 24, false}, {24, 24, false}, {32, 48, false}, {0, 16, false}, {16, 0, false}, {-16, 16, false}, {16, -16, false},
	} {
		err := CheckSizes(c.canonical, c.engine)
		if (err == nil) != c.ok {
			t.Errorf("canonical %d, engine %d: %v", c.canonical, c.engine, err)
		}
		if err == nil {
			continue
		}
		if want := fmt.Sprintf("%d to canonical %d:", c.engine, c.canonical); !errors.Is(err, ErrBlockSize) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name both sizes", err)
		}
	}
	if got := Keys(nil, Scope{BlockSize: 24}, someTokens(1, 100), nil); got != nil {
		t.Errorf("keys %v for a block size that is no multiple of the piece", got)
	}
}

func TestKeysReusesItsDestination(t *testing.T) {
	s := Scope{Pool: "pool-1234", BlockSize: 64, Salt: "salt"}
	tokens, items := someTokens(1, 8192), []Item{{"img", 100}, {"img", 4000}}
	prefix := []uint64{1, 2, 3}
	dst := append(make([]uint64, 0, 1024), prefix...)
	got := Keys(dst, s, tokens, items)
	if want := append(slices.Clone(prefix), Keys(nil, s, tokens, items)...); !slices.Equal(got, want) {
		t.Fatal("keys are not appended to what was there")
	}
	if n := testing.AllocsPerRun(100, func() { dst = Keys(dst[:0], s, tokens, items) }); n != 0 {
		t.Errorf("%v allocations with a destination that is large enough", n)
	}
}

// The encoding can be read back, so no two scopes share it.
func FuzzRootEncodingIsInjective(f *testing.F) {
	f.Add([]byte("seed"), "pool", 16, "lora", "salt")
	f.Add([]byte{}, "", 0, "", "")
	f.Add([]byte{0xff}, "p\x00\x00", -1, "\x04", "l\x00ora")
	f.Fuzz(func(t *testing.T, seed []byte, pool string, size int, lora, salt string) {
		s := Scope{Pool: pool, BlockSize: size, LoRA: lora, Salt: salt}
		copy(s.Seed[:], seed)
		if got := decodeScope(s.encode(nil)); got != s {
			t.Fatalf("%+v reads back as %+v", s, got)
		}
	})
}

func decodeScope(b []byte) (s Scope) {
	number := func() int {
		n := 0
		for i := 7; i >= 0; i-- {
			n = n<<8 | int(b[i])
		}
		b = b[8:]
		return n
	}
	b = b[copy(s.Seed[:], b):]
	s.BlockSize = number()
	for _, field := range []*string{&s.Pool, &s.LoRA, &s.Salt} {
		n := number()
		*field = string(b[:n])
		b = b[n:]
	}
	return s
}

// FuzzAdvance holds Advance against the chain done step by step.
func FuzzAdvance(f *testing.F) {
	f.Add(uint64(1), 16, 100, 3, 40)
	f.Add(uint64(0), 4, 7, -1, 100)
	f.Fuzz(func(t *testing.T, state uint64, piece, n, first, second int) {
		if piece < 1 || piece > MaxPiece || n < 0 || n > 4096 {
			return
		}
		tokens := someTokens(state, n)
		items := []Item{{"x", first}, {"y", second}}
		got := Advance(nil, state, piece, tokens, items)
		if first > second {
			items[0], items[1] = items[1], items[0]
		}
		for i := range n / piece {
			for _, x := range items {
				if x.Start >= i*piece && x.Start < (i+1)*piece {
					state = Mix(state, x.ID, x.Start%piece)
				}
			}
			if state = Extend(state, tokens[i*piece:(i+1)*piece]); got[i] != state {
				t.Fatalf("piece %d: %x, want %x", i, got[i], state)
			}
		}
		if len(got) != n/piece {
			t.Fatalf("%d states for %d full pieces", len(got), n/piece)
		}
	})
}

func BenchmarkKeys(b *testing.B) {
	for _, n := range []int{512, 8192} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			s := Scope{Pool: "pool-1234", BlockSize: 16}
			tokens := someTokens(1, n)
			var dst []uint64
			b.ReportAllocs()
			for b.Loop() {
				dst = Keys(dst[:0], s, tokens, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(dst)), "ns/block")
		})
	}
}

func BenchmarkVLLM(b *testing.B) {
	tokens := someTokens(1, 8192)
	for a := range SHA256CBOR64Bit + 1 {
		b.Run(a.String(), func(b *testing.B) {
			u, r := Rules{Algorithm: a, BlockSize: 16, Seed: "0"}, &Request{Tokens: tokens}
			b.ReportAllocs()
			for b.Loop() {
				u.Hashes(r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*512), "ns/block")
		})
	}
}
