package capture

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/warmpath/warmpath/libs/blockkey"
)

// The inputs and outputs of block hashing, as recorded.
type (
	lora struct {
		ID   int64  `json:"lora_int_id"`
		Name string `json:"lora_name"`
	}
	feature struct {
		Identifier     string
		Offset, Length int
	}
	embeds struct {
		Raw      string `json:"raw_hex"`
		PerToken int    `json:"bytes_per_token"`
	}
	block struct {
		Extra     any `json:"extra_keys"`
		Preimage  string
		Hash      *string
		Uint64    any
		HashInt   any `json:"hash_int"`
		Digest    *string
		Encodable *bool `json:"event_encodable"`
	}
	request struct {
		Tokens   []uint32 `json:"token_ids"`
		Salt     string   `json:"cache_salt"`
		LoRAName string   `json:"lora_name"`
		LoRAID   int64    `json:"lora_int_id"`
		MM       []mmItem `json:"mm"`
		Hashes   []any    `json:"block_hashes"`
	}
)

// mmItem is [identifier, offset, length].
type mmItem feature

// UnmarshalJSON implements json.Unmarshaler.
func (m *mmItem) UnmarshalJSON(raw []byte) error {
	return unmarshal(raw, &[]any{&m.Identifier, &m.Offset, &m.Length})
}

func (r *request) input() *blockkey.Request {
	in := &blockkey.Request{Tokens: r.Tokens, Salt: r.Salt, LoRAName: r.LoRAName, LoRAID: r.LoRAID}
	for _, m := range r.MM {
		in.Features = append(in.Features, blockkey.Feature{ID: m.Identifier, Start: m.Offset, Length: m.Length})
	}
	return in
}

func (l *line) input() (*blockkey.Request, error) {
	in := &blockkey.Request{Tokens: l.Tokens, Salt: l.Salt}
	if l.LoRA != nil {
		in.LoRAID, in.LoRAName = l.LoRA.ID, l.LoRA.Name
	}
	for _, f := range l.Features {
		in.Features = append(in.Features, blockkey.Feature{ID: f.Identifier, Start: f.Offset, Length: f.Length})
	}
	if l.Embeds == nil {
		return in, nil
	}
	raw, err := hex.DecodeString(l.Embeds.Raw)
	if err != nil || l.Embeds.PerToken <= 0 {
		return nil, fmt.Errorf("read prompt_embeds: %d bytes a token: %w", l.Embeds.PerToken, err)
	}
	for ; len(raw) >= l.Embeds.PerToken; raw = raw[l.Embeds.PerToken:] {
		in.Embeds = append(in.Embeds, raw[:l.Embeds.PerToken])
	}
	return in, nil
}

// hasher hashes blocks by the rules that a line names.
type hasher struct {
	blockkey.Rules
	root []byte // parent of the first block
}

// hasher reads a line's algorithm and root. "sha256" names two algorithms: before v0.11 a hash was an integer; the
// form of none_hash tells which.
func (l *line) hasher() (hasher, error) {
	if l.Algo == "builtin" {
		return hasher{}, errNotJudged
	}
	if l.BlockSize <= 0 {
		return hasher{}, fmt.Errorf("hash_block_size is %d", l.BlockSize)
	}
	names := []string{l.Algo}
	if l.Algo == blockkey.SHA256.String() {
		names = append(names, blockkey.SHA256Integer.String())
	}
	none := ""
	for _, name := range names {
		a, err := blockkey.ParseAlgorithm(name)
		if err != nil {
			return hasher{}, err
		}
		h := hasher{Rules: blockkey.Rules{Algorithm: a, BlockSize: l.BlockSize}}
		if l.Seed == nil {
			if h.root = h.given(l.NoneHash); h.root != nil {
				return h, nil
			}
			continue
		}
		h.Seed = *l.Seed
		h.root = a.NoneHash(h.Seed)
		none = h.print(h.root)
		if l.NoneHash == nil || *l.NoneHash == none {
			return h, nil
		}
	}
	if l.Seed == nil {
		return hasher{}, errors.New("neither pythonhashseed nor a none_hash of this algorithm")
	}
	return hasher{}, fmt.Errorf("none_hash: want %s, got %s", *l.NoneHash, none)
}

func (h hasher) integer() bool {
	return h.Algorithm == blockkey.SHA256Integer || h.Algorithm == blockkey.SHA256CBOR64Bit
}

// print writes a hash as vLLM of that time held it: bytes, or an integer.
func (h hasher) print(hash []byte) string {
	if h.integer() {
		return new(big.Int).SetBytes(hash).String()
	}
	return hex.EncodeToString(hash)
}

// given reads a recorded hash, nil if it is none of this algorithm.
func (h hasher) given(text *string) []byte {
	if text == nil {
		return nil
	}
	size := len(h.Algorithm.NoneHash(""))
	if h.integer() {
		n, ok := new(big.Int).SetString(*text, 10)
		if !ok || n.Sign() < 0 || n.BitLen() > 8*size {
			return nil
		}
		return n.FillBytes(make([]byte, size))
	}
	raw, err := hex.DecodeString(*text)
	if err != nil || len(raw) != size {
		return nil
	}
	return raw
}

// versions are the rules with each form of extra keys that vLLM has had; a line does not say which was in force.
func (h hasher) versions() []hasher {
	var out []hasher
	for i := range 4 {
		h.LoRAByID, h.BareItems = i&1 != 0, i&2 != 0
		out = append(out, h)
	}
	return out
}

// hashes are those of all full blocks.
func (h hasher) hashes(in *blockkey.Request) []string {
	var out []string
	parent := h.root
	for start := 0; start+h.BlockSize <= len(in.Tokens); start += h.BlockSize {
		parent = h.Algorithm.BlockHash(parent, in.Tokens[start:start+h.BlockSize], h.ExtraKeys(in, start))
		out = append(out, h.print(parent))
	}
	return out
}

// checkRequest recomputes the block hashes of a request.
func checkRequest(l *line) error {
	if l.Request == nil || len(l.Request.Hashes) == 0 && len(l.Request.Tokens) < l.BlockSize {
		return nil
	}
	h, err := l.hasher()
	if errors.Is(err, errNotJudged) {
		return nil // the rest of the line is judged
	}
	if err != nil {
		return err
	}
	want := make([]string, len(l.Request.Hashes))
	for i, v := range l.Request.Hashes {
		want[i] = fmt.Sprint(v)
	}
	in, text := l.Request.input(), strings.Join(want, " ")
	var got []string
	for _, version := range h.versions() {
		if got = version.hashes(in); strings.Join(got, " ") == text {
			return nil
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("block_hashes: %d, but the request has %d full blocks", len(want), len(got))
	}
	for i := range want {
		if got = h.hashes(in); got[i] != want[i] {
			return fmt.Errorf("block_hashes[%d]: want %s, got %s", i, want[i], got[i])
		}
	}
	return errors.New("block_hashes: no version's rules give them")
}

// checkBlockHashes judges a line of block hashes: extra keys, preimages, hashes and what events carry of them.
func checkBlockHashes(l *line) error {
	h, err := l.hasher()
	if err != nil {
		return err
	}
	in, err := l.input()
	if err != nil {
		return err
	}
	if full := len(in.Tokens) / h.BlockSize; full != len(l.Blocks) {
		return fmt.Errorf("blocks: %d, but the prompt has %d full blocks", len(l.Blocks), full)
	}
	for _, version := range h.versions() {
		if e := version.checkExtra(l, in); e == nil {
			return version.checkBlocks(l, in)
		} else if err == nil {
			err = e // of the newest form
		}
	}
	return err
}

func (h hasher) checkExtra(l *line, in *blockkey.Request) error {
	for i, b := range l.Blocks {
		want, err := fromJSON(b.Extra)
		if err != nil {
			return fmt.Errorf("blocks[%d].extra_keys: %w", i, err)
		}
		path := fmt.Sprintf("blocks[%d].extra_keys", i)
		if d := differ(path, want, plainExtra(h.ExtraKeys(in, i*h.BlockSize))); d != "" {
			return errors.New(d)
		}
	}
	return nil
}

func (h hasher) checkBlocks(l *line, in *blockkey.Request) error {
	parent := h.root
	for i := range l.Blocks {
		start := i * h.BlockSize
		tokens, extra := in.Tokens[start:start+h.BlockSize], h.ExtraKeys(in, start)
		preimage := h.Algorithm.Preimage(nil, parent, tokens, extra)
		parent = h.Algorithm.BlockHash(parent, tokens, extra)
		if err := h.checkBlock(&l.Blocks[i], preimage, parent); err != nil {
			return fmt.Errorf("blocks[%d].%w", i, err)
		}
	}
	return nil
}

// checkBlock compares what is recorded of a block's hash. Since v0.11 that is the hash and its low 64 bits, before it
// an integer, the digest that it was cut from, and whether an event could carry it.
func (h hasher) checkBlock(b *block, preimage, hash []byte) error {
	if got := hex.EncodeToString(preimage); got != b.Preimage {
		return fmt.Errorf("preimage: want %s, got %s", b.Preimage, got)
	}
	if h.integer() {
		if got := h.print(hash); b.HashInt == nil || fmt.Sprint(b.HashInt) != got {
			return fmt.Errorf("hash_int: want %v, got %s", b.HashInt, got)
		}
		sum := sha256.Sum256(preimage)
		if got := hex.EncodeToString(sum[:]); b.Digest == nil || *b.Digest != got {
			return fmt.Errorf("digest: want %s, got %s", text(b.Digest), got)
		}
		if got := new(big.Int).SetBytes(hash).BitLen() <= 64; b.Encodable != nil && *b.Encodable != got {
			return fmt.Errorf("event_encodable: want %v, got %v", *b.Encodable, got)
		}
		return nil
	}
	if got := h.print(hash); b.Hash == nil || *b.Hash != got {
		return fmt.Errorf("hash: want %s, got %s", text(b.Hash), got)
	}
	if got := fmt.Sprint(blockkey.Low64(hash)); b.Uint64 == nil || fmt.Sprint(b.Uint64) != got {
		return fmt.Errorf("uint64: want %v, got %s", b.Uint64, got)
	}
	return nil
}

func text(s *string) string {
	if s == nil {
		return "nothing"
	}
	return *s
}
