package enginesim

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// Hasher chains engine hashes. It must be safe for concurrent use. A digest is any number of bytes from 8; events carry
// the last 8, big-endian.
type Hasher interface {
	// Root returns the parent of every first block.
	Root() []byte
	// Next appends the digest of a block behind its parent's digest to dst. extra holds what else tells blocks of
	// equal tokens apart: LoRA adapter, multimodal items, cache salt.
	Next(dst, parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte
}

// VLLMHash is vLLM's own hash: the values of a real engine with that algorithm and PYTHONHASHSEED.
type VLLMHash struct {
	Algorithm blockkey.Algorithm
	Seed      string
}

// Root is vLLM's NONE_HASH.
func (h VLLMHash) Root() []byte { return h.Algorithm.NoneHash(h.Seed) }

// Next is vLLM's hash_block_tokens.
func (h VLLMHash) Next(dst, parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte {
	return append(dst, h.Algorithm.BlockHash(parent, tokens, extra)...)
}

// QuickHash is a 64-bit chain of XXH3 sums that no engine uses, many times as fast as vLLM's: for experiments, where
// only equality of hashes matters.
type QuickHash struct{ Seed uint64 }

// Root is the seed.
func (h QuickHash) Root() []byte { return binary.BigEndian.AppendUint64(nil, h.Seed) }

// Next hashes the tokens, and behind them the extra keys, with the parent as the seed of the sum.
func (h QuickHash) Next(dst, parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte {
	sum := h.sum(blockkey.Low64(parent), tokens)
	if len(extra) > 0 {
		var buf []byte
		for _, x := range extra {
			buf = append(append(buf, x.Text...), 0)
			buf = append(append(buf, x.Bytes...), 0)
			buf = binary.LittleEndian.AppendUint64(buf, uint64(x.Offset))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(x.Int))
		}
		sum = xxh3.HashSeed(buf, sum)
	}
	return binary.BigEndian.AppendUint64(dst, sum)
}

// Chain appends the engine hashes of the full blocks of tokens that nothing but tokens tells apart.
func (h QuickHash) Chain(dst []uint64, tokens []uint32, blockSize int) []uint64 {
	for parent := h.Seed; len(tokens) >= blockSize; tokens = tokens[blockSize:] {
		parent = h.sum(parent, tokens[:blockSize])
		dst = append(dst, parent)
	}
	return dst
}

// sum carries a chain on over one block, piece by piece.
func (QuickHash) sum(parent uint64, tokens []uint32) uint64 {
	for len(tokens) > blockkey.MaxPiece {
		parent = blockkey.Extend(parent, tokens[:blockkey.MaxPiece])
		tokens = tokens[blockkey.MaxPiece:]
	}
	return blockkey.Extend(parent, tokens)
}
