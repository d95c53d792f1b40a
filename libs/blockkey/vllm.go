package blockkey

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/zeebo/xxh3"
)

// ErrAlgorithm is returned for a name of a hash algorithm that cannot be computed outside vLLM.
var ErrAlgorithm = errors.New("unknown block hash algorithm")

// Algorithm is one of vLLM's ways to hash a block (--prefix-caching-hash-algo). The zero value is vLLM's default.
// Formulas: vllm/v1/core/kv_cache_utils.py and vllm/utils/hashing.py, v0.9.0 to main of August 2026.
type Algorithm uint8

// The algorithms of vLLM v0.11 and later, then those of v0.9 and v0.10, in which a hash is an integer: the whole
// SHA-256, or its low 64 bits. The first four hash (parent, tokens, extra keys) with the parent's digest as bytes.
const (
	SHA256          Algorithm = iota // pickle protocol 5, SHA-256
	SHA256CBOR                       // canonical CBOR, SHA-256
	XXHash                           // pickle protocol 5, XXH3-128
	XXHashCBOR                       // canonical CBOR, XXH3-128
	SHA256Integer                    // "sha256" before v0.11
	SHA256CBOR64Bit                  // "sha256_cbor_64bit" of v0.10
)

var algorithmNames = [...]string{"sha256", "sha256_cbor", "xxhash", "xxhash_cbor", "sha256-integer", "sha256_cbor_64bit"}

// ParseAlgorithm finds an algorithm by vLLM's name. "sha256" is that of v0.11 and later; the older one of the same
// name is "sha256-integer" here. ErrAlgorithm for others ("builtin" is Python's own hash and cannot be computed).
func ParseAlgorithm(name string) (Algorithm, error) {
	for i, n := range algorithmNames {
		if n == name {
			return Algorithm(i), nil
		}
	}
	return 0, fmt.Errorf("parse %q: %w", name, ErrAlgorithm)
}

// String returns the name that ParseAlgorithm takes.
func (a Algorithm) String() string { return algorithmNames[a] }

// NoneHash is the parent of every first block: the hash of PYTHONHASHSEED as text. An engine whose PYTHONHASHSEED is
// unset draws it at random, and its hashes cannot be computed.
func (a Algorithm) NoneHash(seed string) []byte { return a.digest(a.serialise(nil, seed)) }

// BlockHash is the hash of one block behind its parent's hash (NoneHash for the first).
func (a Algorithm) BlockHash(parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte {
	return a.digest(a.Preimage(nil, parent, tokens, extra))
}

// Preimage appends the bytes that vLLM hashes for a block.
//
// The pickle forms cannot follow CPython where one string object appears twice in a block's extra keys (it then
// writes a reference) nor past the 64 KiB at which CPython begins another frame.
func (a Algorithm) Preimage(dst, parent []byte, tokens []uint32, extra []kvevent.ExtraKey) []byte {
	var before any = parent
	if a.integer() {
		before = new(big.Int).SetBytes(parent)
	}
	return a.serialise(dst, tuple{before, tokens, extraTuple(extra)})
}

// Low64 is the part of a hash that events carry by default: its last 8 bytes, big-endian.
func Low64(hash []byte) uint64 {
	if len(hash) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(hash[len(hash)-8:])
}

func (a Algorithm) integer() bool { return a == SHA256Integer || a == SHA256CBOR64Bit }

func (a Algorithm) serialise(dst []byte, v any) []byte {
	switch a {
	case SHA256CBOR, XXHashCBOR, SHA256CBOR64Bit:
		return appendCBOR(dst, v)
	}
	return appendPickle(dst, v)
}

func (a Algorithm) digest(preimage []byte) []byte {
	if a == XXHash || a == XXHashCBOR {
		sum := xxh3.Hash128(preimage).Bytes()
		return sum[:]
	}
	sum := sha256.Sum256(preimage)
	if a == SHA256CBOR64Bit {
		return sum[24:]
	}
	return sum[:]
}

// tuple is a Python tuple: of nil, string, []byte, int64, *big.Int, []uint32 (a tuple of integers) or tuple.
type tuple []any

func extraTuple(extra []kvevent.ExtraKey) any {
	if len(extra) == 0 {
		return nil
	}
	t := make(tuple, len(extra))
	for i, x := range extra {
		switch {
		case x.IsInt:
			t[i] = x.Int
		case x.Bytes != nil:
			t[i] = x.Bytes
		case x.HasOffset:
			t[i] = tuple{x.Text, x.Offset}
		default:
			t[i] = x.Text
		}
	}
	return t
}
