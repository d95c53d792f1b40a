package blockkey

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"
)

// ErrBlockSize is wrapped by every error of CheckSizes.
var ErrBlockSize = errors.New("block sizes cannot be joined")

// MaxPiece is the most tokens that one step of a chain hashes.
const MaxPiece = 16

// PieceSize is the number of tokens that a chain of a pool with this canonical block size hashes at a time: 16, or
// the block size where that is smaller. Block sizes that engines of one pool may have are multiples of it, so a chain
// is the same however an engine cuts the tokens into blocks.
func PieceSize(blockSize int) int { return min(MaxPiece, blockSize) }

// CheckSizes says whether engine blocks of size engine can be joined to keys of size canonical, both in tokens:
// one must divide the other, and both must be multiples of the piece. The error names both.
func CheckSizes(canonical, engine int) error {
	if canonical <= 0 || engine <= 0 {
		return fmt.Errorf("%w: %d to canonical %d: sizes must be positive", ErrBlockSize, engine, canonical)
	}
	piece := PieceSize(canonical)
	if canonical%piece != 0 || engine%piece != 0 {
		return fmt.Errorf("%w: %d to canonical %d: not a multiple of %d", ErrBlockSize, engine, canonical, piece)
	}
	if canonical%engine != 0 && engine%canonical != 0 {
		return fmt.Errorf("%w: %d to canonical %d: neither divides the other", ErrBlockSize, engine, canonical)
	}
	return nil
}

// Extend returns the state of a chain after one more piece: XXH3-64 of its tokens as little-endian 32-bit words,
// seeded with the state before it. A piece has at most MaxPiece tokens; more is a programming error and panics.
func Extend(state uint64, piece []uint32) uint64 {
	var buf [4 * MaxPiece]byte
	if len(piece) == MaxPiece {
		full := (*[MaxPiece]uint32)(piece) // no bounds to check: half the time
		for i := range MaxPiece / 2 {
			binary.LittleEndian.PutUint64(buf[8*i:], uint64(full[2*i])|uint64(full[2*i+1])<<32)
		}
		return xxh3.HashSeed(buf[:], state)
	}
	for i, t := range piece {
		binary.LittleEndian.PutUint32(buf[4*i:], t)
	}
	return xxh3.HashSeed(buf[:4*len(piece)], state)
}

// The last step of a mix hashes 13 bytes. Pieces have a multiple of 4, so no piece hashes the same input.
const mixSize = 13

// Mix lets a multimodal item enter a chain, before the piece in which it begins; offset is its first placeholder
// token's position in that piece.
func Mix(state uint64, id string, offset int) uint64 {
	return mix(xxh3.HashStringSeed(id, state), uint64(offset), "image")
}

// MixBytes lets the digest of a block's prompt embeds enter a chain, before the first piece of the block.
func MixBytes(state uint64, digest []byte) uint64 {
	return mix(xxh3.HashSeed(digest, state), uint64(len(digest)), "embed")
}

func mix(state, n uint64, domain string) uint64 {
	var buf [mixSize]byte
	binary.LittleEndian.PutUint64(buf[:], n)
	copy(buf[8:], domain)
	return xxh3.HashSeed(buf[:], state)
}

// Advance carries a chain on from state over all full pieces of tokens and appends the state at each piece's end.
// The last one appended is the state to go on from; tokens left over are not hashed.
//
// Items enter in the piece in which they begin; Start counts from tokens[0]. One with a negative Start has entered
// before, one that begins past the last full piece enters later: both are passed over. Items should be in order of
// Start, as vLLM has them; others are copied and sorted. Else Advance allocates only to grow dst.
func Advance(dst []uint64, state uint64, piece int, tokens []uint32, items []Item) []uint64 {
	if piece <= 0 {
		return dst
	}
	items = ordered(items)
	dst = slices.Grow(dst, len(tokens)/piece)
	for start := 0; start+piece <= len(tokens); start += piece {
		for len(items) > 0 && items[0].Start < start+piece {
			if items[0].Start >= start {
				state = Mix(state, items[0].ID, items[0].Start-start)
			}
			items = items[1:]
		}
		state = Extend(state, tokens[start:start+piece])
		dst = append(dst, state)
	}
	return dst
}

func ordered(items []Item) []Item {
	byStart := func(a, b Item) int { return cmp.Compare(a.Start, b.Start) }
	if !slices.IsSortedFunc(items, byStart) {
		items = slices.Clone(items)
		slices.SortStableFunc(items, byStart)
	}
	return items
}

// Keys appends the keys of all full canonical blocks of a prompt. A key is the chain's state at its block's end.
// There are none where the block size is not positive or no multiple of the piece. Cost: about 15 ns a piece; it
// allocates only to grow dst.
func Keys(dst []uint64, s Scope, tokens []uint32, items []Item) []uint64 {
	if s.BlockSize <= 0 || CheckSizes(s.BlockSize, s.BlockSize) != nil {
		return dst
	}
	piece, first := PieceSize(s.BlockSize), len(dst)
	full := len(tokens) / s.BlockSize * s.BlockSize
	dst = Advance(dst, s.Root(), piece, tokens[:full], items)
	return everyNth(dst, first, s.BlockSize/piece)
}

// everyNth keeps, of dst[first:], the last of each n in place.
func everyNth(dst []uint64, first, n int) []uint64 {
	if n == 1 {
		return dst
	}
	kept := first
	for i := first + n - 1; i < len(dst); i += n {
		dst[kept] = dst[i]
		kept++
	}
	return dst[:kept]
}
