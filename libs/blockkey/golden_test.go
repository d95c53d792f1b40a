package blockkey

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

const goldenDir = "../kvevent/testdata/golden"

// goldenCase holds a line of the files blockhash_*, flow_* and offload_*.
type goldenCase struct {
	Case, VLLM, Algo string
	Seed             string   `json:"pythonhashseed"`
	NoneHash         string   `json:"none_hash"`
	BlockSize        int      `json:"hash_block_size"`
	Tokens           []uint32 `json:"token_ids"`
	LoRA             *struct {
		ID   int64  `json:"lora_int_id"`
		Name string `json:"lora_name"`
	}
	Salt     string `json:"cache_salt"`
	Features []struct {
		Identifier     string
		Offset, Length int
	} `json:"mm_features"`
	Embeds *struct {
		Raw      string `json:"raw_hex"`
		PerToken int    `json:"bytes_per_token"`
	} `json:"prompt_embeds"`
	Blocks  []goldenBlock
	Request *struct {
		Tokens   []uint32 `json:"token_ids"`
		Salt     string   `json:"cache_salt"`
		LoRAName string   `json:"lora_name"`
		MM       [][3]any
		Hashes   []string `json:"block_hashes"`
	}
}

type goldenBlock struct {
	Extra    []any `json:"extra_keys"`
	Preimage string
	Hash     string
	Uint64   string
	Digest   string
	HashInt  string `json:"hash_int"`
}

func (g *goldenCase) rules(t *testing.T) Rules {
	t.Helper()
	name := g.Algo
	if old := strings.HasPrefix(g.VLLM, "v0.9") || strings.HasPrefix(g.VLLM, "v0.10"); old && name == "sha256" {
		name = SHA256Integer.String()
	}
	a, err := ParseAlgorithm(name)
	if err != nil {
		t.Fatal(err)
	}
	before := func(day string) bool {
		date, isMain := strings.CutPrefix(g.VLLM, "main-")
		return isMain && date < day
	}
	return Rules{
		Algorithm: a, BlockSize: g.BlockSize, Seed: g.Seed,
		LoRAByID:  strings.HasPrefix(g.VLLM, "v0.9") || strings.HasPrefix(g.VLLM, "v0.10") || before("2025-10-22"),
		BareItems: strings.HasPrefix(g.VLLM, "v0.9") || strings.HasPrefix(g.VLLM, "v0.10") || strings.HasPrefix(g.VLLM, "lora_name-") || before("2026-03-20"),
	}
}

func (g *goldenCase) request(t *testing.T) *Request {
	t.Helper()
	r := &Request{Tokens: g.Tokens, Salt: g.Salt}
	if g.LoRA != nil {
		r.LoRAID, r.LoRAName = g.LoRA.ID, g.LoRA.Name
	}
	for _, f := range g.Features {
		r.Features = append(r.Features, Feature{f.Identifier, f.Offset, f.Length})
	}
	if g.Embeds != nil {
		raw := unhex(t, g.Embeds.Raw)
		for i := 0; i < len(raw); i += g.Embeds.PerToken {
			r.Embeds = append(r.Embeds, raw[i:i+g.Embeds.PerToken])
		}
	}
	if q := g.Request; q != nil {
		r.Tokens, r.Salt, r.LoRAName = q.Tokens, q.Salt, q.LoRAName
		for _, mm := range q.MM {
			r.Features = append(r.Features, Feature{mm[0].(string), int(mm[1].(float64)), int(mm[2].(float64))})
		}
	}
	return r
}

func TestGoldenBlockHashes(t *testing.T) {
	lines, blocks := 0, 0
	eachGolden(t, "blockhash_*.jsonl", func(t *testing.T, g *goldenCase) {
		lines++
		blocks += checkBlocks(t, g)
	})
	if lines != 224 || blocks != 511 {
		t.Errorf("checked %d lines with %d blocks, the files have 224 with 511", lines, blocks)
	}
}

func checkBlocks(t *testing.T, g *goldenCase) int {
	u, r := g.rules(t), g.request(t)
	a := u.Algorithm
	none := a.NoneHash(u.Seed)
	if got := number(g.NoneHash, none); got != g.NoneHash {
		t.Fatalf("none hash %s, want %s", got, g.NoneHash)
	}
	if full := len(r.Tokens) / u.BlockSize; full != len(g.Blocks) {
		t.Fatalf("%d full blocks, the line has %d", full, len(g.Blocks))
	}
	hashes := u.Hashes(r)
	parent := none
	for i, b := range g.Blocks {
		start := i * u.BlockSize
		extra := u.ExtraKeys(r, start)
		if got := plain(extra); !reflect.DeepEqual(got, b.Extra) {
			t.Fatalf("block %d: extra keys %v, want %v", i, got, b.Extra)
		}
		if got := hex.EncodeToString(a.Preimage(nil, parent, r.Tokens[start:start+u.BlockSize], extra)); got != b.Preimage {
			t.Fatalf("block %d: preimage\n %s, want\n %s", i, got, b.Preimage)
		}
		parent = a.BlockHash(parent, r.Tokens[start:start+u.BlockSize], extra)
		if !bytes.Equal(parent, hashes[i]) {
			t.Fatalf("block %d: Hashes and BlockHash differ", i)
		}
		checkHash(t, i, parent, &b)
	}
	return len(g.Blocks)
}

func checkHash(t *testing.T, i int, hash []byte, b *goldenBlock) {
	t.Helper()
	if b.HashInt != "" {
		if got := new(big.Int).SetBytes(hash).String(); got != b.HashInt {
			t.Fatalf("block %d: hash %s, want %s", i, got, b.HashInt)
		}
		if !strings.HasSuffix(b.Digest, hex.EncodeToString(hash)) {
			t.Fatalf("block %d: hash %x is not the end of digest %s", i, hash, b.Digest)
		}
		return
	}
	if got := hex.EncodeToString(hash); got != b.Hash {
		t.Fatalf("block %d: hash %s, want %s", i, got, b.Hash)
	}
	if got := fmt.Sprint(Low64(hash)); got != b.Uint64 {
		t.Fatalf("block %d: low 64 bits %s, want %s", i, got, b.Uint64)
	}
}

func TestGoldenRequests(t *testing.T) {
	for pattern, want := range map[string]int{"flow_*.jsonl": 611, "offload_*.jsonl": 15} {
		requests := 0
		eachGolden(t, pattern, func(t *testing.T, g *goldenCase) {
			if g.Request == nil {
				return
			}
			requests++
			got := []string{}
			for _, h := range g.rules(t).Hashes(g.request(t)) {
				got = append(got, hex.EncodeToString(h))
			}
			if want := g.Request.Hashes; strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("hashes %v, want %v", got, want)
			}
		})
		if requests != want {
			t.Errorf("%s: checked %d requests, the files have %d", pattern, requests, want)
		}
	}
}

func eachGolden(t *testing.T, pattern string, check func(*testing.T, *goldenCase)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(goldenDir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("find golden files %s: %v, %v", pattern, files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { eachLine(t, name, check) })
	}
}

func eachLine(t *testing.T, name string, check func(*testing.T, *goldenCase)) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for n := 1; lines.Scan(); n++ {
		g, err := readCase(lines.Bytes())
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		t.Run(fmt.Sprintf("%d/%s/%s", n, g.Algo, g.Case), func(t *testing.T) { check(t, g) })
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func readCase(line []byte) (*goldenCase, error) {
	g := &goldenCase{}
	return g, json.Unmarshal(line, g)
}

// plain is what the golden files print for extra keys.
func plain(extra []kvevent.ExtraKey) []any {
	var out []any
	for _, x := range extra {
		switch {
		case x.IsInt:
			out = append(out, float64(x.Int))
		case x.Bytes != nil:
			out = append(out, map[string]any{"$bytes": hex.EncodeToString(x.Bytes)})
		case x.HasOffset:
			out = append(out, []any{x.Text, float64(x.Offset)})
		default:
			out = append(out, x.Text)
		}
	}
	return out
}

// number prints a hash as the golden line prints it: decimal where vLLM had an integer.
func number(like string, hash []byte) string {
	if len(like) == 2*len(hash) {
		return hex.EncodeToString(hash)
	}
	return new(big.Int).SetBytes(hash).String()
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
