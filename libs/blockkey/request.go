package blockkey

import (
	"crypto/sha256"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// Request is all of a request that vLLM's block hashes depend on. (Neither the model nor the sampling is.)
type Request struct {
	Tokens   []uint32 // prompt, and what was generated so far
	LoRAName string
	LoRAID   int64 // adapter number; used only by Rules.LoRAByID
	Salt     string
	Features []Feature // in order of Start
	// Embeds are the bytes of each prompt position's embedding where the prompt came as embeddings, else nil.
	Embeds [][]byte
}

// Feature is a multimodal item as vLLM's scheduler knows it: its placeholder tokens are [Start, Start+Length).
type Feature struct {
	ID            string
	Start, Length int
}

// Rules says how an engine hashes: its settings, and what changed between versions. The zero value of the latter is
// the newest form.
type Rules struct {
	Algorithm Algorithm
	BlockSize int    // hash_block_size in tokens
	Seed      string // PYTHONHASHSEED
	LoRAByID  bool   // before October 2025: extra keys name the adapter by number
	BareItems bool   // before March 2026: extra keys have an item's identifier without its offset
}

// Hashes returns the hash of every full block of a request, as vLLM computes them for a prompt.
func (u Rules) Hashes(r *Request) [][]byte {
	if u.BlockSize <= 0 {
		return nil
	}
	hashes := make([][]byte, 0, len(r.Tokens)/u.BlockSize)
	parent := u.Algorithm.NoneHash(u.Seed)
	for start := 0; start+u.BlockSize <= len(r.Tokens); start += u.BlockSize {
		parent = u.Algorithm.BlockHash(parent, r.Tokens[start:start+u.BlockSize], u.ExtraKeys(r, start))
		hashes = append(hashes, parent)
	}
	return hashes
}

// ExtraKeys returns what else is hashed with the block that begins at token start: the LoRA adapter, the multimodal
// items that overlap the block, the cache salt (first block only), the digest of its prompt embeds. Nil if nothing is.
func (u Rules) ExtraKeys(r *Request, start int) []kvevent.ExtraKey {
	var extra []kvevent.ExtraKey
	if u.LoRAByID && r.LoRAID != 0 {
		extra = append(extra, kvevent.ExtraKey{Int: r.LoRAID, IsInt: true})
	}
	if !u.LoRAByID && r.LoRAName != "" {
		extra = append(extra, kvevent.ExtraKey{Text: r.LoRAName})
	}
	end := start + u.BlockSize
	for _, f := range r.Features {
		if f.Start >= end || f.Start+f.Length <= start {
			continue
		}
		key := kvevent.ExtraKey{Text: f.ID}
		if !u.BareItems {
			key.Offset, key.HasOffset = int64(f.Start-start), true
		}
		extra = append(extra, key)
	}
	if start == 0 && r.Salt != "" {
		extra = append(extra, kvevent.ExtraKey{Text: r.Salt})
	}
	if start < len(r.Embeds) {
		extra = append(extra, kvevent.ExtraKey{Bytes: embedsDigest(r.Embeds[start:min(end, len(r.Embeds))])})
	}
	return extra
}

func embedsDigest(rows [][]byte) []byte {
	h := sha256.New()
	for _, row := range rows {
		h.Write(row)
	}
	return h.Sum(nil)
}
